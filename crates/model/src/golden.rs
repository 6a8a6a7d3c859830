//! The recorded streams under `tests/streams`, read by the pure half of every wire: each as a
//! whole, in pieces of every size, and cut at every byte.

use std::fs;
use std::path::PathBuf;

use crate::anthropic::decode::MessagesDecoder;
use crate::chat::decode::ChatDecoder;
use crate::error::{ErrorKind, ModelError};
use crate::finish::Draft;
use crate::gemini::decode::GeminiDecoder;
use crate::http::{ChunkFault, Decoder, decode_chunk, decode_end};
use crate::provider::{Answer, StreamEvent};
use crate::responses::decode::ResponsesDecoder;
use crate::sse::{SseEvent, SseParser};
use crate::transcript::{BlockView, StopReason, Wire};
use crate::usage::{PriceTable, Usage};

mod wires;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/streams"))
}

fn stream(name: &str) -> Vec<u8> {
    fs::read(folder().join(format!("{name}.sse"))).unwrap()
}

fn all() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 85, "{names:?}");
    names
}

fn decoder(name: &str) -> Box<dyn Decoder> {
    let (wire, provider, model) = match name.split_once('_').unwrap().0 {
        "anthropic" => (Wire::AnthropicMessages, "anthropic", "claude-opus-4-5"),
        "responses" => (Wire::Responses, "openai", "gpt-6-sol"),
        "gemini" => (Wire::Gemini, "gemini", "gemini-3.1-pro-preview"),
        "chat" => (Wire::ChatCompletions, "openai", "gpt-5"),
        other => panic!("{other}"),
    };
    let price = PriceTable::embedded().find(provider, model);
    let draft = Draft {
        provider: provider.into(),
        wire,
        model: model.into(),
        answered_by: String::new(),
        price,
        request_id: None,
        usage: Usage::default(),
    };
    match wire {
        Wire::AnthropicMessages => Box::new(MessagesDecoder::new(draft)),
        Wire::Responses => Box::new(ResponsesDecoder::new(draft)),
        Wire::Gemini => Box::new(GeminiDecoder::new(draft)),
        Wire::ChatCompletions | Wire::Cassette => Box::new(ChatDecoder::new(draft)),
    }
}

/// Decodes chunks as the shell does: `Ok(None)` is a stream that ended too early, which the shell
/// turns into `Broken`.
fn decode<'a>(
    name: &str,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Vec<StreamEvent>, Result<Option<Answer>, ModelError>) {
    let (mut decoder, mut parser, mut seen) = (decoder(name), SseParser::new(1 << 20), Vec::new());
    for chunk in chunks {
        match decode_chunk(&mut parser, &mut *decoder, chunk, &mut seen) {
            Ok(()) => {}
            Err(ChunkFault::Model(error)) => return (seen, Err(error)),
            Err(ChunkFault::Sse(fault)) => panic!("{name}: {fault}"),
        }
        if let Some(StreamEvent::Finished(answer)) = seen.last() {
            let answer = (**answer).clone();
            return (seen, Ok(Some(answer)));
        }
    }
    let ended = decode_end(&parser, &mut *decoder, &mut seen);
    let answer = match seen.last() {
        Some(StreamEvent::Finished(answer)) => Some((**answer).clone()),
        _ => None,
    };
    (seen, ended.map(|()| answer))
}

fn answer(name: &str) -> Answer {
    let bytes = stream(name);
    decode(name, [&*bytes].into_iter()).1.unwrap().unwrap_or_else(|| panic!("{name} has no end"))
}

fn failure(name: &str) -> ErrorKind {
    let bytes = stream(name);
    decode(name, [&*bytes].into_iter()).1.unwrap_err().kind
}

fn calls(answer: &Answer) -> Vec<(String, String, String)> {
    answer
        .message
        .calls()
        .map(|call| (call.id.to_owned(), call.name.to_owned(), call.input.as_str().to_owned()))
        .collect()
}

fn call(id: &str, name: &str, input: &str) -> (String, String, String) {
    (id.to_owned(), name.to_owned(), input.to_owned())
}

fn raws(answer: &Answer) -> Vec<Option<&str>> {
    answer.message.blocks.iter().map(|block| block.raw.as_ref().map(|raw| raw.as_str())).collect()
}

#[test]
fn every_recorded_stream_is_the_same_in_pieces_of_any_size() {
    for name in all() {
        let bytes = stream(&name);
        let whole = decode(&name, [&*bytes].into_iter());
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(decode(&name, bytes.chunks(size)), whole, "{name} in pieces of {size}");
        }
        // The decoder is given events, so where they are cut shows in the parser alone.
        let events = parse(&[&bytes]);
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(parse(&[a, b]), events, "{name} in two pieces, at {cut}");
        }
    }
}

fn parse(pieces: &[&[u8]]) -> (Vec<SseEvent>, bool) {
    let (mut parser, mut events) = (SseParser::new(1 << 20), Vec::new());
    for piece in pieces {
        parser.push(piece, &mut events).unwrap();
    }
    (events, parser.is_between_events())
}

#[test]
fn every_recorded_stream_truncated_at_any_byte_is_the_same_answer_or_none() {
    for name in all() {
        let bytes = stream(&name);
        let (_, whole) = decode(&name, [&*bytes].into_iter());
        let mut before = None;
        for cut in 0..bytes.len() {
            // The decoder sees no difference until another event is whole or one has begun.
            let (events, between) = parse(&[&bytes[..cut]]);
            let sees = Some((events.len(), between));
            if std::mem::replace(&mut before, sees) == sees {
                continue;
            }
            match (decode(&name, [&bytes[..cut]].into_iter()).1, &whole) {
                // Cut too early: the shell reports a broken stream.
                (Ok(None), _) => {}
                // A body that ends right after a finish reason is whole, although its usage may be missing.
                (Ok(Some(answer)), Ok(Some(expect))) if name == "gemini_usage_after_finish" => {
                    assert!(between, "{name} cut at {cut}: half an event is no end");
                    assert_eq!(answer.message, expect.message, "{name} cut at {cut}");
                }
                (Ok(Some(answer)), Ok(Some(expect))) => assert_eq!(&answer, expect, "{name} cut at {cut}"),
                (Err(error), Err(expect)) => assert_eq!(&error, expect, "{name} cut at {cut}"),
                (got, _) => panic!("{name} cut at {cut}: {got:?}"),
            }
        }
    }
}

#[test]
fn every_answer_survives_storing() {
    for name in all() {
        let bytes = stream(&name);
        let Ok(Some(answer)) = decode(&name, [&*bytes].into_iter()).1 else { continue };
        let value = serde_json::to_value(&answer).unwrap();
        assert_eq!(serde_json::from_value::<Answer>(value).unwrap(), answer, "{name}");
    }
}

#[test]
fn every_event_survives_being_sent_on() {
    for name in all() {
        let bytes = stream(&name);
        for event in decode(&name, [&*bytes].into_iter()).0 {
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<StreamEvent>(&text).unwrap(), event, "{text}");
        }
    }
}

#[test]
fn anthropic_text_streams_and_is_counted_in_classes_that_do_not_overlap() {
    let answer = answer("anthropic_text");
    assert_eq!(answer.message.text(), "Hello, wörld 🦀");
    assert_eq!(answer.message.stop, StopReason::EndTurn);
    assert_eq!(
        (answer.message.model.as_str(), answer.answered_by.as_str()),
        ("claude-opus-4-5", "claude-opus-4-5-20251101")
    );
    assert_eq!(
        answer.usage,
        Usage {
            input_tokens: Some(25),
            cache_read_tokens: Some(2_000),
            cache_write_tokens: Some(100),
            output_tokens: Some(12)
        }
    );
    // 25*5 + 2000*0.5 + 100*6.25 + 12*25 micro-dollars
    assert_eq!(answer.cost_micro_usd, Some(2_050));
    assert_eq!(raws(&answer), [None]);
}

#[test]
fn anthropic_thinking_keeps_its_signature_and_tools_keep_their_bytes() {
    let answer = answer("anthropic_thinking_and_parallel_tools");
    assert_eq!(
        calls(&answer),
        [
            call("toolu_01A", "shell", r#"{"command": "ls -la \"ü\"", "z":1.50}"#),
            call("toolu_01B", "read", r#"{"path":"src/lib.rs","a":null}"#)
        ]
    );
    assert_eq!(
        raws(&answer),
        [
            Some(r#"{"type":"thinking","thinking":"I should list, then read. ","signature":"ErUBCkYIBxgCKkA9sig=="}"#),
            Some(r#"{"type":"redacted_thinking","data":"EmwKAhgBEgy3va3pzix"}"#),
            None,
            None,
            None
        ]
    );
    assert_eq!(answer.message.stop, StopReason::ToolUse);
}

#[test]
fn anthropic_parts_that_nobody_knows_are_kept_or_ignored() {
    let answer = answer("anthropic_unknown_parts");
    assert_eq!(calls(&answer), [call("toolu_03", "shell", r#"{"command":"ls"}"#)]);
    assert_eq!(
        raws(&answer),
        [
            Some(
                r#"{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"x"},"caller":{"type":"direct"}}"#
            ),
            Some(
                r#"{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[{"type":"web_search_result","url":"https://a.example","encrypted_content":"EqgfCioIARgB"}]}"#
            ),
            Some(
                r#"{"type":"tool_use","id":"toolu_03","name":"shell","input":{"command":"ls"},"caller":{"type":"direct"}}"#
            ),
            Some(r#"{"type":"text","text":"see","citations":[]}"#),
        ]
    );
}

#[test]
fn anthropic_hidden_thinking_is_kept_although_it_is_empty() {
    let answer = answer("anthropic_hidden_thinking");
    assert_eq!(raws(&answer), [Some(r#"{"type":"thinking","thinking":"","signature":"c2lnbmVk"}"#), None]);
}

#[test]
fn an_empty_tool_input_is_an_empty_object_unless_the_limit_cut_it_off() {
    assert_eq!(calls(&answer("anthropic_empty_input")), [call("toolu_02", "status", "{}")]);
    assert_eq!(failure("anthropic_cut_before_input"), ErrorKind::CutCall);
}

#[test]
fn usage_is_taken_where_it_is_given_and_unknown_where_it_is_not() {
    let late = answer("anthropic_usage_only_at_end");
    assert_eq!(
        late.usage,
        Usage { input_tokens: Some(321), cache_read_tokens: Some(7), cache_write_tokens: None, output_tokens: Some(9) }
    );
    for name in [
        "anthropic_no_usage",
        "anthropic_strange_usage",
        "chat_no_usage",
        "responses_no_usage",
        "responses_strange_usage",
        "gemini_no_usage",
        "gemini_strange_usage",
    ] {
        let none = answer(name);
        assert_eq!((none.usage, none.cost_micro_usd), (Usage::default(), None), "{name}");
    }
    let usage = |name: &str| answer(name).usage;
    assert_eq!(
        usage("chat_text"),
        Usage {
            input_tokens: Some(176),
            cache_read_tokens: Some(1_024),
            cache_write_tokens: None,
            output_tokens: Some(34)
        }
    );
    assert_eq!(
        usage("chat_reasoning_content"),
        Usage { input_tokens: Some(6), cache_read_tokens: Some(4), cache_write_tokens: None, output_tokens: Some(5) }
    );
    assert_eq!(
        usage("chat_usage_in_each_chunk"),
        Usage { input_tokens: Some(5), output_tokens: Some(2), ..Usage::default() }
    );
    assert_eq!(usage("chat_impossible_usage").input_tokens, Some(0));
}

#[test]
fn calls_that_cannot_be_read_are_typed_errors_and_never_calls() {
    for (name, expect) in [
        ("anthropic_bad_tool_json", ErrorKind::BadCall),
        ("anthropic_tool_input_no_object", ErrorKind::BadCall),
        ("anthropic_duplicate_ids", ErrorKind::BadCall),
        ("anthropic_cut_by_limit", ErrorKind::CutCall),
        ("anthropic_unclosed_block", ErrorKind::Broken),
        ("anthropic_no_stop_reason", ErrorKind::Broken),
        ("anthropic_bad_sse", ErrorKind::Broken),
        ("chat_bad_tool_json", ErrorKind::BadCall),
        ("chat_duplicate_ids", ErrorKind::BadCall),
        ("chat_cut_by_limit", ErrorKind::CutCall),
        ("chat_no_finish_reason", ErrorKind::Broken),
        ("chat_bad_sse", ErrorKind::Broken),
        ("responses_bad_tool_json", ErrorKind::BadCall),
        ("responses_tool_input_no_object", ErrorKind::BadCall),
        ("responses_duplicate_ids", ErrorKind::BadCall),
        ("responses_duplicate_items", ErrorKind::Broken),
        ("responses_done_twice", ErrorKind::Broken),
        ("responses_cut_by_limit", ErrorKind::CutCall),
        ("responses_cut_whole_looking_call", ErrorKind::CutCall),
        ("responses_cut_unclosed_call", ErrorKind::CutCall),
        ("responses_unclosed_item", ErrorKind::Broken),
        ("responses_bad_sse", ErrorKind::Broken),
        ("gemini_malformed_call", ErrorKind::BadCall),
        ("gemini_duplicate_ids", ErrorKind::BadCall),
        ("gemini_args_no_object", ErrorKind::BadCall),
        ("gemini_nameless_call", ErrorKind::BadCall),
        ("gemini_call_in_pieces", ErrorKind::Broken),
        ("gemini_cut_call", ErrorKind::CutCall),
        ("gemini_bad_sse", ErrorKind::Broken),
        // Not calls, but errors as well.
        ("responses_failed_rate_limit", ErrorKind::RateLimited { after_ms: Some(1_500) }),
        ("responses_failed_context", ErrorKind::ContextTooLong),
        ("gemini_error_with_wait", ErrorKind::RateLimited { after_ms: Some(34_500) }),
    ] {
        assert_eq!(failure(name), expect, "{name}");
    }
}

#[test]
fn an_error_after_200_is_typed_and_what_came_before_it_was_streamed() {
    for name in [
        "anthropic_error_after_200",
        "chat_error_after_200",
        "responses_error_after_200",
        "responses_failed",
        "gemini_error_after_200",
    ] {
        let bytes = stream(name);
        let (seen, end) = decode(name, [&*bytes].into_iter());
        assert_eq!(end.unwrap_err().kind, ErrorKind::Overloaded { after_ms: None }, "{name}");
        assert!(seen.iter().any(|event| matches!(event, StreamEvent::TextDelta { .. })), "{name}");
    }
}

#[test]
fn a_stream_without_its_end_is_not_an_answer() {
    for name in ["chat_no_done", "responses_no_completed", "gemini_no_finish"] {
        let bytes = stream(name);
        assert_eq!(decode(name, [&*bytes].into_iter()).1, Ok(None), "{name}");
    }
}

#[test]
fn stop_reasons_that_are_new_and_answers_that_are_empty_are_answers() {
    assert_eq!(answer("anthropic_unknown_stop").message.stop, StopReason::Unknown("moon_phase".into()));
    assert_eq!(answer("chat_unknown_stop").message.stop, StopReason::Unknown("eos_token_found".into()));
    assert_eq!(answer("anthropic_refusal").message.stop, StopReason::Refusal);
    assert_eq!(answer("chat_content_filter").message.stop, StopReason::Refusal);
    assert_eq!(answer("responses_unknown_stop").message.stop, StopReason::Unknown("moon_phase".into()));
    assert_eq!(answer("gemini_unknown_stop").message.stop, StopReason::Unknown("MOON_PHASE".into()));
    for name in ["responses_refusal", "responses_content_filter", "gemini_safety"] {
        assert_eq!(answer(name).message.stop, StopReason::Refusal, "{name}");
        assert!(!answer(name).message.text().is_empty(), "{name}");
    }
    for name in ["anthropic_empty_answer", "chat_empty_answer", "responses_empty_answer", "gemini_empty_answer"] {
        assert_eq!((answer(name).message.blocks.len(), answer(name).message.stop), (0, StopReason::EndTurn), "{name}");
    }
}
