//! Reports on one task: its diff, its evidence, and why it landed or did not.
//!
//! Each record carries the number of the event that it was read from, so that everything said
//! here can be looked up in the log. Absent: how they are put together; that is `crate::story`.

use domain::evidence::{CommandEnd, Evidence, GateSpec};
use domain::id::{CommitSha, Digest, TaskId};
use domain::principal::Principal;
use domain::task::{Change, Decision, Judgement, Outcome, TaskState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the proposed change changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffBody {
    /// The commit that is compared with.
    pub base: CommitSha,
    /// The agent's commit: what to name when approving.
    pub head: CommitSha,
    /// File by file.
    pub files: Vec<DiffFile>,
    /// The whole as a unified diff.
    pub patch: String,
    /// Whether the patch was cut because of its size; `files` is complete.
    pub truncated: bool,
    /// What a person should know of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One changed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffFile {
    /// Its path; control characters and bytes that are not text are written as escapes.
    pub path: String,
    /// The path before it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    /// `added`, `modified`, `deleted`, `renamed` or `type_changed`.
    pub status: String,
    /// Lines added; 0 for files that are not text.
    pub added_lines: u64,
    /// Lines removed; 0 for files that are not text.
    pub removed_lines: u64,
    /// Whether it is not text.
    pub binary: bool,
}

impl From<orchestrator::TaskDiff> for DiffBody {
    fn from(diff: orchestrator::TaskDiff) -> Self {
        let files = diff.files.into_iter().map(|file| DiffFile {
            path: file.path,
            old_path: file.old_path,
            status: file.status,
            added_lines: file.added_lines,
            removed_lines: file.removed_lines,
            binary: file.binary,
        });
        let files = files.collect();
        Self {
            base: diff.base,
            head: diff.head,
            files,
            patch: diff.patch,
            truncated: diff.truncated,
            notes: diff.notes,
        }
    }
}

/// Evidence with the event that recorded it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvidenceRecord {
    /// The event.
    pub seq: u64,
    /// The digest that decisions name it by; it can be computed again from `evidence`.
    pub digest: Digest,
    /// The record.
    pub evidence: Evidence,
}

/// How one gate stands on the proposed commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateStatus {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It has not been run on this commit.
    Missing,
}

/// A gate that is to pass, and the newest evidence of it on the proposed commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GateStanding {
    /// The gate.
    pub gate: GateSpec,
    /// How it stands.
    pub status: GateStatus,
    /// On what ground.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<EvidenceRecord>,
}

/// What is proved about a task's change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvidenceBody {
    /// The task.
    pub task: TaskId,
    /// Where the task stands.
    pub state: TaskState,
    /// The proposed commit, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitSha>,
    /// Every gate that was chosen, also those that are missing on this commit.
    pub gates: Vec<GateStanding>,
    /// Everything else that was recorded: older runs and other commits, oldest first.
    pub earlier: Vec<EvidenceRecord>,
    /// What the evidence amounts to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgement: Option<Judgement>,
    /// What the policy said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// Who asked for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Asked {
    /// The event.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: Principal,
    /// For what.
    pub goal: String,
    /// Where.
    pub origin: String,
    /// For which branch.
    pub base_branch: String,
    /// From which commit.
    pub base: CommitSha,
}

/// Evidence was weighed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JudgementRecord {
    /// The event.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Whether it is about the commit that is proposed now, or that landed.
    pub current: bool,
    /// The result.
    pub judgement: Judgement,
}

/// The policy was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DecisionRecord {
    /// The event.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Whether it is about the commit that is proposed now, or that landed.
    pub current: bool,
    /// What it said: tier, rule, policy digest, evidence digests.
    pub decision: Decision,
}

/// A person approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalRecord {
    /// The event.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: Principal,
    /// The agent's commit that was looked at.
    pub head: CommitSha,
    /// Whether that is the change that is proposed now, or that landed.
    pub current: bool,
    /// With what remark.
    pub comment: String,
}

/// A person wanted it landed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LandRequestRecord {
    /// The event.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: Principal,
    /// The agent's commit.
    pub head: CommitSha,
}

/// Something was not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DenialRecord {
    /// The event.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// To whom.
    pub by: Principal,
    /// What.
    pub action: String,
    /// By which rule.
    pub rule: String,
    /// Why.
    pub reason: String,
}

/// The platform tried to move the base branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LandingRecord {
    /// The event that began it.
    pub seq: u64,
    /// When that was.
    pub at: Timestamp,
    /// The branch.
    pub branch: String,
    /// To this commit.
    pub commit: CommitSha,
    /// From this commit.
    pub expected_base: CommitSha,
    /// The event that ended it; absent while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_seq: Option<u64>,
    /// Whether the branch moved.
    pub landed: bool,
    /// What went wrong, if something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How the task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeRecord {
    /// The event.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who ended it.
    pub by: Principal,
    /// In which state.
    pub state: TaskState,
    /// With what reason.
    pub outcome: Outcome,
}

/// Why a change landed, or why it has not: who asked, what was proved, what the policy said, who
/// approved, what was denied, how it ended. Everything in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyBody {
    /// The task.
    pub task: TaskId,
    /// The last event that this account covers.
    pub seq: u64,
    /// Where the task stands.
    pub state: TaskState,
    /// The whole story in one sentence.
    pub summary: String,
    /// What landed, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landed: Option<CommitSha>,
    /// What still stands between the change and its landing; empty once it landed or ended.
    pub missing: Vec<String>,
    /// Who asked.
    pub asked: Asked,
    /// The proposed change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Everything that was recorded, without its output.
    pub evidence: Vec<EvidenceLine>,
    /// What it amounted to.
    pub judgements: Vec<JudgementRecord>,
    /// What the policy said.
    pub decisions: Vec<DecisionRecord>,
    /// Who approved.
    pub approvals: Vec<ApprovalRecord>,
    /// Who wanted it landed.
    pub land_requests: Vec<LandRequestRecord>,
    /// What was denied.
    pub denials: Vec<DenialRecord>,
    /// What the platform did about it.
    pub landings: Vec<LandingRecord>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeRecord>,
}

/// One gate's result in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvidenceLine {
    /// The event.
    pub seq: u64,
    /// When it ended.
    pub at: Timestamp,
    /// The gate's name.
    pub gate: String,
    /// Whether a change may not land without it.
    pub required: bool,
    /// On which commit.
    pub commit: CommitSha,
    /// Whether that is the commit that is proposed now, or that landed.
    pub current: bool,
    /// How it ended.
    pub end: CommandEnd,
    /// Whether that is a pass.
    pub passed: bool,
    /// The digest that decisions name it by.
    pub digest: Digest,
    /// The whole output, at `/v1/tasks/{id}/blobs/{digest}`.
    pub output_digest: Digest,
}
