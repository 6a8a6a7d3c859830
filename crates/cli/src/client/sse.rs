//! Server-sent events from bytes. Pure.
//!
//! Absent: reconnecting; that is `commands::follow`.

/// Longest message that is taken, in bytes: an event may hold 8 MiB, and JSON escapes make it longer.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its id, if it has one.
    pub id: Option<u64>,
    /// Its name; empty if it has none.
    pub name: String,
    /// Its data, lines joined.
    pub data: String,
}

/// Takes bytes and gives whole messages.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    message: Message,
    has_data: bool,
}

impl Parser {
    /// Takes bytes; gives the messages that they complete.
    ///
    /// # Errors
    /// A sentence, if a message is longer than anything the server sends.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, String> {
        let mut messages = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                messages.extend(self.line(String::from_utf8_lossy(&line).trim_end_matches('\r')));
            } else {
                self.line.push(*byte);
            }
        }
        if self.line.len() + self.message.data.len() > MAX_MESSAGE_BYTES {
            return Err("a message of the stream has no end".to_owned());
        }
        Ok(messages)
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            return std::mem::take(&mut self.has_data).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.message.id = value.parse().ok(),
            "event" => value.clone_into(&mut self.message.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            // Comments keep the connection alive; `retry` is decided by who follows.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_however_the_bytes_are_cut() {
        let bytes = b"retry: 1000\n\n: keep-alive\n\nid: 7\nevent: event\ndata: {\"a\":\ndata: 1}\n\nevent: end\r\ndata: {}\r\n\r\n";
        let whole = Parser::default().push(bytes).unwrap();
        let mut parser = Parser::default();
        let cut: Vec<Message> = bytes.iter().flat_map(|byte| parser.push(&[*byte]).unwrap()).collect();
        assert_eq!(whole, cut);
        assert_eq!(whole.len(), 2);
        assert_eq!(whole[0], Message { id: Some(7), name: "event".to_owned(), data: "{\"a\":\n1}".to_owned() });
        assert_eq!((whole[1].name.as_str(), whole[1].id), ("end", None));
    }

    #[test]
    fn half_a_message_is_none() {
        assert_eq!(Parser::default().push(b"event: event\ndata: x\n").unwrap(), []);
    }
}
