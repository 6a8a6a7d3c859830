//! Model providers as one event stream; prices; record and replay.
//!
//! The conversation is ours ([`Request`], [`Message`]); each wire is two pure functions, one that
//! writes the request's bytes and one that reads the answer's events, around one HTTP shell. What
//! a provider sent goes back to it byte for byte, because signatures hang on it, and a longer
//! conversation begins with the bytes of the shorter one, because caches hang on that.
//!
//! ```text
//!           anthropic | chat | responses | gemini         the same wire
//! Request ──────────── request ─────────────→ http → sse → decode → StreamEvent… Finished(Answer)
//! ```
//!
//! - A tool call exists only in a finished answer, whole and parsed; anything less is a typed error.
//! - A stream without its end is an error. Dropping a stream cancels the call.
//! - [`ModelError`] is typed by what the caller may do. Retrying is the caller's, by [`retry_delay`].
//! - Money is whole micro-dollars, and an unknown price is `None`.
//!
//! - A list of models is one provider ([`Fallback`]): the next is asked if one cannot begin.
//!
//! Deliberately absent: reading the environment, retries, budgets, choosing a model, and every
//! word of a prompt.

mod adapters;
mod anthropic;
mod cassette;
mod chat;
mod config;
mod error;
mod fallback;
mod finish;
mod gemini;
#[cfg(test)]
mod golden;
mod http;
#[cfg(test)]
mod prefix;
mod provider;
mod raw;
mod responses;
mod sse;
mod transcript;
mod usage;

pub use cassette::record::Recording;
pub use cassette::replay::Replay;
pub use cassette::{CASSETTE_VERSION, CassetteFault, request_digest};
pub use config::{ConfigError, Endpoint, ModelRef, ProviderConfig, Secret, build, install_crypto};
pub use error::{
    ErrorAnswer, ErrorKind, MAX_ATTEMPTS, MAX_BAD_CALL_ATTEMPTS, MAX_EXCERPT_BYTES, ModelError, classify,
    classify_in_stream, retry_delay,
};
pub use fallback::{Choice, Fallback};
pub use http::Limits;
pub use provider::{Answer, EventStream, PassedOver, Provider, StreamEvent, complete};
pub use raw::RawJson;
pub use transcript::{
    AssistantMessage, Block, BlockView, Message, Request, StopReason, ToolCall, ToolSpec, TranscriptFault, UserPart,
    Wire, check_transcript,
};
pub use usage::{LongPrompt, Price, PriceTable, Rates, Usage};
