//! Frames: `length (u32, little endian) | kind (u8) | body`, the length counting only the body.
//!
//! A frame is either one JSON message or raw bytes of a stream. Neither side believes the other's
//! lengths: a frame above [`MAX_BODY_BYTES`] ends the connection. Absent: compression, checksums,
//! request numbers (a connection carries one request at a time).

/// Largest body that either side accepts.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// Largest body that either side sends of a stream.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 5;

/// What a frame's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A JSON [`crate::wire::Request`] or [`crate::wire::Reply`].
    Message,
    /// Bytes of a command's stdout.
    Stdout,
    /// Bytes of a command's stderr.
    Stderr,
    /// Bytes of a file.
    Data,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Message => 1,
            Self::Stdout => 2,
            Self::Stderr => 3,
            Self::Data => 4,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Message),
            2 => Some(Self::Stdout),
            3 => Some(Self::Stderr),
            4 => Some(Self::Data),
            _ => None,
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: Kind,
    /// The body.
    pub body: Vec<u8>,
}

/// Bytes that are no frame: the connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is above [`MAX_BODY_BYTES`].
    #[error("a frame of {bytes} bytes is larger than the {MAX_BODY_BYTES} that the protocol allows")]
    TooLong {
        /// The claimed length.
        bytes: usize,
    },
    /// The kind is not known.
    #[error("frame kind {kind} is not part of protocol {}", crate::wire::PROTOCOL)]
    UnknownKind {
        /// The kind's byte.
        kind: u8,
    },
    /// The body is not the JSON that was expected.
    #[error("a message could not be read: {message}")]
    BadMessage {
        /// What the JSON reader said.
        message: String,
    },
}

/// Appends one frame to `out`.
pub fn encode(kind: Kind, body: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.reserve(HEADER_BYTES + body.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.push(kind.byte());
    out.extend_from_slice(body);
}

/// Appends one message to `out`. A message that cannot be written as JSON becomes an empty object,
/// which the other side refuses; no message of ours is of that sort.
pub fn encode_message<M: serde::Serialize>(message: &M, out: &mut Vec<u8>) {
    let body = serde_json::to_vec(message).unwrap_or_else(|_| b"{}".to_vec());
    encode(Kind::Message, &body, out);
}

/// Reads one message out of a frame's body.
///
/// # Errors
/// [`FrameError::BadMessage`] if it is not that message.
pub fn decode_message<M: serde::de::DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    serde_json::from_slice(body).map_err(|source| FrameError::BadMessage { message: source.to_string() })
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived.
    ///
    /// # Errors
    /// [`FrameError`] if what arrived can be no frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [a, b, c, d, kind] = *header;
        let bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        if bytes > MAX_BODY_BYTES {
            return Err(FrameError::TooLong { bytes });
        }
        let kind = Kind::of(kind).ok_or(FrameError::UnknownKind { kind })?;
        let Some(body) = rest.get(..bytes) else { return Ok(None) };
        let frame = Frame { kind, body: body.to_vec() };
        self.start += HEADER_BYTES + bytes;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
            // A connection at rest holds no large buffer.
            self.buffer.shrink_to(CHUNK_BYTES);
        }
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        encode(Kind::Stdout, &[0, 255, 1], &mut bytes);
        encode(Kind::Message, b"{}", &mut bytes);
        encode(Kind::Stderr, b"", &mut bytes);
        for step in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push((frame.kind, frame.body));
                }
            }
            assert_eq!(
                frames,
                vec![(Kind::Stdout, vec![0, 255, 1]), (Kind::Message, b"{}".to_vec()), (Kind::Stderr, vec![])],
                "cut every {step} bytes"
            );
        }
    }

    #[test]
    fn a_length_that_no_frame_may_have_is_refused_before_its_body_is_awaited() {
        let mut decoder = Decoder::default();
        decoder.push(&[0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong { bytes: 0xffff_ffff }));
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0, 0, 0, 9]);
        assert_eq!(decoder.next_frame(), Err(FrameError::UnknownKind { kind: 9 }));
    }
}
