//! One line of a list of tasks, derived from the task.
//!
//! Absent: anything that is not in the task; the store writes a summary with the events that it is
//! derived from, in one transaction.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::TaskId;
use crate::principal::Principal;
use crate::state::{OutcomeReason, TaskState, WaitKind};
use crate::task::Task;

/// One line of a list of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaskSummary {
    /// The task.
    pub id: TaskId,
    /// Its last event.
    pub seq: u64,
    /// What was asked for.
    pub goal: String,
    /// The origin.
    pub origin: String,
    /// Branch that the change is for.
    pub base_branch: String,
    /// Who asked.
    pub requester: Principal,
    /// What does the work.
    pub agent: String,
    /// Of which kind that is: `native` or `command`.
    pub agent_kind: String,
    /// Whether a person approved the change that is proposed now.
    pub approved: bool,
    /// Where it stands.
    pub state: TaskState,
    /// What it waits for.
    pub wait_kind: Option<WaitKind>,
    /// Why: the wait's reason or the outcome's message.
    pub reason: String,
    /// How it ended.
    pub outcome: Option<OutcomeReason>,
    /// Gates passed on the proposed commit.
    pub gates_passed: u32,
    /// Gates whose newest run failed, on whatever commit.
    pub gates_failed: u32,
    /// Gates that are to pass.
    pub gates_total: u32,
    /// Model calls answered in the current attempt.
    pub turns: u32,
    /// Money used, as far as known.
    pub cost_micro_usd: u64,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When the last event happened.
    pub updated_at: Timestamp,
}

impl From<&Task> for TaskSummary {
    fn from(task: &Task) -> Self {
        let gates = task.gates.as_deref().unwrap_or_default();
        let passed = task.proposed().map_or(0, |commit| {
            gates.iter().filter(|gate| task.evidence_for(gate, commit).is_some_and(|e| e.passed)).count()
        });
        let failed = gates.iter().filter(|gate| {
            let newest = task.evidence.iter().rev().find(|evidence| evidence.gate == **gate);
            newest.is_some_and(|evidence| !evidence.passed)
        });
        let gates_failed = u32::try_from(failed.count()).unwrap_or(u32::MAX);
        let reason = match (&task.wait, &task.outcome) {
            (Some(wait), _) => wait.reason.clone(),
            (None, Some(outcome)) => outcome.message.clone(),
            (None, None) => String::new(),
        };
        Self {
            id: task.id.clone(),
            seq: task.seq,
            goal: task.spec.goal.clone(),
            origin: task.spec.repo.origin.clone(),
            base_branch: task.spec.repo.base_branch.clone(),
            requester: task.requester.clone(),
            agent: task.spec.agent.name(),
            agent_kind: task.spec.agent.kind().to_owned(),
            approved: task.is_approved(),
            state: task.state,
            wait_kind: task.wait.as_ref().map(|wait| wait.kind),
            reason,
            outcome: task.outcome.as_ref().map(|outcome| outcome.reason),
            gates_passed: u32::try_from(passed).unwrap_or(u32::MAX),
            gates_failed,
            gates_total: u32::try_from(gates.len()).unwrap_or(u32::MAX),
            turns: task.attempt.as_ref().map_or(0, |attempt| attempt.turns),
            cost_micro_usd: task.cost_micro_usd,
            submitted_at: task.submitted_at,
            updated_at: task.updated_at,
        }
    }
}
