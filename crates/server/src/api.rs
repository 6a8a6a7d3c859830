//! What goes over the wire: bodies of requests and responses, for the server and for its clients.
//!
//! Nouns that the whole system shares (`Task`, `TaskSummary`, `Envelope`, `Evidence`) come from
//! `domain` unchanged; here is only what the API adds around them. Bodies that come in refuse
//! unknown fields, because a misspelt wish that is ignored is worse than an error. Absent: HTTP
//! itself, and how any of this is found out.

mod environments;
mod problem;
mod reports;
mod secrets;

use domain::contract::Contract;
use domain::event::Envelope;
use domain::id::{CommitSha, Digest};
use domain::task::{TaskState, TaskSummary};
use orchestrator::Live;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

pub use environments::{
    BuildBegun, CollectBody, Collected, EnvironmentInfo, EnvironmentList, EnvironmentStatus, LogBody, LogQuery,
    MAX_LOG_BYTES, RecipeBody, RecipeQuery,
};
pub use problem::{PROBLEM_JSON, Problem, ProblemType};
pub use reports::{
    ApprovalRecord, Asked, DecisionRecord, DenialRecord, DiffBody, DiffFile, EvidenceBody, EvidenceLine,
    EvidenceRecord, GateStanding, GateStatus, JudgementRecord, LandRequestRecord, LandingRecord, OutcomeRecord,
    WhyBody,
};

pub use secrets::{
    DEFAULT_AUDIT, MAX_AUDIT, SecretAuditLine, SecretAuditList, SecretAuditQuery, SecretInfo, SecretList, SecretPlace,
    SecretsRotated, SetSecret,
};

/// Header that makes `POST /v1/tasks` safe to repeat.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Most characters of an idempotency key.
pub const MAX_KEY_CHARS: usize = 255;
/// Tasks in a page when the caller does not say.
pub const DEFAULT_TASKS: u32 = 50;
/// Most tasks in a page.
pub const MAX_TASKS: u32 = 500;
/// Events in a page when the caller does not say.
pub const DEFAULT_EVENTS: u32 = 200;
/// Most events in a page.
pub const MAX_EVENTS: u32 = 1000;
/// Most open tasks that [`Health`] counts.
pub const MAX_COUNTED: u32 = 100;

fn native() -> String {
    "native".to_owned()
}

/// A task to be delegated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTask {
    /// What is to be reached, in your words.
    pub goal: String,
    /// The repository: an absolute path on the server's machine, or a URL.
    pub repo: String,
    /// The branch to start from and to land on; left out, the one that is checked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// What does the work: `native` (a model in a loop) or `command` (a program that edits the tree).
    #[serde(default = "native")]
    pub agent: String,
    /// For `native`: the model, for example `anthropic/claude-sonnet-4-5`; left out, the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// For `command`: program and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// The agreement; left out, the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Contract>,
}

/// A task that was accepted, now (201) or by an earlier request with the same idempotency key (200).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Submitted {
    /// The task.
    pub task: TaskSummary,
    /// Whether this request made it.
    pub created: bool,
    /// Remarks on the repository: a dirty tree, submodules, LFS.
    pub notes: Vec<String>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only tasks in these states, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only tasks that have not ended (`true`), or only those that have (`false`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// Most tasks in the answer, 1 to 500; 50 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What of a task's changes to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// After this turn; 0 is the beginning. Left out together with `to`: the proposed change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// Up to and with this turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
}

/// Go back to a step: a new task that begins there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkBody {
    /// After this turn of the newest attempt; 0 is the beginning.
    pub turn: u32,
    /// What the agent is told before it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One page of tasks, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskList {
    /// The tasks.
    pub tasks: Vec<TaskSummary>,
    /// What to pass as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Which events to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Only events after this number; 0 for all. In a stream, `Last-Event-ID` wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Most events in a page, 1 to 1000; 200 if left out. A stream takes no notice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Whether a stream stays open after the task has ended, to show the cleaning up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow_after_end: Option<bool>,
}

/// One page of a task's events, in order and without gaps.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    /// The events.
    pub events: Vec<EventItem>,
    /// What to pass as `after` for the next page; absent when this page reaches the last event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<u64>,
}

/// One stored event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventItem {
    /// The event, byte for byte as it is stored.
    #[schema(value_type = Envelope)]
    pub envelope: Box<RawValue>,
    /// Its link in the hash chain.
    pub hash: Digest,
}

impl EventItem {
    /// The event, read.
    ///
    /// # Errors
    /// If the event is of a version that this build does not know.
    pub fn decode(&self) -> Result<Envelope, serde_json::Error> {
        Envelope::decode(self.envelope.get().as_bytes())
    }
}

/// What a stream carries beside stored events, as `event: live`. It is not stored, has no id and
/// may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LiveItem {
    /// A piece of the model's answer.
    TextDelta {
        /// In which turn.
        turn: u32,
        /// The piece.
        text: String,
    },
    /// A piece of the model's reasoning.
    ThinkingDelta {
        /// In which turn.
        turn: u32,
        /// The piece.
        text: String,
    },
    /// A piece of a command's output.
    Output {
        /// Of the tool or gate with this name.
        source: String,
        /// The piece, as text.
        text: String,
    },
    /// What the platform is busy with, for a progress line.
    Progress {
        /// In a few words.
        text: String,
    },
}

impl LiveItem {
    /// What watchers are shown of what is happening; nothing of the hint that an event was stored.
    #[must_use]
    pub fn of(live: Live) -> Option<Self> {
        match live {
            Live::Stored { .. } => None,
            Live::TextDelta { turn, text } => Some(Self::TextDelta { turn, text }),
            Live::ThinkingDelta { turn, text } => Some(Self::ThinkingDelta { turn, text }),
            Live::Output { source, text } => Some(Self::Output { source, text }),
            Live::Progress { text } => Some(Self::Progress { text }),
        }
    }
}

/// The data of a stream's last message, `event: end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamEnd {
    /// The last event that was sent.
    pub seq: u64,
    /// The state in which the task ended.
    pub state: TaskState,
}

/// Something to tell the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SayBody {
    /// What.
    pub text: String,
}

/// The answer to the agent's open question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerBody {
    /// The answer.
    pub text: String,
}

/// A task called off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelBody {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A person's word for a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveBody {
    /// The agent's commit that was looked at. Left out, whatever is proposed at this moment is
    /// approved; a program should always name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<CommitSha>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A refusal of a change, which ends the task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectBody {
    /// Why.
    #[serde(default)]
    pub message: String,
}

/// The wish to land an approved change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LandBody {
    /// Whether a clean work tree that has the branch checked out may move along.
    #[serde(default)]
    pub update_worktree: bool,
}

/// How the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The program's version.
    pub version: String,
    /// `ok`, or `degraded` when tasks can't be read; the server's log says why.
    pub status: HealthStatus,
    /// Tasks that have not ended, counted up to 100: that number means so many or more. Only
    /// callers who are signed in are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks_open: Option<u64>,
    /// Time since the server began to listen.
    pub uptime_ms: u64,
    /// The server's process. Only callers who are signed in are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// Whether the server can do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It can.
    Ok,
    /// It answers, but can't read its store.
    Degraded,
}
