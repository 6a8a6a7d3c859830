//! The table of provider faults, on every wire, against a real server on this machine.
//!
//! A fault is a row: what the server does, and what the caller must get. Whatever the row, a
//! finished answer is the whole answer or no answer at all, and each of its calls is a JSON object
//! with an id of its own.

#[path = "support/faulty.rs"]
mod faulty;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use faulty::{Case, End, Faulty};
use futures_util::StreamExt as _;
use futures_util::stream;
use model::{
    Answer, Endpoint, ErrorKind, Limits, Message, ModelError, Provider, ProviderConfig, Request, StreamEvent, build,
    complete, retry_delay,
};

const WIRES: [&str; 4] = ["anthropic", "chat", "responses", "gemini"];

/// An answer of each wire with reasoning, text and several calls, to be cut.
fn rich(wire: &str) -> Vec<u8> {
    golden(match wire {
        "anthropic" => "anthropic_thinking_and_parallel_tools",
        "chat" => "chat_parallel_tools",
        "responses" => "responses_reasoning_and_parallel_tools",
        _ => "gemini_thinking_and_parallel_tools",
    })
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/streams/{name}.sse", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Names of all recorded streams of a wire.
fn streams(wire: &str) -> Vec<String> {
    let folder = format!("{}/tests/streams", env!("CARGO_MANIFEST_DIR"));
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.retain(|name| name.starts_with(&format!("{wire}_")));
    names.sort();
    names
}

fn endpoint(server: &Faulty, wire: &str) -> Endpoint {
    let base_url = Some(server.url.clone());
    match wire {
        "anthropic" => Endpoint::Anthropic { base_url, key: None, bearer: false },
        "chat" => Endpoint::Chat { base_url: server.url.clone(), key: None },
        "responses" => Endpoint::Responses { base_url, key: None },
        _ => Endpoint::Gemini { base_url, key: None },
    }
}

fn provider(server: &Faulty, wire: &str, limits: Limits) -> Arc<dyn Provider> {
    build(ProviderConfig { limits, ..ProviderConfig::new(endpoint(server, wire)) }).unwrap()
}

fn request(model: &str) -> Request {
    Request {
        model: model.into(),
        system: String::new(),
        tools: Vec::new(),
        messages: vec![Message::user("hi")],
        max_output_tokens: 100,
        temperature: None,
    }
}

type Outcome = Result<Answer, ModelError>;

/// Runs a case. Whatever it is, the stream keeps its contract: events, one end, nothing after it.
async fn run(provider: &dyn Provider, model: &str) -> Outcome {
    let mut events: Vec<_> = provider.stream(&request(model)).collect().await;
    let last = events.pop().expect("a stream says how it ended");
    for event in &events {
        assert!(matches!(event, Ok(event) if !matches!(event, StreamEvent::Finished(_))), "{model}: {event:?}");
    }
    let answer = match last {
        Ok(StreamEvent::Finished(answer)) => *answer,
        Ok(event) => panic!("{model}: the stream ends with {event:?}"),
        Err(error) => {
            assert!(!error.message.is_empty() && error.excerpt.len() <= model::MAX_EXCERPT_BYTES);
            return Err(error);
        }
    };
    let calls: Vec<_> = answer.message.calls().collect();
    let ids: BTreeSet<_> = calls.iter().map(|call| call.id).collect();
    assert_eq!(ids.len(), calls.len(), "{model}: two calls share an id");
    for call in calls {
        let input: serde_json::Value = serde_json::from_str(call.input.as_str()).unwrap();
        assert!(input.is_object() && !call.name.is_empty(), "{model}: {call:?}");
    }
    Ok(answer)
}

/// A fault: its name, what the server does, and whether what came of it is right.
struct Row {
    name: String,
    case: Case,
    right: Box<dyn Fn(&Outcome) -> bool + Send>,
}

fn row(name: impl Into<String>, case: Case, right: impl Fn(&Outcome) -> bool + Send + 'static) -> Row {
    Row { name: name.into(), case, right: Box::new(right) }
}

/// Right is an error of this kind.
fn is(kind: ErrorKind) -> impl Fn(&Outcome) -> bool + Send + 'static {
    move |outcome| outcome.as_ref().is_err_and(|error| error.kind == kind)
}

/// Right is this answer or, because it was cut, an error that may be retried.
fn whole_or_retryable(whole: Answer) -> impl Fn(&Outcome) -> bool + Send + 'static {
    move |outcome| match outcome {
        Ok(answer) => answer.message.blocks == whole.message.blocks && answer.message.stop == whole.message.stop,
        Err(error) => error.kind.is_retryable(),
    }
}

/// Runs the rows of a wire, some at once, and names those that went wrong. Gives the number of
/// rows that ended in an answer.
async fn check(wire: &'static str, limits: Limits, rows: Vec<Row>) -> usize {
    let server = Faulty::start();
    let provider = provider(&server, wire, limits);
    let count = rows.len();
    let outcomes: Vec<_> = stream::iter(rows)
        .map(|row| {
            let model = server.add(row.case);
            let provider = Arc::clone(&provider);
            async move {
                let outcome = run(&*provider, &model).await;
                let wrong = (!(row.right)(&outcome)).then(|| format!("{wire}, {}: {outcome:?}", row.name));
                (wrong, outcome.is_ok())
            }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    let wrong: Vec<_> = outcomes.iter().filter_map(|(wrong, _)| wrong.as_deref()).collect();
    println!("provider_faults wire={wire} rows={count} wrong={}", wrong.len());
    assert!(wrong.is_empty(), "{} of {count} rows went wrong:\n{}", wrong.len(), wrong.join("\n"));
    outcomes.iter().filter(|(_, answered)| *answered).count()
}

async fn whole(wire: &str, body: Vec<u8>) -> Outcome {
    let server = Faulty::start();
    let model = server.add(Case::stream(vec![body], End::Clean));
    run(&*provider(&server, wire, Limits::default()), &model).await
}

/// What a status means when neither header nor body says more; `after_ms` is the wait it names.
fn meaning(status: u16, after_ms: Option<u64>) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Auth,
        402 => ErrorKind::OutOfCredit,
        413 => ErrorKind::ContextTooLong,
        429 => ErrorKind::RateLimited { after_ms },
        408 | 409 | 425 | 500..=599 => ErrorKind::Overloaded { after_ms },
        _ => ErrorKind::BadRequest,
    }
}

#[tokio::test]
async fn every_status_is_typed_on_every_wire_with_and_without_a_wait_and_a_body() {
    let waits: [(&[(&'static str, &str)], Option<u64>); 6] = [
        (&[], None),
        (&[("retry-after", "7")], Some(7_000)),
        (&[("retry-after-ms", "1500"), ("retry-after", "9")], Some(1_500)),
        (&[("retry-after", "Sat, 21 Nov 2026 10:00:30 GMT"), ("date", "Sat, 21 Nov 2026 10:00:00 GMT")], Some(30_000)),
        (&[("retry-after", "soon")], None),
        (&[("retry-after", "-1")], None),
    ];
    let bodies = ["", "<html>Bad gateway</html>", "{", "{\"error\":{\"message\":\"no\"}}", "[]", "null", "\u{0}\u{1}"];
    for wire in WIRES {
        let mut rows = Vec::new();
        for status in [400, 401, 402, 403, 404, 408, 409, 413, 422, 425, 429, 500, 502, 503, 504, 520, 529] {
            for (headers, after_ms) in waits {
                for body in bodies {
                    let case =
                        headers.iter().fold(Case::status(status, body), |case, (name, value)| case.header(name, value));
                    let kind = meaning(status, after_ms);
                    rows.push(row(format!("{status} {headers:?} {body:?}"), case, move |outcome| {
                        let waits = |error: &ModelError| match (retry_delay(error, 1, 0.0), after_ms) {
                            (Some(delay), Some(after_ms)) => delay >= Duration::from_millis(after_ms),
                            (delay, _) => delay.is_some() == error.kind.is_retryable(),
                        };
                        outcome
                            .as_ref()
                            .is_err_and(|error| error.kind == kind && error.status == Some(status) && waits(error))
                    }));
                }
            }
        }
        check(wire, Limits::default(), rows).await;
    }
}

#[tokio::test]
async fn what_is_no_stream_is_typed_on_every_wire() {
    for wire in WIRES {
        let typed = |content_type: &str, body: &str| {
            let mut case = Case::status(200, body);
            case.headers[0].1 = content_type.into();
            case
        };
        let rows = vec![
            row("a page", typed("text/html", "<html>"), is(ErrorKind::BadRequest)),
            row("plain JSON", typed("application/json", "{}"), is(ErrorKind::BadRequest)),
            row("an empty stream", typed("text/event-stream", ""), is(ErrorKind::Broken)),
            row("nothing but comments", typed("text/event-stream", ": hi\n\n: ho\n\n"), is(ErrorKind::Broken)),
            row("no JSON", typed("text/event-stream", "data: nonsense\n\n"), is(ErrorKind::Broken)),
            row("another JSON", typed("text/event-stream", "data: [1]\n\n"), is(ErrorKind::Broken)),
            row("no events at all", typed("text/event-stream", "{\"error\":\"x\"}"), is(ErrorKind::Broken)),
            row("the end of another wire", typed("text/event-stream", "data: [DONE]\n\n"), is(ErrorKind::Broken)),
            row(
                "a redirect",
                Case::status(307, "").header("location", "http://127.0.0.1:1/"),
                is(ErrorKind::BadRequest),
            ),
            row("reset before the head", Case::stream(Vec::new(), End::ResetAtOnce), is(ErrorKind::Unreachable)),
            row("closed in an empty body", Case::stream(Vec::new(), End::Close), is(ErrorKind::Broken)),
            row("no UTF-8", Case::stream(vec![b"data: \"\xff\"\n\n".to_vec()], End::Clean), is(ErrorKind::Broken)),
        ];
        assert_eq!(check(wire, Limits::default(), rows).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_cut_at_any_byte_is_the_answer_or_none() {
    for wire in WIRES {
        let bytes = rich(wire);
        let answer = whole(wire, bytes.clone()).await.unwrap();
        assert!(answer.message.calls().count() >= 2);
        let rows = (0..bytes.len())
            .flat_map(|cut| {
                // A body that ends too early everywhere; a connection that does at a byte in three.
                let broken = match cut % 6 {
                    0 => Some(End::Close),
                    3 => Some(End::Reset),
                    _ => None,
                };
                std::iter::once(End::Clean).chain(broken).map(move |end| (cut, end))
            })
            .map(|(cut, end)| {
                let case = Case::stream(vec![bytes[..cut].to_vec()], end);
                row(format!("cut at {cut} of {}, {end:?}", bytes.len()), case, whole_or_retryable(answer.clone()))
            })
            .collect();
        let answered = check(wire, Limits::default(), rows).await;
        // Only where nothing but the last line ends is missing.
        assert!(answered <= 8, "{wire}: {answered} cut streams were answers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_stream_cut_around_and_inside_each_event_is_what_it_was_or_none() {
    for wire in WIRES {
        let mut rows = Vec::new();
        for name in streams(wire) {
            let bytes = golden(&name);
            let expect = whole(wire, bytes.clone()).await;
            let text = String::from_utf8(bytes.clone()).unwrap();
            let mut begin = 0;
            for event in text.split_inclusive("\n\n").flat_map(|event| event.split_inclusive("\r\n\r\n")) {
                for cut in [begin, begin + 1, begin + event.len() / 2, begin + event.len() - 1] {
                    let expect = expect.clone();
                    let case = Case::stream(vec![bytes[..cut].to_vec()], End::Clean);
                    rows.push(row(format!("{name} cut at {cut}"), case, move |outcome| match (&expect, outcome) {
                        (Ok(expect), Ok(answer)) => expect.message.blocks == answer.message.blocks,
                        (_, Err(error)) if error.kind == ErrorKind::Broken => true,
                        (Err(expect), Err(error)) => expect.kind == error.kind,
                        _ => false,
                    }));
                }
                begin += event.len();
            }
        }
        check(wire, Limits::default(), rows).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_stream_is_the_same_in_single_bytes_and_with_characters_cut_apart() {
    for wire in WIRES {
        let mut rows = Vec::new();
        for name in streams(wire) {
            let bytes = golden(&name);
            let expect = whole(wire, bytes.clone()).await;
            let split: Vec<Vec<u8>> = cut_inside_characters(&bytes);
            for (how, pieces) in [("bytes", bytes.chunks(1).map(<[u8]>::to_vec).collect()), ("cut characters", split)] {
                let expect = expect.clone();
                let right = move |outcome: &Outcome| match (&expect, outcome) {
                    // The model that was asked is the case's own name; an excerpt ends with its piece.
                    (Ok(expect), Ok(answer)) => {
                        (&expect.message.blocks, &expect.message.stop, &expect.usage, &expect.answered_by)
                            == (&answer.message.blocks, &answer.message.stop, &answer.usage, &answer.answered_by)
                    }
                    (Err(expect), Err(error)) => (expect.kind, &expect.message) == (error.kind, &error.message),
                    _ => false,
                };
                rows.push(row(format!("{name} in {how}"), Case::stream(pieces, End::Clean), right));
            }
        }
        assert!(rows.len() >= 30, "{wire}");
        check(wire, Limits::default(), rows).await;
    }
}

/// Two pieces for each character of several bytes: the cut runs through it.
fn cut_inside_characters(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = vec![Vec::new()];
    for byte in bytes {
        // A continuation byte begins a piece of its own.
        if byte & 0b1100_0000 == 0b1000_0000 {
            pieces.push(Vec::new());
        }
        pieces.last_mut().unwrap().push(*byte);
    }
    pieces
}

#[tokio::test]
async fn a_stream_that_goes_bad_anywhere_between_its_events_never_gives_another_answer() {
    for wire in WIRES {
        let text = String::from_utf8(rich(wire)).unwrap();
        let gap = if text.contains("\r\n\r\n") { "\r\n\r\n" } else { "\n\n" };
        let events: Vec<&str> = text.split_inclusive(gap).collect();
        let answer = whole(wire, text.clone().into_bytes()).await.unwrap();
        let error_event = match wire {
            "anthropic" => r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            "responses" => r#"{"type":"error","code":"server_is_overloaded","message":"Overloaded"}"#,
            _ => r#"{"error":{"code":503,"message":"Overloaded","status":"UNAVAILABLE"}}"#,
        };
        let mut rows = Vec::new();
        for at in 0..events.len() {
            let with = |event: &str| {
                let mut all = events.clone();
                all.insert(at, event);
                Case::stream(vec![all.concat().into_bytes()], End::Clean)
            };
            let error = format!("data: {error_event}\n\n");
            rows.push(row(format!("error at {at}"), with(&error), is(ErrorKind::Overloaded { after_ms: None })));
            for garbage in ["data: {\"half\n\n", "data: \u{fffd}\n\n", "data: 7\n\n", "data: []\n\n"] {
                rows.push(row(format!("{garbage:?} at {at}"), with(garbage), is(ErrorKind::Broken)));
            }
            for harmless in [": ping\n\n", "\n\n\n", "id: 7\nretry: 1\n\n", "event: moon\n\n"] {
                let same = whole_or_retryable(answer.clone());
                rows.push(row(format!("{harmless:?} at {at}"), with(harmless), move |out| out.is_ok() && same(out)));
            }
            // An event that is lost or comes twice may change the text, but never makes half a call.
            let mut lost = events.clone();
            lost.remove(at);
            rows.push(row(
                format!("event {at} lost"),
                Case::stream(vec![lost.concat().into_bytes()], End::Clean),
                |_| true,
            ));
            rows.push(row(format!("event {at} twice"), with(events[at]), |_| true));
        }
        check(wire, Limits::default(), rows).await;
    }
}

#[tokio::test]
async fn silence_and_drips_end_in_a_typed_error_on_every_wire() {
    let limits = Limits { first_byte_ms: 60, idle_ms: 80, total_ms: 400, ..Limits::default() };
    let waits = WIRES.map(|wire| async move {
        let bytes = rich(wire);
        let half = bytes[..bytes.len() / 2].to_vec();
        let silent = |idle_ms| is(ErrorKind::Silent { idle_ms });
        let mut rows = vec![
            row("no head", Case::stream(Vec::new(), End::NoHead), silent(60)),
            row("no body", Case::stream(Vec::new(), End::Silence), silent(60)),
            row("half an answer", Case::stream(vec![half.clone()], End::Silence), silent(80)),
            row("a drip", Case::stream(Vec::new(), End::Drip(Duration::from_millis(10))), silent(400)),
            row("a drip after half", Case::stream(vec![half], End::Drip(Duration::from_millis(10))), silent(400)),
        ];
        for status in [429, 529] {
            let stuck = Case { end: End::Silence, ..Case::status(status, "{\"error\":") };
            rows.push(row(format!("{status} that never ends"), stuck, is(meaning(status, None))));
        }
        assert_eq!(check(wire, limits, rows).await, 0);
    });
    futures_util::future::join_all(waits).await;
}

/// Where pings come, a minute of silence is too long; elsewhere a model may think for minutes.
#[tokio::test]
async fn silence_ends_a_call_at_the_wires_usual_limit_by_the_clock_and_not_before() {
    for (wire, limit) in WIRES.into_iter().zip([60, 300, 300, 300].map(Duration::from_secs)) {
        let server = Faulty::start();
        let bytes = rich(wire);
        let model = server.add(Case::stream(vec![bytes[..bytes.len() / 2].to_vec()], End::Silence));
        let usual = ProviderConfig::new(endpoint(&server, wire)).limits;
        let provider = provider(&server, wire, usual);
        let mut events = provider.stream(&request(&model));
        assert!(matches!(events.next().await, Some(Ok(StreamEvent::Started { .. }))));
        // What is left of what was sent is read while the clock still runs.
        let mut rest = Box::pin(events.collect::<Vec<_>>());
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut rest).await.is_err());
        // From here on time passes as fast as nothing else happens.
        tokio::time::pause();
        let before = tokio::time::Instant::now();
        let second = Duration::from_secs(1);
        assert!(tokio::time::timeout(limit - second, &mut rest).await.is_err(), "{wire} is not given its time");
        let last = rest.await.pop().unwrap().unwrap_err();
        let idle_ms = u64::try_from(limit.as_millis()).unwrap();
        assert_eq!(last.kind, ErrorKind::Silent { idle_ms }, "{wire}");
        let waited = before.elapsed();
        assert!(waited > limit - second && waited < limit + second, "{wire}: {waited:?}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn endless_answers_end_at_their_limits_on_every_wire() {
    let limits = Limits { body_bytes: 50_000, event_bytes: 20_000, ..Limits::default() };
    for wire in WIRES {
        let rows = vec![
            row("a long line", Case::stream(vec![vec![b'x'; 40_000]], End::Silence), is(ErrorKind::TooLarge)),
            row("many comments", Case::stream(vec![b": x\n".repeat(20_000)], End::Silence), is(ErrorKind::TooLarge)),
            row(
                "a long event",
                Case::stream(vec![b"data: 0123456789\n".repeat(2_500)], End::Silence),
                is(ErrorKind::TooLarge),
            ),
        ];
        check(wire, limits, rows).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_at_any_event_leaves_the_provider_fit_for_the_next_call() {
    for wire in WIRES {
        let server = Faulty::start();
        let provider = provider(&server, wire, Limits::default());
        let model = server.add(Case::stream(vec![rich(wire)], End::Clean));
        for taken in 0..12 {
            let events = provider.stream(&request(&model));
            drop(events.take(taken).collect::<Vec<_>>().await);
        }
        assert!(complete(provider.stream(&request(&model))).await.is_ok(), "{wire}");
    }
}
