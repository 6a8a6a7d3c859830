//! The server over real sockets, with the real engine, store, forge and boxes behind it.
#![expect(clippy::disallowed_methods, reason = "a test is its own edge: it has a clock")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a fixture that fails fails its test")]

mod api;
mod doors;
mod life;
mod secrets;
mod streams;
mod world;
