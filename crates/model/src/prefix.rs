//! Whatever a conversation holds, the request of a longer one begins with the bytes of the
//! shorter one, on every wire: prompt caches hang on that.

use proptest::prelude::*;

use crate::chat::request::Dialect;
use crate::raw::RawJson;
use crate::transcript::{AssistantMessage, Block, BlockView, Message, Request, StopReason, ToolSpec, UserPart, Wire};
use crate::{anthropic, chat, gemini, responses};

const MARKER: &str = r#","cache_control":{"type":"ephemeral"}"#;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just(" ".to_owned()), Just("]}".to_owned()), "[a-zé\"\\\\\n{}\\[\\]]{1,12}"]
}

fn block() -> impl Strategy<Value = Block> {
    let raw = |text: &str| Some(RawJson::parse(text).unwrap());
    prop_oneof![
        text().prop_map(|text| BlockView::Text { text }.into()),
        text().prop_map(|text| BlockView::Thinking { text }.into()),
        Just(Block {
            view: BlockView::Thinking { text: "hm".into() },
            raw: raw(r#"{"type":"reasoning","encrypted_content":"x","z":1.50,"a":2}"#)
        }),
        Just(Block { view: BlockView::Other { kind: "k".into() }, raw: raw(r#"{"type":"k","z":[ 1 ]}"#) }),
        (0..3u8).prop_map(|id| BlockView::ToolCall {
            id: format!("c{id}"),
            name: "shell".into(),
            input: RawJson::parse(r#"{"z":1.50, "a":{}}"#).unwrap()
        }
        .into()),
        Just(Block {
            view: BlockView::ToolCall { id: "c9".into(), name: "read".into(), input: RawJson::empty_object() },
            raw: raw(r#"{"functionCall":{"name":"read","id":"c9"},"thoughtSignature":"x"}"#)
        }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let wire = prop_oneof![
        Just(Wire::AnthropicMessages),
        Just(Wire::ChatCompletions),
        Just(Wire::Responses),
        Just(Wire::Gemini),
        Just(Wire::Cassette)
    ];
    let part = prop_oneof![
        text().prop_map(|text| UserPart::Text { text }),
        (prop_oneof![Just("c0"), Just("c1"), Just("c9")], text(), any::<bool>())
            .prop_map(|(id, content, is_error)| UserPart::ToolResult { call_id: id.into(), content, is_error }),
        Just(UserPart::Image { media_type: "image/png".into(), base64: "aQ==".into() }),
    ];
    let assistant = (wire, any::<bool>(), proptest::collection::vec(block(), 0..5));
    prop_oneof![
        proptest::collection::vec(part, 0..4).prop_map(|parts| Message::User { parts }),
        assistant.prop_map(|(wire, same, blocks)| {
            let model = if same { "m" } else { "another" };
            Message::Assistant(AssistantMessage {
                wire,
                provider: "p".into(),
                model: model.into(),
                blocks,
                stop: StopReason::EndTurn,
            })
        }),
    ]
}

/// The body of each wire, without cache markers and without what closes it.
fn bodies(messages: &[Message]) -> [String; 5] {
    let request = Request {
        model: "m".into(),
        system: "You mend code.".into(),
        tools: vec![ToolSpec {
            name: "shell".into(),
            description: "Runs a command.".into(),
            input_schema: RawJson::parse(r#"{"type":"object","required":[]}"#).unwrap(),
        }],
        messages: messages.to_vec(),
        max_output_tokens: 100,
        temperature: Some(0.5),
    };
    [
        anthropic::request::body(&request, "p"),
        chat::request::body(&request, "p", Dialect::Common),
        chat::request::body(&request, "p", Dialect::OpenAi),
        responses::request::body(&request, "p"),
        gemini::request::body(&request, "p"),
    ]
    .map(|body| {
        let body = String::from_utf8(body.unwrap()).unwrap().replace(MARKER, "");
        body.strip_suffix("]}").expect("the conversation comes last").to_owned()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_wires_request_only_grows_with_any_conversation(messages in proptest::collection::vec(message(), 1..8)) {
        let mut before = bodies(&messages[..1]);
        for count in 2..=messages.len() {
            let now = bodies(&messages[..count]);
            for (earlier, later) in before.iter().zip(&now) {
                prop_assert!(later.starts_with(earlier.as_str()), "\n{}\n{}", earlier, later);
            }
            before = now;
        }
    }

    #[test]
    fn the_same_conversation_is_the_same_bytes_after_a_restart(messages in proptest::collection::vec(message(), 1..8)) {
        let stored = serde_json::to_string(&messages).unwrap();
        let through_a_value: serde_json::Value = serde_json::from_str(&stored).unwrap();
        let read: Vec<Message> = serde_json::from_value(through_a_value).unwrap();
        prop_assert_eq!(bodies(&read), bodies(&messages));
    }
}
