//! What all wires do at the end of an answer: read the tool calls strictly, and settle message,
//! usage and cost.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{ErrorKind, ModelError};
use crate::provider::{Answer, StreamEvent};
use crate::raw::RawJson;
use crate::transcript::{AssistantMessage, Block, BlockView, StopReason, Wire};
use crate::usage::{Price, Usage};

/// What is known of an answer from its beginning.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) provider: String,
    pub(crate) wire: Wire,
    /// As asked for.
    pub(crate) model: String,
    /// As the provider names it.
    pub(crate) answered_by: String,
    pub(crate) price: Option<Price>,
    pub(crate) request_id: Option<String>,
    pub(crate) usage: Usage,
}

impl Draft {
    /// The last event of a stream.
    pub(crate) fn finish(&mut self, blocks: Vec<Block>, stop: StopReason) -> StreamEvent {
        let calls = blocks.iter().any(|block| matches!(block.view, BlockView::ToolCall { .. }));
        // Calls outrank the stop reason: servers disagree about it.
        let stop = match (calls, stop) {
            (true, StopReason::EndTurn) => StopReason::ToolUse,
            (false, StopReason::ToolUse) => StopReason::EndTurn,
            (_, stop) => stop,
        };
        let usage = self.usage;
        StreamEvent::Finished(Box::new(Answer {
            message: AssistantMessage {
                wire: self.wire,
                provider: self.provider.clone(),
                model: self.model.clone(),
                blocks,
                stop,
            },
            answered_by: std::mem::take(&mut self.answered_by),
            usage,
            cost_micro_usd: self.price.and_then(|price| price.cost_micro_usd(&usage)),
            request_id: self.request_id.take(),
        }))
    }
}

/// Reads the inputs of the calls of one answer.
#[derive(Debug)]
pub(crate) struct Calls<'a> {
    provider: &'a str,
    /// The answer was cut, so its last call may be half a call.
    cut: bool,
    ids: Vec<String>,
}

impl<'a> Calls<'a> {
    pub(crate) fn new(provider: &'a str, stop: &StopReason) -> Self {
        Self { provider, cut: matches!(stop, StopReason::MaxTokens | StopReason::ContextFull), ids: Vec::new() }
    }

    pub(crate) fn broken(&self, what: &str) -> ModelError {
        ModelError::new(ErrorKind::Broken, self.provider, what)
    }

    /// The error for JSON that cannot be written, which needs a value that JSON cannot hold.
    pub(crate) fn unwritable(&self) -> impl Fn(serde_json::Error) -> ModelError + Copy + use<'a> {
        let provider = self.provider;
        move |why| ModelError::new(ErrorKind::Broken, provider, format!("a block cannot be written: {why}"))
    }

    /// The error for a call that the limit on output cut.
    pub(crate) fn cut(&self, name: &str, json: &str) -> ModelError {
        let what = format!("the answer reached its limit inside a call of the tool `{name}`");
        ModelError::new(ErrorKind::CutCall, self.provider, what).with_excerpt(json.as_bytes())
    }

    /// The whole input of a call. Nothing at all means an empty object, unless the answer was cut
    /// there.
    ///
    /// # Errors
    /// [`ErrorKind::CutCall`] or [`ErrorKind::BadCall`]: then there is no call.
    pub(crate) fn input(&mut self, id: &str, name: &str, json: &str, is_last: bool) -> Result<RawJson, ModelError> {
        let bad = |what: String| ModelError::new(ErrorKind::BadCall, self.provider, what).with_excerpt(json.as_bytes());
        if id.is_empty() || name.is_empty() {
            return Err(bad("the answer holds a tool call without an id or a name".to_owned()));
        }
        if self.ids.iter().any(|known| known == id) {
            return Err(bad(format!("the answer holds two tool calls with the id `{id}`")));
        }
        self.ids.push(id.to_owned());
        let empty = json.trim().is_empty();
        let cut = self.cut && is_last;
        let input = if empty && !cut {
            Some(RawJson::empty_object())
        } else {
            RawJson::parse(json).ok().filter(RawJson::is_object)
        };
        input.ok_or_else(|| {
            if cut {
                self.cut(name, json)
            } else {
                bad(format!("the input of a call of the tool `{name}` is not a JSON object"))
            }
        })
    }
}

/// Reads a JSON object. Plain deserialising would also take an array, by position.
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text)
    } else {
        Err(serde_json::Error::custom("an object was expected"))
    }
}

/// A token count, or `None` for anything that is not one: usage must never spoil an answer.
pub(crate) fn lenient_u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_u64())
}
