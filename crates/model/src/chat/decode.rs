//! The stream of a Chat Completions answer.
//!
//! The answer is whole when both a finish reason and `[DONE]` were seen. Pieces of a tool call
//! belong together by `index`; a server that leaves the index out, or gives each call the same
//! one, is told by the id. Unknown members are ignored, except those of a tool call, which go
//! back as they came.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{ErrorKind, ModelError, classify_in_stream};
use crate::finish::{Calls, Draft, lenient_u64, object};
use crate::http::Decoder;
use crate::provider::StreamEvent;
use crate::raw::{Fields, RawJson};
use crate::sse::SseEvent;
use crate::transcript::{Block, BlockView, StopReason};

/// Names under which servers send their reasoning as text.
const REASONING: [&str; 2] = ["reasoning_content", "reasoning"];

/// Reads one answer.
#[derive(Debug)]
pub(crate) struct ChatDecoder {
    draft: Draft,
    started: bool,
    text: String,
    /// Reasoning, and the name of the member that carries it.
    reasoning: Option<(&'static str, String)>,
    /// Elements of `reasoning_details`, in order.
    details: Vec<Box<RawValue>>,
    calls: Vec<Partial>,
    finish: Option<String>,
}

/// A call that is still growing.
#[derive(Debug)]
struct Partial {
    index: Option<u32>,
    id: String,
    name: String,
    arguments: String,
    /// The call without what grows, in the order of its first piece.
    fields: Fields,
    function: Fields,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    id: Option<String>,
    model: Option<String>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    content: Option<String>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    #[serde(borrow)]
    reasoning_details: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Piece {
    index: Option<u32>,
    id: Option<String>,
    function: Option<PieceFunction>,
}

#[derive(Default, Deserialize)]
struct PieceFunction {
    name: Option<String>,
    arguments: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default, deserialize_with = "lenient_u64")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient_u64")]
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    #[serde(default, deserialize_with = "lenient_u64")]
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default, deserialize_with = "lenient_u64")]
    cached_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient_u64")]
    cache_write_tokens: Option<u64>,
}

impl ChatDecoder {
    pub(crate) fn new(draft: Draft) -> Self {
        Self {
            draft,
            started: false,
            text: String::new(),
            reasoning: None,
            details: Vec::new(),
            calls: Vec::new(),
            finish: None,
        }
    }

    fn broken(&self, what: impl Into<String>) -> ModelError {
        ModelError::new(ErrorKind::Broken, &self.draft.provider, what)
    }

    /// `prompt_tokens` includes what was cached; our classes do not overlap.
    fn count(&mut self, raw: &RawValue) {
        let Ok(seen) = object::<WireUsage>(raw.get()) else { return };
        let details = seen.prompt_tokens_details;
        let read = details.as_ref().and_then(|details| details.cached_tokens).or(seen.prompt_cache_hit_tokens);
        let write = details.and_then(|details| details.cache_write_tokens);
        let usage = &mut self.draft.usage;
        if let Some(prompt) = seen.prompt_tokens {
            usage.input_tokens = Some(prompt.saturating_sub(read.unwrap_or(0)).saturating_sub(write.unwrap_or(0)));
            (usage.cache_read_tokens, usage.cache_write_tokens) = (read, write);
        }
        usage.output_tokens = seen.completion_tokens.or(usage.output_tokens);
    }

    fn grow(&mut self, delta: Delta<'_>, out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        for (name, piece) in REASONING.into_iter().zip([delta.reasoning_content, delta.reasoning]) {
            let Some(text) = piece.filter(|text| !text.is_empty()) else { continue };
            // A server that sends both sends the same twice.
            let (kept, grown) = self.reasoning.get_or_insert_with(|| (name, String::new()));
            if *kept == name {
                grown.push_str(&text);
                out.push(StreamEvent::ThinkingDelta { text });
            }
        }
        if let Some(details) = delta.reasoning_details {
            self.details.extend(serde_json::from_str::<Vec<Box<RawValue>>>(details.get()).unwrap_or_default());
        }
        for text in [delta.content, delta.refusal].into_iter().flatten().filter(|text| !text.is_empty()) {
            self.text.push_str(&text);
            out.push(StreamEvent::TextDelta { text });
        }
        for piece in delta.tool_calls.unwrap_or_default() {
            self.grow_call(piece, out)?;
        }
        Ok(())
    }

    fn grow_call(&mut self, raw: &RawValue, out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        let provider = self.draft.provider.clone();
        let unreadable = |why: serde_json::Error| {
            ModelError::new(ErrorKind::Broken, &provider, format!("a piece of a tool call cannot be read: {why}"))
                .with_excerpt(raw.get().as_bytes())
        };
        let piece: Piece = object(raw.get()).map_err(unreadable)?;
        let (id, function) = (piece.id.unwrap_or_default(), piece.function.unwrap_or_default());
        let name = function.name.unwrap_or_default();
        let belongs = |call: &Partial| {
            let same_id = id.is_empty() || call.id.is_empty() || call.id == id;
            // Without index and id, a second name can only mean a second call.
            let unmarked = piece.index.is_none() && id.is_empty() && !name.is_empty() && !call.name.is_empty();
            same_id && !unmarked && (piece.index.is_none() || call.index == piece.index)
        };
        let position = match self.calls.iter().rposition(belongs) {
            Some(position) => position,
            None => {
                let fields: Fields = serde_json::from_str(raw.get()).map_err(unreadable)?;
                let function = fields
                    .get("function")
                    .and_then(|function| serde_json::from_str(function.get()).ok())
                    .unwrap_or_default();
                self.calls.push(Partial {
                    index: piece.index,
                    id: String::new(),
                    name: String::new(),
                    arguments: String::new(),
                    fields,
                    function,
                });
                self.calls.len() - 1
            }
        };
        let index = u32::try_from(position).unwrap_or(u32::MAX);
        let Some(call) = self.calls.get_mut(position) else { return Ok(()) };
        if call.id.is_empty() {
            call.id = id;
        }
        if call.name.is_empty() && !name.is_empty() {
            call.name = name;
            out.push(StreamEvent::ToolCallStarted { index, id: call.id.clone(), name: call.name.clone() });
        }
        // A string of JSON by the book; some servers send the object itself, or null.
        let fragment = match function.arguments.as_deref().map(RawValue::get) {
            None | Some("null") => return Ok(()),
            Some(text) if text.starts_with('"') => serde_json::from_str(text).map_err(unreadable)?,
            Some(text) => text.to_owned(),
        };
        if !fragment.is_empty() {
            call.arguments.push_str(&fragment);
            out.push(StreamEvent::ToolInputDelta { index, fragment });
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<StreamEvent, ModelError> {
        let Some(finish) = self.finish.take() else {
            return Err(self.broken("the answer ended without a finish reason"));
        };
        let stop = stop_reason(&finish);
        let mut blocks: Vec<Block> = Vec::new();
        let mut calls = Calls::new(&self.draft.provider, &stop);
        let unwritable = calls.unwritable();
        if let Some((name, text)) = self.reasoning.take() {
            let mut fields = Fields::default();
            fields.set_text(name, &text).map_err(unwritable)?;
            blocks.push(Block {
                view: BlockView::Thinking { text },
                raw: Some(RawJson::of(&fields).map_err(unwritable)?),
            });
        }
        if !self.details.is_empty() {
            let mut fields = Fields::default();
            fields.set("reasoning_details", serde_json::value::to_raw_value(&self.details).map_err(unwritable)?);
            blocks.push(Block {
                view: BlockView::Other { kind: "reasoning_details".to_owned() },
                raw: Some(RawJson::of(&fields).map_err(unwritable)?),
            });
        }
        if !self.text.is_empty() {
            blocks.push(BlockView::Text { text: std::mem::take(&mut self.text) }.into());
        }
        let count = self.calls.len();
        for (position, mut partial) in std::mem::take(&mut self.calls).into_iter().enumerate() {
            if partial.id.is_empty() {
                // Some servers leave ids out; ours is as unique as the answer's own.
                partial.id = format!("call_{}_{position}", self.draft.request_id.as_deref().unwrap_or("0"));
            }
            blocks.push(partial.close(&mut calls, position + 1 == count)?);
        }
        Ok(self.draft.finish(blocks, stop))
    }
}

impl Partial {
    fn close(mut self, calls: &mut Calls<'_>, is_last: bool) -> Result<Block, ModelError> {
        let unwritable = calls.unwritable();
        let input = calls.input(&self.id, &self.name, &self.arguments, is_last)?;
        let known = |name: &str| matches!(name, "index" | "id" | "type" | "function");
        let plain = self.fields.iter().all(|(name, _)| known(name))
            && self.function.iter().all(|(name, _)| matches!(name, "name" | "arguments"))
            && self.arguments == input.as_str();
        let raw = if plain {
            None
        } else {
            // What we add ourselves must be there too: the arguments as they came, id and type.
            self.function.set_text("name", &self.name).map_err(unwritable)?;
            self.function.set_text("arguments", &self.arguments).map_err(unwritable)?;
            let mut whole = Fields::default();
            whole.set_text("id", &self.id).map_err(unwritable)?;
            whole.set_text("type", "function").map_err(unwritable)?;
            whole.set("function", serde_json::value::to_raw_value(&self.function).map_err(unwritable)?);
            for (name, value) in self.fields.iter().filter(|(name, _)| !known(name)) {
                whole.set(name, value.to_owned());
            }
            Some(RawJson::of(&whole).map_err(unwritable)?)
        };
        Ok(Block { view: BlockView::ToolCall { id: self.id, name: self.name, input }, raw })
    }
}

impl Decoder for ChatDecoder {
    fn event(&mut self, event: &SseEvent, out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        let data = event.data.trim();
        if data == "[DONE]" {
            out.push(self.finish()?);
            return Ok(());
        }
        let chunk: Chunk<'_> = object(data).map_err(|why| {
            self.broken(format!("a chunk of the stream cannot be read: {why}")).with_excerpt(data.as_bytes())
        })?;
        if chunk.error.is_some() || event.name == "error" {
            return Err(classify_in_stream(&self.draft.provider, data.as_bytes()));
        }
        if !self.started {
            self.started = true;
            self.draft.answered_by = chunk.model.unwrap_or_default();
            self.draft.request_id = self.draft.request_id.take().or(chunk.id);
            out.push(StreamEvent::started(self.draft.answered_by.as_str()));
        }
        if let Some(usage) = chunk.usage {
            self.count(usage);
        }
        // Only the first choice was asked for.
        for choice in chunk.choices.unwrap_or_default().into_iter().filter(|choice| choice.index == 0) {
            if let Some(delta) = choice.delta {
                self.grow(delta, out)?;
            }
            self.finish = choice.finish_reason.filter(|reason| !reason.is_empty()).or(self.finish.take());
        }
        Ok(())
    }
}

fn stop_reason(name: &str) -> StopReason {
    match name {
        "stop" => StopReason::EndTurn,
        "tool_calls" | "function_call" => StopReason::ToolUse,
        "length" => StopReason::MaxTokens,
        "content_filter" => StopReason::Refusal,
        other => StopReason::Unknown(other.to_owned()),
    }
}
