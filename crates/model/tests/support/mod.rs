//! A scripted model server: real HTTP, one reply after another, and a check of every request that
//! any provider would make.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::stream;
use model::{Endpoint, Limits, Message, Provider, ProviderConfig, RawJson, Secret, ToolSpec, UserPart, build};
use serde_json::Value;
use tokio::sync::Notify;

/// What the server does for one request.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<Piece>,
}

pub enum Piece {
    Bytes(Vec<u8>),
    Pause(Duration),
    /// Nothing more, and no end either.
    Silence,
    /// The connection is reset.
    Reset,
}

impl Reply {
    pub fn stream(bytes: &[u8]) -> Self {
        Self::pieces(vec![Piece::Bytes(bytes.to_vec())])
    }
    pub fn golden(name: &str) -> Self {
        Self::stream(&golden(name))
    }
    pub fn pieces(body: Vec<Piece>) -> Self {
        let headers =
            vec![("content-type", "text/event-stream; charset=utf-8".to_owned()), ("request-id", "req_42".to_owned())];
        Self { status: 200, headers, body }
    }
    pub fn error(status: u16, body: &str) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: vec![Piece::Bytes(body.as_bytes().to_vec())] }
    }
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

pub fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/streams/{name}.sse", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Default)]
struct Script {
    replies: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
    /// A reply's body was dropped before its end: the client went away.
    gone: Notify,
}

pub struct Server {
    pub url: String,
    script: Arc<Script>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(replies: Vec<Reply>) -> Self {
        let script = Arc::new(Script { replies: Mutex::new(replies.into()), ..Script::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(Arc::clone(&script));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, script, task }
    }
    pub fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }
    pub async fn client_gone(&self) {
        self.script.gone.notified().await;
    }
    pub fn anthropic(&self) -> Arc<dyn Provider> {
        self.provider(
            Endpoint::Anthropic {
                base_url: Some(self.url.clone()),
                key: Some(Secret::new("sk-ant-k1")),
                bearer: false,
            },
            Limits::default(),
        )
    }
    pub fn chat(&self) -> Arc<dyn Provider> {
        self.provider(Endpoint::Chat { base_url: self.url.clone(), key: None }, Limits::default())
    }
    pub fn responses(&self) -> Arc<dyn Provider> {
        self.provider(
            Endpoint::Responses { base_url: Some(self.url.clone()), key: Some(Secret::new("sk-r1")) },
            Limits::default(),
        )
    }
    pub fn gemini(&self) -> Arc<dyn Provider> {
        self.provider(
            Endpoint::Gemini { base_url: Some(self.url.clone()), key: Some(Secret::new("g-k1")) },
            Limits::default(),
        )
    }
    pub fn provider(&self, endpoint: Endpoint, limits: Limits) -> Arc<dyn Provider> {
        build(ProviderConfig { limits, ..ProviderConfig::new(endpoint) }).unwrap()
    }
}

/// Tells when it is dropped before it is disarmed.
struct Watch(Arc<Script>, bool);
impl Watch {
    fn disarm(&mut self) {
        self.1 = false;
    }
}
impl Drop for Watch {
    fn drop(&mut self) {
        if self.1 {
            self.0.gone.notify_one();
        }
    }
}

async fn serve(State(script): State<Arc<Script>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    let headers =
        parts.headers.iter().map(|(key, value)| (key.to_string(), value.to_str().unwrap().to_owned())).collect();
    let seen = Seen { path: parts.uri.path().to_owned(), headers, body: String::from_utf8(body.to_vec()).unwrap() };
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let fault = check(&seen.json());
    script.seen.lock().unwrap().push(seen);
    let reply = match (fault, script.replies.lock().unwrap().pop_front()) {
        (Some(fault), _) => Reply::error(400, &format!(r#"{{"error":{{"message":"{fault}"}}}}"#)),
        (None, None) => Reply::error(400, r#"{"error":{"message":"the script has no more replies"}}"#),
        (None, Some(reply)) => reply,
    };
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let pieces =
        stream::unfold((VecDeque::from(reply.body), Watch(script, true)), |(mut pieces, mut watch)| async move {
            loop {
                match pieces.pop_front() {
                    None => {
                        watch.disarm();
                        return None;
                    }
                    Some(Piece::Bytes(bytes)) => {
                        return Some((Ok::<_, std::io::Error>(Bytes::from(bytes)), (pieces, watch)));
                    }
                    Some(Piece::Pause(time)) => tokio::time::sleep(time).await,
                    Some(Piece::Silence) => std::future::pending().await,
                    Some(Piece::Reset) => return Some((Err(std::io::Error::other("reset")), (pieces, watch))),
                }
            }
        });
    response.body(Body::from_stream(pieces)).unwrap()
}

/// What is wrong with a request by the rules of its wire: each call is answered exactly once, in
/// the very next message.
pub fn check(body: &Value) -> Option<String> {
    if let Some(input) = body["input"].as_array() {
        return check_responses(body, input);
    }
    if let Some(contents) = body["contents"].as_array() {
        return check_gemini(contents);
    }
    let messages = body["messages"].as_array()?;
    if body.get("max_tokens").or_else(|| body.get("max_completion_tokens")).is_none() || body["stream"] != true {
        return Some("limit or stream is missing".into());
    }
    let chat = messages.iter().any(|message| {
        message.get("tool_calls").is_some() || message["role"] == "tool" || message["content"].is_string()
    });
    if chat { check_chat(messages) } else { check_anthropic(messages) }
}

fn check_responses(body: &Value, input: &[Value]) -> Option<String> {
    if body["store"] != false || body["stream"] != true || body.get("max_output_tokens").is_none() {
        return Some("limit, stream or store is wrong".into());
    }
    let mut open: Vec<&str> = Vec::new();
    for (position, item) in input.iter().enumerate() {
        let called = |item: &Value| item["type"] == "function_call";
        match item["type"].as_str()? {
            "function_call" => open.push(item["call_id"].as_str().unwrap()),
            "function_call_output" => {
                let id = item["call_id"].as_str().unwrap();
                let before = open.len();
                open.retain(|known| *known != id);
                if before != open.len() + 1 {
                    return Some(format!("result {id} answers {} calls", before - open.len()));
                }
            }
            "reasoning" => {
                let next = input.get(position + 1);
                if next.is_none_or(|next| !called(next) && next["role"] != "assistant" && next["type"] == "message") {
                    return Some("reasoning was provided without its required following item".into());
                }
            }
            "message" if !open.is_empty() => return Some(format!("calls {open:?} have no result")),
            _ => {}
        }
    }
    (!open.is_empty()).then(|| format!("calls {open:?} have no result"))
}

fn check_gemini(contents: &[Value]) -> Option<String> {
    let mut open: Vec<(Value, Value)> = Vec::new();
    for content in contents {
        let parts = content["parts"].as_array()?;
        if parts.is_empty() {
            return Some("a content has no parts".into());
        }
        let named = |kind: &str| -> Vec<(Value, Value)> {
            parts
                .iter()
                .filter_map(|part| part.get(kind))
                .map(|part| (part["name"].clone(), part["id"].clone()))
                .collect()
        };
        let results = named("functionResponse");
        if results != open {
            return Some(format!("results {results:?} for calls {open:?}").replace('"', "'"));
        }
        open = named("functionCall");
        if !open.is_empty() && content["role"] != "model" {
            return Some("a user makes calls".into());
        }
        let first = parts.iter().find(|part| part.get("functionCall").is_some());
        // As the newer models do; the golden streams without ids are of an older one.
        if first.is_some_and(|call| call["functionCall"].get("id").is_some() && call.get("thoughtSignature").is_none())
        {
            return Some("the first call has no thought signature".into());
        }
    }
    (!open.is_empty()).then(|| format!("calls {open:?} have no result").replace('"', "'"))
}

fn check_chat(messages: &[Value]) -> Option<String> {
    let mut open: Vec<String> = Vec::new();
    for message in messages {
        if message["role"] == "tool" {
            let id = message["tool_call_id"].as_str().unwrap();
            let before = open.len();
            open.retain(|known| known != id);
            if before != open.len() + 1 {
                return Some(format!("result {id} answers {} calls", before - open.len()));
            }
        } else if !open.is_empty() {
            return Some(format!("calls {open:?} have no result"));
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            if serde_json::from_str::<Value>(call["function"]["arguments"].as_str().unwrap()).is_err()
                && call["function"]["arguments"] != ""
            {
                return Some("half a call".into());
            }
            open.push(call["id"].as_str().unwrap().to_owned());
        }
    }
    (!open.is_empty()).then(|| format!("calls {open:?} have no result"))
}

fn check_anthropic(messages: &[Value]) -> Option<String> {
    let mut open: Vec<String> = Vec::new();
    for message in messages {
        let content = message["content"].as_array()?;
        let ids = |kind: &str, key: &str| -> Vec<String> {
            content
                .iter()
                .filter(|block| block["type"] == kind)
                .map(|block| block[key].as_str().unwrap().to_owned())
                .collect()
        };
        if content.is_empty() || content.iter().any(|block| block["type"] == "text" && block["text"] == "") {
            return Some("empty content".into());
        }
        if message["role"] == "user" {
            let mut results = ids("tool_result", "tool_use_id");
            results.sort();
            open.sort();
            if results != open {
                return Some(format!("results {results:?} for calls {open:?}"));
            }
            let texts_first = content
                .iter()
                .skip_while(|block| block["type"] == "tool_result")
                .any(|block| block["type"] == "tool_result");
            if texts_first {
                return Some("text stands before results".into());
            }
            open.clear();
        } else {
            open = ids("tool_use", "id");
        }
    }
    let markers = messages
        .iter()
        .flat_map(|message| message["content"].as_array().unwrap())
        .filter(|block| block.get("cache_control").is_some())
        .count();
    (markers > 3).then(|| format!("{markers} cache markers"))
}

pub fn request(messages: Vec<Message>) -> model::Request {
    model::Request {
        model: "claude-opus-4-5".into(),
        system: "You mend code.".into(),
        tools: vec![
            ToolSpec {
                name: "shell".into(),
                description: "Runs a command.".into(),
                // Keys that a sorting writer would reorder, and a number that it would rewrite.
                input_schema: RawJson::parse(r#"{"type":"object","required":["command"],"properties":{"command":{"type":"string"},"a":{"type":"number","maximum":1.50}}}"#).unwrap(),
            },
            ToolSpec { name: "status".into(), description: "Says how it stands.".into(), input_schema: RawJson::parse(r#"{"type":"object"}"#).unwrap() },
        ],
        messages,
        max_output_tokens: 4_096,
        temperature: None,
    }
}

pub fn results(message: &model::AssistantMessage, text: &str) -> Message {
    let parts = message.calls().map(|call| UserPart::ToolResult {
        call_id: call.id.into(),
        content: text.into(),
        is_error: false,
    });
    Message::User { parts: parts.collect() }
}
