//! A task as it stands: what was asked for, and everything that follows from its events.
//!
//! [`Task`] is only ever made by folding events (`fold`); no field is set anywhere else. Absent:
//! the conversation with the model, which the `agent` room folds for itself from the same events.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::contract::Contract;
use crate::effect::{Effect, FailureClass, FailureSource, TokenUsage};
use crate::evidence::{Evidence, GateSpec};
use crate::id::{CommitSha, Digest, EffectId, SandboxId, TaskId};
use crate::principal::Principal;
pub use crate::state::{Outcome, OutcomeReason, TaskState, Wait, WaitKind};
use crate::step::{ForkPoint, StepFiles, TaskEnvironment};
pub use crate::summary::TaskSummary;

/// Which repository, and where in it work begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RepoSpec {
    /// The origin: an absolute path or a URL.
    pub origin: String,
    /// The branch that the change is for.
    pub base_branch: String,
    /// The commit that the work starts from.
    pub base: CommitSha,
}

/// What does the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AgentSpec {
    /// Our own loop, outside the box, with this model.
    Native {
        /// Provider and model, for example `anthropic/claude-sonnet-4-5` or `replay:demo`.
        model: String,
    },
    /// Any program that edits a tree.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
    },
}

impl AgentSpec {
    /// Its kind's name, as on the wire.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Native { .. } => "native",
            Self::Command { .. } => "command",
        }
    }

    /// The agent's name as a principal and for people.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Native { model } => format!("native {model}"),
            Self::Command { argv } => format!("command {}", argv.first().map_or("", String::as_str)),
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaskSpec {
    /// What is to be reached, in the requester's words.
    pub goal: String,
    /// Where.
    pub repo: RepoSpec,
    /// By what.
    pub agent: AgentSpec,
    /// Under which agreement.
    pub contract: Contract,
    /// Where it begins, if not at the base commit with an empty conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<ForkPoint>,
}

/// How an agent's work came to an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AgentEnd {
    /// It says that it is done.
    Finished {
        /// Its own summary: shown to people, never taken as evidence.
        summary: String,
    },
    /// It was stopped or gave up.
    Stopped {
        /// Why, in the terms of an outcome.
        reason: OutcomeReason,
        /// In a sentence.
        message: String,
    },
    /// Its box or its program was lost; another attempt may follow.
    Lost {
        /// What was lost.
        message: String,
    },
}

/// What came out of the box: `Some(None)` in [`Attempt::collected`] means that nothing was changed.
pub type Collected = Option<CommitSha>;

/// One try at the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// How many times feedback reopened it.
    pub round: u32,
    /// Model calls that were answered.
    pub turns: u32,
    /// How the agent's work ended, if it has.
    pub end: Option<AgentEnd>,
    /// When.
    pub ended_at: Option<Timestamp>,
    /// What was collected after that.
    #[schema(value_type = Option<String>)]
    pub collected: Option<Collected>,
    /// Commits whose gates failed, in the order in which they were judged.
    pub failed: Vec<CommitSha>,
    /// The newest files that were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<StepFiles>,
}

/// A proposed change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Change {
    /// What the agent made.
    pub head: CommitSha,
    /// What would land: `head`, or the merge of a base that moved with `head`.
    pub commit: CommitSha,
    /// The commit of the base branch that `commit` builds on.
    pub onto: CommitSha,
    /// Where it can be seen in the origin.
    pub branch: Option<String>,
}

/// What the recorded evidence of a commit amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Judgement {
    /// Of which commit.
    pub commit: CommitSha,
    /// Whether every required gate passed.
    pub passed: bool,
    /// Names of the gates that did not.
    pub failed: Vec<String>,
    /// What the agent is told about them.
    pub feedback: String,
}

/// What the policy allows for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// It may not land.
    Forbidden,
    /// A person lands it.
    ByHuman,
    /// It lands once reviewed.
    AfterReview,
    /// It lands alone.
    Alone,
}

impl Tier {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::ByHuman => "by_human",
            Self::AfterReview => "after_review",
            Self::Alone => "alone",
        }
    }
}

/// What the policy said about a change, and on what ground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Decision {
    /// What is allowed.
    pub tier: Tier,
    /// By which rule.
    pub rule: String,
    /// In a sentence.
    pub reason: String,
    /// Digest of the policy that was asked.
    pub policy_digest: Digest,
    /// About which commit.
    pub commit: CommitSha,
    /// Digests of the evidence that was looked at.
    pub evidence_digests: Vec<Digest>,
}

/// A person's word for a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Approval {
    /// For the agent's commit that the person looked at.
    pub head: CommitSha,
    /// Who.
    pub by: Principal,
    /// When.
    pub at: Timestamp,
    /// With what remark.
    pub comment: String,
}

/// A person's wish to land.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LandRequest {
    /// Who.
    pub by: Principal,
    /// Whether a clean work tree that has the branch checked out may move along.
    pub update_worktree: bool,
}

/// An intent whose result is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OpenEffect {
    /// What.
    pub effect: Effect,
    /// Since when.
    pub since: Timestamp,
}

/// Failures of the platform's own effects, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Failures {
    /// How many without a success between.
    pub count: u32,
    /// What can be done about the last.
    pub class: FailureClass,
    /// Whose fault it was.
    pub source: FailureSource,
    /// What it said.
    pub message: String,
    /// Which effect.
    pub effect: String,
    /// When.
    pub at: Timestamp,
    /// Not again before.
    pub not_before: Timestamp,
}

/// A task, folded from its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Number of the last event.
    pub seq: u64,
    /// Who asked.
    pub requester: Principal,
    /// What for.
    pub spec: TaskSpec,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When the last event happened.
    pub updated_at: Timestamp,
    /// Where it stands.
    pub state: TaskState,
    /// Why it stands still, if it does.
    pub wait: Option<Wait>,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
    /// The environment that was chosen at the base commit, and what was built for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<TaskEnvironment>,
    /// The gates that were chosen from the base commit and the contract.
    pub gates: Option<Vec<GateSpec>>,
    /// The current attempt.
    pub attempt: Option<Attempt>,
    /// The proposed change.
    pub change: Option<Change>,
    /// All evidence, also of earlier commits.
    pub evidence: Vec<Evidence>,
    /// What the evidence of the proposed commit amounts to.
    pub judgement: Option<Judgement>,
    /// What the policy said about the proposed commit.
    pub decision: Option<Decision>,
    /// Who approved.
    pub approvals: Vec<Approval>,
    /// Who wants it landed.
    pub land_request: Option<LandRequest>,
    /// What landed.
    pub landed: Option<CommitSha>,
    /// Whether somebody called it off.
    pub cancel_requested: bool,
    /// What is being done, or was when the platform stopped.
    pub open_effects: BTreeMap<EffectId, OpenEffect>,
    /// Boxes of attempts that exist. A gate's box lives and dies inside its effect.
    pub sandboxes: BTreeSet<SandboxId>,
    /// What failed lately.
    pub failures: Option<Failures>,
    /// Tokens used.
    pub usage: TokenUsage,
    /// Money used, as far as prices are known.
    pub cost_micro_usd: u64,
    /// Answers without a known price.
    pub unpriced_calls: u32,
    /// Remarks for people.
    pub notes: Vec<String>,
    /// How many things were denied.
    pub denials: u32,
    /// Time spent waiting for people, which the wall budget does not count.
    pub waited_ms: u64,
}

impl Task {
    /// The commit that evidence, judgement and decision are about now.
    #[must_use]
    pub fn proposed(&self) -> Option<&CommitSha> {
        self.change.as_ref().map(|change| &change.commit)
    }

    /// The newest evidence of one gate on one commit.
    #[must_use]
    pub fn evidence_for(&self, gate: &GateSpec, commit: &CommitSha) -> Option<&Evidence> {
        self.evidence.iter().rev().find(|e| &e.commit == commit && e.gate == *gate)
    }

    /// The sandbox in which the current attempt works.
    #[must_use]
    pub fn attempt_sandbox(&self) -> Option<SandboxId> {
        let number = self.attempt.as_ref()?.number;
        SandboxId::parse(&format!("{}-a{number}", self.id)).ok()
    }

    /// Whether this very change was approved by a person.
    #[must_use]
    pub fn is_approved(&self) -> bool {
        self.change.as_ref().is_some_and(|change| self.approvals.iter().any(|a| a.head == change.head))
    }

    /// When the wall budget is used up if nothing is waited for from now on.
    #[must_use]
    pub fn wall_expires_at(&self) -> Timestamp {
        let allowed_ms = self.spec.contract.budget.wall_ms.saturating_add(self.waited_ms);
        let allowed = jiff::SignedDuration::from_millis(i64::try_from(allowed_ms).unwrap_or(i64::MAX));
        self.submitted_at.checked_add(allowed).unwrap_or(Timestamp::MAX)
    }
}
