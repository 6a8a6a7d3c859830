//! Anthropic Messages, `POST /v1/messages`.
//!
//! [`request`] writes the body, [`decode`] reads the stream; both are pure, and
//! [`crate::http`] joins them. Absent: server-side tools, documents, thinking settings
//! (newer models think without being asked), and the one-hour cache.

pub(crate) mod decode;
pub(crate) mod request;

/// The protocol version that we send.
pub(crate) const VERSION: &str = "2023-06-01";
/// Where the API is unless told otherwise.
pub(crate) const BASE_URL: &str = "https://api.anthropic.com";
