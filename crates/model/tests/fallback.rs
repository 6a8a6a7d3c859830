//! A list of models over real HTTP: who is asked, when, and what the caller sees of it.

mod support;

use std::sync::Arc;

use futures_util::StreamExt as _;
use model::{
    Choice, ErrorKind, Fallback, Message, ModelError, PassedOver, Provider, StreamEvent, Wire, complete, retry_delay,
};
use support::{Piece, Reply, Server, golden, request};

fn choice(provider: Arc<dyn Provider>, model: &str) -> Choice {
    Choice { provider, model: model.into() }
}

/// A list of an Anthropic model, a Chat model and a Gemini model, each on its own server.
struct List {
    anthropic: Server,
    chat: Server,
    gemini: Server,
    list: Fallback,
}

impl List {
    async fn of(anthropic: Vec<Reply>, chat: Vec<Reply>, gemini: Vec<Reply>) -> Self {
        let (anthropic, chat, gemini) =
            (Server::start(anthropic).await, Server::start(chat).await, Server::start(gemini).await);
        let others = vec![choice(chat.chat(), "big"), choice(gemini.gemini(), "gemini-3-pro")];
        let list = Fallback::new(choice(anthropic.anthropic(), "claude-opus-5-5"), others);
        Self { anthropic, chat, gemini, list }
    }
    fn asked(&self) -> [usize; 3] {
        [&self.anthropic, &self.chat, &self.gemini].map(|server| server.seen().len())
    }
    async fn events(&self) -> Vec<Result<StreamEvent, ModelError>> {
        self.list.stream(&request(vec![Message::user("hi")])).collect().await
    }
}

fn passed_over(events: &[Result<StreamEvent, ModelError>]) -> Vec<PassedOver> {
    let started = events.iter().rev().find_map(|event| match event {
        Ok(StreamEvent::Started { passed_over, .. }) => Some(passed_over.clone()),
        _ => None,
    });
    started.unwrap_or_default()
}

fn overloaded() -> Reply {
    Reply::error(529, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#)
}

#[tokio::test]
async fn the_next_model_is_asked_when_one_cannot_begin_and_the_caller_sees_why() {
    let spent = Reply::error(429, r#"{"error":{"message":"no quota","code":"insufficient_quota"}}"#);
    let list = List::of(vec![overloaded()], vec![spent], vec![Reply::golden("gemini_text")]).await;
    let events = list.events().await;
    assert_eq!(list.asked(), [1, 1, 1]);
    let passed = passed_over(&events);
    assert_eq!(
        passed.iter().map(|passed| (passed.model.as_str(), passed.error.kind)).collect::<Vec<_>>(),
        [("claude-opus-5-5", ErrorKind::Overloaded { after_ms: None }), ("big", ErrorKind::OutOfCredit)]
    );
    let Some(Ok(StreamEvent::Finished(answer))) = events.last() else { panic!("{events:?}") };
    // Told as it was: who answered, over which wire, so that its blocks go back to it alone.
    assert_eq!((answer.message.provider.as_str(), answer.message.wire), ("gemini", Wire::Gemini));
    assert_eq!(answer.message.model, "gemini-3-pro");
    assert_eq!(list.chat.seen()[0].json()["model"], "big");
}

#[tokio::test]
async fn every_failure_before_the_first_word_that_another_model_may_not_have_makes_way() {
    for (status, makes_way) in [
        (408, true),
        (429, true),
        (500, true),
        (502, true),
        (503, true),
        (504, true),
        (529, true),
        (402, true),
        (400, false),
        (401, false),
        (403, false),
        (404, false),
        (413, false),
    ] {
        let list = List::of(vec![Reply::error(status, "")], vec![Reply::golden("chat_text")], Vec::new()).await;
        let events = list.events().await;
        assert_eq!(list.asked(), [1, usize::from(makes_way), 0], "{status}");
        assert_eq!(events.last().unwrap().is_ok(), makes_way, "{status}");
    }
}

#[tokio::test]
async fn an_error_after_200_makes_way_only_before_the_first_word() {
    let start = golden("anthropic_text");
    let start = String::from_utf8(start).unwrap();
    let (head, rest) = start.split_once("event: content_block_start").unwrap();
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let before = Reply::stream(format!("{head}{error}").as_bytes());
    let list = List::of(vec![before], vec![Reply::golden("chat_text")], Vec::new()).await;
    assert_eq!(passed_over(&list.events().await).len(), 1);

    // A word was said: whoever watches has seen it, and no other model takes it up.
    let word = rest.split_once("event: content_block_stop").unwrap().0;
    let after = Reply::stream(format!("{head}event: content_block_start{word}{error}").as_bytes());
    let list = List::of(vec![after], vec![Reply::golden("chat_text")], Vec::new()).await;
    let events = list.events().await;
    assert_eq!(list.asked(), [1, 0, 0]);
    assert_eq!(events.last().unwrap().as_ref().unwrap_err().kind, ErrorKind::Overloaded { after_ms: None });
    // The pause lets the server send what it has.
    let pause = Piece::Pause(std::time::Duration::from_millis(20));
    let said = Piece::Bytes(format!("{head}event: content_block_start{word}").into_bytes());
    let reset = vec![said, pause, Piece::Reset];
    let list = List::of(vec![Reply::pieces(reset)], vec![Reply::golden("chat_text")], Vec::new()).await;
    assert!(list.events().await.last().unwrap().is_err());
    assert_eq!(list.asked(), [1, 0, 0]);
}

#[tokio::test]
async fn a_model_that_demanded_a_wait_is_passed_over_unasked_until_then() {
    let limited = overloaded().header("retry-after", "3600");
    let texts = || vec![Reply::golden("chat_text"), Reply::golden("chat_text")];
    let list = List::of(vec![limited, Reply::golden("anthropic_text")], texts(), Vec::new()).await;
    for calls in 1..=2 {
        let passed = passed_over(&list.events().await);
        assert_eq!(list.asked(), [1, calls, 0]);
        let ErrorKind::Overloaded { after_ms: Some(left) } = passed[0].error.kind else { panic!("{passed:?}") };
        assert!(left > 3_500_000 && left <= 3_600_000, "{left}");
    }
    let short = overloaded().header("retry-after-ms", "1");
    let list = List::of(vec![short, Reply::golden("anthropic_text")], texts(), Vec::new()).await;
    list.events().await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert!(passed_over(&list.events().await).is_empty());
    assert_eq!(list.asked(), [2, 1, 0]);
}

#[tokio::test]
async fn when_none_begins_the_error_tells_of_all_and_says_how_soon_one_may_be_asked() {
    let list = List::of(
        vec![overloaded().header("retry-after", "90")],
        vec![Reply::error(429, "").header("retry-after", "5")],
        vec![Reply::error(401, r#"{"error":{"code":401,"message":"no such key","status":"UNAUTHENTICATED"}}"#)],
    )
    .await;
    let error = complete(list.list.stream(&request(vec![Message::user("hi")]))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RateLimited { after_ms: Some(5_000) });
    assert!(error.message.contains("claude-opus-5-5: ") && error.message.contains("no such key"), "{error}");
    assert!(retry_delay(&error, 1, 0.0).unwrap() >= std::time::Duration::from_secs(5));
}

#[tokio::test]
async fn nobody_at_the_first_address_is_no_reason_to_stop() {
    let gone = Server::start(Vec::new()).await;
    let provider = gone.anthropic();
    drop(gone);
    let second = Server::start(vec![Reply::golden("responses_text")]).await;
    let list = Fallback::new(choice(provider, "m"), vec![choice(second.responses(), "gpt-6-sol")]);
    // The address is free as soon as its server's task has ended.
    let answer = loop {
        match complete(list.stream(&request(vec![Message::user("hi")]))).await {
            Ok(answer) => break answer,
            Err(error) if error.kind == ErrorKind::BadRequest => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((answer.message.text().as_str(), answer.message.wire), ("Hello, wörld 🦀", Wire::Responses));
    assert_eq!((list.name(), list.wire()), ("anthropic", Wire::AnthropicMessages));
    assert!(list.price("gpt-6-sol").is_none(), "a server of one's own has no price unless it is told");
}
