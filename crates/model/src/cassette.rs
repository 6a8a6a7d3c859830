//! Record and replay: a conversation with a model as a file.
//!
//! A cassette holds one conversation. Entry `n` is the answer to the request that holds `n`
//! answers already, so playing needs no memory and survives a restart; and recording the same
//! turn again replaces what followed. [`record::Recording`] wraps a provider, [`replay::Replay`]
//! is one. An entry can be written by hand:
//!
//! ```json
//! { "cassette": 1,
//!   "entries": [
//!     { "text": "I look first.", "calls": [{ "name": "shell", "input": { "command": "ls" } }], "delay_ms": 20 },
//!     { "text": "Done." } ] }
//! ```
//!
//! Absent: matching by content, several conversations in one file, and failures on the tape.

pub(crate) mod record;
pub(crate) mod replay;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::provider::Answer;
use crate::raw::RawJson;
use crate::transcript::{AssistantMessage, Block, BlockView, Message, Request, StopReason, UserPart, Wire};
use crate::usage::Usage;

/// The version that this program writes and reads.
pub const CASSETTE_VERSION: u32 = 1;
/// The name of the provider of entries that were written by hand.
const BY_HAND: &str = "cassette";

/// What is wrong with a cassette file.
#[derive(Debug, thiserror::Error)]
pub enum CassetteFault {
    /// It cannot be read.
    #[error("the cassette {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no cassette.
    #[error("{} is not a cassette: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why and where.
        source: serde_json::Error,
    },
    /// Another version wrote it.
    #[error("the cassette {} has version {found}; this program plays version {CASSETTE_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// An entry cannot be played.
    #[error("entry {number} of the cassette {} {why}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    cassette: u32,
    entries: Vec<Entry>,
}

/// One answer. Either `message` holds it exactly, or `text`, `thinking` and `calls` say it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestNote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calls: Vec<HandCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<AssistantMessage>,
    #[serde(skip_serializing_if = "String::is_empty")]
    answered_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_micro_usd: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// The text as it streamed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    chunks: Vec<String>,
    /// Pause before each streamed piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
}

/// A call written by hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HandCall {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: String,
    input: Box<RawValue>,
}

/// What was asked, for the reader: nothing compares it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RequestNote {
    /// SHA-256 of the request.
    digest: String,
    model: String,
    messages: usize,
    tools: Vec<String>,
    /// The beginning of what the newest message says.
    newest: String,
}

impl RequestNote {
    fn of(request: &Request) -> Self {
        let newest = match request.messages.last() {
            Some(Message::User { parts }) => parts
                .iter()
                .map(|part| match part {
                    UserPart::Text { text } => short(text),
                    UserPart::Image { media_type, base64 } => {
                        format!("[{} of {} bytes]", short(media_type), base64.len() / 4 * 3)
                    }
                    UserPart::ToolResult { call_id, content, .. } => {
                        format!("[result of {call_id}] {}", short(content))
                    }
                })
                .collect::<Vec<_>>()
                .join(" | "),
            Some(Message::Assistant(_)) => "[an answer to go on from]".to_owned(),
            None => String::new(),
        };
        Self {
            digest: request_digest(request),
            model: request.model.clone(),
            messages: request.messages.len(),
            tools: request.tools.iter().map(|tool| tool.name.clone()).collect(),
            newest,
        }
    }
}

/// SHA-256 of a request as 64 hex digits: equal for requests that say the same.
#[must_use]
pub fn request_digest(request: &Request) -> String {
    // A request always can be written; if it could not, it would equal no other that can.
    let bytes = serde_json::to_vec(request).unwrap_or_default();
    Sha256::digest(&bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn short(text: &str) -> String {
    const CHARS: usize = 120;
    let line: String = text.chars().take(CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(CHARS).is_some() { line + "…" } else { line }
}

impl File {
    fn read(path: &Path) -> Result<Self, CassetteFault> {
        let text =
            std::fs::read_to_string(path).map_err(|source| CassetteFault::Read { path: path.to_owned(), source })?;
        // Another version may have other members, so the version is looked at first.
        #[derive(Deserialize)]
        struct Version {
            cassette: u32,
        }
        let parse = |source| CassetteFault::Parse { path: path.to_owned(), source };
        let found = serde_json::from_str::<Version>(&text).map_err(parse)?.cassette;
        if found != CASSETTE_VERSION {
            return Err(CassetteFault::Version { path: path.to_owned(), found });
        }
        serde_json::from_str(&text).map_err(parse)
    }
}

impl Entry {
    fn of(answer: &Answer) -> Self {
        Self {
            message: Some(answer.message.clone()),
            answered_by: answer.answered_by.clone(),
            usage: Some(answer.usage),
            cost_micro_usd: answer.cost_micro_usd,
            request_id: answer.request_id.clone(),
            ..Self::default()
        }
    }

    /// The answer of this entry, which is number `number` from 1.
    fn answer(&self, number: usize) -> Result<Answer, String> {
        let message = match &self.message {
            Some(message) if self.text.is_none() && self.calls.is_empty() && self.thinking.is_none() => message.clone(),
            Some(_) => {
                return Err("has a `message` and also `text`, `thinking` or `calls`; keep one of the two".to_owned());
            }
            None => self.message_by_hand(number)?,
        };
        Ok(Answer {
            message,
            answered_by: self.answered_by.clone(),
            usage: self.usage.unwrap_or_default(),
            // Playing costs nothing; an entry may say what it did cost.
            cost_micro_usd: Some(self.cost_micro_usd.unwrap_or(0)),
            request_id: self.request_id.clone(),
        })
    }

    fn message_by_hand(&self, number: usize) -> Result<AssistantMessage, String> {
        let mut blocks: Vec<Block> = Vec::new();
        blocks.extend(self.thinking.iter().map(|text| BlockView::Thinking { text: text.clone() }.into()));
        blocks.extend(
            self.text.iter().filter(|text| !text.is_empty()).map(|text| BlockView::Text { text: text.clone() }.into()),
        );
        for (position, call) in self.calls.iter().enumerate() {
            let input = RawJson::from(call.input.clone());
            if !input.is_object() {
                return Err(format!("calls `{}` with an input that is not an object", call.name));
            }
            let id = call.id.clone().unwrap_or_else(|| format!("call_{number}_{}", position + 1));
            blocks.push(BlockView::ToolCall { id, name: call.name.clone(), input }.into());
        }
        let natural = if self.calls.is_empty() { StopReason::EndTurn } else { StopReason::ToolUse };
        Ok(AssistantMessage {
            wire: Wire::Cassette,
            provider: BY_HAND.to_owned(),
            model: BY_HAND.to_owned(),
            blocks,
            stop: self.stop.clone().unwrap_or(natural),
        })
    }
}
