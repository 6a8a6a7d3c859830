//! What people may ask of a running task, decided without doing anything: command → events, or a
//! refusal that says why and what to do instead.
//!
//! Absent: submission, which needs a look at the repository and so belongs to the orchestrator,
//! and the right to ask at all, which is `policy`'s business.

use serde::{Deserialize, Serialize};

use crate::effect::{Effect, EffectResult, FailureClass, FailureSource};
use crate::event::{Event, MessageSource};
use crate::principal::{Principal, PrincipalKind};
use crate::task::{Outcome, OutcomeReason, Task, TaskState, WaitKind};

/// Something that a person asks of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Command {
    /// Tell the agent something.
    Say {
        /// What.
        text: String,
    },
    /// Answer the agent's question.
    Answer {
        /// The answer.
        text: String,
    },
    /// Call the task off.
    Cancel {
        /// Why.
        reason: String,
    },
    /// Approve the proposed change.
    Approve {
        /// The commit that was looked at; nothing for the one proposed now.
        head: Option<crate::id::CommitSha>,
        /// A remark.
        comment: String,
    },
    /// Refuse the change and end the task.
    Reject {
        /// Why.
        message: String,
    },
    /// Land the approved change.
    Land {
        /// Whether a clean work tree that has the branch checked out may move along.
        update_worktree: bool,
    },
}

/// Why a command is refused. The task is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has ended.
    #[error("the task has ended ({state}); submit a new one")]
    Ended {
        /// How.
        state: &'static str,
    },
    /// Only people may do this.
    #[error("{who} may not do this: only a person can")]
    NotAPerson {
        /// Who tried.
        who: String,
    },
    /// Nothing was asked.
    #[error("the agent has no open question; use `say` to tell it something")]
    NoQuestion,
    /// A question is open.
    #[error("the agent waits for an answer to its question; use `answer`")]
    QuestionOpen,
    /// An empty text.
    #[error("the text is empty; say what you mean")]
    Empty,
    /// There is no change that could be approved or landed now.
    #[error("there is no proposed change to look at now; `show` tells what the task is doing")]
    NothingToReview,
    /// The change is another than the one looked at.
    #[error("the proposed change is now {now}, not {given}; look at it again")]
    Stale {
        /// What is proposed.
        now: String,
        /// What was approved.
        given: String,
    },
    /// Nobody approved.
    #[error("change {head} is not approved yet; look at `diff` and `evidence`, then `approve`")]
    NotApproved {
        /// The change.
        head: String,
    },
    /// What would land is not proved.
    #[error("{commit} can't land: these gates fail on it: {gates}. `say` what to do, `reject` or `cancel`")]
    GatesFailed {
        /// What would land.
        commit: String,
        /// Which gates.
        gates: String,
    },
    /// The branch is being moved at this moment.
    #[error("the change is landing right now; `show` tells what came of it")]
    Landing,
    /// A program can't be told anything.
    #[error("the agent is a program that takes no messages; cancel the task and submit another")]
    NoListener,
}

/// The events that a command means now.
///
/// # Errors
/// A [`Refusal`]; nothing is to be stored then.
pub fn decide(task: &Task, command: &Command, who: &Principal) -> Result<Vec<Event>, Refusal> {
    if who.kind != PrincipalKind::Person {
        return Err(Refusal::NotAPerson { who: who.to_string() });
    }
    if task.state.is_terminal() {
        return Err(Refusal::Ended { state: task.state.name() });
    }
    match command {
        Command::Say { text } => say(task, text),
        Command::Answer { text } => answer(task, text),
        Command::Cancel { reason } => Ok(cancel(task, reason)),
        Command::Approve { head, comment } => {
            let change = reviewable(task)?;
            if let Some(given) = head.as_ref().filter(|given| **given != change.head) {
                return Err(Refusal::Stale { now: change.head.short().to_owned(), given: given.short().to_owned() });
            }
            Ok(vec![Event::Approved { head: change.head.clone(), comment: comment.clone() }])
        }
        Command::Reject { message } => {
            reviewable(task)?;
            let message = if message.is_empty() { format!("rejected by {}", who.name) } else { message.clone() };
            let outcome = Outcome { reason: OutcomeReason::User, message };
            Ok(vec![Event::TaskEnded { state: TaskState::Rejected, outcome }])
        }
        Command::Land { update_worktree } => {
            let change = reviewable(task)?;
            if !task.is_approved() {
                return Err(Refusal::NotApproved { head: change.head.short().to_owned() });
            }
            if let Some(failed) = task.judgement.as_ref().filter(|judgement| !judgement.passed) {
                let (commit, gates) = (change.commit.short().to_owned(), failed.failed.join(", "));
                return Err(Refusal::GatesFailed { commit, gates });
            }
            Ok(vec![Event::LandRequested { head: change.head.clone(), update_worktree: *update_worktree }])
        }
    }
}

/// The change, if a person is being asked to look at one.
fn reviewable(task: &Task) -> Result<&crate::task::Change, Refusal> {
    let waiting = task.wait.as_ref().is_some_and(|wait| wait.kind == WaitKind::Review);
    match &task.change {
        Some(change) if waiting => Ok(change),
        _ => Err(Refusal::NothingToReview),
    }
}

fn say(task: &Task, text: &str) -> Result<Vec<Event>, Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::Empty);
    }
    if matches!(task.spec.agent, crate::task::AgentSpec::Command { .. }) {
        return Err(Refusal::NoListener);
    }
    if task.wait.as_ref().is_some_and(|wait| wait.kind == WaitKind::Question) {
        return Err(Refusal::QuestionOpen);
    }
    if is_landing(task) {
        return Err(Refusal::Landing);
    }
    Ok(vec![Event::MessageAdded { source: MessageSource::Person, text: text.to_owned() }])
}

fn answer(task: &Task, text: &str) -> Result<Vec<Event>, Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::Empty);
    }
    let effect = task
        .wait
        .as_ref()
        .filter(|wait| wait.kind == WaitKind::Question)
        .and_then(|wait| wait.effect.clone())
        .ok_or(Refusal::NoQuestion)?;
    let result =
        EffectResult::ToolReturned { text: text.to_owned(), is_error: false, output_digest: None, duration_ms: 0 };
    Ok(vec![Event::EffectEnded { id: effect, result }])
}

fn is_landing(task: &Task) -> bool {
    task.landed.is_some() || task.open_effects.values().any(|open| matches!(open.effect, Effect::Land { .. }))
}

/// Ends the task in the same append, unless a landing is under way: then the landing's result
/// decides, and the end names the race.
fn cancel(task: &Task, reason: &str) -> Vec<Event> {
    if task.cancel_requested {
        return Vec::new();
    }
    let reason = if reason.is_empty() { "canceled".to_owned() } else { reason.to_owned() };
    let mut events = vec![Event::CancelRequested { reason: reason.clone() }];
    if is_landing(task) {
        return events;
    }
    for id in task.open_effects.keys() {
        events.push(Event::EffectEnded {
            id: id.clone(),
            result: EffectResult::Failed {
                class: FailureClass::Unknown,
                source: FailureSource::User,
                message: "canceled while it ran".to_owned(),
                retry_after_ms: None,
            },
        });
    }
    let outcome = Outcome { reason: OutcomeReason::User, message: reason };
    events.push(Event::TaskEnded { state: TaskState::Canceled, outcome });
    events
}
