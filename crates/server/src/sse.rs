//! Server-sent events as bytes: one function per kind of message, nothing else.
//!
//! Absent: what is sent when; that is `crate::watch`.

use axum::body::Bytes;
use serde::Serialize;

/// A comment, which clients skip: it shows both ends that the connection lives.
pub(crate) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");
/// The first bytes of a stream: they make the headers arrive, and tell how soon to come back.
pub(crate) const HELLO: Bytes = Bytes::from_static(b"retry: 1000\n\n");

/// A stored event: its number is what a client names when it comes back.
pub(crate) fn stored(seq: u64, bytes: &[u8]) -> Bytes {
    message(Some(seq), "event", bytes)
}

/// A message without an id, which is not told again.
pub(crate) fn passing(name: &str, data: &impl Serialize) -> Bytes {
    message(None, name, &serde_json::to_vec(data).unwrap_or_default())
}

fn message(id: Option<u64>, name: &str, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 48);
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    // A line break inside data would end the line and begin a field of the writer's choosing.
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"\ndata: ");
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b"\n\n");
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_event_carries_its_number_and_its_bytes_as_they_are() {
        let frame = stored(7, br#"{"v":1,"text":"a\nb"}"#);
        assert_eq!(&frame[..], b"id: 7\nevent: event\ndata: {\"v\":1,\"text\":\"a\\nb\"}\n\n");
    }

    #[test]
    fn a_line_break_in_data_can_not_begin_another_message() {
        let frame = stored(1, b"{\n}\r\nid: 9\n\nevent: end");
        let text = String::from_utf8(frame.to_vec()).unwrap();
        assert_eq!(text.matches("\n\n").count(), 1, "{text:?}");
        assert!(
            text.lines().skip(2).filter(|line| !line.is_empty()).all(|line| line.starts_with("data: ")),
            "{text:?}"
        );
    }

    #[test]
    fn a_passing_message_has_no_id() {
        let frame = passing("live", &serde_json::json!({"type": "progress", "text": "x"}));
        assert!(frame.starts_with(b"event: live\ndata: {"));
    }
}
