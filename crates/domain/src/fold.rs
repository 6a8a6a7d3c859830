//! Events → task. The only place where a [`Task`] comes to be or changes.
//!
//! `apply` either takes an event whole or refuses it as [`Illegal`] and leaves the task as it was.
//! The orchestrator applies an event before it stores it, so that a stored log always folds; every
//! prefix of a log folds too. Absent: decisions. What should happen next is `plan`'s business, what
//! a person may ask for is `command`'s.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::effect::{Effect, EffectResult, FailureClass};
use crate::event::{Envelope, Event, MessageSource};
use crate::id::{CommitSha, EffectId};
use crate::step::{StepFiles, TaskEnvironment};
use crate::task::{
    AgentEnd, Approval, Attempt, Change, Failures, LandRequest, OpenEffect, Task, TaskSpec, TaskState, Tier, WaitKind,
};

/// Least delay before a failed effect is tried again; doubles with each failure.
pub const RETRY_BASE_MS: i64 = 500;

/// An event that can't follow from where the task stands. Always a bug or a broken log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// The first event is not a submission, or a later one is.
    #[error("a log begins with its one task_submitted, but event {seq} is `{event}`")]
    Beginning {
        /// Its number.
        seq: u64,
        /// Its type.
        event: &'static str,
    },
    /// An event is missing or doubled, or belongs to another task.
    #[error("event {given} of task {task} can't follow event {last}")]
    Sequence {
        /// The event's task.
        task: String,
        /// The event's number.
        given: u64,
        /// The last one folded.
        last: u64,
    },
    /// The event does not fit the state.
    #[error("`{event}` (event {seq}) can't happen to a task that is {state}: {why}")]
    Transition {
        /// Its number.
        seq: u64,
        /// Its type.
        event: &'static str,
        /// The task's state.
        state: &'static str,
        /// What is missing.
        why: &'static str,
    },
}

/// Folds a whole log, or any prefix of one.
///
/// # Errors
/// [`Illegal`] at the first event that can't follow; also for an empty log.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Envelope>) -> Result<Task, Illegal> {
    let mut events = events.into_iter();
    let first = events.next().ok_or(Illegal::Beginning { seq: 0, event: "nothing" })?;
    let mut task = begin(first)?;
    for envelope in events {
        apply(&mut task, envelope)?;
    }
    Ok(task)
}

/// The task that a first event makes.
///
/// # Errors
/// [`Illegal::Beginning`] if it is not a submission with number 1.
pub fn begin(first: &Envelope) -> Result<Task, Illegal> {
    match &first.event {
        Event::TaskSubmitted { spec, notes } if first.seq == 1 => Ok(new_task(first, spec, notes)),
        other => Err(Illegal::Beginning { seq: first.seq, event: other.name() }),
    }
}

fn new_task(first: &Envelope, spec: &TaskSpec, notes: &[String]) -> Task {
    Task {
        id: first.task.clone(),
        seq: 1,
        requester: first.actor.clone(),
        spec: spec.clone(),
        submitted_at: first.at,
        updated_at: first.at,
        state: TaskState::Submitted,
        wait: None,
        outcome: None,
        environment: None,
        gates: None,
        attempt: None,
        change: None,
        evidence: Vec::new(),
        judgement: None,
        decision: None,
        approvals: Vec::new(),
        land_request: None,
        landed: None,
        cancel_requested: false,
        open_effects: BTreeMap::new(),
        sandboxes: BTreeSet::new(),
        failures: None,
        usage: crate::effect::TokenUsage::default(),
        cost_micro_usd: 0,
        unpriced_calls: 0,
        notes: notes.to_vec(),
        denials: 0,
        waited_ms: 0,
    }
}

/// Folds one more event into a task.
///
/// # Errors
/// [`Illegal`] if it can't follow; the task is then unchanged.
pub fn apply(task: &mut Task, envelope: &Envelope) -> Result<(), Illegal> {
    if envelope.task != task.id || envelope.seq != task.seq + 1 {
        return Err(Illegal::Sequence { task: envelope.task.to_string(), given: envelope.seq, last: task.seq });
    }
    check(task, envelope)?;
    change(task, envelope);
    task.seq = envelope.seq;
    task.updated_at = envelope.at;
    Ok(())
}

/// Whether the event may follow. Everything that can be refused is refused here, before any change.
fn check(task: &Task, envelope: &Envelope) -> Result<(), Illegal> {
    let no = |why| {
        Err(Illegal::Transition { seq: envelope.seq, event: envelope.event.name(), state: task.state.name(), why })
    };
    if task.state.is_terminal() {
        let cleanup = match &envelope.event {
            Event::EffectStarted { effect: Effect::CloseSandbox { .. }, .. } => true,
            Event::EffectEnded { id, .. } => task.open_effects.contains_key(id),
            Event::Noted { .. } | Event::Denied { .. } | Event::EgressReported { .. } => true,
            _ => false,
        };
        return if cleanup { Ok(()) } else { no("it has ended; only cleaning up may follow") };
    }
    match &envelope.event {
        Event::TaskSubmitted { .. } => Err(Illegal::Beginning { seq: envelope.seq, event: "task_submitted" }),
        Event::Noted { .. } | Event::Denied { .. } | Event::EgressReported { .. } => Ok(()),
        Event::CancelRequested { .. } if task.cancel_requested => no("it was called off before"),
        Event::CancelRequested { .. } => Ok(()),
        Event::GatesChosen { .. } if task.gates.is_some() => no("gates are chosen once"),
        Event::GatesChosen { .. } => Ok(()),
        Event::EnvironmentChosen { .. } if task.environment.is_some() => no("the environment is chosen once"),
        Event::EnvironmentChosen { .. } | Event::MessageAdded { .. } => Ok(()),
        Event::AttemptStarted { attempt } => {
            let next = task.attempt.as_ref().map_or(1, |a| a.number + 1);
            if *attempt == next { Ok(()) } else { no("attempts are numbered without gaps") }
        }
        Event::EffectStarted { id, .. } if task.open_effects.contains_key(id) => no("this effect is open already"),
        Event::EffectStarted { effect: Effect::Land { commit, .. }, .. } if !may_land(task, commit) => {
            no("only a proposed, decided and approved commit can land")
        }
        Event::EffectStarted { effect: Effect::RunGate { commit, .. }, .. } if task.proposed() != Some(commit) => {
            no("gates are run on the proposed commit")
        }
        Event::EffectStarted { .. } if task.state == TaskState::Working => Ok(()),
        Event::EffectStarted { effect: Effect::BuildEnvironment { .. }, .. } if task.state == TaskState::Submitted => {
            Ok(())
        }
        Event::EffectStarted { .. } => no("effects are started only while it works"),
        Event::EffectEnded { id, result } => match task.open_effects.get(id) {
            Some(open) if open.effect.is_answered_by(result) => Ok(()),
            Some(_) => no("this result does not answer that effect"),
            None => no("no such effect is open"),
        },
        Event::AgentEnded { attempt, .. } => match &task.attempt {
            Some(a) if a.number == *attempt && a.end.is_none() => Ok(()),
            _ => no("the agent of that attempt is not at work"),
        },
        Event::WaitStarted { wait } if wait.kind == WaitKind::Review && task.change.is_none() => {
            no("there is no change to look at")
        }
        Event::WaitStarted { .. } if task.state == TaskState::Working => Ok(()),
        Event::WaitStarted { .. } => no("only a working task can begin to wait"),
        Event::WaitEnded { .. } if task.wait.is_some() => Ok(()),
        Event::WaitEnded { .. } => no("it does not wait"),
        Event::GatesJudged { judgement } if task.proposed() == Some(&judgement.commit) => Ok(()),
        Event::GatesJudged { .. } => no("that commit is not the proposed one"),
        Event::Decided { decision } => {
            let judged = task.judgement.as_ref().is_some_and(|j| j.passed && j.commit == decision.commit);
            if task.proposed() == Some(&decision.commit) && judged {
                Ok(())
            } else {
                no("the policy decides only on the proposed commit, after its gates passed")
            }
        }
        Event::Approved { head, .. } | Event::LandRequested { head, .. } => {
            if task.change.as_ref().is_some_and(|c| &c.head == head) {
                Ok(())
            } else {
                no("that is not the proposed change")
            }
        }
        Event::TaskEnded { state, .. } => {
            if !state.is_terminal() || !task.state.may_become(*state) {
                no("this is no end that it may come to")
            } else if *state == TaskState::Completed && !is_decided(task) {
                no("nothing is completed without the policy's decision on what was proposed")
            } else {
                Ok(())
            }
        }
    }
}

/// Whether the policy decided on what is proposed, and did not forbid it.
fn is_decided(task: &Task) -> bool {
    let decided = task.decision.as_ref().filter(|decision| decision.tier != Tier::Forbidden);
    decided.is_some_and(|decision| task.proposed() == Some(&decision.commit))
}

fn may_land(task: &Task, commit: &CommitSha) -> bool {
    task.state == TaskState::Working && task.proposed() == Some(commit) && is_decided(task) && task.is_approved()
}

/// Makes the change that a checked event means. Total: nothing can go wrong here.
fn change(task: &mut Task, envelope: &Envelope) {
    match &envelope.event {
        Event::TaskSubmitted { .. } => {}
        Event::Noted { text } => task.notes.push(text.clone()),
        Event::GatesChosen { gates, .. } => task.gates = Some(gates.clone()),
        Event::EnvironmentChosen { environment } => {
            task.environment = Some(TaskEnvironment { choice: environment.clone(), layers: None, env: Vec::new() });
        }
        Event::AttemptStarted { attempt } => {
            task.state = TaskState::Working;
            task.wait = None;
            task.attempt = Some(Attempt {
                number: *attempt,
                round: 0,
                turns: 0,
                end: None,
                ended_at: None,
                collected: None,
                failed: Vec::new(),
                files: None,
            });
            forget_change(task);
        }
        Event::EffectStarted { id, effect } => {
            if task.state == TaskState::Submitted {
                task.state = TaskState::Working;
            }
            if let Effect::OpenSandbox { sandbox, .. } = effect {
                task.sandboxes.insert(sandbox.clone());
            }
            task.open_effects.insert(id.clone(), OpenEffect { effect: effect.clone(), since: envelope.at });
        }
        Event::EffectEnded { id, result } => {
            if let Some(open) = task.open_effects.remove(id) {
                effect_ended(task, envelope, &open.effect, result);
            }
            if task.wait.as_ref().is_some_and(|wait| wait.effect.as_ref() == Some(id)) {
                wait_over(task, envelope.at);
            }
        }
        Event::AgentEnded { end, .. } => {
            if let Some(attempt) = &mut task.attempt {
                attempt.end = Some(end.clone());
                attempt.ended_at = Some(envelope.at);
            }
        }
        Event::MessageAdded { source, .. } => message_added(task, *source, envelope.at),
        Event::WaitStarted { wait } => {
            task.state = TaskState::InputRequired;
            task.wait = Some(wait.clone());
        }
        Event::WaitEnded { .. } => wait_over(task, envelope.at),
        Event::GatesJudged { judgement } => {
            if let Some(attempt) = task.attempt.as_mut().filter(|_| !judgement.passed) {
                attempt.failed.push(judgement.commit.clone());
            }
            task.judgement = Some(judgement.clone());
        }
        Event::Decided { decision } => task.decision = Some(decision.clone()),
        Event::Approved { head, comment } => {
            let by = envelope.actor.clone();
            if let Some(wait) = &mut task.wait {
                wait.reason = format!("change {} is approved by {}; `land` it", head.short(), by.name);
            }
            task.approvals.push(Approval { head: head.clone(), by, at: envelope.at, comment: comment.clone() });
        }
        Event::LandRequested { update_worktree, .. } => {
            task.land_request = Some(LandRequest { by: envelope.actor.clone(), update_worktree: *update_worktree });
            task.failures = None;
            wait_over(task, envelope.at);
        }
        Event::EgressReported { requests, .. } => {
            let denied = requests.iter().filter(|request| request.denied.is_some()).count();
            task.denials += u32::try_from(denied).unwrap_or(u32::MAX);
        }
        Event::Denied { action, .. } => {
            task.denials += 1;
            if action == "land" {
                task.land_request = None;
            }
        }
        Event::CancelRequested { .. } => task.cancel_requested = true,
        Event::TaskEnded { state, outcome } => {
            task.state = *state;
            task.outcome = Some(outcome.clone());
            task.wait = None;
            task.open_effects.clear();
        }
    }
}

/// A message reopens an agent whose work had ended, and voids what was said about the old result.
fn message_added(task: &mut Task, source: MessageSource, at: Timestamp) {
    let Some(attempt) = &mut task.attempt else { return };
    if attempt.end.take().is_some() {
        if source == MessageSource::Person {
            attempt.failed.clear();
        } else {
            attempt.round += 1;
        }
        attempt.collected = None;
        task.failures = None;
        forget_change(task);
        let reviewing = task.wait.as_ref().is_some_and(|wait| wait.effect.is_none());
        if reviewing {
            wait_over(task, at);
        }
    }
}

/// Ends a wait; the time that it took is not the task's own.
fn wait_over(task: &mut Task, at: Timestamp) {
    if let Some(wait) = task.wait.take() {
        let waited_ms = at.duration_since(wait.since).as_millis();
        task.waited_ms = task.waited_ms.saturating_add(u64::try_from(waited_ms).unwrap_or(0));
        task.state = TaskState::Working;
    }
}

/// Approvals stay: each names the commit that was looked at, so an old one covers nothing new.
fn forget_change(task: &mut Task) {
    task.change = None;
    task.judgement = None;
    task.decision = None;
    task.land_request = None;
}

fn effect_ended(task: &mut Task, envelope: &Envelope, effect: &Effect, result: &EffectResult) {
    if let EffectResult::Failed { class, source, message, retry_after_ms } = result {
        if is_agents_own(effect) {
            return;
        }
        let count = task.failures.as_ref().map_or(0, |f| if f.effect == effect.name() { f.count } else { 0 }) + 1;
        let doubling = RETRY_BASE_MS << (count - 1).min(8);
        let delay_ms = doubling.max(retry_after_ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(0));
        let not_before = envelope.at.checked_add(SignedDuration::from_millis(delay_ms)).unwrap_or(envelope.at);
        task.failures = Some(Failures {
            count,
            class: *class,
            source: *source,
            message: message.clone(),
            effect: effect.name().to_owned(),
            at: envelope.at,
            not_before,
        });
        if matches!(effect, Effect::Land { .. } | Effect::MergeBase { .. }) && *class != FailureClass::Retry {
            task.land_request = None;
        }
        return;
    }
    if !is_agents_own(effect) {
        task.failures = None;
    }
    match (effect, result) {
        (_, EffectResult::ModelAnswered { usage, cost_micro_usd, .. }) => {
            if let Some(attempt) = &mut task.attempt {
                attempt.turns += 1;
            }
            if let Some(usage) = usage {
                task.usage.add(usage);
            }
            match cost_micro_usd {
                Some(cost) => task.cost_micro_usd = task.cost_micro_usd.saturating_add(*cost),
                None => task.unpriced_calls += 1,
            }
        }
        // What was collected while somebody reopened the work is already out of date.
        (_, EffectResult::Collected { .. }) if agent_end(task).is_none() => {}
        (_, EffectResult::Collected { commit, notes }) => {
            if let Some(attempt) = &mut task.attempt {
                attempt.collected = Some(commit.clone());
            }
            task.notes.extend(notes.iter().cloned());
            task.change = commit.as_ref().map(|commit| Change {
                head: commit.clone(),
                commit: commit.clone(),
                onto: task.spec.repo.base.clone(),
                branch: None,
            });
        }
        (_, EffectResult::GateRan { evidence }) => task.evidence.push((**evidence).clone()),
        (_, EffectResult::Published { branch }) => {
            if let Some(change) = &mut task.change {
                change.branch = Some(branch.clone());
            }
        }
        (Effect::MergeBase { onto, .. }, EffectResult::BaseMerged { commit }) => {
            if let Some(change) = &mut task.change {
                change.commit = commit.clone();
                change.onto = onto.clone();
            }
            task.judgement = None;
            task.decision = None;
        }
        (_, EffectResult::EnvironmentBuilt { layers, env, notes, .. }) => {
            if let Some(environment) = &mut task.environment {
                environment.layers = Some(layers.clone());
                environment.env.clone_from(env);
            }
            task.notes.extend(notes.iter().cloned());
        }
        (Effect::Snapshot { attempt, turn, .. }, EffectResult::SnapshotTaken { layers, .. }) => {
            if let Some(current) = task.attempt.as_mut().filter(|current| current.number == *attempt) {
                current.files = Some(StepFiles { turn: *turn, layers: layers.clone() });
            }
        }
        (_, EffectResult::Landed { commit, .. }) => task.landed = Some(commit.clone()),
        (Effect::CloseSandbox { sandbox }, EffectResult::SandboxClosed) => {
            task.sandboxes.remove(sandbox);
        }
        _ => {}
    }
}

/// Effects whose failures the agent's own state machine weighs.
const fn is_agents_own(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::OpenSandbox { .. }
            | Effect::CallModel { .. }
            | Effect::RunTool { .. }
            | Effect::RunCommand { .. }
            | Effect::Snapshot { .. }
    )
}

/// An id for the effect that event `seq` of a task starts. Derived, so that a replay finds the same.
#[must_use]
pub fn effect_id(task: &Task) -> EffectId {
    EffectId::parse(&format!("e{}", task.seq + 1)).unwrap_or_else(|_| EffectId::from_random(task.seq))
}

/// How the agent's work in the current attempt ended, if it has.
#[must_use]
pub fn agent_end(task: &Task) -> Option<&AgentEnd> {
    task.attempt.as_ref().and_then(|attempt| attempt.end.as_ref())
}
