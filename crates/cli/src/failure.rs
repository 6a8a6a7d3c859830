//! What went wrong, for the person who typed the command: one block that says what happened and
//! what to do, or one JSON document with an `error` field. And the exit codes.
//!
//! Absent: the causes; each error is put into words where it happens.

use server::api::{Problem, ProblemType};

use crate::settings::SettingsError;

/// It was done.
pub const DONE: u8 = 0;
/// It was not done; the message says why.
pub const FAILED: u8 = 1;
/// The command line or the settings are wrong; nothing was tried.
pub const USAGE: u8 = 2;
/// The task has ended without being done: failed, canceled or rejected.
pub const NOT_DONE: u8 = 3;
/// The task waits for a person.
pub const WAITS: u8 = 4;
/// Another server has the data folder.
pub const IN_USE: u8 = 5;
/// Stopped by Ctrl-C; the task goes on.
pub const INTERRUPTED: u8 = 130;

/// The codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed; the message says why and what to do
  2  the command line or the settings are wrong; nothing was tried
  3  the task has ended, but is not done (run -f, logs -f, wait, land)
  4  the task waits for a person (run -f, logs -f, wait, land)
  5  another server has the data folder (serve)";

/// A command that was not carried out.
#[derive(Debug)]
pub struct Failure {
    /// What happened and what to do, as a document.
    pub problem: Box<Problem>,
    /// The exit code.
    pub exit: u8,
}

impl Failure {
    /// A failure that this program found itself. `slug` is for programs, `title` for people.
    #[must_use]
    pub fn new(slug: &str, title: &str, detail: impl Into<String>) -> Self {
        let mut problem = Problem::new(ProblemType::Internal, detail);
        problem.kind = format!("urn:chargehand:problem:cli-{slug}");
        problem.title = title.to_owned();
        problem.status = 0;
        Self { problem: Box::new(problem), exit: FAILED }
    }

    /// A wrong command line or value.
    #[must_use]
    pub fn usage(detail: impl Into<String>) -> Self {
        Self { exit: USAGE, ..Self::new("usage", "The command can't be understood", detail) }
    }

    /// The same with one more sentence.
    #[must_use]
    pub fn advise(mut self, more: &str) -> Self {
        self.problem.detail = format!("{}\n{more}", self.problem.detail);
        self
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        // Who stopped it knows that it was no error.
        let kind = if self.exit == INTERRUPTED { "" } else { "error: " };
        let mut text = format!("{kind}{}\n", self.problem.title);
        for line in self.problem.detail.trim_end().lines() {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
        if !self.problem.candidates.is_empty() {
            let ids: Vec<_> = self.problem.candidates.iter().map(domain::id::TaskId::as_str).collect();
            text.push_str(&format!("  it fits: {}\n", ids.join(", ")));
        }
        let within = |field: &&String| field.contains('.') && !self.problem.detail.contains(field.as_str());
        if let Some(field) = self.problem.field.as_ref().filter(within) {
            text.push_str(&format!("  (field: {field})\n"));
        }
        text
    }

    /// For programs.
    #[must_use]
    pub fn document(&self) -> serde_json::Value {
        serde_json::json!({ "error": *self.problem, "exit": self.exit })
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = if matches!(problem.status, 400 | 422) { USAGE } else { FAILED };
        Self { problem: Box::new(problem), exit }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self { exit: USAGE, ..Self::new("settings", "The settings are wrong", error.to_string()) }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // Who reads our output has seen enough; nothing is wrong.
        let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { DONE } else { FAILED };
        Self { exit, ..Self::new("output", "The output can't be written", error.to_string()) }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new("failed", "It did not work", format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_block_for_people_and_one_document_for_programs() {
        let mut problem =
            Problem::new(ProblemType::AmbiguousId, "`k` is the beginning of several tasks; give more of it");
        problem.candidates = vec![domain::id::TaskId::from_random(1), domain::id::TaskId::from_random(2)];
        let failure = Failure::from(problem);
        insta::assert_snapshot!(failure.text());
        let document = failure.document();
        assert_eq!(document["error"]["type"], "urn:chargehand:problem:ambiguous-id");
        assert_eq!(document["exit"], 1);
    }

    #[test]
    fn what_the_person_stopped_is_no_error() {
        let failure = Failure { exit: INTERRUPTED, ..Failure::new("interrupted", "No longer watching", "It goes on.") };
        assert_eq!(failure.text(), "No longer watching\n  It goes on.\n");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        assert_eq!(Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).exit, DONE);
    }
}
