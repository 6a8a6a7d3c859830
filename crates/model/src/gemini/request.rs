//! The body of a Gemini request.
//!
//! `contents` comes last and each message is written from itself and the calls that it answers, so
//! a longer conversation begins with the bytes of the shorter one. Results stand in the order of
//! their calls and carry an id only where the call does: without ids, order and name tell which
//! belongs to which.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::finish::object;
use crate::transcript::{AssistantMessage, Block, BlockView, Message, Request, UserPart, Wire};

/// What newer models take in place of a signature on calls that they did not make themselves.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// The body as bytes.
///
/// # Errors
/// If it cannot be written as JSON, which a valid request always can.
pub(crate) fn body(request: &Request, provider: &str) -> Result<Vec<u8>, serde_json::Error> {
    let declarations: Vec<Declaration<'_>> = request
        .tools
        .iter()
        .map(|tool| Declaration {
            name: &tool.name,
            description: &tool.description,
            parameters_json_schema: tool.input_schema.as_value(),
        })
        .collect();
    let mut contents = Vec::with_capacity(request.messages.len());
    let mut open: Vec<Open<'_>> = Vec::new();
    for message in &request.messages {
        let content = match message {
            Message::User { parts } => Content { role: "user", parts: user(parts, &std::mem::take(&mut open)) },
            Message::Assistant(assistant) => {
                let own = assistant.came_from(Wire::Gemini, provider, &request.model);
                open = opened(assistant, own);
                Content { role: "model", parts: answer(assistant, own) }
            }
        };
        // A message without parts is refused.
        if !content.parts.is_empty() {
            contents.push(content);
        }
    }
    serde_json::to_vec(&Body {
        system_instruction: (!request.system.is_empty()).then(|| System { parts: [Text { text: &request.system }] }),
        tools: if declarations.is_empty() { Vec::new() } else { vec![Tools { function_declarations: declarations }] },
        generation_config: Generation {
            max_output_tokens: request.max_output_tokens,
            temperature: request.temperature,
        },
        contents,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<System<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tools<'a>>,
    generation_config: Generation,
    contents: Vec<Content<'a>>,
}

#[derive(Serialize)]
struct System<'a> {
    parts: [Text<'a>; 1],
}

#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tools<'a> {
    function_declarations: Vec<Declaration<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Declaration<'a> {
    name: &'a str,
    description: &'a str,
    parameters_json_schema: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Generation {
    max_output_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
}

#[derive(Serialize)]
struct Content<'a> {
    role: &'static str,
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Part<'a> {
    Raw(&'a RawValue),
    Text(Text<'a>),
    #[serde(rename_all = "camelCase")]
    Image {
        inline_data: Blob<'a>,
    },
    #[serde(rename_all = "camelCase")]
    Call {
        function_call: Call<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        thought_signature: Option<&'static str>,
    },
    #[serde(rename_all = "camelCase")]
    Result {
        function_response: Returned<'a>,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    mime_type: &'a str,
    data: &'a str,
}

#[derive(Serialize)]
struct Call<'a> {
    name: &'a str,
    args: &'a RawValue,
}

#[derive(Serialize)]
struct Returned<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: &'a str,
    response: Outcome<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome<'a> {
    Output(&'a str),
    Error(&'a str),
}

/// A call that waits for its result.
struct Open<'a> {
    id: &'a str,
    name: &'a str,
    /// The id that the model is shown.
    sent_id: Option<String>,
}

fn opened(assistant: &AssistantMessage, own: bool) -> Vec<Open<'_>> {
    let open = |block: &'_ Block| match &block.view {
        BlockView::ToolCall { .. } if own => block.raw.as_ref().and_then(|raw| call_id(raw.as_str())),
        _ => None,
    };
    assistant
        .blocks
        .iter()
        .filter_map(|block| match &block.view {
            BlockView::ToolCall { id, name, .. } => Some(Open { id, name, sent_id: open(block) }),
            BlockView::Text { .. } | BlockView::Thinking { .. } | BlockView::Other { .. } => None,
        })
        .collect()
}

/// The id inside a `functionCall` part, if the provider gave one.
fn call_id(raw: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Part {
        function_call: Function,
    }
    #[derive(Deserialize)]
    struct Function {
        id: Option<String>,
    }
    object::<Part>(raw).ok()?.function_call.id.filter(|id| !id.is_empty())
}

fn user<'a>(parts: &'a [UserPart], open: &[Open<'a>]) -> Vec<Part<'a>> {
    let place = |call_id: &str| open.iter().position(|call| call.id == call_id);
    let mut results = Vec::new();
    let mut said = Vec::new();
    for part in parts {
        match part {
            UserPart::ToolResult { call_id, content, is_error } => {
                let place = place(call_id);
                let call = place.and_then(|place| open.get(place));
                let function_response = Returned {
                    id: call.and_then(|call| call.sent_id.clone()),
                    // A result without its call is the caller's mistake; the provider says so.
                    name: call.map_or(call_id.as_str(), |call| call.name),
                    response: if *is_error { Outcome::Error(content) } else { Outcome::Output(content) },
                };
                results.push((place, Part::Result { function_response }));
            }
            UserPart::Text { text } if text.is_empty() => {}
            UserPart::Text { text } => said.push(Part::Text(Text { text })),
            UserPart::Image { media_type, base64 } => {
                said.push(Part::Image { inline_data: Blob { mime_type: media_type, data: base64 } });
            }
        }
    }
    results.sort_by_key(|(place, _)| place.unwrap_or(usize::MAX));
    results.into_iter().map(|(_, part)| part).chain(said).collect()
}

fn answer(assistant: &AssistantMessage, own: bool) -> Vec<Part<'_>> {
    let mut signature = Some(NO_SIGNATURE);
    assistant
        .blocks
        .iter()
        .filter_map(|block| match (&block.view, &block.raw) {
            (_, Some(raw)) if own => Some(Part::Raw(raw.as_value())),
            (BlockView::Text { text }, _) if !text.is_empty() => Some(Part::Text(Text { text })),
            (BlockView::ToolCall { name, input, .. }, _) => Some(Part::Call {
                function_call: Call { name, args: input.as_value() },
                // Only the first call of an answer is asked for its signature.
                thought_signature: signature.take(),
            }),
            (BlockView::Text { .. } | BlockView::Thinking { .. } | BlockView::Other { .. }, _) => None,
        })
        .collect()
}
