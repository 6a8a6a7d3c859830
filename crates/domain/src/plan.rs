//! Where a task stands and what time it is → what is to be done next.
//!
//! `plan` is deterministic and reads no clock. It never says how. The path after a restart is the
//! everyday path: the orchestrator plans, does the first thing, stores what came of it and plans
//! again. An effect that is open although nobody is at work on it is looked up first
//! ([`Action::Recover`]); nothing new begins before that.
//!
//! ```text
//! choose gates → attempt → agent … → collect → gates → judge ─failed→ feedback → agent …
//!                                                        └─passed→ decide → publish → review → land
//! ```
//!
//! Absent: the turns of an agent. `RunAgent` hands over to the agent's own state machine.

use jiff::Timestamp;

use crate::contract::Deliverable;
use crate::effect::{Effect, FailureClass, FailureSource};
use crate::event::MessageSource;
use crate::evidence::GateSpec;
use crate::id::{CommitSha, EffectId};
use crate::task::{AgentEnd, AgentSpec, Attempt, Change, Judgement, Outcome, OutcomeReason, Task, TaskState, Tier};

/// How often a failed effect is tried before the task ends: some twenty minutes in all.
pub const MAX_FAILURES: u32 = 17;
/// How often a box of an ended task is tried to be removed.
pub const MAX_CLOSE_FAILURES: u32 = 8;
/// Pause before a second attempt, in milliseconds; four times as long before a third.
pub const ATTEMPT_PAUSE_MS: i64 = 2_000;
/// How many attempts a task gets.
pub const MAX_ATTEMPTS: u32 = 3;

/// One thing to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read the gates from the base commit and the contract.
    ChooseGates,
    /// Begin an attempt.
    StartAttempt {
        /// Its number.
        attempt: u32,
    },
    /// Let the agent of the current attempt work until it ends or waits.
    RunAgent {
        /// Which attempt.
        attempt: u32,
    },
    /// Find out what came of an effect whose result was never stored.
    Recover {
        /// Its id.
        id: EffectId,
        /// What was intended.
        effect: Effect,
    },
    /// Do this, with its intent stored before and its result after.
    Perform(Effect),
    /// Weigh the evidence of this commit.
    Judge {
        /// Which.
        commit: CommitSha,
    },
    /// Tell the agent what is wrong with its result, and let it go on.
    GiveFeedback {
        /// Who says it.
        source: MessageSource,
        /// What.
        text: String,
    },
    /// Ask the policy about this commit.
    Decide {
        /// Which.
        commit: CommitSha,
    },
    /// Ask the policy for a permit to land, and land.
    Land,
    /// Wait for a person to look at the change.
    AskReview {
        /// What the person is told.
        reason: String,
    },
    /// End the task.
    End {
        /// In this state.
        state: TaskState,
        /// Like this.
        outcome: Outcome,
    },
    /// Nothing before then.
    WakeAt(Timestamp),
}

fn end(state: TaskState, reason: OutcomeReason, message: impl Into<String>) -> Vec<Action> {
    vec![Action::End { state, outcome: Outcome { reason, message: message.into() } }]
}

/// What is to be done next, in order. Empty when the task has ended and nothing is left behind.
#[must_use]
pub fn plan(task: &Task, now: Timestamp) -> Vec<Action> {
    let recover = recoveries(task);
    if task.state.is_terminal() {
        return after_the_end(task, now, recover);
    }
    let landing_open = task.open_effects.values().any(|open| matches!(open.effect, Effect::Land { .. }));
    if task.cancel_requested && !landing_open {
        return match &task.landed {
            Some(commit) => end(
                TaskState::Completed,
                OutcomeReason::Done,
                format!("{} had landed when the cancel came", commit.short()),
            ),
            None => end(TaskState::Canceled, OutcomeReason::User, "canceled"),
        };
    }
    let deadline = task.spec.contract.deadline.unwrap_or(Timestamp::MAX);
    let expires_at = if task.wait.is_some() { deadline } else { deadline.min(task.wall_expires_at()) };
    if now >= expires_at && !landing_open && task.landed.is_none() {
        return end(TaskState::Failed, OutcomeReason::Timeout, "the task's time is up; `logs` has what happened");
    }
    if let Some(wait) = &task.wait {
        if now >= wait.expires_at {
            return end(
                TaskState::Failed,
                OutcomeReason::Timeout,
                format!("nobody answered in time ({}): {}", wait.kind.name(), wait.reason),
            );
        }
        return vec![Action::WakeAt(wait.expires_at.min(expires_at))];
    }
    if !recover.is_empty() {
        return recover;
    }
    if let Some(actions) = after_failure(task, now, expires_at) {
        return actions;
    }
    if task.gates.is_none() {
        return vec![Action::ChooseGates];
    }
    if let Some(environment) = &task.environment
        && environment.choice.needs_build
        && environment.layers.is_none()
    {
        let recipe_digest = environment.choice.recipe_digest.clone();
        return vec![Action::Perform(Effect::BuildEnvironment { recipe_digest })];
    }
    match &task.attempt {
        None => vec![Action::StartAttempt { attempt: 1 }],
        Some(attempt) => after_attempt(task, attempt, now),
    }
}

/// Open effects that a wait does not explain.
fn recoveries(task: &Task) -> Vec<Action> {
    let awaited = task.wait.as_ref().and_then(|wait| wait.effect.as_ref());
    task.open_effects
        .iter()
        .filter(|(id, _)| Some(*id) != awaited)
        .map(|(id, open)| Action::Recover { id: id.clone(), effect: open.effect.clone() })
        .collect()
}

/// Only boxes are left to remove; one that can't be removed is left to the sweeper of the next start.
fn after_the_end(task: &Task, now: Timestamp, recover: Vec<Action>) -> Vec<Action> {
    match task.failures.as_ref().filter(|failures| failures.effect == "close_sandbox") {
        Some(failures) if failures.count >= MAX_CLOSE_FAILURES => Vec::new(),
        Some(failures) if now < failures.not_before => vec![Action::WakeAt(failures.not_before)],
        _ if recover.is_empty() => closings(task),
        _ => recover,
    }
}

/// Boxes to remove.
fn closings(task: &Task) -> Vec<Action> {
    let close = |sandbox: &crate::id::SandboxId| Action::Perform(Effect::CloseSandbox { sandbox: sandbox.clone() });
    task.sandboxes.iter().map(close).collect()
}

/// What a failed effect of the platform's own means: later again, a person, or the end.
fn after_failure(task: &Task, now: Timestamp, expires_at: Timestamp) -> Option<Vec<Action>> {
    let failures = task.failures.as_ref()?;
    if matches!(task.attempt.as_ref().and_then(|attempt| attempt.end.as_ref()), Some(AgentEnd::Stopped { .. })) {
        // Bringing out what was made so far is worth one try; the stop's own reason stays the outcome.
        return None;
    }
    let landing = failures.effect == "land" || failures.effect == "merge_base";
    let hopeless = match failures.class {
        FailureClass::Retry | FailureClass::Unknown => failures.count >= MAX_FAILURES,
        FailureClass::NeedsPerson | FailureClass::Final => true,
    };
    // What the agent left behind can't be taken as it is: the agent may mend it, as it may after a gate.
    if hopeless
        && failures.effect == "collect"
        && failures.source == FailureSource::Model
        && can_listen(task)
        && task.attempt.as_ref().is_some_and(|attempt| attempt.round < task.spec.contract.gate_rounds)
    {
        let text =
            format!("Your result can't be taken out of the sandbox: {}. Mend that, and end again.", failures.message);
        return Some(vec![Action::GiveFeedback { source: MessageSource::Platform, text }]);
    }
    if hopeless && landing {
        return Some(vec![Action::AskReview { reason: format!("not landed: {}", failures.message) }]);
    }
    if hopeless && failures.effect == "publish" {
        let reason = format!("the change is ready but could not be shown in the repository: {}", failures.message);
        return Some(vec![Action::AskReview { reason }]);
    }
    if hopeless {
        return Some(end(
            TaskState::Failed,
            failures.source.into(),
            format!("{} failed: {}", failures.effect, failures.message),
        ));
    }
    (now < failures.not_before).then(|| vec![Action::WakeAt(failures.not_before.min(expires_at))])
}

/// What was lost once is likely to be lost at once again.
fn next_attempt(attempt: &Attempt, now: Timestamp) -> Vec<Action> {
    let pause_ms = ATTEMPT_PAUSE_MS << (2 * attempt.number.saturating_sub(1)).min(6);
    let pause = jiff::SignedDuration::from_millis(pause_ms);
    match attempt.ended_at.and_then(|ended| ended.checked_add(pause).ok()) {
        Some(not_before) if now < not_before => vec![Action::WakeAt(not_before)],
        _ => vec![Action::StartAttempt { attempt: attempt.number + 1 }],
    }
}

fn after_attempt(task: &Task, attempt: &Attempt, now: Timestamp) -> Vec<Action> {
    match &attempt.end {
        None => vec![Action::RunAgent { attempt: attempt.number }],
        Some(AgentEnd::Lost { .. }) if attempt.number < MAX_ATTEMPTS => {
            let actions = closings(task);
            if actions.is_empty() { next_attempt(attempt, now) } else { actions }
        }
        Some(AgentEnd::Lost { message }) => end(
            TaskState::Failed,
            OutcomeReason::Infra,
            format!("{MAX_ATTEMPTS} attempts were lost; the last: {message}"),
        ),
        // What was made so far is brought out, so that nothing that was paid for is lost.
        Some(AgentEnd::Stopped { .. }) if attempt.collected.is_none() && task.failures.is_none() => {
            vec![Action::Perform(Effect::Collect { attempt: attempt.number, round: attempt.round })]
        }
        Some(AgentEnd::Stopped { reason, message }) => {
            let left = task.change.as_ref().map_or("", |_| "; `diff` shows what was made so far, unproved");
            end(TaskState::Failed, *reason, format!("{message}{left}"))
        }
        Some(AgentEnd::Finished { summary }) => match (&attempt.collected, &task.change) {
            (None, _) => {
                vec![Action::Perform(Effect::Collect { attempt: attempt.number, round: attempt.round })]
            }
            (Some(_), Some(change)) => after_collect(task, attempt, change),
            (Some(_), None) => after_nothing(task, attempt, summary),
        },
    }
}

/// An end without any change: once it is worth asking whether that was meant.
fn after_nothing(task: &Task, attempt: &Attempt, summary: &str) -> Vec<Action> {
    if can_listen(task) && attempt.round == 0 && task.spec.contract.gate_rounds > 0 {
        let text = "You ended, but no file differs from the start. Announcing a change does not make it: use the tools. If nothing needs to change, say why.";
        return vec![Action::GiveFeedback { source: MessageSource::Platform, text: text.to_owned() }];
    }
    let said =
        if summary.trim().is_empty() { "and said nothing".to_owned() } else { format!("and said: {}", summary.trim()) };
    end(TaskState::Failed, OutcomeReason::Stuck, format!("the agent ended without changing any file, {said}"))
}

/// Whether the agent takes messages.
fn can_listen(task: &Task) -> bool {
    matches!(task.spec.agent, AgentSpec::Native { .. })
}

fn after_collect(task: &Task, attempt: &Attempt, change: &Change) -> Vec<Action> {
    let gates = task.gates.as_deref().unwrap_or_default();
    if let Some(gate) = gates.iter().find(|gate| task.evidence_for(gate, &change.commit).is_none()) {
        return vec![Action::Perform(Effect::RunGate { gate: gate.clone(), commit: change.commit.clone() })];
    }
    let Some(judgement) = &task.judgement else {
        return vec![Action::Judge { commit: change.commit.clone() }];
    };
    if !judgement.passed {
        return after_failed_gates(task, attempt, change, judgement);
    }
    let Some(decision) = &task.decision else {
        return vec![Action::Decide { commit: change.commit.clone() }];
    };
    if decision.tier == Tier::Forbidden {
        return end(TaskState::Rejected, OutcomeReason::Policy, decision.reason.clone());
    }
    let only_branch = task.spec.contract.deliverable == Deliverable::Branch;
    if change.branch.is_none() && (task.land_request.is_none() || only_branch) {
        return vec![Action::Perform(Effect::Publish { commit: change.commit.clone() })];
    }
    if let Some(commit) = &task.landed {
        let message = format!("landed on {} as {}", task.spec.repo.base_branch, commit.short());
        return end(TaskState::Completed, OutcomeReason::Done, message);
    }
    if only_branch {
        let message = format!("branch {} is proved and ready", change.branch.as_deref().unwrap_or_default());
        return end(TaskState::Completed, OutcomeReason::Done, message);
    }
    if task.land_request.is_some() {
        return vec![Action::Land];
    }
    vec![Action::AskReview { reason: review_reason(task, change, gates) }]
}

fn after_failed_gates(task: &Task, attempt: &Attempt, change: &Change, judgement: &Judgement) -> Vec<Action> {
    let names = judgement.failed.join(", ");
    if change.commit != change.head {
        return vec![Action::AskReview {
            reason: format!(
                "{} moved while the task ran, and merged with it these gates fail: {names}. `say` what to do, `reject` or `cancel`",
                task.spec.repo.base_branch
            ),
        }];
    }
    let stuck = |why: &str| {
        end(
            TaskState::Failed,
            OutcomeReason::Stuck,
            format!("{why}: {names}; `evidence` has their output, `diff` the change"),
        )
    };
    if !can_listen(task) {
        return stuck("gates fail");
    }
    // The same commit again is the same tree again: the agent changed nothing after it was told.
    if attempt.failed.iter().filter(|commit| **commit == change.commit).count() > 1 {
        return stuck("the agent changed nothing after it was told that these gates fail");
    }
    if attempt.round >= task.spec.contract.gate_rounds {
        return stuck(&format!("gates still fail after {} rounds of feedback", attempt.round));
    }
    vec![Action::GiveFeedback { source: MessageSource::Gates, text: judgement.feedback.clone() }]
}

fn review_reason(task: &Task, change: &Change, gates: &[GateSpec]) -> String {
    let passed = |gate: &&GateSpec| task.evidence_for(gate, &change.commit).is_some_and(|evidence| evidence.passed);
    let proof = match (gates.iter().filter(passed).count(), gates.len()) {
        (_, 0) => "no gate was found, so nothing is proved".to_owned(),
        (1, 1) => "1 gate passed".to_owned(),
        (n, all) if n == all => format!("{n} gates passed"),
        (n, all) => format!("{n} of {all} gates passed, the others are not required"),
    };
    let next = if task.is_approved() {
        "approved; `land` it"
    } else {
        "look at it, then `approve` and `land`, or `say` what to change, or `reject`"
    };
    format!("change {} is ready: {proof}; {next}", change.head.short())
}
