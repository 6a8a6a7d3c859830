//! What can go wrong, sorted by what the caller may do about it.
//!
//! Absent: a catch-all. [`SandboxError::advice`] is the sorting itself.

use std::path::PathBuf;

use domain::id::{Digest, SandboxId};
use hand::wire::Failure;
use serde::{Deserialize, Serialize};

/// Something that this machine lacks, for `doctor` and for the message of a failed start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What does not work.
    pub what: String,
    /// Why, with the name of the setting or call that says no.
    pub why: String,
    /// What a person can do.
    pub fix: String,
    /// True if no sandbox can start at all; false if one starts with less.
    pub fatal: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}. {}", self.what, self.why, self.fix)
    }
}

/// What the caller may do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// The box is not alive: start it again (its files are still there) and go on.
    StartAgain,
    /// The same call may work later.
    Retry,
    /// The request itself is wrong; the same call fails again.
    ChangeRequest,
    /// A person has to change something on the machine.
    FixMachine,
}

/// A sandbox operation failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The machine cannot do it.
    #[error("{0}")]
    Unsupported(Problem),
    /// The box is not alive.
    #[error("sandbox {id} is not running{}; start it again to go on with its files", .hint.as_deref().map(|h| format!(" ({h})")).unwrap_or_default())]
    Gone {
        /// Which.
        id: SandboxId,
        /// What is known of the reason.
        hint: Option<String>,
    },
    /// A layer of the snapshot is not on this machine.
    #[error("layer {layer} is not prepared here; prepare it again")]
    LayerMissing {
        /// Which.
        layer: Digest,
    },
    /// The id exists with another snapshot.
    #[error("sandbox {id} exists and was started from another snapshot; destroy it first or use another id")]
    OtherSnapshot {
        /// Which.
        id: SandboxId,
    },
    /// What was staged may not become a layer.
    #[error("the staged folder cannot become a layer: {path} is {what}", path = .path.display())]
    BadLayer {
        /// Path inside the staged folder.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The snapshot's own root file system cannot be used.
    #[error("the root file system cannot be used: {what}")]
    BadRoot {
        /// Why not.
        what: String,
    },
    /// The hand refused: no such file, not a regular file, another command under the same id, ….
    #[error(transparent)]
    Refused(#[from] Failure),
    /// A file was larger than allowed.
    #[error("{path} has more than the {max_bytes} bytes that are allowed", path = .path.display())]
    TooLarge {
        /// Path in the box.
        path: PathBuf,
        /// The limit.
        max_bytes: u64,
    },
    /// The hand is alive but does not answer.
    #[error("sandbox {id} has not answered for {waited_ms} ms while {doing}")]
    Unresponsive {
        /// Which.
        id: SandboxId,
        /// What was asked.
        doing: &'static str,
        /// How long was waited.
        waited_ms: u64,
    },
    /// The hand speaks otherwise than agreed; it may be another release, or taken over.
    #[error("the process inside sandbox {id} broke the protocol: {what}; destroy the sandbox")]
    Protocol {
        /// Which.
        id: SandboxId,
        /// How.
        what: String,
    },
    /// A host file or folder could not be handled.
    #[error("cannot {doing} {path}: {source}", path = .path.display())]
    Storage {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The launcher program could not be run.
    #[error("cannot run the sandbox launcher: {source}")]
    Launcher {
        /// The cause.
        source: std::io::Error,
    },
    /// A step of the start failed for a reason that is no known lack of the machine.
    #[error("starting a sandbox failed at `{step}`: {detail}")]
    Start {
        /// Which step.
        step: String,
        /// What the system said.
        detail: String,
    },
}

impl SandboxError {
    /// What the caller may do.
    #[must_use]
    pub const fn advice(&self) -> Advice {
        match self {
            Self::Gone { .. } => Advice::StartAgain,
            Self::Unsupported(_) | Self::Launcher { .. } => Advice::FixMachine,
            Self::Storage { .. } | Self::Start { .. } | Self::Unresponsive { .. } => Advice::Retry,
            Self::LayerMissing { .. }
            | Self::OtherSnapshot { .. }
            | Self::BadLayer { .. }
            | Self::BadRoot { .. }
            | Self::Refused(_)
            | Self::TooLarge { .. }
            | Self::Protocol { .. } => Advice::ChangeRequest,
        }
    }
}

/// Names the failed file operation.
pub(crate) trait StorageContext<T> {
    /// Adds what was tried on which path.
    fn doing(self, doing: &'static str, path: &std::path::Path) -> Result<T, SandboxError>;
}

impl<T, E: Into<std::io::Error>> StorageContext<T> for Result<T, E> {
    fn doing(self, doing: &'static str, path: &std::path::Path) -> Result<T, SandboxError> {
        self.map_err(|source| SandboxError::Storage { doing, path: path.to_owned(), source: source.into() })
    }
}
