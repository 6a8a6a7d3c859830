//! Server-sent events from bytes that arrive in any pieces.
//!
//! A character, a line end or a field may be cut anywhere. Lines and events are bounded.
//! Comments, `id` and `retry` mean nothing to us. Absent: reconnecting, which these APIs lack.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// The `event` field; empty if there was none.
    pub(crate) name: String,
    /// The `data` lines, joined by newlines.
    pub(crate) data: String,
}

/// Why bytes are not an event stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseFault {
    #[error("a line or an event of the stream has more than {limit_bytes} bytes")]
    TooLong { limit_bytes: usize },
    #[error("the stream is not UTF-8")]
    NotUtf8,
}

/// Splits bytes into events. Give it chunks by [`SseParser::push`] in order.
#[derive(Debug)]
pub(crate) struct SseParser {
    limit_bytes: usize,
    line: Vec<u8>,
    /// The last line ended in `\r`: a `\n` right after belongs to it.
    after_cr: bool,
    first_line: bool,
    name: String,
    data: String,
    has_data: bool,
}

impl SseParser {
    /// `limit_bytes` bounds a line and the data of an event.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            line: Vec::new(),
            after_cr: false,
            first_line: true,
            name: String::new(),
            data: String::new(),
            has_data: false,
        }
    }

    /// Takes the next chunk and appends the events that it completes to `events`, also those
    /// before a fault.
    ///
    /// # Errors
    /// [`SseFault`]; the parser must not be used after it.
    pub(crate) fn push(&mut self, chunk: &[u8], events: &mut Vec<SseEvent>) -> Result<(), SseFault> {
        let mut rest = chunk;
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                return self.extend(rest);
            };
            let (part, tail) = rest.split_at(end);
            self.extend(part)?;
            self.after_cr = tail.first() == Some(&b'\r');
            rest = tail.get(1..).unwrap_or_default();
            self.end_line(events)?;
        }
        Ok(())
    }

    /// Whether nothing of an event is pending, so that the stream may end here.
    pub(crate) fn is_between_events(&self) -> bool {
        self.line.is_empty() && !self.has_data
    }

    fn extend(&mut self, part: &[u8]) -> Result<(), SseFault> {
        if self.line.len().saturating_add(part.len()) > self.limit_bytes {
            return Err(SseFault::TooLong { limit_bytes: self.limit_bytes });
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<SseEvent>) -> Result<(), SseFault> {
        let bytes = std::mem::take(&mut self.line);
        let mut line = std::str::from_utf8(&bytes).map_err(|_| SseFault::NotUtf8)?;
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            let event = SseEvent { name: std::mem::take(&mut self.name), data: std::mem::take(&mut self.data) };
            if std::mem::take(&mut self.has_data) {
                events.push(event);
            }
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.data.len().saturating_add(value.len()) > self.limit_bytes {
                    return Err(SseFault::TooLong { limit_bytes: self.limit_bytes });
                }
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            // Comments (an empty field), `id`, `retry`, and fields that nobody has defined.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(chunks: &[&[u8]]) -> Result<Vec<(String, String)>, SseFault> {
        let (mut parser, mut events) = (SseParser::new(1_000), Vec::new());
        for chunk in chunks {
            parser.push(chunk, &mut events)?;
        }
        Ok(events.into_iter().map(|event| (event.name, event.data)).collect())
    }
    fn check(input: &str, expect: &[(&str, &str)]) {
        let expect: Vec<_> = expect.iter().map(|(name, data)| ((*name).to_owned(), (*data).to_owned())).collect();
        assert_eq!(parse(&[input.as_bytes()]).unwrap(), expect, "{input:?}");
        for cut in 0..=input.len() {
            let (a, b) = input.as_bytes().split_at(cut);
            assert_eq!(parse(&[a, b]).unwrap(), expect, "{input:?} cut at {cut}");
        }
    }

    #[test]
    fn events_are_the_same_whatever_the_line_ends_and_wherever_the_cut() {
        check("event: a\ndata: é1\n\ndata:2\n\n", &[("a", "é1"), ("", "2")]);
        check("event: a\r\ndata: é1\r\n\r\ndata:2\r\n\r\n", &[("a", "é1"), ("", "2")]);
        check("event: a\rdata: é1\r\rdata:2\r\r", &[("a", "é1"), ("", "2")]);
    }

    #[test]
    fn comments_ids_and_a_byte_order_mark_are_no_data() {
        check("\u{feff}: hello\nid: 7\nretry: 10\ndata: x\n\n:\n\nevent: nodata\n\n", &[("", "x")]);
    }

    #[test]
    fn data_lines_are_joined_and_only_one_space_is_dropped() {
        check("data: a\ndata:  b\ndata\ndata: c\n\n", &[("", "a\n b\n\nc")]);
    }

    #[test]
    fn an_event_without_its_blank_line_is_not_an_event() {
        check("data: a\n\ndata: [DONE]\n", &[("", "a")]);
        let (mut parser, mut events) = (SseParser::new(1_000), Vec::new());
        for (chunk, whole) in [("data: a\n", false), ("\n", true), ("d", false), ("ata: b\r\n\r", true), ("\n", true)] {
            parser.push(chunk.as_bytes(), &mut events).unwrap();
            assert_eq!(parser.is_between_events(), whole, "after {chunk:?}");
        }
    }

    #[test]
    fn endless_lines_and_events_are_refused() {
        assert_eq!(parse(&[&[b'x'; 1_001]]), Err(SseFault::TooLong { limit_bytes: 1_000 }));
        let many = "data: 0123456789\n".repeat(200);
        assert_eq!(parse(&[many.as_bytes()]), Err(SseFault::TooLong { limit_bytes: 1_000 }));
    }

    #[test]
    fn broken_utf8_is_a_fault_and_not_a_replacement_character() {
        assert_eq!(parse(&[b"data: \xff\n\n"]), Err(SseFault::NotUtf8));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_what_they_give_whole(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), any::<u8>()], 0..200), size in 1usize..7) {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(parse(&pieces), parse(&[&bytes]));
        }
    }
}
