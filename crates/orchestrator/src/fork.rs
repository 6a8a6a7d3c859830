//! Going back to a step: a task that begins where another one stood after one of its turns.
//!
//! A fork is a task of its own beside the other, so that both can be watched, compared and landed
//! or dropped. It has the other's goal, base and contract, and a budget of its own; it begins with
//! the files that were kept and with the conversation, event by event, as it was then. Absent:
//! copies of events: the other task's log is read where it lies, and logs are never removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent::conversation::Conversation;
use domain::effect::{Effect, EffectResult};
use domain::event::{Envelope, Event, MessageSource};
use domain::id::{Digest, TaskId};
use domain::principal::Principal;
use domain::step::{ForkPoint, StepFiles};
use domain::task::{AgentSpec, Task};
use model::AssistantMessage;
use store::Idempotency;

use crate::files::steps;
use crate::handle::Handle;
use crate::log::{Logs, RecordError};
use crate::request::{ForkError, MAX_GOAL_CHARS, SubmitError, Submitted};

/// Where a fork begins, and what its agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkWish {
    /// After this turn of the newest attempt; 0 is the beginning.
    pub turn: u32,
    /// What the agent is told before it goes on.
    pub message: Option<String>,
}

/// A place to go back to, in a task's newest attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    attempt: u32,
    seq: u64,
    files: Option<StepFiles>,
    /// Whether the turn was the agent's last word, after which only a person can go on.
    is_last_word: bool,
}

impl Handle {
    /// Makes a task that begins after a turn of another; turn 0 is the beginning.
    ///
    /// # Errors
    /// [`ForkError`]; nothing is stored then.
    pub async fn fork(
        &self,
        of: &TaskId,
        wish: &ForkWish,
        who: &Principal,
        idempotency_key: Option<String>,
    ) -> Result<Submitted, ForkError> {
        let (turn, message) = (wish.turn, wish.message.as_deref());
        let body = format!("{of}\n{turn}\n{}", message.unwrap_or_default());
        let idempotency = idempotency_key.map(|key| Idempotency {
            scope: format!("fork {who}"),
            key,
            body_digest: Digest::of(body.as_bytes()),
        });
        if let Some(earlier) = self.earlier(idempotency.as_ref()).await? {
            return Ok(earlier);
        }
        let message = message.map(str::trim).filter(|message| !message.is_empty());
        if let Some(chars) = message.map(|message| message.chars().count()).filter(|chars| *chars > MAX_GOAL_CHARS) {
            return Err(ForkError::LongMessage { chars });
        }
        if let Some(why) = self.shared.without_boxes().await {
            return Err(SubmitError::NoSandbox(why).into());
        }
        let (task, place) = self.place(of, turn).await?;
        self.still_kept(&place, turn).await?;
        if place.is_last_word && message.is_none() {
            return Err(ForkError::LastWord { turn });
        }
        let mut spec = task.spec.clone();
        let kept_turn = place.files.as_ref().map_or(0, |files| files.turn);
        let (mut notes, mut said) = (Vec::new(), Vec::new());
        if kept_turn < turn {
            let text = format!(
                "The files are those that were kept after turn {kept_turn}. If anything was changed from then to turn {turn}, it is missing: look before you go on."
            );
            notes.push(text.clone());
            said.push(Event::MessageAdded { source: MessageSource::Platform, text });
        }
        let now = self.shared.ports.clock.now();
        if spec.contract.deadline.take_if(|deadline| *deadline <= now).is_some() {
            notes.push("the deadline of the other task has passed; this one has none".to_owned());
        }
        spec.fork =
            Some(ForkPoint { task: task.id.clone(), attempt: place.attempt, turn, seq: place.seq, files: place.files });
        said.extend(message.map(|text| Event::MessageAdded { source: MessageSource::Person, text: text.to_owned() }));
        Ok(self.accept(spec, (notes, said), who, idempotency).await?)
    }

    /// Whether the files of a place can still be had. Asking counts as using them.
    async fn still_kept(&self, place: &Place, turn: u32) -> Result<(), ForkError> {
        for layer in place.files.iter().flat_map(|files| &files.layers) {
            let there = self.shared.ports.boxes.prepared(layer).await;
            if there.map_err(|error| ForkError::Store(error.to_string()))?.is_none() {
                return Err(ForkError::Gone(format!(
                    "the files of turn {turn} are no longer kept: disk space was needed; fork a later turn, or turn 0"
                )));
            }
        }
        Ok(())
    }

    /// The task in whose log the turn lies (of a fork, the shared turns lie in the other's), and where.
    async fn place(&self, of: &TaskId, turn: u32) -> Result<(Task, Place), ForkError> {
        let (mut id, mut attempt) = (of.clone(), None);
        loop {
            let log = self.shared.logs.open(&id).await?;
            let task = log.task().await;
            if !matches!(task.spec.agent, AgentSpec::Native { .. }) {
                return Err(ForkError::NoTurns);
            }
            if let Some(fork) = task.spec.fork.as_ref().filter(|fork| turn < fork.turn) {
                (id, attempt) = (fork.task.clone(), Some(fork.attempt));
                continue;
            }
            let of_fork = task.spec.fork.as_ref();
            // A fork shares the attempt that it left, whatever the other task has tried since.
            let newest = task.attempt.as_ref().map(|attempt| attempt.number);
            let attempt = attempt.or(newest).ok_or(ForkError::NotBegun)?;
            let events = log.events_after(0).await?;
            return match find(&events, attempt, turn, of_fork) {
                Some(place) => Ok((task, place)),
                None => Err(ForkError::NoSuchTurn { turn, last: last_turn(&events, attempt, of_fork) }),
            };
        }
    }

    /// The files of a task after a turn: the newest that were kept up to it.
    pub(crate) async fn files_after(&self, of: &TaskId, turn: u32) -> Result<(Task, Option<StepFiles>), ForkError> {
        self.place(of, turn).await.map(|(task, place)| (task, place.files))
    }
}

/// Where the attempt stood when the turn was over, if it is over.
fn find(events: &[Arc<Envelope>], attempt: u32, turn: u32, fork: Option<&ForkPoint>) -> Option<Place> {
    let begun = events.iter().find(|e| matches!(&e.event, Event::AttemptStarted { attempt: of } if *of == attempt))?;
    let files = || {
        let own = steps(events.iter().map(|envelope| &envelope.event), attempt);
        let own = own.into_iter().rfind(|files| files.turn <= turn);
        own.or_else(|| fork.and_then(|fork| fork.files.clone()))
    };
    if turn == fork.map_or(0, |fork| fork.turn) {
        return Some(Place { attempt, seq: begun.seq, files: files(), is_last_word: false });
    }
    let mut open = BTreeMap::new();
    // How many calls the answer makes, how many have returned, and the last event of all that.
    let (mut calls, mut returned, mut seq) = (None, 0, 0);
    for envelope in events.iter().filter(|envelope| envelope.seq > begun.seq) {
        match &envelope.event {
            Event::AttemptStarted { .. } => break,
            Event::EffectStarted { effect: Effect::CallModel { turn: of, .. }, .. } if *of > turn => break,
            Event::EffectStarted { id, effect: effect @ Effect::CallModel { turn: of, .. } } if *of == turn => {
                open.insert(id, effect);
            }
            Event::EffectStarted { id, effect: effect @ Effect::RunTool { turn: of, .. } } if *of == turn => {
                open.insert(id, effect);
            }
            Event::EffectEnded { id, result } => match (open.remove(id), result) {
                (Some(Effect::CallModel { .. }), EffectResult::ModelAnswered { message_json, .. }) => {
                    calls =
                        serde_json::from_str(message_json).ok().map(|answer: AssistantMessage| answer.calls().count());
                    seq = envelope.seq;
                }
                (Some(Effect::RunTool { .. }), _) => {
                    returned += 1;
                    seq = envelope.seq;
                }
                _ => {}
            },
            _ => {}
        }
    }
    let calls = calls.filter(|calls| *calls == returned && open.is_empty())?;
    Some(Place { attempt, seq, files: files(), is_last_word: calls == 0 })
}

/// The last turn of an attempt that is over.
fn last_turn(events: &[Arc<Envelope>], attempt: u32, fork: Option<&ForkPoint>) -> u32 {
    let begun = events.iter().rev().find_map(|envelope| match &envelope.event {
        Event::EffectStarted { effect: Effect::CallModel { attempt: of, turn, .. }, .. } if *of == attempt => {
            Some(*turn)
        }
        _ => None,
    });
    let first = fork.map_or(0, |fork| fork.turn);
    (first..=begun.unwrap_or(first)).rev().find(|turn| find(events, attempt, *turn, fork).is_some()).unwrap_or(first)
}

/// The conversation with which a task's attempts begin; `first` is the first message of all.
pub(crate) async fn beginning(logs: &Logs, task: &Task, first: String) -> Result<Conversation, RecordError> {
    // From this task back to the one that was delegated anew.
    let mut shared = Vec::new();
    let mut fork = task.spec.fork.clone();
    while let Some(point) = fork {
        let log = logs.open(&point.task).await?;
        let events = log.events_after(0).await?;
        fork = log.task().await.spec.fork;
        shared.push((point, events));
    }
    let mut conversation = Conversation::new(first);
    for (point, events) in shared.iter().rev() {
        for envelope in events.iter().take_while(|envelope| envelope.seq <= point.seq) {
            conversation
                .apply(envelope)
                .map_err(|error| RecordError::Unreadable { task: point.task.clone(), why: error.to_string() })?;
        }
        conversation = Conversation::forked(conversation);
    }
    Ok(conversation)
}
