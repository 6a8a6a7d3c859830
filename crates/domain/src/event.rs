//! What happened. Events are the only truth; everything else is a fold of them.
//!
//! An [`Envelope`] is stored as the bytes that [`Envelope::encode`] gives, and those bytes are
//! never written again: each event's hash is taken over the hash before it and the stored bytes.
//! Absent: token deltas, which are streamed but not stored.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::effect::{Effect, EffectResult};
use crate::evidence::GateSpec;
use crate::id::{CommitSha, Digest, EffectId, SandboxId, TaskId};
use crate::principal::Principal;
use crate::step::EnvironmentChoice;
use crate::task::{AgentEnd, Decision, Judgement, Outcome, TaskSpec, TaskState, Wait};

/// Version of the stored form.
pub const EVENT_VERSION: u32 = 1;

/// Where a message to the agent comes from. The agent is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageSource {
    /// A person said it.
    Person,
    /// Gates failed; the platform reports their output.
    Gates,
    /// The engine says what was lost or changed.
    Platform,
}

/// One request of a sandbox to the outside, as the egress proxy saw it. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EgressRequest {
    /// When it came.
    pub at: Timestamp,
    /// `GET`, `CONNECT` and so on.
    pub method: String,
    /// The host as it was asked for, in its one canonical form where it has one.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path, where the proxy can see it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The rule that let it pass, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why it did not pass, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    /// What went wrong although it was let through, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The answer's status, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Name of the secret that the proxy added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Bytes that left the sandbox.
    pub up_bytes: u64,
    /// Bytes that came back.
    pub down_bytes: u64,
    /// How long it took.
    pub duration_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One thing that happened to a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The task was accepted.
    TaskSubmitted {
        /// What was asked for.
        spec: Box<TaskSpec>,
        /// Remarks from looking at the repository.
        notes: Vec<String>,
    },
    /// A remark for people.
    Noted {
        /// The remark.
        text: String,
    },
    /// The gates were read from the base commit and the contract.
    GatesChosen {
        /// All of them.
        gates: Vec<GateSpec>,
        /// Digest of the file that they came from, if there is one.
        config_digest: Option<Digest>,
    },
    /// The environment was read from the base commit.
    EnvironmentChosen {
        /// What was chosen.
        environment: EnvironmentChoice,
    },
    /// An attempt began.
    AttemptStarted {
        /// From 1.
        attempt: u32,
    },
    /// Something is about to be done.
    EffectStarted {
        /// Its id.
        id: EffectId,
        /// What.
        effect: Effect,
    },
    /// It was done, or failed.
    EffectEnded {
        /// Its id.
        id: EffectId,
        /// What came of it.
        result: EffectResult,
    },
    /// The agent's work ended.
    AgentEnded {
        /// In which attempt.
        attempt: u32,
        /// How.
        end: AgentEnd,
    },
    /// Somebody told the agent something. It reopens work that had ended.
    MessageAdded {
        /// Who.
        source: MessageSource,
        /// What.
        text: String,
    },
    /// The task stands still.
    WaitStarted {
        /// Why, for whom, until when.
        wait: Wait,
    },
    /// It goes on.
    WaitEnded {
        /// Why.
        because: String,
    },
    /// The evidence of a commit was weighed.
    GatesJudged {
        /// With this result.
        judgement: Judgement,
    },
    /// The policy was asked about the change.
    Decided {
        /// With this result.
        decision: Decision,
    },
    /// A person approved the change.
    Approved {
        /// The agent's commit that was looked at.
        head: CommitSha,
        /// With what remark.
        comment: String,
    },
    /// A person wants the change landed.
    LandRequested {
        /// The agent's commit.
        head: CommitSha,
        /// Whether a clean work tree may move along.
        update_worktree: bool,
    },
    /// What left a sandbox of the task, or wanted to, through its one door.
    EgressReported {
        /// Which sandbox.
        sandbox: SandboxId,
        /// Request by request, oldest first.
        requests: Vec<EgressRequest>,
        /// Requests that were made and are not listed, because there were too many at once.
        #[serde(default, skip_serializing_if = "is_zero")]
        unlisted: u64,
    },
    /// Something was not allowed.
    Denied {
        /// What.
        action: String,
        /// By which rule.
        rule: String,
        /// Why.
        reason: String,
    },
    /// Somebody called the task off.
    CancelRequested {
        /// Why.
        reason: String,
    },
    /// The task ended.
    TaskEnded {
        /// In which state.
        state: TaskState,
        /// How.
        outcome: Outcome,
    },
}

impl Event {
    /// The type's name, as on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TaskSubmitted { .. } => "task_submitted",
            Self::Noted { .. } => "noted",
            Self::GatesChosen { .. } => "gates_chosen",
            Self::EnvironmentChosen { .. } => "environment_chosen",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::EffectStarted { .. } => "effect_started",
            Self::EffectEnded { .. } => "effect_ended",
            Self::AgentEnded { .. } => "agent_ended",
            Self::MessageAdded { .. } => "message_added",
            Self::WaitStarted { .. } => "wait_started",
            Self::WaitEnded { .. } => "wait_ended",
            Self::GatesJudged { .. } => "gates_judged",
            Self::Decided { .. } => "decided",
            Self::Approved { .. } => "approved",
            Self::LandRequested { .. } => "land_requested",
            Self::EgressReported { .. } => "egress_reported",
            Self::Denied { .. } => "denied",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::TaskEnded { .. } => "task_ended",
        }
    }
}

/// An event with its place, time and actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Envelope {
    /// [`EVENT_VERSION`].
    pub v: u32,
    /// The task.
    pub task: TaskId,
    /// Its place in the task, from 1, without gaps.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Principal,
    /// What.
    pub event: Event,
}

impl Envelope {
    /// The bytes to store.
    ///
    /// # Errors
    /// Only if a value can't be written as JSON, which no type here allows.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// An event from stored bytes.
    ///
    /// # Errors
    /// If the bytes are not an event of a version that this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let envelope: Self = serde_json::from_slice(bytes)?;
        if envelope.v == EVENT_VERSION {
            Ok(envelope)
        } else {
            let why = format!("event version {}, this build reads {EVENT_VERSION}", envelope.v);
            Err(serde::de::Error::custom(why))
        }
    }
}

/// The hash that the first event of a task is chained to.
#[must_use]
pub fn chain_root(task: &TaskId) -> Digest {
    Digest::of_parts(&[b"chargehand task ", task.as_str().as_bytes()])
}

/// The hash of an event: SHA-256 over the previous hash (its 64 hex digits) and the stored bytes.
#[must_use]
pub fn chain(previous: &Digest, stored: &[u8]) -> Digest {
    Digest::of_parts(&[previous.as_str().as_bytes(), stored])
}
