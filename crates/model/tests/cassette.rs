//! Record and replay: a conversation played back is the conversation.

mod support;

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;
use model::{
    Answer, AssistantMessage, ConfigError, Endpoint, ErrorKind, Message, ModelRef, Provider, ProviderConfig, Recording,
    Replay, Request, StreamEvent, UserPart, build, complete,
};
use support::{Reply, Server, request, results};

/// Plays a conversation to its end; tool results differ by `salt`, as a clock's would.
async fn converse(provider: &dyn Provider, salt: &str) -> (Vec<Answer>, Request) {
    let mut conversation = request(vec![Message::user("Mend it.")]);
    let mut answers = Vec::new();
    loop {
        let answer = complete(provider.stream(&conversation)).await.unwrap();
        conversation.messages.push(Message::Assistant(answer.message.clone()));
        let done = answer.message.calls().count() == 0;
        answers.push(answer);
        if done {
            return (answers, conversation);
        }
        let last = &answers.last().unwrap().message;
        conversation.messages.push(results(last, salt));
    }
}

fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tape.json");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

const BY_HAND: &str = r#"{ "cassette": 1,
  "entries": [
    { "thinking": "Where is it?", "text": "I look first.", "calls": [{ "name": "shell", "input": { "z": 1.50, "command": "ls" } }, { "name": "status", "input": {} }] },
    { "text": "Done.", "usage": { "input_tokens": 10, "output_tokens": 2 }, "cost_micro_usd": 7 } ] }"#;

#[tokio::test]
async fn a_recorded_conversation_plays_back_exactly_even_when_tools_say_something_else() {
    let server = Server::start(
        ["anthropic_thinking_and_parallel_tools", "anthropic_unknown_parts", "anthropic_text"]
            .map(Reply::golden)
            .into(),
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tape.json");
    let recording = Recording::new(server.anthropic(), &path).unwrap();
    assert_eq!((recording.name(), recording.wire()), ("anthropic", model::Wire::AnthropicMessages));
    let (recorded, _) = converse(&recording, "10:00").await;
    let replay = Replay::open(&path).unwrap();
    let (played, _) = converse(&replay, "11:30").await;
    assert_eq!(played, recorded);
    assert_eq!(replay.answers(), 3);
    insta::assert_snapshot!("cassette", std::fs::read_to_string(&path).unwrap());
}

#[tokio::test]
async fn every_wire_can_be_recorded_and_played() {
    for (wire, goldens) in [
        ("responses", ["responses_reasoning_and_parallel_tools", "responses_unknown_parts", "responses_text"]),
        ("gemini", ["gemini_thinking_and_parallel_tools", "gemini_tools_without_ids", "gemini_signed_text"]),
    ] {
        let server = Server::start(goldens.map(Reply::golden).into()).await;
        let provider = if wire == "gemini" { server.gemini() } else { server.responses() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tape.json");
        let (recorded, _) = converse(&Recording::new(provider, &path).unwrap(), "10:00").await;
        let replay = Replay::open(&path).unwrap();
        // What was played costs what it did cost, which a test server's model has no price for.
        let recorded: Vec<_> = recorded.into_iter().map(|answer| answer.message).collect();
        let (played, _) = converse(&replay, "11:30").await;
        assert_eq!(played.into_iter().map(|answer| answer.message).collect::<Vec<_>>(), recorded, "{wire}");
        assert_eq!(replay.answers(), 3);
    }
}

#[tokio::test]
async fn played_text_streams_in_the_pieces_in_which_it_came() {
    let server = Server::start(vec![Reply::golden("chat_text"), Reply::golden("chat_text")]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tape.json");
    let deltas = |events: Vec<Result<StreamEvent, model::ModelError>>| -> Vec<String> {
        events
            .into_iter()
            .filter_map(|event| if let Ok(StreamEvent::TextDelta { text }) = event { Some(text) } else { None })
            .collect()
    };
    let recording = Recording::new(server.chat(), &path).unwrap();
    let live = deltas(recording.stream(&request(vec![Message::user("hi")])).collect().await);
    let played = deltas(Replay::open(&path).unwrap().stream(&request(vec![Message::user("hi")])).collect().await);
    assert_eq!(live, ["Hello, ", "wörld 🦀"]);
    assert_eq!(played, live);
}

#[tokio::test]
async fn recording_a_turn_again_replaces_what_followed_and_a_late_start_brings_the_past_along() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tape.json");
    let server =
        Server::start(["chat_parallel_tools", "chat_text", "chat_reasoning_content"].map(Reply::golden).into()).await;
    let provider = server.chat();
    let mut conversation = request(vec![Message::user("Mend it.")]);
    // The first answer is not recorded.
    let first = complete(provider.stream(&conversation)).await.unwrap();
    conversation.messages.extend([Message::Assistant(first.message.clone()), results(&first.message, "ok")]);
    for _ in 0..2 {
        // The second is recorded twice, the second time by a restarted program.
        let recording = Recording::new(Arc::clone(&provider), &path).unwrap();
        complete(recording.stream(&conversation)).await.unwrap();
    }
    let (played, _) = converse(&Replay::open(&path).unwrap(), "ok").await;
    assert_eq!(played.iter().map(|answer| answer.message.text()).collect::<Vec<_>>(), ["Looking.", "42"]);
    assert_eq!(played[0].message, first.message);
}

#[tokio::test]
async fn a_cassette_written_by_hand_plays() {
    let (_folder, path) = written(BY_HAND);
    let provider = build(ProviderConfig::new(Endpoint::Replay { path })).unwrap();
    let (answers, conversation) = converse(&*provider, "ok").await;
    let calls: Vec<_> = answers[0].message.calls().map(|call| (call.id, call.name, call.input.as_str())).collect();
    assert_eq!(calls, [("call_1_1", "shell", r#"{ "z": 1.50, "command": "ls" }"#), ("call_1_2", "status", "{}")]);
    assert_eq!((answers[0].cost_micro_usd, answers[1].cost_micro_usd), (Some(0), Some(7)));
    assert_eq!(conversation.messages.len(), 4);
}

#[tokio::test]
async fn a_restarted_replay_goes_on_where_the_conversation_stands() {
    let (_folder, path) = written(BY_HAND);
    let mut conversation = request(vec![Message::user("Mend it.")]);
    for text in ["I look first.", "Done."] {
        let answer = complete(Replay::open(&path).unwrap().stream(&conversation)).await.unwrap();
        assert_eq!(answer.message.text(), text);
        conversation.messages.extend([Message::Assistant(answer.message.clone()), results(&answer.message, "ok")]);
    }
}

async fn refused(path: &Path, conversation: &Request) -> String {
    let error = complete(Replay::open(path).unwrap().stream(conversation)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cassette);
    error.message
}

#[tokio::test]
async fn a_conversation_that_does_not_fit_is_refused_with_what_differs() {
    let (_folder, path) = written(BY_HAND);
    let (_, whole) = converse(&Replay::open(&path).unwrap(), "ok").await;
    let until = |count: usize| Request { messages: whole.messages[..count].to_vec(), ..whole.clone() };
    let said = |request: &mut Request, number: usize| -> AssistantMessage {
        let Message::Assistant(said) = &request.messages[number] else { panic!() };
        said.clone()
    };

    // No result for the second call.
    let mut unanswered = until(3);
    let Message::User { parts } = &mut unanswered.messages[2] else { panic!() };
    parts.pop();
    assert!(refused(&path, &unanswered).await.contains("tool call `call_1_2` (status) of answer 1 has 0 results"));
    // Two results for the first.
    let Message::User { parts } = &mut unanswered.messages[2] else { panic!() };
    parts.push(UserPart::ToolResult { call_id: "call_1_1".into(), content: String::new(), is_error: true });
    assert!(refused(&path, &unanswered).await.contains("`call_1_1` (shell) of answer 1 has 2 results"));
    // A result that nobody asked for.
    let mut stray = until(3);
    let Message::User { parts } = &mut stray.messages[2] else { panic!() };
    parts.push(UserPart::ToolResult { call_id: "call_9".into(), content: String::new(), is_error: false });
    assert!(refused(&path, &stray).await.contains("`call_9`"));
    // Another answer than was played.
    let mut changed = until(3);
    let mut message = said(&mut changed, 1);
    message.blocks.remove(0);
    changed.messages[1] = Message::Assistant(message);
    assert!(
        refused(&path, &changed)
            .await
            .contains("answer 1 of the conversation is not the one that was played: it has 3 blocks, played were 4")
    );
    let mut changed = until(3);
    let mut message = said(&mut changed, 1);
    message.blocks[1].view = model::BlockView::Text { text: "I looked.".into() };
    changed.messages[1] = Message::Assistant(message);
    let why = refused(&path, &changed).await;
    assert!(why.contains("block 2 is") && why.contains("I looked.") && why.contains("I look first."), "{why}");
    // One more turn than it holds.
    let mut more = until(4);
    more.messages.push(Message::user("And now?"));
    assert!(
        refused(&path, &more)
            .await
            .contains("has 2 answers, and the conversation asks for one more; newest message: And now?")
    );
    // A conversation that begins with an answer.
    let mut backwards = until(4);
    backwards.messages.remove(0);
    assert!(refused(&path, &backwards).await.contains("must begin with a user message"));
}

#[test]
fn files_that_are_no_cassettes_are_refused_by_name() {
    let open = |text: &str| {
        let (_folder, path) = written(text);
        Replay::open(&path).unwrap_err().to_string()
    };
    assert!(open("{").contains("is not a cassette"));
    assert!(open(r#"{"cassette":2,"tracks":[]}"#).contains("has version 2; this program plays version 1"));
    assert!(open(r#"{"cassette":1,"entries":[{"txet":"x"}]}"#).contains("txet"));
    assert!(open(r#"{"cassette":1,"entries":[{},{"calls":[{"name":"shell","input":"ls"}]}]}"#).contains("entry 2"));
    assert!(Replay::open(Path::new("/nowhere/tape.json")).unwrap_err().to_string().contains("/nowhere/tape.json"));
}

#[test]
fn selections_are_read_as_they_are_written() {
    for text in [
        "anthropic/claude-opus-5-5",
        "openai/gpt-5",
        "chat/qwen/qwen2.5-coder:1.5b",
        "responses/gpt-6-sol",
        "gemini/gemini-3-pro",
        "replay:/tmp/a b.json",
    ] {
        assert_eq!(text.parse::<ModelRef>().unwrap().to_string(), text);
    }
    for text in ["", "claude-opus", "anthropic/", "mistral/x", "replay:"] {
        let error = text.parse::<ModelRef>().unwrap_err();
        assert!(
            matches!(&error, ConfigError::UnknownModel { .. }) && error.to_string().contains("chat/<model>"),
            "{error}"
        );
    }
}

#[test]
fn settings_that_cannot_work_say_why() {
    let fails = |endpoint| build(ProviderConfig::new(endpoint)).err().unwrap().to_string();
    let chat = |url: &str| Endpoint::Chat { base_url: url.into(), key: None };
    assert!(fails(Endpoint::Anthropic { base_url: None, key: None, bearer: false }).contains("anthropic needs a key"));
    assert!(
        fails(Endpoint::OpenAi { base_url: None, key: Some(model::Secret::new("\n")) })
            .contains("the key for openai is empty")
    );
    assert!(
        fails(Endpoint::OpenAi { base_url: None, key: Some(model::Secret::new("a\nb")) })
            .contains("the key for openai")
    );
    assert!(fails(Endpoint::Gemini { base_url: None, key: None }).contains("gemini needs a key"));
    assert!(fails(Endpoint::Responses { base_url: None, key: None }).contains("openai needs a key"));
    assert!(fails(chat("localhost:11434")).contains("it must begin with http://"));
    assert!(fails(chat("11434")).contains("write it as http://host:port/v1"));
    assert!(fails(chat("http://h/v1?x=1")).contains("without `?`"));
    let leak = fails(chat("http://me:hunter2@h/v1"));
    assert!(leak.contains("not inside the URL") && !leak.contains("hunter2"), "{leak}");
}
