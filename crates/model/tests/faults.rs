//! Provider faults over real HTTP: always a typed event, never a half call.

mod support;

use std::time::Duration;

use futures_util::StreamExt as _;
use model::{
    Endpoint, ErrorKind, Limits, Message, ModelError, Provider, ProviderConfig, Secret, StreamEvent, build, complete,
};
use support::{Piece, Reply, Server, golden, request};

async fn fail(server: &Server, limits: Limits) -> ModelError {
    let provider = server.provider(Endpoint::Chat { base_url: server.url.clone(), key: None }, limits);
    complete(provider.stream(&request(vec![Message::user("hi")]))).await.unwrap_err()
}

async fn fails_with(reply: Reply) -> ModelError {
    fail(&Server::start(vec![reply]).await, Limits::default()).await
}

#[tokio::test]
async fn refusals_are_typed_by_status_headers_and_words() {
    let limited = fails_with(
        Reply::error(429, r#"{"error":{"message":"slow","code":"rate_limit_exceeded"}}"#).header("retry-after", "7"),
    )
    .await;
    assert_eq!((limited.kind, limited.status), (ErrorKind::RateLimited { after_ms: Some(7_000) }, Some(429)));
    assert_eq!(fails_with(Reply::error(429, "")).await.kind, ErrorKind::RateLimited { after_ms: None });
    assert_eq!(fails_with(Reply::error(529, "")).await.kind, ErrorKind::Overloaded { after_ms: None });
    assert_eq!(fails_with(Reply::error(401, "no")).await.kind, ErrorKind::Auth);
    let broke = fails_with(
        Reply::error(429, r#"{"error":{"message":"m","code":"insufficient_quota"}}"#).header("retry-after", "7"),
    )
    .await;
    assert_eq!(broke.kind, ErrorKind::OutOfCredit);
}

#[tokio::test]
async fn what_is_no_event_stream_is_said_to_be_none() {
    let mut page = Reply::error(200, "<html>welcome</html>");
    page.headers[0].1 = "text/html".into();
    let error = fails_with(page).await;
    assert_eq!(error.kind, ErrorKind::BadRequest);
    assert!(error.message.contains("is the URL right?"), "{error}");
    assert!(error.excerpt.contains("welcome"));
}

#[tokio::test]
async fn a_redirect_is_not_followed_because_it_would_carry_the_key_away() {
    let other = Server::start(vec![Reply::golden("chat_text")]).await;
    let error = fails_with(Reply::error(307, "").header("location", &other.url)).await;
    assert_eq!(error.kind, ErrorKind::BadRequest);
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_connection_that_breaks_during_the_answer_is_retryable() {
    let bytes = golden("chat_parallel_tools");
    let whole = Piece::Bytes(bytes[..bytes.len() / 2].to_vec());
    // The pause lets the server send what it has.
    let pause = Piece::Pause(Duration::from_millis(1));
    let error = fails_with(Reply::pieces(vec![whole, pause, Piece::Reset])).await;
    assert_eq!(error.kind, ErrorKind::Broken);
    let whole = Piece::Bytes(bytes[..bytes.len() / 2].to_vec());
    let error = fails_with(Reply::pieces(vec![whole])).await;
    assert_eq!(error.kind, ErrorKind::Broken);
    assert!(error.kind.is_retryable());
}

#[tokio::test]
async fn nobody_at_the_address_is_retryable_and_names_the_host() {
    let url = Server::start(vec![]).await.url.clone();
    let provider = build(ProviderConfig::new(Endpoint::Chat { base_url: url, key: None })).unwrap();
    // The server above is gone with its handle; give its socket time to close by asking until it is.
    let error = loop {
        match complete(provider.stream(&request(vec![Message::user("hi")]))).await {
            Err(error) if error.kind == ErrorKind::Unreachable => break error,
            Err(error) if error.kind == ErrorKind::BadRequest => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    };
    assert!(error.message.contains("127.0.0.1 cannot be reached"), "{error}");
}

#[tokio::test]
async fn silence_before_and_during_an_answer_ends_in_a_typed_error() {
    let limits = Limits { first_byte_ms: 40, idle_ms: 60, ..Limits::default() };
    let never = Server::start(vec![Reply::pieces(vec![Piece::Silence])]).await;
    assert_eq!(fail(&never, limits).await.kind, ErrorKind::Silent { idle_ms: 40 });
    let start = golden("chat_text")[..200].to_vec();
    let stuck = Server::start(vec![Reply::pieces(vec![Piece::Bytes(start), Piece::Silence])]).await;
    assert_eq!(fail(&stuck, Limits { first_byte_ms: 60_000, ..limits }).await.kind, ErrorKind::Silent { idle_ms: 60 });
}

#[tokio::test]
async fn a_drip_that_never_falls_silent_ends_too() {
    let drip = (0..2_000)
        .flat_map(|_| [Piece::Bytes(b": still here\n".to_vec()), Piece::Pause(Duration::from_millis(5))])
        .collect();
    let server = Server::start(vec![Reply::pieces(drip)]).await;
    let error = fail(&server, Limits { total_ms: 80, ..Limits::default() }).await;
    assert_eq!(error.kind, ErrorKind::Silent { idle_ms: 80 });
    assert!(error.message.contains("did not end in time"), "{error}");
}

#[tokio::test]
async fn endless_bodies_and_lines_end_in_a_typed_error() {
    let comments = Reply::stream(": nothing\n".repeat(10_000).as_bytes());
    let server = Server::start(vec![comments]).await;
    assert_eq!(fail(&server, Limits { body_bytes: 50_000, ..Limits::default() }).await.kind, ErrorKind::TooLarge);
    let server = Server::start(vec![Reply::stream(&[b'x'; 100_000])]).await;
    assert_eq!(fail(&server, Limits { event_bytes: 50_000, ..Limits::default() }).await.kind, ErrorKind::TooLarge);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_a_broken_stream() {
    assert_eq!(fails_with(Reply::stream(b"data: {\"x\":\"\xff\"}\n\n")).await.kind, ErrorKind::Broken);
}

#[tokio::test]
async fn an_answer_in_single_bytes_is_the_answer() {
    let bytes = golden("chat_parallel_tools");
    let whole = Server::start(vec![Reply::stream(&bytes)]).await;
    let pieces = Server::start(vec![Reply::pieces(bytes.iter().map(|byte| Piece::Bytes(vec![*byte])).collect())]).await;
    let request = request(vec![Message::user("hi")]);
    let [mut a, b] = [
        complete(whole.chat().stream(&request)).await.unwrap(),
        complete(pieces.chat().stream(&request)).await.unwrap(),
    ];
    a.message.provider.clone_from(&b.message.provider); // their ports differ
    assert_eq!(a, b);
    assert_eq!(a.message.calls().count(), 2);
}

#[tokio::test]
async fn a_stream_yields_nothing_after_its_end() {
    let server = Server::start(vec![Reply::golden("anthropic_error_after_200"), Reply::golden("anthropic_text")]).await;
    for last_is_error in [true, false] {
        let events: Vec<_> = server.anthropic().stream(&request(vec![Message::user("hi")])).collect().await;
        assert_eq!(events.last().unwrap().is_err(), last_is_error);
        let ends = events.iter().filter(|event| matches!(event, Err(_) | Ok(StreamEvent::Finished(_)))).count();
        assert_eq!(ends, 1);
        assert!(events.iter().any(|event| matches!(event, Ok(StreamEvent::TextDelta { .. }))));
    }
}

#[tokio::test]
async fn dropping_the_stream_cancels_the_call() {
    let start = golden("chat_text")[..400].to_vec();
    let server = Server::start(vec![Reply::pieces(vec![Piece::Bytes(start), Piece::Silence])]).await;
    let mut stream = server.chat().stream(&request(vec![Message::user("hi")]));
    assert!(matches!(stream.next().await, Some(Ok(StreamEvent::Started { .. }))));
    drop(stream);
    server.client_gone().await;
}

#[tokio::test]
async fn a_key_goes_where_it_belongs_and_is_never_printed() {
    let server = Server::start(vec![Reply::golden("anthropic_text"), Reply::golden("chat_text")]).await;
    let secret = Secret::new(" k-very-secret\n");
    let bearer =
        Endpoint::Anthropic { base_url: Some(format!("{}/v1/", server.url)), key: Some(secret.clone()), bearer: true };
    let openai = Endpoint::OpenAi { base_url: Some(server.url.clone()), key: Some(secret) };
    assert!(!format!("{bearer:?} {openai:?}").contains("very"));
    for endpoint in [bearer, openai] {
        complete(server.provider(endpoint, Limits::default()).stream(&request(vec![Message::user("hi")])))
            .await
            .unwrap();
    }
    for (seen, path, limit) in server
        .seen()
        .iter()
        .zip(["/v1/messages", "/v1/chat/completions"])
        .zip(["max_tokens", "max_completion_tokens"])
        .map(|((a, b), c)| (a, b, c))
    {
        assert_eq!(
            (seen.path.as_str(), seen.header("authorization"), seen.header("x-api-key")),
            (path, Some("Bearer k-very-secret"), None)
        );
        assert_eq!(seen.json()[limit], 4_096);
    }
}

#[tokio::test]
async fn one_provider_serves_many_calls_at_once() {
    let server = Server::start((0..50).map(|_| Reply::golden("chat_text")).collect()).await;
    let provider: std::sync::Arc<dyn Provider> = server.chat();
    let answers =
        futures_util::future::join_all((0..50).map(|_| complete(provider.stream(&request(vec![Message::user("hi")])))))
            .await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().message.text() == "Hello, wörld 🦀"));
}
