//! The stream of a Gemini answer.
//!
//! Each event is a whole response with the parts that are new. A part that says more than plain
//! text (a signature, a call, anything unknown) is kept byte for byte as a block of its own; plain
//! pieces of text become one block until such a part comes between them. The answer is whole when
//! a finish reason was seen and the body ended, because usage may follow the finish reason.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{ErrorKind, ModelError, classify_in_stream};
use crate::finish::{Calls, Draft, lenient_u64, object};
use crate::http::Decoder;
use crate::provider::StreamEvent;
use crate::raw::{Fields, RawJson};
use crate::sse::SseEvent;
use crate::transcript::{Block, BlockView, StopReason};

/// Reads one answer.
#[derive(Debug)]
pub(crate) struct GeminiDecoder {
    draft: Draft,
    started: bool,
    parts: Vec<Seen>,
    stop: Option<StopReason>,
}

/// A part that came, or the plain text of several.
#[derive(Debug)]
enum Seen {
    /// Joined text; `thought` marks reasoning.
    Plain { thought: bool, text: String },
    /// A part with members of its own. `thought` marks reasoning.
    Text { thought: bool, text: String, raw: RawJson },
    /// A call as it came.
    Call { id: String, name: String, args: String, raw: RawJson },
    /// A part that means nothing here.
    Other { kind: String, raw: RawJson },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    #[serde(borrow)]
    candidates: Option<Vec<Candidate<'a>>>,
    #[serde(borrow)]
    usage_metadata: Option<&'a RawValue>,
    prompt_feedback: Option<Feedback>,
    model_version: Option<String>,
    response_id: Option<String>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(default)]
    index: u32,
    #[serde(borrow)]
    content: Option<Content<'a>>,
    finish_reason: Option<String>,
    finish_message: Option<String>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    parts: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    text: Option<String>,
    thought: Option<bool>,
    #[serde(borrow)]
    function_call: Option<Function<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Function<'a> {
    id: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(borrow)]
    partial_args: Option<&'a RawValue>,
    will_continue: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    #[serde(default, deserialize_with = "lenient_u64")]
    prompt_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient_u64")]
    cached_content_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient_u64")]
    candidates_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient_u64")]
    thoughts_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient_u64")]
    total_token_count: Option<u64>,
}

impl GeminiDecoder {
    pub(crate) fn new(draft: Draft) -> Self {
        Self { draft, started: false, parts: Vec::new(), stop: None }
    }

    fn broken(&self, what: impl Into<String>) -> ModelError {
        ModelError::new(ErrorKind::Broken, &self.draft.provider, what)
    }

    /// Each event counts everything so far. `promptTokenCount` includes what was cached, our
    /// classes do not overlap; and a count of zero is left out.
    fn count(&mut self, raw: &RawValue) {
        let Ok(seen) = object::<WireUsage>(raw.get()) else { return };
        let usage = &mut self.draft.usage;
        if let Some(prompt) = seen.prompt_token_count {
            usage.cache_read_tokens = seen.cached_content_token_count;
            usage.input_tokens = Some(prompt.saturating_sub(seen.cached_content_token_count.unwrap_or(0)));
        }
        let said = match (seen.candidates_token_count, seen.thoughts_token_count) {
            (None, None) => None,
            (answer, thoughts) => Some(answer.unwrap_or(0).saturating_add(thoughts.unwrap_or(0))),
        };
        let rest = || Some(seen.total_token_count?.saturating_sub(seen.prompt_token_count?));
        usage.output_tokens = said.or_else(rest).or(usage.output_tokens);
    }

    fn grow(&mut self, raw: &RawValue, out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        let unreadable = |why: serde_json::Error| {
            self.broken(format!("a part of the answer cannot be read: {why}")).with_excerpt(raw.get().as_bytes())
        };
        let fields: Fields = object(raw.get()).map_err(unreadable)?;
        let part: Part<'_> = object(raw.get()).map_err(unreadable)?;
        let kept = || RawJson::from(raw.to_owned());
        if let Some(function) = part.function_call {
            if function.partial_args.is_some() || function.will_continue == Some(true) {
                return Err(self.broken("a tool call came in pieces, which were not asked for"));
            }
            let call = self.call(&function, kept());
            if let Seen::Call { id, name, args, .. } = &call {
                let index = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
                out.push(StreamEvent::ToolCallStarted { index, id: id.clone(), name: name.clone() });
                out.extend(
                    Some(args.clone())
                        .filter(|args| !args.is_empty())
                        .map(|fragment| StreamEvent::ToolInputDelta { index, fragment }),
                );
            }
            self.parts.push(call);
            return Ok(());
        }
        let thought = part.thought.unwrap_or(false);
        let Some(text) = part.text else {
            let kind = fields.iter().map(|(name, _)| name).find(|name| *name != "thoughtSignature");
            self.parts.push(Seen::Other { kind: kind.unwrap_or("part").to_owned(), raw: kept() });
            return Ok(());
        };
        if !text.is_empty() {
            let text = text.clone();
            out.push(if thought { StreamEvent::ThinkingDelta { text } } else { StreamEvent::TextDelta { text } });
        }
        let plain = fields.iter().all(|(name, _)| matches!(name, "text" | "thought"));
        match self.parts.last_mut() {
            _ if !plain => self.parts.push(Seen::Text { thought, text, raw: kept() }),
            _ if text.is_empty() => {}
            Some(Seen::Plain { thought: before, text: grown }) if *before == thought => grown.push_str(&text),
            _ => self.parts.push(Seen::Plain { thought, text }),
        }
        Ok(())
    }

    fn call(&self, function: &Function<'_>, raw: RawJson) -> Seen {
        let calls = self.parts.iter().filter(|part| matches!(part, Seen::Call { .. })).count();
        // Models before Gemini 3 give no ids; ours is as unique as the answer's own.
        let made = || format!("call_{}_{calls}", self.draft.request_id.as_deref().unwrap_or("0"));
        let id = function.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(made);
        // A call without arguments may leave them out.
        let args = function.args.map_or_else(String::new, |args| args.get().to_owned());
        Seen::Call { id, name: function.name.clone(), args, raw }
    }
}

impl Decoder for GeminiDecoder {
    fn event(&mut self, event: &SseEvent, out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        let chunk: Chunk<'_> = object(&event.data).map_err(|why| {
            self.broken(format!("an event of the stream cannot be read: {why}")).with_excerpt(event.data.as_bytes())
        })?;
        if chunk.error.is_some() {
            return Err(classify_in_stream(&self.draft.provider, event.data.as_bytes()));
        }
        if !self.started {
            self.started = true;
            self.draft.answered_by = chunk.model_version.unwrap_or_default();
            self.draft.request_id = self.draft.request_id.take().or(chunk.response_id);
            out.push(StreamEvent::started(self.draft.answered_by.as_str()));
        }
        if let Some(usage) = chunk.usage_metadata {
            self.count(usage);
        }
        if chunk.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some()) {
            self.stop = Some(StopReason::Refusal);
        }
        // Only the first candidate was asked for.
        for candidate in chunk.candidates.unwrap_or_default().into_iter().filter(|candidate| candidate.index == 0) {
            for part in candidate.content.and_then(|content| content.parts).unwrap_or_default() {
                self.grow(part, out)?;
            }
            let Some(reason) = candidate.finish_reason.filter(|reason| !reason.is_empty()) else { continue };
            self.stop = Some(stop_reason(&reason).ok_or_else(|| {
                let said = candidate.finish_message.unwrap_or_default();
                let what = format!("the model wrote a tool call that cannot be read ({reason}) {said}");
                ModelError::new(ErrorKind::BadCall, &self.draft.provider, what.trim_end())
            })?);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        let Some(stop) = self.stop.take() else { return Ok(()) };
        let mut calls = Calls::new(&self.draft.provider, &stop);
        let mut blocks = Vec::with_capacity(self.parts.len());
        let count = self.parts.len();
        for (position, part) in std::mem::take(&mut self.parts).into_iter().enumerate() {
            let view = |thought, text| if thought { BlockView::Thinking { text } } else { BlockView::Text { text } };
            blocks.push(match part {
                Seen::Plain { thought, text } => Block { view: view(thought, text), raw: None },
                Seen::Text { thought, text, raw } => Block { view: view(thought, text), raw: Some(raw) },
                Seen::Call { id, name, args, raw } => {
                    let input = calls.input(&id, &name, &args, position + 1 == count)?;
                    Block { view: BlockView::ToolCall { id, name, input }, raw: Some(raw) }
                }
                Seen::Other { kind, raw } => Block { view: BlockView::Other { kind }, raw: Some(raw) },
            });
        }
        out.push(self.draft.finish(blocks, stop));
        Ok(())
    }
}

/// `None` means that there would be a call if the model had written it right.
fn stop_reason(name: &str) -> Option<StopReason> {
    Some(match name {
        "STOP" => StopReason::EndTurn,
        "MAX_TOKENS" => StopReason::MaxTokens,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "IMAGE_SAFETY" => StopReason::Refusal,
        "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" => return None,
        other => StopReason::Unknown(other.to_owned()),
    })
}
