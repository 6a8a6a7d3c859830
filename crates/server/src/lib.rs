//! The HTTP API, its OpenAPI file, streaming, and who may speak to it.
pub mod api;
