//! The body of a Responses request.
//!
//! `input` comes last and each message is written from itself alone, so a longer conversation
//! begins with the bytes of the shorter one; the cache finds that beginning by itself. The cache
//! key is made of what never changes in a conversation.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::finish::object;
use crate::raw::RawJson;
use crate::transcript::{AssistantMessage, BlockView, Message, Request, UserPart, Wire};

/// The body as bytes.
///
/// # Errors
/// If it cannot be written as JSON, which a valid request always can.
pub(crate) fn body(request: &Request, provider: &str) -> Result<Vec<u8>, serde_json::Error> {
    let tools: Vec<Tool<'_>> = request
        .tools
        .iter()
        .map(|tool| Tool {
            kind: "function",
            name: &tool.name,
            description: &tool.description,
            parameters: tool.input_schema.as_value(),
            strict: false,
        })
        .collect();
    let mut input = Vec::new();
    for message in &request.messages {
        match message {
            Message::User { parts } => user(parts, &mut input),
            Message::Assistant(assistant) => answer(assistant, provider, &request.model, &mut input),
        }
    }
    serde_json::to_vec(&Body {
        model: &request.model,
        stream: true,
        store: false,
        include: if reasons(&request.model) { &["reasoning.encrypted_content"] } else { &[] },
        prompt_cache_key: cache_key(request),
        max_output_tokens: request.max_output_tokens,
        temperature: request.temperature,
        instructions: &request.system,
        tools,
        input,
    })
}

/// The families from before reasoning refuse to be asked for it, and they are closed: no model
/// to come is named like them.
fn reasons(model: &str) -> bool {
    !["gpt-3.5", "gpt-4", "chatgpt-4o"].iter().any(|family| model.starts_with(family))
}

/// Equal for all requests of a conversation, so that they reach the machine that has its cache.
fn cache_key(request: &Request) -> String {
    let mut hash = Sha256::new();
    hash.update(&request.system);
    let first = request.messages.first().and_then(|message| serde_json::to_vec(message).ok());
    hash.update(first.unwrap_or_default());
    hash.finalize().iter().take(16).fold(String::with_capacity(32), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    stream: bool,
    store: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    include: &'static [&'static str],
    prompt_cache_key: String,
    max_output_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    instructions: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    input: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    description: &'a str,
    parameters: &'a RawValue,
    /// Strict schemas must name every member as required, which ours need not.
    strict: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Raw(&'a RawValue),
    Own(OwnItem<'a>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OwnItem<'a> {
    Message { role: &'static str, content: Vec<Content<'a>> },
    FunctionCall { call_id: &'a str, name: &'a str, arguments: &'a str },
    FunctionCallOutput { call_id: &'a str, output: &'a str },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Content<'a> {
    InputText { text: &'a str },
    InputImage { image_url: String },
    OutputText { text: &'a str },
}

fn user<'a>(parts: &'a [UserPart], input: &mut Vec<Item<'a>>) {
    let mut content = Vec::new();
    for part in parts {
        match part {
            UserPart::ToolResult { call_id, content: output, is_error: _ } => {
                input.push(Item::Own(OwnItem::FunctionCallOutput { call_id, output }));
            }
            UserPart::Text { text } => content.push(Content::InputText { text }),
            UserPart::Image { media_type, base64 } => {
                content.push(Content::InputImage { image_url: format!("data:{media_type};base64,{base64}") });
            }
        }
    }
    if !content.is_empty() {
        input.push(Item::Own(OwnItem::Message { role: "user", content }));
    }
}

fn answer<'a>(assistant: &'a AssistantMessage, provider: &str, model: &str, input: &mut Vec<Item<'a>>) {
    if assistant.came_from(Wire::Responses, provider, model) {
        // Reasoning is refused without the item that it led to; an answer that was cut has such.
        let is_thinking = |view: &BlockView| matches!(view, BlockView::Thinking { .. });
        let led_to = assistant.blocks.iter().rposition(|block| !is_thinking(&block.view));
        for (position, block) in assistant.blocks.iter().enumerate() {
            let Some(raw) = &block.raw else { continue };
            let alone = led_to.is_none_or(|last| position > last);
            if is_thinking(&block.view) && (alone || !can_return(raw)) {
                continue;
            }
            input.push(Item::Raw(raw.as_value()));
        }
        return;
    }
    for block in &assistant.blocks {
        match &block.view {
            BlockView::Text { text } if text.is_empty() => {}
            BlockView::Text { text } => {
                let content = vec![Content::OutputText { text }];
                input.push(Item::Own(OwnItem::Message { role: "assistant", content }));
            }
            BlockView::ToolCall { id, name, input: arguments } => {
                input.push(Item::Own(OwnItem::FunctionCall { call_id: id, name, arguments: arguments.as_str() }));
            }
            // Reasoning and private items of another model mean nothing here.
            BlockView::Thinking { .. } | BlockView::Other { .. } => {}
        }
    }
}

/// Whether a reasoning item says anything beside its id, which names nothing where nothing is stored.
fn can_return(raw: &RawJson) -> bool {
    #[derive(Deserialize)]
    struct Reasoning {
        encrypted_content: Option<String>,
        #[serde(default)]
        content: Option<Vec<serde::de::IgnoredAny>>,
    }
    object::<Reasoning>(raw.as_str())
        .is_ok_and(|item| item.encrypted_content.is_some() || item.content.is_some_and(|content| !content.is_empty()))
}
