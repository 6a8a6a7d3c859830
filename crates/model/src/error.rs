//! What can go wrong with a model call, by what the caller may do about it.
//!
//! What a provider's failed answer means is in [`answer`], how long to wait in [`retry`]; both are
//! pure: the shell hands them the bytes and the number of the attempt. Absent: sleeping, and the
//! decision to give up early, which belong to the caller.

use serde::{Deserialize, Serialize};

mod answer;
mod retry;

pub use answer::{ErrorAnswer, classify, classify_in_stream};
pub use retry::{MAX_ATTEMPTS, MAX_BAD_CALL_ATTEMPTS, retry_delay};

/// The longest excerpt of a provider's answer that an error carries.
pub const MAX_EXCERPT_BYTES: usize = 2_048;

/// A failed model call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{provider}: {message}{}{}", advice_separator(kind, message), kind.advice())]
pub struct ModelError {
    /// What the caller may do.
    pub kind: ErrorKind,
    /// The provider's name.
    pub provider: String,
    /// The HTTP status, if there was one.
    pub status: Option<u16>,
    /// What happened, for a person.
    pub message: String,
    /// The beginning of what the provider sent, at most [`MAX_EXCERPT_BYTES`]; may be empty.
    pub excerpt: String,
}

/// What the caller may do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ErrorKind {
    /// Too many requests: retry, not before `after_ms`.
    RateLimited {
        /// The provider's minimum wait.
        after_ms: Option<u64>,
    },
    /// The provider has trouble or too much to do: retry, not before `after_ms`.
    Overloaded {
        /// The provider's minimum wait.
        after_ms: Option<u64>,
    },
    /// No connection, or none that lasted until the answer began: retry.
    Unreachable,
    /// No byte for too long: retry.
    Silent {
        /// How long nothing came.
        idle_ms: u64,
    },
    /// The stream ended early or cannot be read: retry.
    Broken,
    /// A tool call in the answer cannot be read: retry a few times.
    BadCall,
    /// The answer reached `max_output_tokens` inside a tool call: raise the limit, or ask for less.
    CutCall,
    /// The key is missing, wrong or may not do this: a person must act.
    Auth,
    /// The money ran out: a person must act.
    OutOfCredit,
    /// The conversation is too long: compact it.
    ContextTooLong,
    /// The provider does not accept the request; the same request will fail again.
    BadRequest,
    /// The provider declined the content.
    Refused,
    /// The answer exceeds our limits.
    TooLarge,
    /// A cassette cannot be played or written.
    Cassette,
}

impl ErrorKind {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Overloaded { .. }
            | Self::Unreachable
            | Self::Silent { .. }
            | Self::Broken
            | Self::BadCall => true,
            Self::CutCall
            | Self::Auth
            | Self::OutOfCredit
            | Self::ContextTooLong
            | Self::BadRequest
            | Self::Refused
            | Self::TooLarge
            | Self::Cassette => false,
        }
    }

    /// What a person can do, as a sentence; empty where the message says it all.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Auth => "Check the key that is configured for this provider.",
            Self::OutOfCredit => "Add credit or raise the spending limit at the provider, then resume.",
            Self::Unreachable => "Check the URL, and that the server is running and can be reached from here.",
            Self::ContextTooLong => {
                "The conversation must be shortened, or the model changed for one with a larger window."
            }
            Self::CutCall => "Raise the limit on output tokens, or ask for smaller steps.",
            Self::RateLimited { .. }
            | Self::Overloaded { .. }
            | Self::Silent { .. }
            | Self::Broken
            | Self::BadCall
            | Self::BadRequest
            | Self::Refused
            | Self::TooLarge
            | Self::Cassette => "",
        }
    }
}

fn advice_separator(kind: &ErrorKind, message: &str) -> &'static str {
    match (kind.advice().is_empty(), message.ends_with(['.', '!', '?'])) {
        (true, _) => "",
        (false, true) => " ",
        (false, false) => ". ",
    }
}

impl ModelError {
    /// An error without an HTTP answer behind it.
    pub(crate) fn new(kind: ErrorKind, provider: &str, message: impl Into<String>) -> Self {
        Self { kind, provider: provider.to_owned(), status: None, message: message.into(), excerpt: String::new() }
    }

    pub(crate) fn with_excerpt(mut self, bytes: &[u8]) -> Self {
        self.excerpt = excerpt(bytes);
        self
    }
}

/// The beginning of `bytes` as text, cut at a character.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..MAX_EXCERPT_BYTES).unwrap_or(bytes));
    let mut end = text.len().min(MAX_EXCERPT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
