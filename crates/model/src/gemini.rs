//! Gemini, `POST /v1beta/models/MODEL:streamGenerateContent`.
//!
//! [`request`] writes the body, [`decode`] reads the stream; both are pure, and
//! [`crate::http`] joins them. Parts with a thought signature go back as they came. The cache is
//! the provider's implicit one, which finds an equal beginning by itself. Absent: explicit caches,
//! server-side tools, thinking settings, and the same models at Vertex AI.

pub(crate) mod decode;
pub(crate) mod request;

/// Where the API is unless told otherwise.
pub(crate) const BASE_URL: &str = "https://generativelanguage.googleapis.com";
