//! Whole conversations over real HTTP on every wire: what is sent, and that it only grows.

mod support;

use std::sync::Arc;

use model::{Answer, Message, Provider, Request, UserPart, complete};
use support::{Reply, Server, request, results};

/// A text that looks like a cache marker, to show that stripping markers strips nothing else.
const HOSTILE: &str = r#"see: ,"cache_control":{"type":"ephemeral"} </s> [DONE]"#;
const MARKER: &str = r#","cache_control":{"type":"ephemeral"}"#;

/// Three turns with tools and a fourth request; gives the request as it stood at each turn.
async fn converse(provider: Arc<dyn Provider>) -> (Vec<Answer>, Request) {
    let mut conversation = request(vec![Message::user(format!("Mend it. {HOSTILE}"))]);
    let mut answers = Vec::new();
    for turn in 0..4 {
        let answer = complete(provider.stream(&conversation)).await.unwrap();
        conversation.messages.push(Message::Assistant(answer.message.clone()));
        let mut next = results(&answer.message, &format!("output of turn {turn}: {HOSTILE}"));
        if let Message::User { parts } = &mut next {
            if turn == 1 {
                parts.insert(0, UserPart::Text { text: "Also look at nested lists.".into() });
            }
            if parts.is_empty() {
                parts.push(UserPart::Text { text: "Go on.".into() });
            }
        }
        conversation.messages.push(next);
        answers.push(answer);
    }
    (answers, conversation)
}

/// The body without its markers, and where in it they stood.
fn unmarked(body: &str) -> (String, Vec<usize>) {
    let (mut plain, mut at) = (String::new(), Vec::new());
    for (number, part) in body.split(MARKER).enumerate() {
        if number > 0 {
            at.push(plain.len());
        }
        plain.push_str(part);
    }
    (plain, at)
}

/// The body up to the end of its last message: what the next body must begin with.
fn open_end(body: &str) -> &str {
    body.strip_suffix("]}").expect("messages come last")
}

#[tokio::test]
async fn anthropic_requests_only_grow_and_send_blocks_back_byte_for_byte() {
    let server = Server::start(
        [
            "anthropic_thinking_and_parallel_tools",
            "anthropic_unknown_parts",
            "anthropic_hidden_thinking",
            "anthropic_text",
        ]
        .map(Reply::golden)
        .into(),
    )
    .await;
    let (answers, _) = converse(server.anthropic()).await;
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    for pair in seen.windows(2) {
        let ((earlier, earlier_at), (later, later_at)) = (unmarked(&pair[0].body), unmarked(&pair[1].body));
        assert!(later.starts_with(open_end(&earlier)), "\n{earlier}\n{later}");
        // The newest marker of a turn stays where it is for one more turn, so the cache is found.
        assert_eq!(earlier_at.last(), later_at.get(later_at.len() - 2), "{earlier_at:?} {later_at:?}");
        // Tools and system are the same bytes, markers and all.
        let head = |body: &str| body.split(r#""messages":"#).next().unwrap().to_owned();
        assert_eq!(head(&pair[0].body), head(&pair[1].body));
    }
    // Only markers were taken out: the text that looks like one, escaped inside strings, is there.
    let escaped = serde_json::to_string(HOSTILE).unwrap();
    assert_eq!(unmarked(&seen[3].body).0.matches(escaped.trim_matches('"')).count(), 4);
    for raw in answers[..3].iter().flat_map(|answer| &answer.message.blocks).filter_map(|block| block.raw.as_ref()) {
        assert!(seen[3].body.contains(raw.as_str()), "{raw:?}");
    }
    let markers: Vec<usize> = seen.iter().map(|seen| unmarked(&seen.body).1.len()).collect();
    assert_eq!(markers, [2, 3, 3, 3]);
    assert_eq!(seen[0].path, "/v1/messages");
    assert_eq!(
        (seen[0].header("x-api-key"), seen[0].header("anthropic-version")),
        (Some("sk-ant-k1"), Some("2023-06-01"))
    );
    assert_eq!(answers[0].request_id.as_deref(), Some("req_42"));
    insta::assert_snapshot!("anthropic_fourth_request", pretty(&seen[3].body));
}

#[tokio::test]
async fn chat_requests_only_grow_and_send_calls_back_as_they_came() {
    let server = Server::start(
        ["chat_parallel_tools", "chat_reasoning_details", "chat_whole_tools_same_index", "chat_text"]
            .map(Reply::golden)
            .into(),
    )
    .await;
    let (answers, _) = converse(server.chat()).await;
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    for pair in seen.windows(2) {
        assert!(pair[1].body.starts_with(open_end(&pair[0].body)), "\n{}\n{}", pair[0].body, pair[1].body);
    }
    for raw in answers[..3].iter().flat_map(|answer| &answer.message.blocks).filter_map(|block| block.raw.as_ref()) {
        assert!(seen[3].body.contains(raw.as_str().trim_start_matches('{').trim_end_matches('}')), "{raw:?}");
    }
    assert_eq!(seen[0].path, "/v1/chat/completions");
    assert_eq!(seen[0].header("authorization"), None);
    insta::assert_snapshot!("chat_fourth_request", pretty(&seen[3].body));
}

#[tokio::test]
async fn responses_requests_only_grow_and_send_items_back_byte_for_byte() {
    let server = Server::start(
        ["responses_reasoning_and_parallel_tools", "responses_unknown_parts", "responses_text", "responses_text"]
            .map(Reply::golden)
            .into(),
    )
    .await;
    let (answers, _) = converse(server.responses()).await;
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    for pair in seen.windows(2) {
        assert!(pair[1].body.starts_with(open_end(&pair[0].body)), "\n{}\n{}", pair[0].body, pair[1].body);
    }
    for block in answers[..3].iter().flat_map(|answer| &answer.message.blocks) {
        let raw = block.raw.as_ref().expect("each item is kept");
        assert!(seen[3].body.contains(raw.as_str()), "{raw:?}");
    }
    assert_eq!((seen[0].path.as_str(), seen[0].header("authorization")), ("/v1/responses", Some("Bearer sk-r1")));
    assert_eq!(seen[0].json()["include"][0], "reasoning.encrypted_content");
    insta::assert_snapshot!("responses_fourth_request", pretty(&seen[3].body));
}

#[tokio::test]
async fn gemini_requests_only_grow_and_send_signed_parts_back_byte_for_byte() {
    let server = Server::start(
        ["gemini_thinking_and_parallel_tools", "gemini_tools_without_ids", "gemini_signed_text", "gemini_text"]
            .map(Reply::golden)
            .into(),
    )
    .await;
    let (answers, _) = converse(server.gemini()).await;
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    for pair in seen.windows(2) {
        assert!(pair[1].body.starts_with(open_end(&pair[0].body)), "\n{}\n{}", pair[0].body, pair[1].body);
    }
    for raw in answers[..3].iter().flat_map(|answer| &answer.message.blocks).filter_map(|block| block.raw.as_ref()) {
        assert!(seen[3].body.contains(raw.as_str()), "{raw:?}");
    }
    assert_eq!(
        (seen[0].path.as_str(), seen[0].header("x-goog-api-key"), seen[0].header("authorization")),
        ("/v1beta/models/claude-opus-4-5:streamGenerateContent", Some("g-k1"), None)
    );
    insta::assert_snapshot!("gemini_fourth_request", pretty(&seen[3].body));
}

#[tokio::test]
async fn reasoning_that_led_to_nothing_is_not_sent_back() {
    let server = Server::start(
        ["responses_only_reasoning", "responses_text_cut_by_limit", "responses_text"].map(Reply::golden).into(),
    )
    .await;
    let mut conversation = request(vec![Message::user("Mend it.")]);
    for _ in 0..3 {
        let answer = complete(server.responses().stream(&conversation)).await.unwrap();
        conversation.messages.extend([Message::Assistant(answer.message), Message::user("Go on.")]);
    }
    let kinds: Vec<_> = server.seen()[2].json()["input"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["type"].as_str().unwrap().to_owned())
        .collect();
    // The first answer was nothing but reasoning; that of the second led to a text.
    assert_eq!(kinds, ["message", "message", "reasoning", "message", "message"]);
}

/// Each wire with an answer of it that has calls, and what of that answer nobody else may see.
const PRIVATE: [(&str, &str, &str); 4] = [
    ("anthropic", "anthropic_thinking_and_parallel_tools", "ErUBCkYIBxgC"),
    ("chat", "chat_reasoning_details", "AbC=="),
    ("responses", "responses_reasoning_and_parallel_tools", "gAAAAABo-z1_x=="),
    ("gemini", "gemini_thinking_and_parallel_tools", "CsQBAXLI2nw"),
];

fn on(server: &Server, wire: &str) -> Arc<dyn Provider> {
    match wire {
        "anthropic" => server.anthropic(),
        "chat" => server.chat(),
        "responses" => server.responses(),
        "gemini" => server.gemini(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_wire_takes_the_answers_of_every_other_without_what_is_private_to_it() {
    for (from, golden, private) in PRIVATE {
        let first = Server::start(vec![Reply::golden(golden)]).await;
        let mut conversation = request(vec![Message::user("Mend it.")]);
        let answer = complete(on(&first, from).stream(&conversation)).await.unwrap();
        let calls: Vec<_> = answer.message.calls().map(|call| call.name.to_owned()).collect();
        assert!(!calls.is_empty());
        conversation.messages.push(Message::Assistant(answer.message.clone()));
        let mut next = results(&answer.message, "ok");
        if let Message::User { parts } = &mut next {
            // Results in another order than their calls are sorted where order matters.
            parts.reverse();
        }
        conversation.messages.push(next);
        for (to, reply, _) in PRIVATE.iter().filter(|(to, _, _)| *to != from) {
            let second = Server::start(vec![Reply::golden(reply)]).await;
            // The server checks that each call has its one result, by the rules of its wire.
            complete(on(&second, to).stream(&conversation)).await.unwrap();
            let sent = &second.seen()[0].body;
            assert!(!sent.contains(private), "{from} to {to}: {sent}");
            if *to == "gemini" {
                // Newer models ask the first call for a signature and take this in its place.
                assert_eq!(sent.matches("skip_thought_signature_validator").count(), 1, "{sent}");
            }
            for call in &calls {
                assert!(sent.contains(&format!(r#""name":"{call}""#)), "{from} to {to}: {sent}");
            }
        }
    }
}

#[tokio::test]
async fn pictures_reach_every_wire_in_its_own_form() {
    let parts = vec![
        UserPart::Text { text: "What is wrong here?".into() },
        UserPart::Image { media_type: "image/png".into(), base64: "iVBORw0KGgo=".into() },
    ];
    let conversation = request(vec![Message::User { parts }]);
    for (wire, expect) in [
        (
            "anthropic",
            r#"[{"type":"text","text":"What is wrong here?"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgo="},"cache_control":{"type":"ephemeral"}}]"#,
        ),
        (
            "chat",
            r#"[{"type":"text","text":"What is wrong here?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]"#,
        ),
        (
            "responses",
            r#"[{"type":"input_text","text":"What is wrong here?"},{"type":"input_image","image_url":"data:image/png;base64,iVBORw0KGgo="}]"#,
        ),
        ("gemini", r#"[{"text":"What is wrong here?"},{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]"#),
    ] {
        let server = Server::start(vec![Reply::golden(&format!("{wire}_text"))]).await;
        complete(on(&server, wire).stream(&conversation)).await.unwrap();
        assert!(server.seen()[0].body.contains(expect), "{}", server.seen()[0].body);
    }
}

#[tokio::test]
async fn a_models_name_leads_to_no_other_address() {
    let server = Server::start(vec![Reply::golden("gemini_text")]).await;
    let mut conversation = request(vec![Message::user("hi")]);
    conversation.model = "models/../../x?key=1#y".into();
    complete(server.gemini().stream(&conversation)).await.unwrap();
    assert_eq!(server.seen()[0].path, "/v1beta/models/..%2F..%2Fx%3Fkey=1%23y:streamGenerateContent");
}

#[tokio::test]
async fn blocks_of_one_provider_are_told_to_another_without_their_signatures() {
    let first = Server::start(vec![Reply::golden("anthropic_thinking_and_parallel_tools")]).await;
    let mut conversation = request(vec![Message::user("Mend it.")]);
    let answer = complete(first.anthropic().stream(&conversation)).await.unwrap();
    conversation.messages.push(Message::Assistant(answer.message.clone()));
    conversation.messages.push(results(&answer.message, "ok"));

    let second = Server::start(vec![Reply::golden("chat_reasoning_details")]).await;
    let answer = complete(second.chat().stream(&conversation)).await.unwrap();
    let sent = &second.seen()[0].body;
    assert!(sent.contains(r#""arguments":"{\"command\": \"ls -la \\\"ü\\\"\", \"z\":1.50}""#), "{sent}");
    assert!(!sent.contains("ErUBCkYIBxgC") && !sent.contains("I should list"), "{sent}");

    // And back, through a store: the first provider gets its own blocks untouched.
    conversation.messages.push(Message::Assistant(answer.message.clone()));
    conversation.messages.push(results(&answer.message, "ok"));
    let stored = serde_json::to_value(&conversation).unwrap();
    let conversation: Request = serde_json::from_value(stored).unwrap();
    let third = Server::start(vec![Reply::golden("anthropic_text")]).await;
    complete(third.anthropic().stream(&conversation)).await.unwrap();
    let sent = &third.seen()[0].body;
    assert!(
        sent.contains(
            r#"{"type":"thinking","thinking":"I should list, then read. ","signature":"ErUBCkYIBxgCKkA9sig=="}"#
        ),
        "{sent}"
    );
    assert!(
        !sent.contains("AbC==")
            && sent.contains(r#"{"type":"tool_use","id":"call_R","name":"shell","input":{"command":"ls"}}"#),
        "{sent}"
    );
}

#[tokio::test]
async fn another_model_of_the_same_provider_does_not_get_signatures_that_it_would_refuse() {
    let server =
        Server::start(["anthropic_thinking_and_parallel_tools", "anthropic_text"].map(Reply::golden).into()).await;
    let mut conversation = request(vec![Message::user("Mend it.")]);
    let answer = complete(server.anthropic().stream(&conversation)).await.unwrap();
    conversation.messages.extend([Message::Assistant(answer.message.clone()), results(&answer.message, "ok")]);
    conversation.model = "claude-sonnet-5-5".into();
    complete(server.anthropic().stream(&conversation)).await.unwrap();
    let sent = &server.seen()[1].body;
    assert!(!sent.contains("signature") && !sent.contains("redacted"), "{sent}");
    assert!(sent.contains("Looking at both.") && sent.contains("toolu_01B"), "{sent}");
}

#[tokio::test]
async fn an_empty_answer_is_left_out_where_the_wire_refuses_it() {
    let server = Server::start(["anthropic_empty_answer", "anthropic_text"].map(Reply::golden).into()).await;
    let mut conversation = request(vec![Message::user("Hello?")]);
    let answer = complete(server.anthropic().stream(&conversation)).await.unwrap();
    conversation.messages.extend([Message::Assistant(answer.message), Message::user("Still there?")]);
    complete(server.anthropic().stream(&conversation)).await.unwrap();
    assert_eq!(server.seen()[1].json()["messages"].as_array().unwrap().len(), 2);
}

/// The body with a line for each message, its bytes untouched.
fn pretty(body: &str) -> String {
    body.replace(r#""messages":["#, "\"messages\":[\n")
        .replace(r#""input":["#, "\"input\":[\n")
        .replace(r#""contents":["#, "\"contents\":[\n")
        .replace(r#"},{"role""#, "},\n{\"role\"")
        .replace(r#"},{"type":"function_call"#, "},\n{\"type\":\"function_call")
        .replace(r#"},{"type":"message"#, "},\n{\"type\":\"message")
        .replace(r#","system""#, ",\n\"system\"")
        .replace(r#","tools""#, ",\n\"tools\"")
}
