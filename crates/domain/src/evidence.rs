//! Gates as asked for, and evidence as recorded.
//!
//! Evidence says what the platform ran on which commit and what came of it. It is bound to the
//! commit, the command and the output by digests. Absent: any word of an agent, and any opinion
//! of what evidence amounts to; that is `gates`' and `policy`'s business.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{CommitSha, Digest, SandboxId};

const fn yes() -> bool {
    true
}
const fn ten_minutes_ms() -> u64 {
    10 * 60 * 1000
}

/// A check that the platform runs itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GateSpec {
    /// Its name, unique in a task.
    pub name: String,
    /// The program and its arguments; run without a shell in the root of the work tree.
    pub command: Vec<String>,
    /// Whether a change may not land without it.
    #[serde(default = "yes")]
    pub required: bool,
    /// How long it may take.
    #[serde(default = "ten_minutes_ms")]
    pub time_limit_ms: u64,
    /// Where it comes from, for people: the file that names it or the file that gave it away.
    #[serde(default)]
    pub source: String,
}

impl GateSpec {
    /// Whether the fields make sense; says what does not.
    ///
    /// # Errors
    /// A sentence for the person who wrote it.
    pub fn check(&self) -> Result<(), String> {
        let named = !self.name.is_empty()
            && self.name.len() <= 64
            && self.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'));
        if !named {
            return Err(format!("gate name `{}` must be 1 to 64 of letters, digits, `-`, `_`, `.`, `:`", self.name));
        }
        if self.command.first().is_none_or(String::is_empty) {
            return Err(format!(
                "gate `{}` has no command; write for example command = [\"cargo\", \"test\"]",
                self.name
            ));
        }
        if self.time_limit_ms == 0 {
            return Err(format!("gate `{}` has a time limit of 0 ms", self.name));
        }
        Ok(())
    }

    /// The digest that binds evidence to what was to be run.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// How a command came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CommandEnd {
    /// It exited by itself.
    Exited {
        /// The exit code.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// It took longer than it may.
    TimedOut {
        /// The limit that it passed.
        limit_ms: u64,
    },
    /// It used more memory than it may.
    OutOfMemory,
    /// It failed, and more processes were asked for than there may be.
    TooManyProcesses,
    /// It failed, and its files took all the disk space that they may.
    DiskFull,
    /// It wrote a larger file than it may.
    FileTooLarge,
    /// It wrote more than it may.
    OutputLimit {
        /// The limit that it passed.
        limit_bytes: u64,
    },
    /// It could not be started.
    NotStarted {
        /// Why.
        why: String,
    },
}

impl CommandEnd {
    /// Whether this is success.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }
}

impl std::fmt::Display for CommandEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exit {code}"),
            Self::Signaled { signal } => write!(f, "ended by signal {signal}"),
            Self::TimedOut { limit_ms } => write!(f, "stopped after {} s", limit_ms / 1000),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::TooManyProcesses => f.write_str("too many processes"),
            Self::DiskFull => f.write_str("the sandbox's disk space is used up"),
            Self::FileTooLarge => f.write_str("a file grew too large"),
            Self::OutputLimit { limit_bytes } => write!(f, "stopped after {limit_bytes} bytes of output"),
            Self::NotStarted { why } => write!(f, "could not be started: {why}"),
        }
    }
}

/// One gate's recorded result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Evidence {
    /// What was run.
    pub gate: GateSpec,
    /// [`GateSpec::digest`] of it.
    pub gate_digest: Digest,
    /// The commit it was run on.
    pub commit: CommitSha,
    /// How it ended.
    pub end: CommandEnd,
    /// Whether that is a pass.
    pub passed: bool,
    /// How long it took.
    pub duration_ms: u64,
    /// Digest of the whole output, which is kept as a blob under this name.
    pub output_digest: Digest,
    /// Size of that output.
    pub output_bytes: u64,
    /// The last lines, for people.
    pub output_tail: String,
    /// The clean sandbox that it ran in.
    pub sandbox: SandboxId,
    /// When it ended.
    pub at: Timestamp,
}

impl Evidence {
    /// The digest that names this record.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }
}
