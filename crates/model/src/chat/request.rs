//! The body of a Chat Completions request.
//!
//! `messages` comes last and each of ours is written from itself alone, so a longer conversation
//! begins with the bytes of the shorter one.

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

use crate::raw::Fields;
use crate::transcript::{AssistantMessage, BlockView, Message, Request, UserPart, Wire};

/// How a server wants the limit on output named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// OpenAI itself: `max_completion_tokens`.
    OpenAi,
    /// Everybody else: `max_tokens`.
    Common,
}

/// The body as bytes.
///
/// # Errors
/// If it cannot be written as JSON, which a valid request always can.
pub(crate) fn body(request: &Request, provider: &str, dialect: Dialect) -> Result<Vec<u8>, serde_json::Error> {
    let tools: Vec<Tool<'_>> = request
        .tools
        .iter()
        .map(|tool| Tool {
            kind: "function",
            function: Function {
                name: &tool.name,
                description: &tool.description,
                parameters: tool.input_schema.as_value(),
            },
        })
        .collect();
    let mut messages = Vec::with_capacity(request.messages.len() + 1);
    if !request.system.is_empty() {
        messages.push(Turn::Plain { role: "system", content: request.system.clone() });
    }
    for message in &request.messages {
        match message {
            Message::User { parts } => user(parts, &mut messages),
            Message::Assistant(assistant) => messages.push(answer(assistant, provider, &request.model)?),
        }
    }
    let limit = request.max_output_tokens;
    serde_json::to_vec(&Body {
        model: &request.model,
        stream: true,
        stream_options: StreamOptions { include_usage: true },
        max_completion_tokens: (dialect == Dialect::OpenAi).then_some(limit),
        max_tokens: (dialect == Dialect::Common).then_some(limit),
        temperature: request.temperature,
        tools,
        messages,
    })
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    stream: bool,
    stream_options: StreamOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    messages: Vec<Turn<'a>>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a RawValue,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Turn<'a> {
    Plain { role: &'static str, content: String },
    Mixed { role: &'static str, content: Vec<Piece<'a>> },
    Result { role: &'static str, tool_call_id: &'a str, content: &'a str },
    Answer(AnswerTurn<'a>),
}

/// A part of a message that is not text alone.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Piece<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Serialize)]
struct ImageUrl {
    url: String,
}

/// `extra` holds members that the same provider gave beside the text, such as its reasoning.
struct AnswerTurn<'a> {
    content: Option<String>,
    extra: Vec<Fields>,
    tool_calls: Vec<Call<'a>>,
}

impl Serialize for AnswerTurn<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", "assistant")?;
        map.serialize_entry("content", &self.content)?;
        for (name, value) in self.extra.iter().flat_map(Fields::iter) {
            map.serialize_entry(name, value)?;
        }
        if !self.tool_calls.is_empty() {
            map.serialize_entry("tool_calls", &self.tool_calls)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Call<'a> {
    Raw(&'a RawValue),
    Own {
        id: &'a str,
        #[serde(rename = "type")]
        kind: &'static str,
        function: Called<'a>,
    },
}

#[derive(Serialize)]
struct Called<'a> {
    name: &'a str,
    arguments: &'a str,
}

fn user<'a>(parts: &'a [UserPart], messages: &mut Vec<Turn<'a>>) {
    let mut pieces = Vec::new();
    for part in parts {
        match part {
            UserPart::ToolResult { call_id, content, is_error: _ } => {
                messages.push(Turn::Result { role: "tool", tool_call_id: call_id, content })
            }
            UserPart::Text { text } => pieces.push(Piece::Text { text }),
            UserPart::Image { media_type, base64 } => {
                let url = format!("data:{media_type};base64,{base64}");
                pieces.push(Piece::ImageUrl { image_url: ImageUrl { url } });
            }
        }
    }
    if pieces.is_empty() {
        return;
    }
    // Many servers take text only as one string.
    let texts: Option<Vec<&str>> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text { text } => Some(*text),
            Piece::ImageUrl { .. } => None,
        })
        .collect();
    messages.push(match texts {
        Some(texts) => Turn::Plain { role: "user", content: texts.join("\n\n") },
        None => Turn::Mixed { role: "user", content: pieces },
    });
}

fn answer<'a>(assistant: &'a AssistantMessage, provider: &str, model: &str) -> Result<Turn<'a>, serde_json::Error> {
    let own = assistant.came_from(Wire::ChatCompletions, provider, model);
    let (mut extra, mut tool_calls) = (Vec::new(), Vec::new());
    for block in &assistant.blocks {
        match (&block.view, &block.raw) {
            (BlockView::ToolCall { .. }, Some(raw)) if own => tool_calls.push(Call::Raw(raw.as_value())),
            (BlockView::ToolCall { id, name, input }, _) => {
                tool_calls.push(Call::Own {
                    id,
                    kind: "function",
                    function: Called { name, arguments: input.as_str() },
                });
            }
            (BlockView::Thinking { .. } | BlockView::Other { .. }, Some(raw)) if own => {
                extra.push(serde_json::from_str(raw.as_str())?)
            }
            (BlockView::Text { .. } | BlockView::Thinking { .. } | BlockView::Other { .. }, _) => {}
        }
    }
    let text = assistant.text();
    // Without calls some servers refuse `null`; with calls some refuse the empty string.
    let content = if text.is_empty() && !tool_calls.is_empty() { None } else { Some(text) };
    Ok(Turn::Answer(AnswerTurn { content, extra, tool_calls }))
}
