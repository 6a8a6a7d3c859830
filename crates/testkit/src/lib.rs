//! Test fixtures for every crate's tests: scratch git repositories, honest and hostile.
//!
//! A fixture that fails panics: a test without its fixture has nothing to say. Everything is
//! deterministic (authors, dates, contents), so the same calls give the same commit ids on every
//! machine. Absent: any type of our rooms; commits are plain `String`s here, so that a mistake in
//! a room can't hide in its fixture. Never a dependency outside `[dev-dependencies]`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a fixture that can't be built fails its test")]

mod hostile;
mod many;
mod repo;

pub use hostile::{Probe, raw_tree};
pub use repo::{Repo, git_in};

/// Says on stderr that a test or a part of it did not run, and why, in the one form that the test
/// command collects and prints at the end. The caller returns afterwards.
pub fn not_run(name: &str, reason: &str) {
    use std::io::Write as _;
    // Not `eprintln!`: the test harness keeps what that writes in a test that passes.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {name}: {reason}");
}
