//! OpenAI-compatible Chat Completions, `POST /chat/completions`.
//!
//! What compatible servers disagree about is tolerated where the meaning is plain, and an error
//! where it is not. Absent: the Responses API (which newer OpenAI models need for tools), images,
//! and tool calls hidden in text.

pub(crate) mod decode;
pub(crate) mod request;

/// Where OpenAI is.
pub(crate) const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";
