//! Our own transcript: what a conversation is to us, whatever the provider calls it.
//!
//! A provider's blocks are views that any provider can be told about, with the provider's own
//! bytes beside them when those say more. The bytes go back unchanged to the provider that sent
//! them, and to nobody else. Absent: tokens, prices, and anything of one provider's wire.

use serde::{Deserialize, Serialize};

use crate::raw::RawJson;

/// One call of a model. The system text and the tools stay the same for a whole conversation and
/// `messages` only grows, so that the provider's prompt cache holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The model's name at the provider.
    pub model: String,
    /// The system text; empty for none.
    pub system: String,
    /// The tools that the model may call.
    pub tools: Vec<ToolSpec>,
    /// The conversation so far, oldest first.
    pub messages: Vec<Message>,
    /// The most tokens that the answer may have.
    pub max_output_tokens: u32,
    /// Sampling temperature; `None` leaves it to the provider (some models refuse the field).
    pub temperature: Option<f32>,
}

impl Request {
    /// How many answers of a model the conversation already holds.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.messages.iter().filter(|message| matches!(message, Message::Assistant(_))).count()
    }
}

/// A tool as the model is told about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The name that calls use.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// JSON Schema of the input, an object.
    pub input_schema: RawJson,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// From us: what a person said, and what tools gave.
    User {
        /// In order; providers get tool results before text.
        parts: Vec<UserPart>,
    },
    /// From the model.
    Assistant(AssistantMessage),
}

impl Message {
    /// A user message of one text.
    #[must_use]
    pub fn user(text: impl Into<String>) -> Self {
        Self::User { parts: vec![UserPart::Text { text: text.into() }] }
    }
}

/// A part of a user message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum UserPart {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// What a tool call gave.
    ToolResult {
        /// The id of the call in the message before.
        call_id: String,
        /// What the model is shown.
        content: String,
        /// Whether the tool failed.
        is_error: bool,
    },
    /// A picture. Models that see none refuse it.
    Image {
        /// Such as `image/png`.
        media_type: String,
        /// The file's bytes in base64 with padding, without line ends.
        base64: String,
    },
}

/// A finished answer of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssistantMessage {
    /// The wire that the blocks came over.
    pub wire: Wire,
    /// The provider's name ([`crate::Provider::name`]); raw bytes go back only to the same one.
    pub provider: String,
    /// The model that was asked, as [`Request::model`] named it; raw bytes go back only to the
    /// same one, because newer models refuse the reasoning of another.
    pub model: String,
    /// The blocks in the order in which they came; may be empty.
    pub blocks: Vec<Block>,
    /// Why it ended.
    pub stop: StopReason,
}

impl AssistantMessage {
    /// The tool calls in order. Decide what to do next by these, not by [`Self::stop`].
    pub fn calls(&self) -> impl Iterator<Item = ToolCall<'_>> {
        self.blocks.iter().filter_map(|block| match &block.view {
            BlockView::ToolCall { id, name, input } => Some(ToolCall { id, name, input }),
            BlockView::Text { .. } | BlockView::Thinking { .. } | BlockView::Other { .. } => None,
        })
    }

    /// All text blocks, joined.
    #[must_use]
    pub fn text(&self) -> String {
        self.blocks
            .iter()
            .filter_map(|block| match &block.view {
                BlockView::Text { text } => Some(text.as_str()),
                BlockView::Thinking { .. } | BlockView::ToolCall { .. } | BlockView::Other { .. } => None,
            })
            .collect()
    }

    /// Whether the blocks' raw bytes may go to `model` of `provider` over `wire`.
    pub(crate) fn came_from(&self, wire: Wire, provider: &str, model: &str) -> bool {
        self.wire == wire && self.provider == provider && self.model == model
    }
}

/// A tool call inside an [`AssistantMessage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolCall<'a> {
    /// The provider's id; unique within its message, not within the conversation.
    pub id: &'a str,
    /// The tool's name as the model wrote it; it may name no tool.
    pub name: &'a str,
    /// The input: always a whole JSON object.
    pub input: &'a RawJson,
}

/// One block of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// What the block means to us.
    #[serde(flatten)]
    pub view: BlockView,
    /// The block as the provider sent it (for a stream: put together from its deltas), kept when
    /// it says more than the view does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<RawJson>,
}

impl From<BlockView> for Block {
    fn from(view: BlockView) -> Self {
        Self { view, raw: None }
    }
}

/// What a block means to us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BlockView {
    /// Text for the reader.
    Text {
        /// The text.
        text: String,
    },
    /// The model's reasoning as far as the provider shows it.
    Thinking {
        /// The text; empty when it is hidden.
        text: String,
    },
    /// A tool call.
    ToolCall {
        /// The provider's id.
        id: String,
        /// The tool's name.
        name: String,
        /// The input, a JSON object.
        input: RawJson,
    },
    /// A block that means nothing to us and is only sent back.
    Other {
        /// The provider's name for it.
        kind: String,
    },
}

/// A provider's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// Anthropic Messages.
    AnthropicMessages,
    /// OpenAI-compatible Chat Completions.
    ChatCompletions,
    /// OpenAI Responses.
    Responses,
    /// Gemini `streamGenerateContent`.
    Gemini,
    /// A cassette written by hand.
    Cassette,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model has said what it had to say.
    EndTurn,
    /// The model waits for its tool calls.
    ToolUse,
    /// The answer reached `max_output_tokens`.
    MaxTokens,
    /// A stop sequence was written.
    StopSequence,
    /// The provider paused a long turn: send the conversation again to go on.
    PauseTurn,
    /// The model or the provider declined.
    Refusal,
    /// The context window is full.
    ContextFull,
    /// A reason that this version does not know.
    Unknown(String),
}

/// What is wrong with a transcript as a conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranscriptFault {
    /// It does not begin with a user message.
    #[error("the conversation begins with an answer; it must begin with a user message")]
    BeginsWithAnswer,
    /// A call has no result, or several.
    #[error(
        "tool call `{call_id}` ({name}) of answer {answer} has {results} results; it must have exactly one, in the next user message"
    )]
    Results {
        /// Number of the answer, from 1.
        answer: usize,
        /// The call.
        call_id: String,
        /// The tool that was called.
        name: String,
        /// How many results it has.
        results: usize,
    },
    /// A result answers no call of the message before.
    #[error("a result for `{call_id}` follows answer {answer}, which has no such call")]
    Stray {
        /// Number of the answer, from 1; 0 when there was none before it.
        answer: usize,
        /// The id that the result names.
        call_id: String,
    },
}

/// Checks what every provider demands: the conversation begins with a user message, and each
/// tool call has exactly one result in the next user message. Calls of the last message may
/// still be open when nothing follows it.
///
/// # Errors
/// The first fault found.
pub fn check_transcript(messages: &[Message]) -> Result<(), TranscriptFault> {
    if matches!(messages.first(), Some(Message::Assistant(_))) {
        return Err(TranscriptFault::BeginsWithAnswer);
    }
    let mut answer = 0;
    let mut rest = messages.iter().peekable();
    // A user message right after an answer settles its calls; any other may hold no result.
    let mut open: Vec<ToolCall<'_>> = Vec::new();
    while let Some(message) = rest.next() {
        match message {
            Message::Assistant(assistant) => {
                answer += 1;
                open = assistant.calls().collect();
                if rest.peek().is_some_and(|next| matches!(next, Message::Assistant(_))) {
                    settle(answer, &open, &[])?;
                }
            }
            Message::User { parts } => {
                settle(answer, &open, parts)?;
                open.clear();
            }
        }
    }
    Ok(())
}

fn settle(answer: usize, open: &[ToolCall<'_>], parts: &[UserPart]) -> Result<(), TranscriptFault> {
    let results: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part {
            UserPart::ToolResult { call_id, .. } => Some(call_id.as_str()),
            UserPart::Text { .. } | UserPart::Image { .. } => None,
        })
        .collect();
    for call in open {
        let count = results.iter().filter(|id| **id == call.id).count();
        if count != 1 {
            return Err(TranscriptFault::Results {
                answer,
                call_id: call.id.to_owned(),
                name: call.name.to_owned(),
                results: count,
            });
        }
    }
    match results.iter().find(|id| open.iter().all(|call| call.id != **id)) {
        Some(stray) => Err(TranscriptFault::Stray { answer, call_id: (*stray).to_owned() }),
        None => Ok(()),
    }
}
