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

#[test]
fn chat_calls_are_joined_by_index_and_outrank_the_finish_reason() {
    let parallel = answer("chat_parallel_tools");
    assert_eq!(
        calls(&parallel),
        [call("call_A", "shell", r#"{"command": "ls \"ü\""}"#), call("call_B", "read", r#"{"path":"a","b":1.50}"#)]
    );
    assert_eq!(raws(&parallel), [None, None, None]);
    let whole = answer("chat_whole_tools_same_index");
    assert_eq!(calls(&whole), [call("call_1", "shell", r#"{"command":"ls"}"#), call("call_2", "status", "{}")]);
    assert_eq!(whole.message.stop, StopReason::ToolUse);
    // The arguments go back as they came: empty.
    assert_eq!(
        raws(&whole)[1],
        Some(r#"{"id":"call_2","type":"function","function":{"name":"status","arguments":""}}"#)
    );
    let bare = answer("chat_tools_without_index_or_id");
    assert_eq!(
        calls(&bare),
        [call("call_chatcmpl-1_0", "shell", r#"{"command":"ls"}"#), call("call_chatcmpl-1_1", "status", "{}")]
    );
}

#[test]
fn chat_reasoning_and_foreign_members_are_kept_to_go_back() {
    let plain = answer("chat_reasoning_content");
    assert_eq!(plain.message.blocks[0].view, BlockView::Thinking { text: "Let me think.".into() });
    assert_eq!(raws(&plain), [Some(r#"{"reasoning_content":"Let me think."}"#), None]);
    let details = answer("chat_reasoning_details");
    assert_eq!(
        raws(&details),
        [
            Some(r#"{"reasoning":"hm"}"#),
            Some(r#"{"reasoning_details":[{"type":"reasoning.text","text":"hm","z":1,"a":2}]}"#),
            Some(
                r#"{"id":"call_R","type":"function","function":{"name":"shell","arguments":"{\"command\":\"ls\"}"},"extra_content":{"google":{"thought_signature":"AbC=="}}}"#
            ),
        ]
    );
}

#[test]
fn responses_items_come_back_byte_for_byte_and_calls_are_named_by_their_call_id() {
    let answer = answer("responses_reasoning_and_parallel_tools");
    assert_eq!(
        calls(&answer),
        [
            call("call_A", "shell", r#"{"command": "ls -la \"ü\"", "z":1.50}"#),
            call("call_B", "read", r#"{"path":"src/lib.rs","a":null}"#)
        ]
    );
    assert_eq!(
        answer.message.blocks[0].view,
        BlockView::Thinking { text: "**Listing** first.\n\nThen reading.".into() }
    );
    assert_eq!((answer.message.text().as_str(), &answer.message.stop), ("Looking at both.", &StopReason::ToolUse));
    assert_eq!((answer.answered_by.as_str(), answer.request_id.as_deref()), ("gpt-6-sol-2026-10-01", Some("resp_01")));
    let bytes = String::from_utf8(stream("responses_reasoning_and_parallel_tools")).unwrap();
    for raw in raws(&answer) {
        let raw = raw.expect("every item is kept");
        assert!(bytes.contains(&format!("\"item\":{raw}}}")), "{raw}");
    }
    assert_eq!(raws(&answer).len(), 4);
    assert_eq!(
        answer.usage,
        Usage {
            input_tokens: Some(76),
            cache_read_tokens: Some(1_024),
            cache_write_tokens: Some(100),
            output_tokens: Some(34)
        }
    );
    // 76*2 + 1024*0.2 + 100*2.5 + 34*10 micro-dollars, rounded up
    assert_eq!(answer.cost_micro_usd, Some(947));
}

#[test]
fn responses_without_item_events_are_read_from_their_end() {
    let answer = answer("responses_only_completed");
    assert_eq!(calls(&answer), [call("call_A", "shell", r#"{"command":"ls"}"#)]);
    assert_eq!((answer.message.text().as_str(), answer.message.blocks.len()), ("At once.", 3));
    let odd = self::answer("responses_unknown_parts");
    assert_eq!(odd.message.blocks[0].view, BlockView::Other { kind: "web_search_call".into() });
    assert!(raws(&odd)[0].unwrap().contains(r#""z":1.50"#) && raws(&odd)[1].unwrap().contains("b3BhcXVl"));
    assert_eq!(self::answer("responses_done_marker").message.text(), "Hello");
    assert_eq!(calls(&self::answer("responses_empty_input")), [call("call_A", "status", "{}")]);
}

#[test]
fn gemini_parts_with_signatures_stay_apart_and_plain_text_is_joined() {
    let answer = answer("gemini_thinking_and_parallel_tools");
    assert_eq!(
        calls(&answer),
        [
            call("fc-1", "shell", r#"{"command":"ls -la \"ü\"","z":1.50}"#),
            call("fc-2", "read", r#"{"path":"src/lib.rs","a":null}"#)
        ]
    );
    assert_eq!(
        raws(&answer),
        [
            None,
            None,
            Some(
                r#"{"functionCall":{"name":"shell","args":{"command":"ls -la \"ü\"","z":1.50},"id":"fc-1"},"thoughtSignature":"CsQBAXLI2nw+/x=="}"#
            ),
            Some(r#"{"functionCall":{"name":"read","args":{"path":"src/lib.rs","a":null},"id":"fc-2"}}"#),
        ]
    );
    assert_eq!(answer.message.blocks[0].view, BlockView::Thinking { text: "**Listing** first.".into() });
    assert_eq!((&answer.message.stop, answer.request_id.as_deref()), (&StopReason::ToolUse, Some("resp-9")));
    assert_eq!(
        answer.usage,
        Usage {
            input_tokens: Some(176),
            cache_read_tokens: Some(1_024),
            cache_write_tokens: None,
            output_tokens: Some(74)
        }
    );
    // 176*2 + 1024*0.2 + 74*12 micro-dollars, rounded up
    assert_eq!(answer.cost_micro_usd, Some(1_445));
    let signed = self::answer("gemini_signed_text");
    assert_eq!(
        raws(&signed),
        [
            None,
            Some(r#"{"text":"two, ","thoughtSignature":"U2ln"}"#),
            None,
            Some(r#"{"text":"","thoughtSignature":"TGFzdA=="}"#)
        ]
    );
    assert_eq!(signed.message.text(), "One, two, three, four.");
    let thought = self::answer("gemini_signed_thought");
    assert_eq!(raws(&thought)[0], Some(r#"{"text":"Hm.","thought":true,"thoughtSignature":"SG0="}"#));
    let odd = self::answer("gemini_unknown_parts");
    assert_eq!(odd.message.blocks[0].view, BlockView::Other { kind: "executableCode".into() });
    assert_eq!(raws(&odd).iter().flatten().count(), 3);
}

#[test]
fn gemini_calls_without_ids_get_ids_that_tell_them_apart() {
    let answer = answer("gemini_tools_without_ids");
    assert_eq!(
        calls(&answer),
        [
            call("call_resp-9_0", "shell", r#"{"command":"ls"}"#),
            call("call_resp-9_1", "shell", r#"{"command":"pwd"}"#),
            call("call_resp-9_2", "status", "{}")
        ]
    );
    assert_eq!(
        calls(&self::answer("gemini_calls_in_one_chunk"))[1],
        call("fc-2", "status", "{}"),
        "a call may leave its arguments out"
    );
}

#[test]
fn gemini_refusals_and_usage_are_read_wherever_they_stand() {
    let blocked = answer("gemini_blocked_prompt");
    assert_eq!((blocked.message.blocks.len(), &blocked.message.stop), (0, &StopReason::Refusal));
    assert_eq!((blocked.usage.input_tokens, blocked.usage.output_tokens), (Some(7), Some(0)));
    let late = answer("gemini_usage_after_finish");
    assert_eq!((late.usage.input_tokens, late.usage.output_tokens), (Some(176), Some(7)));
    assert_eq!(answer("gemini_second_candidate").message.text(), "Hi.");
    assert_eq!(answer("gemini_cut_by_limit").message.stop, StopReason::MaxTokens);
}
