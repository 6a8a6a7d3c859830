//! Going back to a step: a task that begins where another one stood after one of its turns.
//!
//! A fork is a task of its own beside the other, so that both can be watched, compared and landed
//! or dropped. It has the other's goal, base and contract, and a budget of its own; it begins with
//! the files that were kept and with the conversation, event by event, as it was then. Absent:
//! copies of events: the other task's log is read where it lies, and logs are never removed.

use std::sync::Arc;

use agent::conversation::Conversation;
use domain::effect::{Effect, EffectResult};
use domain::event::{Envelope, Event, MessageSource};
use domain::id::{Digest, TaskId};
use domain::principal::Principal;
use domain::step::{ForkPoint, StepFiles};
use domain::task::{AgentSpec, Task};
use store::Idempotency;

use crate::files::steps;
use crate::handle::Handle;
use crate::log::{Logs, RecordError};
use crate::request::{ForkError, MAX_GOAL_CHARS, Submitted};

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
        let (task, place) = self.place(of, turn).await?;
        if place.is_last_word && message.is_none() {
            return Err(ForkError::LastWord { turn });
        }
        let mut spec = task.spec.clone();
        let kept_turn = place.files.as_ref().map_or(0, |files| files.turn);
        let mut notes = Vec::new();
        if kept_turn < turn {
            notes.push(format!(
                "the files are those of turn {kept_turn}: nothing was changed up to turn {turn}, or a program was running so that they could not be kept"
            ));
        }
        spec.fork =
            Some(ForkPoint { task: task.id.clone(), attempt: place.attempt, turn, seq: place.seq, files: place.files });
        let said = message.map(|text| Event::MessageAdded { source: MessageSource::Person, text: text.to_owned() });
        Ok(self.accept(spec, (notes, said.into_iter().collect()), who, idempotency).await?)
    }

    /// The task in whose log the turn lies (of a fork, the shared turns lie in the other's), and where.
    async fn place(&self, of: &TaskId, turn: u32) -> Result<(Task, Place), ForkError> {
        let mut id = of.clone();
        loop {
            let log = self.shared.logs.open(&id).await?;
            let task = log.task().await;
            if !matches!(task.spec.agent, AgentSpec::Native { .. }) {
                return Err(ForkError::NoTurns);
            }
            if let Some(fork) = task.spec.fork.as_ref().filter(|fork| turn < fork.turn) {
                id = fork.task.clone();
                continue;
            }
            let of_fork = task.spec.fork.as_ref();
            let attempt = task.attempt.as_ref().ok_or(ForkError::NotBegun)?.number;
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
    let mut open = std::collections::BTreeMap::new();
    let (mut answered, mut seq) = (None, None);
    for envelope in events.iter().filter(|envelope| envelope.seq > begun.seq) {
        match &envelope.event {
            Event::AttemptStarted { .. } => break,
            Event::EffectStarted { id, effect: Effect::CallModel { turn: of, .. } } if *of == turn => {
                open.insert(id, true);
            }
            Event::EffectStarted { id, effect: Effect::RunTool { turn: of, .. } } if *of == turn => {
                open.insert(id, false);
            }
            Event::EffectStarted { effect: Effect::CallModel { turn: of, .. }, .. } if *of > turn => break,
            Event::EffectEnded { id, result } => match open.remove(id) {
                Some(true) if matches!(result, EffectResult::ModelAnswered { .. }) => answered = Some(envelope.seq),
                Some(false) => seq = Some(envelope.seq),
                _ => {}
            },
            _ => {}
        }
    }
    let answered = answered?;
    let over = open.is_empty();
    over.then(|| Place { attempt, seq: seq.unwrap_or(answered), files: files(), is_last_word: seq.is_none() })
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
