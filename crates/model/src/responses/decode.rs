//! The stream of a Responses answer.
//!
//! Deltas are for watching. What counts is each item as `output_item.done` gives it, kept byte for
//! byte, and the answer counts only after `response.completed` or `response.incomplete`. A server
//! that sends no `done` events gives the items in that last event. Unknown events are ignored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{ErrorKind, ModelError, classify_in_stream};
use crate::finish::{Calls, Draft, lenient_u64, object};
use crate::http::Decoder;
use crate::provider::StreamEvent;
use crate::raw::RawJson;
use crate::sse::SseEvent;
use crate::transcript::{Block, BlockView, StopReason};

/// Reads one answer.
#[derive(Debug)]
pub(crate) struct ResponsesDecoder {
    draft: Draft,
    started: bool,
    /// By output index.
    items: BTreeMap<u32, Partial>,
}

/// An item that has begun.
#[derive(Debug, Default)]
struct Partial {
    /// The tool's name, if the item is a call.
    tool: Option<String>,
    /// The item, once it is done.
    raw: Option<RawJson>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    output_index: u32,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
}

/// The members of the `response` object that matter at the beginning or at the end.
#[derive(Deserialize)]
struct Response<'a> {
    id: Option<String>,
    model: Option<String>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<Vec<&'a RawValue>>,
    incomplete_details: Option<Incomplete>,
}

#[derive(Deserialize)]
struct Incomplete {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type", default)]
    kind: String,
}

/// The members of the items that have a meaning here.
#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type", default)]
    kind: String,
    status: Option<String>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    #[serde(default)]
    content: Option<Vec<Part>>,
    #[serde(default)]
    summary: Option<Vec<Part>>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type", default)]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default, deserialize_with = "lenient_u64")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient_u64")]
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default, deserialize_with = "lenient_u64")]
    cached_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient_u64")]
    cache_write_tokens: Option<u64>,
}

impl ResponsesDecoder {
    pub(crate) fn new(draft: Draft) -> Self {
        Self { draft, started: false, items: BTreeMap::new() }
    }

    fn broken(&self, what: impl Into<String>) -> ModelError {
        ModelError::new(ErrorKind::Broken, &self.draft.provider, what)
    }

    fn read<'a, T: Deserialize<'a>>(&self, part: Option<&'a RawValue>, of: &str) -> Result<T, ModelError> {
        let raw = part.ok_or_else(|| self.broken(format!("a `{of}` event lacks its content")))?;
        object(raw.get()).map_err(|why| {
            self.broken(format!("a `{of}` event cannot be read: {why}")).with_excerpt(raw.get().as_bytes())
        })
    }

    fn start(&mut self, response: &Response<'_>, out: &mut Vec<StreamEvent>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        self.draft.answered_by = response.model.clone().unwrap_or_default();
        self.draft.request_id = self.draft.request_id.take().or_else(|| response.id.clone());
        out.push(StreamEvent::started(self.draft.answered_by.as_str()));
    }

    fn add_item(&mut self, event: &Event<'_>, out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        let item: Item = self.read(event.item, &event.kind)?;
        let index = event.output_index;
        let tool = (item.kind == "function_call").then(|| item.name.unwrap_or_default());
        if self.items.insert(index, Partial { tool: tool.clone(), raw: None }).is_some() {
            return Err(self.broken(format!("item {index} began twice")));
        }
        if let Some(name) = tool {
            let id = item.call_id.unwrap_or_default();
            out.push(StreamEvent::ToolCallStarted { index, id, name });
            if let Some(fragment) = item.arguments.filter(|text| !text.is_empty()) {
                out.push(StreamEvent::ToolInputDelta { index, fragment });
            }
        }
        Ok(())
    }

    fn close_item(&mut self, event: &Event<'_>) -> Result<(), ModelError> {
        let raw = event.item.ok_or_else(|| self.broken("an `output_item.done` event lacks its item"))?;
        let item = self.items.entry(event.output_index).or_default();
        if item.raw.replace(RawJson::from(raw.to_owned())).is_some() {
            return Err(self.broken(format!("item {} ended twice", event.output_index)));
        }
        Ok(())
    }

    /// `input_tokens` includes what was cached; our classes do not overlap.
    fn count(&mut self, raw: Option<&RawValue>) {
        let Some(seen) = raw.and_then(|raw| object::<WireUsage>(raw.get()).ok()) else { return };
        let details = seen.input_tokens_details;
        let read = details.as_ref().and_then(|details| details.cached_tokens);
        let write = details.and_then(|details| details.cache_write_tokens);
        let usage = &mut self.draft.usage;
        if let Some(input) = seen.input_tokens {
            usage.input_tokens = Some(input.saturating_sub(read.unwrap_or(0)).saturating_sub(write.unwrap_or(0)));
            (usage.cache_read_tokens, usage.cache_write_tokens) = (read, write);
        }
        usage.output_tokens = seen.output_tokens.or(usage.output_tokens);
    }

    fn finish(&mut self, event: &Event<'_>, out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        let response: Response<'_> = self.read(event.response, &event.kind)?;
        self.start(&response, out);
        self.count(response.usage);
        let stop = match response.incomplete_details.and_then(|details| details.reason).as_deref() {
            _ if event.kind == "response.completed" => StopReason::EndTurn,
            Some("max_output_tokens") => StopReason::MaxTokens,
            Some("content_filter") => StopReason::Refusal,
            Some(other) => StopReason::Unknown(other.to_owned()),
            None => StopReason::Unknown("incomplete".to_owned()),
        };
        for (index, raw) in (0..).zip(response.output.unwrap_or_default()) {
            self.items.entry(index).or_default().raw.get_or_insert_with(|| RawJson::from(raw.to_owned()));
        }
        let items = std::mem::take(&mut self.items);
        let mut closing = Closing { calls: Calls::new(&self.draft.provider, &stop), refused: false };
        let last = items.keys().next_back().copied();
        let mut blocks = Vec::with_capacity(items.len());
        for (index, item) in items {
            blocks.push(match (item.raw, item.tool) {
                (Some(raw), _) => closing.block(raw, Some(index) == last)?,
                (None, Some(name)) if stop == StopReason::MaxTokens => return Err(closing.calls.cut(&name, "")),
                (None, _) => return Err(self.broken(format!("the answer ended inside item {index}"))),
            });
        }
        let stop = if closing.refused && stop == StopReason::EndTurn { StopReason::Refusal } else { stop };
        out.push(self.draft.finish(blocks, stop));
        Ok(())
    }
}

/// Reads the items of a whole answer.
struct Closing<'a> {
    calls: Calls<'a>,
    refused: bool,
}

impl Closing<'_> {
    fn block(&mut self, raw: RawJson, is_last: bool) -> Result<Block, ModelError> {
        let unreadable = |why: serde_json::Error| {
            self.calls.broken(&format!("an item cannot be read: {why}")).with_excerpt(raw.as_str().as_bytes())
        };
        let kind = object::<Kind>(raw.as_str()).map_err(unreadable)?.kind;
        if !matches!(kind.as_str(), "message" | "reasoning" | "function_call") {
            return Ok(Block { view: BlockView::Other { kind }, raw: Some(raw) });
        }
        let item: Item = object(raw.as_str()).map_err(unreadable)?;
        let view = match kind.as_str() {
            "message" => {
                let parts = item.content.unwrap_or_default();
                self.refused |= parts.iter().any(|part| part.kind == "refusal");
                let text = parts.into_iter().filter_map(|part| part.text.or(part.refusal)).collect();
                BlockView::Text { text }
            }
            "reasoning" => {
                let shown = [item.summary, item.content].into_iter().flatten().find(|parts| !parts.is_empty());
                let texts: Vec<String> = shown.unwrap_or_default().into_iter().filter_map(|part| part.text).collect();
                BlockView::Thinking { text: texts.join("\n\n") }
            }
            _ => {
                let (id, name) = (item.call_id.unwrap_or_default(), item.name.unwrap_or_default());
                let json = item.arguments.unwrap_or_default();
                if item.status.as_deref() == Some("incomplete") {
                    return Err(self.calls.cut(&name, &json));
                }
                let input = self.calls.input(&id, &name, &json, is_last)?;
                BlockView::ToolCall { id, name, input }
            }
        };
        Ok(Block { view, raw: Some(raw) })
    }
}

impl Decoder for ResponsesDecoder {
    fn event(&mut self, event: &SseEvent, out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        // Some gateways end every stream in the manner of Chat; it says nothing here.
        if event.data.trim() == "[DONE]" {
            return Ok(());
        }
        let mut parsed: Event<'_> = object(&event.data).map_err(|why| {
            self.broken(format!("an event of the stream is not JSON: {why}")).with_excerpt(event.data.as_bytes())
        })?;
        if parsed.kind.is_empty() {
            parsed.kind.clone_from(&event.name);
        }
        let delta = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        match parsed.kind.as_str() {
            "response.created" | "response.in_progress" => {
                let response: Response<'_> = self.read(parsed.response, &parsed.kind)?;
                self.start(&response, out);
            }
            "response.output_item.added" => self.add_item(&parsed, out)?,
            "response.output_text.delta" | "response.refusal.delta" => {
                out.extend(delta(parsed.delta).map(|text| StreamEvent::TextDelta { text }));
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                out.extend(delta(parsed.delta).map(|text| StreamEvent::ThinkingDelta { text }));
            }
            "response.function_call_arguments.delta" => {
                let index = parsed.output_index;
                out.extend(delta(parsed.delta).map(|fragment| StreamEvent::ToolInputDelta { index, fragment }));
            }
            "response.output_item.done" => self.close_item(&parsed)?,
            "response.completed" | "response.incomplete" => self.finish(&parsed, out)?,
            "response.failed" => {
                let said = parsed.response.map_or(event.data.as_bytes(), |response| response.get().as_bytes());
                return Err(classify_in_stream(&self.draft.provider, said));
            }
            "error" => return Err(classify_in_stream(&self.draft.provider, event.data.as_bytes())),
            // Parts that begin and end, server-side tools at work, and whatever comes to be added.
            _ => {}
        }
        Ok(())
    }
}
