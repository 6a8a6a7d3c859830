//! What comes in from outside, and what goes wrong with it: submissions, commands, and errors
//! typed by what the caller may do.
//!
//! Absent: HTTP. The server turns these into problem documents.

use domain::command::Refusal;
use domain::contract::{Contract, ContractError};
use domain::id::TaskId;
use domain::task::TaskSummary;
use serde::{Deserialize, Serialize};

/// Most characters of a goal.
pub const MAX_GOAL_CHARS: usize = 50_000;

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// What is to be reached.
    pub goal: String,
    /// The repository: an absolute path or a URL.
    pub repo: String,
    /// The branch to start from and to land on; nothing for the one checked out.
    pub base: Option<String>,
    /// `native` or `command`.
    pub agent: String,
    /// For `native`: the model; nothing for the configured one.
    pub model: Option<String>,
    /// For `command`: program and arguments.
    pub argv: Vec<String>,
    /// The agreement.
    pub contract: Contract,
}

/// A task that was accepted, now or before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The task.
    pub task: TaskSummary,
    /// Whether this call made it; if not, the idempotency key found it.
    pub created: bool,
    /// Remarks on the repository: a dirty tree, submodules, LFS.
    pub notes: Vec<String>,
}

/// Why a submission was not taken. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The goal is empty.
    #[error("the goal is empty; say in a sentence what is to be different afterwards")]
    EmptyGoal,
    /// The goal is too long.
    #[error(
        "the goal has {chars} characters and may have {MAX_GOAL_CHARS}; put the details into a file of the repository and name it"
    )]
    LongGoal {
        /// How many.
        chars: usize,
    },
    /// No such agent.
    #[error(
        "there is no agent `{given}`; use `native` (a model in a loop) or `command` (a program that edits the tree)"
    )]
    UnknownAgent {
        /// What was given.
        given: String,
    },
    /// A command agent without a command.
    #[error("the command agent needs a program; write it after `--`, for example: -- cargo fix --allow-dirty")]
    NoCommand,
    /// No model, or one that can't be used.
    #[error("{0}")]
    Model(String),
    /// The contract.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// The repository, its commit or its settings.
    #[error("{0}")]
    Repo(String),
    /// The repository's URL holds a password or token, which would be recorded for ever.
    #[error(
        "the repository's URL holds a password or token, and URLs are recorded and shown: leave it out and let git find it (ssh, ~/.netrc)"
    )]
    OriginSecret,
    /// The idempotency key was used for something else.
    #[error("the idempotency key was already used for task {task} with another body; use a new key")]
    KeyReused {
        /// That task.
        task: TaskId,
    },
    /// This machine can't run sandboxes.
    #[error("{0}")]
    NoSandbox(String),
    /// The disk is full.
    #[error("the disk that holds the data folder is full; free some space, nothing was lost")]
    DiskFull,
    /// The platform failed.
    #[error("the task could not be stored: {0}")]
    Store(String),
}

/// Why there is no fork. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// No such task.
    #[error("there is no task {0}")]
    NotFound(String),
    /// A program has no turns.
    #[error("this task's agent is a program and has no turns to go back to; delegate it anew")]
    NoTurns,
    /// No attempt has begun.
    #[error("the task has not begun; there is nothing to go back to")]
    NotBegun,
    /// The turn is not over, or there is none with this number.
    #[error("turn {turn} is not there; turns 0 (the beginning) to {last} are")]
    NoSuchTurn {
        /// The turn asked for.
        turn: u32,
        /// The last that is over.
        last: u32,
    },
    /// After its last word the agent has nothing to do.
    #[error(
        "in turn {turn} the agent said that it was done; say with -m what it should do now, or fork an earlier turn"
    )]
    LastWord {
        /// The turn.
        turn: u32,
    },
    /// The message is too long.
    #[error("the message has {chars} characters and may have {MAX_GOAL_CHARS}")]
    LongMessage {
        /// How many.
        chars: usize,
    },
    /// The files can't be had any more.
    #[error("{0}")]
    Gone(String),
    /// The new task was not taken.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The platform failed.
    #[error("{0}")]
    Store(String),
}

/// Why a command was not carried out. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No such task.
    #[error("there is no task {0}")]
    NotFound(String),
    /// It can't be done as the task stands.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is nothing to show yet.
    #[error("there is no change yet (the task is {state}); `logs` shows what happens")]
    NoChange {
        /// The task's state.
        state: &'static str,
    },
    /// The disk is full.
    #[error("the disk that holds the data folder is full; free some space, nothing was lost")]
    DiskFull,
    /// The platform failed.
    #[error("{0}")]
    Store(String),
}
