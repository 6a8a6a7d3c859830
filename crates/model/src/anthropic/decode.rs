//! The stream of a Messages answer.
//!
//! Blocks are put together from their start and their deltas with every member in its place, so
//! that signatures stay valid. A block counts only after its stop, the answer only after
//! `message_stop`. Unknown events, members and deltas are ignored.

use std::collections::BTreeMap;

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
pub(crate) struct MessagesDecoder {
    draft: Draft,
    blocks: BTreeMap<u32, Partial>,
    stop: Option<StopReason>,
}

/// A block that is still growing.
#[derive(Debug)]
struct Partial {
    kind: String,
    fields: Fields,
    text: String,
    signature: String,
    json: String,
    closed: bool,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    index: u32,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(default)]
    model: String,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// One delta; which member is set depends on its type, and an unknown type sets none.
#[derive(Deserialize)]
struct Delta {
    text: Option<String>,
    partial_json: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
}

#[derive(Deserialize)]
struct MessageDelta {
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default, deserialize_with = "lenient_u64")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient_u64")]
    cache_read_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient_u64")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient_u64")]
    output_tokens: Option<u64>,
}

impl MessagesDecoder {
    pub(crate) fn new(draft: Draft) -> Self {
        Self { draft, blocks: BTreeMap::new(), stop: None }
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

    /// Usage is cumulative, and some servers give the true input only at the end.
    fn count(&mut self, seen: Option<&RawValue>) {
        let Some(seen) = seen.and_then(|raw| object::<WireUsage>(raw.get()).ok()) else { return };
        let usage = &mut self.draft.usage;
        usage.input_tokens = usage.input_tokens.max(seen.input_tokens);
        usage.cache_read_tokens = usage.cache_read_tokens.max(seen.cache_read_input_tokens);
        usage.cache_write_tokens = usage.cache_write_tokens.max(seen.cache_creation_input_tokens);
        usage.output_tokens = usage.output_tokens.max(seen.output_tokens);
    }

    fn start_block(
        &mut self,
        index: u32,
        raw: Option<&RawValue>,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), ModelError> {
        let fields: Fields = self.read(raw, "content_block_start")?;
        let kind = fields.text("type").unwrap_or_default();
        let text = fields.text(if kind == "thinking" { "thinking" } else { "text" }).unwrap_or_default();
        match kind.as_str() {
            "tool_use" => {
                let (id, name) = (fields.text("id").unwrap_or_default(), fields.text("name").unwrap_or_default());
                out.push(StreamEvent::ToolCallStarted { index, id, name });
            }
            "text" if !text.is_empty() => out.push(StreamEvent::TextDelta { text: text.clone() }),
            "thinking" if !text.is_empty() => out.push(StreamEvent::ThinkingDelta { text: text.clone() }),
            _ => {}
        }
        let signature = fields.text("signature").unwrap_or_default();
        let partial = Partial { kind, fields, text, signature, json: String::new(), closed: false };
        if self.blocks.insert(index, partial).is_some() {
            return Err(self.broken(format!("block {index} began twice")));
        }
        Ok(())
    }

    fn grow_block(&mut self, index: u32, raw: Option<&RawValue>, out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        let delta: Delta = self.read(raw, "content_block_delta")?;
        let Some(block) = self.blocks.get_mut(&index).filter(|block| !block.closed) else {
            return Err(self.broken(format!("block {index} grew while it was not open")));
        };
        if let Some(text) = delta.text {
            block.text.push_str(&text);
            out.push(StreamEvent::TextDelta { text });
        }
        if let Some(text) = delta.thinking {
            block.text.push_str(&text);
            out.push(StreamEvent::ThinkingDelta { text });
        }
        if let Some(signature) = delta.signature {
            block.signature.push_str(&signature);
        }
        if let Some(fragment) = delta.partial_json {
            block.json.push_str(&fragment);
            out.push(StreamEvent::ToolInputDelta { index, fragment });
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<StreamEvent, ModelError> {
        let Some(stop) = self.stop.take() else { return Err(self.broken("the answer ended without a stop reason")) };
        if let Some((index, _)) = self.blocks.iter().find(|(_, block)| !block.closed) {
            return Err(self.broken(format!("the answer ended inside block {index}")));
        }
        let mut calls = Calls::new(&self.draft.provider, &stop);
        let last = self.blocks.keys().next_back().copied();
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for (index, partial) in std::mem::take(&mut self.blocks) {
            blocks.push(partial.close(&mut calls, Some(index) == last)?);
        }
        Ok(self.draft.finish(blocks, stop))
    }
}

impl Partial {
    fn close(mut self, calls: &mut Calls<'_>, is_last: bool) -> Result<Block, ModelError> {
        let unwritable = calls.unwritable();
        match self.kind.as_str() {
            "text" => {
                self.fields.set_text("text", &self.text).map_err(unwritable)?;
                let plain = self.fields.iter().count() == 2;
                let raw = if plain { None } else { Some(RawJson::of(&self.fields).map_err(unwritable)?) };
                Ok(Block { view: BlockView::Text { text: self.text }, raw })
            }
            "thinking" => {
                self.fields.set_text("thinking", &self.text).map_err(unwritable)?;
                if !self.signature.is_empty() {
                    self.fields.set_text("signature", &self.signature).map_err(unwritable)?;
                }
                let raw = Some(RawJson::of(&self.fields).map_err(unwritable)?);
                Ok(Block { view: BlockView::Thinking { text: self.text }, raw })
            }
            "tool_use" => {
                let (id, name) =
                    (self.fields.text("id").unwrap_or_default(), self.fields.text("name").unwrap_or_default());
                // A server that does not stream inputs gives them whole at the start.
                let whole = self
                    .fields
                    .get("input")
                    .map(RawValue::get)
                    .filter(|text| *text != "{}")
                    .unwrap_or_default()
                    .to_owned();
                let json = if self.json.trim().is_empty() { whole } else { self.json };
                let input = calls.input(&id, &name, &json, is_last)?;
                let plain = self.fields.iter().map(|(key, _)| key).eq(["type", "id", "name", "input"]);
                let raw = if plain {
                    None
                } else {
                    self.fields.set("input", input.as_value().to_owned());
                    Some(RawJson::of(&self.fields).map_err(unwritable)?)
                };
                Ok(Block { view: BlockView::ToolCall { id, name, input }, raw })
            }
            _ => {
                if !self.json.trim().is_empty() {
                    let input = RawJson::parse(&self.json).map_err(|_| calls.broken("a block's input is not JSON"))?;
                    self.fields.set("input", input.as_value().to_owned());
                }
                let raw = Some(RawJson::of(&self.fields).map_err(unwritable)?);
                Ok(Block { view: BlockView::Other { kind: self.kind }, raw })
            }
        }
    }
}

impl Decoder for MessagesDecoder {
    fn event(&mut self, event: &SseEvent, out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        let parsed: Event<'_> = object(&event.data).map_err(|why| {
            self.broken(format!("an event of the stream is not JSON: {why}")).with_excerpt(event.data.as_bytes())
        })?;
        let kind = if parsed.kind.is_empty() { event.name.as_str() } else { parsed.kind.as_str() };
        match kind {
            "message_start" => {
                let start: Start<'_> = self.read(parsed.message, kind)?;
                self.count(start.usage);
                self.draft.answered_by.clone_from(&start.model);
                out.push(StreamEvent::started(start.model));
            }
            "content_block_start" => self.start_block(parsed.index, parsed.content_block, out)?,
            "content_block_delta" => self.grow_block(parsed.index, parsed.delta, out)?,
            "content_block_stop" => match self.blocks.get_mut(&parsed.index) {
                Some(block) => block.closed = true,
                None => return Err(self.broken(format!("block {} ended before it began", parsed.index))),
            },
            "message_delta" => {
                let delta: MessageDelta = self.read(parsed.delta, kind)?;
                self.stop = delta.stop_reason.map(|reason| stop_reason(&reason)).or(self.stop.take());
                self.count(parsed.usage);
            }
            "message_stop" => out.push(self.finish()?),
            "error" => return Err(classify_in_stream(&self.draft.provider, event.data.as_bytes())),
            // `ping`, and whatever comes to be added.
            _ => {}
        }
        Ok(())
    }
}

fn stop_reason(name: &str) -> StopReason {
    match name {
        "end_turn" => StopReason::EndTurn,
        "tool_use" => StopReason::ToolUse,
        "max_tokens" => StopReason::MaxTokens,
        "stop_sequence" => StopReason::StopSequence,
        "pause_turn" => StopReason::PauseTurn,
        "refusal" => StopReason::Refusal,
        "model_context_window_exceeded" => StopReason::ContextFull,
        other => StopReason::Unknown(other.to_owned()),
    }
}
