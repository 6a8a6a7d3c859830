//! OpenAI Responses, `POST /v1/responses`.
//!
//! [`request`] writes the body, [`decode`] reads the stream; both are pure, and
//! [`crate::http`] joins them. Nothing is stored at the provider: the whole conversation is sent
//! each time, with the provider's items as they came, reasoning in its encrypted form included.
//! Absent: server-side tools, background answers, `previous_response_id`, reasoning settings.

pub(crate) mod decode;
pub(crate) mod request;
