//! The body of a Messages request.
//!
//! `messages` comes last and each message is written from itself alone, so a longer conversation
//! begins with the bytes of the shorter one. Only cache markers move: at the end of the system
//! text, of the newest user message, and of the user message before it, so that the cache is
//! found again even after an answer with more blocks than the provider looks back over (20).

use serde::Serialize;
use serde_json::value::RawValue;

use crate::transcript::{AssistantMessage, Block, BlockView, Message, Request, UserPart, Wire};

/// The body as bytes.
///
/// # Errors
/// If it cannot be written as JSON, which a valid request always can.
pub(crate) fn body(request: &Request, provider: &str) -> Result<Vec<u8>, serde_json::Error> {
    let mut tools: Vec<Tool<'_>> = request
        .tools
        .iter()
        .map(|tool| Tool {
            name: &tool.name,
            description: &tool.description,
            input_schema: tool.input_schema.as_value(),
            cache_control: None,
        })
        .collect();
    let system: Vec<Content<'_>> = if request.system.is_empty() {
        if let Some(last) = tools.last_mut() {
            last.cache_control = Some(CacheControl::EPHEMERAL);
        }
        Vec::new()
    } else {
        vec![Content::Text { kind: "text", text: &request.system, cache_control: Some(CacheControl::EPHEMERAL) }]
    };
    let mut messages: Vec<Turn<'_>> = request
        .messages
        .iter()
        .map(|message| turn(message, provider, &request.model))
        .filter(|turn| !turn.content.is_empty())
        .collect();
    for user in messages.iter_mut().rev().filter(|turn| turn.role == "user").take(2) {
        if let Some(last) = user.content.last_mut() {
            last.mark();
        }
    }
    serde_json::to_vec(&Body {
        model: &request.model,
        max_tokens: request.max_output_tokens,
        stream: true,
        temperature: request.temperature,
        tools,
        system,
        messages,
    })
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Content<'a>>,
    messages: Vec<Turn<'a>>,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
struct CacheControl {
    #[serde(rename = "type")]
    kind: &'static str,
}
impl CacheControl {
    const EPHEMERAL: Self = Self { kind: "ephemeral" };
}

#[derive(Serialize)]
struct Turn<'a> {
    role: &'static str,
    content: Vec<Content<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Raw(&'a RawValue),
    Text {
        #[serde(rename = "type")]
        kind: &'static str,
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    Image {
        #[serde(rename = "type")]
        kind: &'static str,
        source: ImageSource<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    Call {
        #[serde(rename = "type")]
        kind: &'static str,
        id: &'a str,
        name: &'a str,
        input: &'a RawValue,
    },
    Result {
        #[serde(rename = "type")]
        kind: &'static str,
        tool_use_id: &'a str,
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
}

#[derive(Serialize)]
struct ImageSource<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    media_type: &'a str,
    data: &'a str,
}

impl Content<'_> {
    fn mark(&mut self) {
        match self {
            Self::Text { cache_control, .. }
            | Self::Image { cache_control, .. }
            | Self::Result { cache_control, .. } => *cache_control = Some(CacheControl::EPHEMERAL),
            Self::Raw(_) | Self::Call { .. } => {}
        }
    }
}

fn text(text: &str) -> Content<'_> {
    Content::Text { kind: "text", text, cache_control: None }
}

fn turn<'a>(message: &'a Message, provider: &str, model: &str) -> Turn<'a> {
    match message {
        Message::User { parts } => {
            let results = parts.iter().filter_map(|part| match part {
                UserPart::ToolResult { call_id, content, is_error } => Some(Content::Result {
                    kind: "tool_result",
                    tool_use_id: call_id,
                    content,
                    is_error: *is_error,
                    cache_control: None,
                }),
                UserPart::Text { .. } | UserPart::Image { .. } => None,
            });
            let said = parts.iter().filter_map(|part| match part {
                UserPart::Text { text: said } if !said.is_empty() => Some(text(said)),
                UserPart::Image { media_type, base64 } => Some(Content::Image {
                    kind: "image",
                    source: ImageSource { kind: "base64", media_type, data: base64 },
                    cache_control: None,
                }),
                UserPart::Text { .. } | UserPart::ToolResult { .. } => None,
            });
            Turn { role: "user", content: results.chain(said).collect() }
        }
        Message::Assistant(assistant) => Turn { role: "assistant", content: answer(assistant, provider, model) },
    }
}

fn answer<'a>(assistant: &'a AssistantMessage, provider: &str, model: &str) -> Vec<Content<'a>> {
    let own = assistant.came_from(Wire::AnthropicMessages, provider, model);
    // The API refuses a message of nothing but white space, although models send such.
    let blank =
        assistant.blocks.iter().all(|block| matches!(&block.view, BlockView::Text { text } if text.trim().is_empty()));
    if blank { Vec::new() } else { assistant.blocks.iter().filter_map(|block| content(block, own)).collect() }
}

fn content(block: &Block, own: bool) -> Option<Content<'_>> {
    match (&block.view, &block.raw) {
        // The API refuses empty text, although models send it; only whole blocks of it are left out.
        (BlockView::Text { text: said }, _) if said.is_empty() => None,
        (_, Some(raw)) if own => Some(Content::Raw(raw.as_value())),
        (BlockView::Text { text: said }, _) => Some(text(said)),
        (BlockView::ToolCall { id, name, input }, _) => {
            Some(Content::Call { kind: "tool_use", id, name, input: input.as_value() })
        }
        // Reasoning without its signature, or of another provider, cannot be sent.
        (BlockView::Thinking { .. } | BlockView::Other { .. }, _) => None,
    }
}
