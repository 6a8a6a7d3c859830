//! Where a task stands: its state, what it waits for, and how it ended.
//!
//! Absent: when a state changes; only `fold` knows.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::effect::FailureSource;
use crate::id::EffectId;

/// The eight states on the wire (A2A). Variety lives in [`Wait`] and [`Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Accepted, not begun.
    Submitted,
    /// Something is being done.
    Working,
    /// Waits for a person.
    InputRequired,
    /// Waits for a credential.
    AuthRequired,
    /// Done.
    Completed,
    /// Not done.
    Failed,
    /// Called off.
    Canceled,
    /// Refused, by a person or by the policy.
    Rejected,
}

impl TaskState {
    /// Every state, in the order of a task's life.
    pub const ALL: [Self; 8] = [
        Self::Submitted,
        Self::Working,
        Self::InputRequired,
        Self::AuthRequired,
        Self::Completed,
        Self::Failed,
        Self::Canceled,
        Self::Rejected,
    ];

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled | Self::Rejected)
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Working => "working",
            Self::InputRequired => "input_required",
            Self::AuthRequired => "auth_required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Rejected => "rejected",
        }
    }

    /// Whether a task may go from here to `next`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Submitted => matches!(next, Self::Working | Self::Rejected | Self::Canceled | Self::Failed),
            Self::Working => !matches!(next, Self::Submitted | Self::Working),
            Self::InputRequired | Self::AuthRequired => matches!(next, Self::Working) || next.is_terminal(),
            Self::Completed | Self::Failed | Self::Canceled | Self::Rejected => false,
        }
    }
}

/// Why a task stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitKind {
    /// The agent asked something.
    Question,
    /// A plan is to be agreed.
    Plan,
    /// A tool call is to be allowed.
    Tool,
    /// A change is to be looked at.
    Review,
    /// A credential is missing.
    Auth,
    /// The budget is used up.
    Budget,
    /// Somebody paused it.
    Paused,
}

impl WaitKind {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Plan => "plan",
            Self::Tool => "tool",
            Self::Review => "review",
            Self::Auth => "auth",
            Self::Budget => "budget",
            Self::Paused => "paused",
        }
    }
}

/// A stand-still. It always has an owner and an expiry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Wait {
    /// What for.
    pub kind: WaitKind,
    /// Who can end it.
    pub owner: String,
    /// The question, or what is to be looked at.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When the task ends by itself, as failed with reason `timeout`.
    pub expires_at: Timestamp,
    /// The open effect that the answer answers, for questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectId>,
}

/// Why a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeReason {
    /// What was asked for is there.
    Done,
    /// A deadline, a time limit or a wait ran out.
    Timeout,
    /// The budget ran out.
    Budget,
    /// The policy forbids it.
    Policy,
    /// The agent got no further.
    Stuck,
    /// The platform failed.
    Infra,
    /// The model's provider failed.
    Model,
    /// The user ended it, or what the user gave does not work.
    User,
}

impl OutcomeReason {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Timeout => "timeout",
            Self::Budget => "budget",
            Self::Policy => "policy",
            Self::Stuck => "stuck",
            Self::Infra => "infra",
            Self::Model => "model",
            Self::User => "user",
        }
    }
}

impl From<FailureSource> for OutcomeReason {
    fn from(source: FailureSource) -> Self {
        match source {
            FailureSource::Infra => Self::Infra,
            FailureSource::Model => Self::Model,
            FailureSource::User => Self::User,
        }
    }
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Outcome {
    /// In one word.
    pub reason: OutcomeReason,
    /// In a sentence that says what can be done now.
    pub message: String,
}
