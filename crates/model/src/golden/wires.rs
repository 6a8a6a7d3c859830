//! Recorded streams: what is particular to one wire.
//!
//! Absent: what holds for all of them.

use super::*;

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
