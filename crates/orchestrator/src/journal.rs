//! The agent's journal over a task's log.
//!
//! Absent: anything the agent may not write; the fold refuses what can't follow.

use std::sync::{Arc, Mutex, PoisonError};

use agent::port::{Glimpse, Journal, JournalError};
use async_trait::async_trait;
use domain::effect::{Effect, EffectResult};
use domain::event::{Envelope, Event, MessageSource};
use domain::fold::effect_id;
use domain::id::{Digest, EffectId};
use domain::principal::Principal;
use domain::task::{AgentEnd, Wait, WaitKind};
use egress::{KnownValues, Mask, Redactor};
use jiff::{SignedDuration, Timestamp};

use crate::handle::Shared;
use crate::live::Live;
use crate::log::{RecordError, TaskLog};

/// The journal of one agent's run.
pub(crate) struct TaskJournal {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Arc<TaskLog>,
    /// The agent, on behalf of whoever asked.
    pub(crate) actor: Principal,
    /// How long a question waits.
    pub(crate) wait_ms: u64,
    /// Secret values that are kept out of everything that is stored or shown.
    pub(crate) known: KnownValues,
    /// The output that streams just now: a value may lie across two pieces.
    pub(crate) streaming: Mutex<Option<Streaming>>,
}

/// One command's output on its way to whoever watches.
pub(crate) struct Streaming {
    source: String,
    redactor: Redactor,
}

/// `at` plus some milliseconds, at the end of time if need be.
pub(crate) fn after_ms(at: Timestamp, ms: u64) -> Timestamp {
    let span = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
    at.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// Sleeps on the runtime's timer until the clock says `until`.
pub(crate) async fn sleep_until(now: Timestamp, until: Timestamp) {
    // A far-away end is slept for in pieces, because timers have their limits.
    let ms = u64::try_from(until.duration_since(now).as_millis()).unwrap_or(0).min(24 * 60 * 60 * 1000);
    tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
}

fn stopped(error: RecordError) -> JournalError {
    match error {
        RecordError::Illegal(_) => JournalError::Ended,
        other => JournalError::Failed(other.to_string()),
    }
}

impl TaskJournal {
    async fn record(&self, events: &[Event]) -> Result<(), JournalError> {
        let recorded = self.log.record(&self.actor, |_| Ok::<_, RecordError>((events.to_vec(), ()))).await;
        recorded.map(|_| ()).map_err(stopped)
    }
}

impl TaskJournal {
    /// Shows a piece of output as far as it is certain that no value begins at its end.
    fn show_output(&self, source: &str, text: &str) {
        let mut streaming = self.streaming.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = streaming.get_or_insert_with(|| Streaming {
            source: source.to_owned(),
            redactor: Redactor::new(self.known.clone(), Mask::Named),
        });
        self.tell_output(stream.source.clone(), stream.redactor.push(text.as_bytes()));
    }

    /// Shows what was held back; the command has ended.
    fn end_output(&self) {
        let ended = self.streaming.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut stream) = ended {
            self.tell_output(stream.source, stream.redactor.finish());
        }
    }

    fn tell_output(&self, source: String, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            self.shared.live.tell(self.log.id(), Live::Output { source, text });
        }
    }
}

/// What an effect gave, without secret values. No value enters a box, but a far side may have echoed one.
fn clean(known: &KnownValues, result: EffectResult) -> EffectResult {
    match result {
        EffectResult::ToolReturned { text, is_error, output_digest, duration_ms } => {
            EffectResult::ToolReturned { text: known.redact(&text), is_error, output_digest, duration_ms }
        }
        EffectResult::CommandEnded { end, output_tail, output_digest, duration_ms } => {
            EffectResult::CommandEnded { end, output_tail: known.redact(&output_tail), output_digest, duration_ms }
        }
        EffectResult::Failed { class, source, message, retry_after_ms } => {
            EffectResult::Failed { class, source, message: known.redact(&message), retry_after_ms }
        }
        other => other,
    }
}

#[async_trait]
impl Journal for TaskJournal {
    async fn start(&self, effect: Effect) -> Result<EffectId, JournalError> {
        let (_, id) = self
            .log
            .record(&self.actor, |task| {
                let id = effect_id(task);
                Ok::<_, RecordError>((vec![Event::EffectStarted { id: id.clone(), effect: effect.clone() }], id))
            })
            .await
            .map_err(stopped)?;
        Ok(id)
    }

    async fn end(&self, id: &EffectId, result: EffectResult) -> Result<(), JournalError> {
        self.end_output();
        let result = clean(&self.known, result);
        self.record(&[Event::EffectEnded { id: id.clone(), result }]).await
    }

    async fn end_and_finish(
        &self,
        id: &EffectId,
        result: EffectResult,
        attempt: u32,
        end: AgentEnd,
    ) -> Result<(), JournalError> {
        self.end_output();
        let ended = Event::EffectEnded { id: id.clone(), result: clean(&self.known, result) };
        self.record(&[ended, Event::AgentEnded { attempt, end }]).await
    }

    async fn ask(&self, effect: Effect, question: &str, seen: u64) -> Result<bool, JournalError> {
        let since = self.shared.ports.clock.now();
        let recorded = self.log.record(&self.actor, |task| {
            if task.seq != seen {
                return Ok((Vec::new(), false));
            }
            let id = effect_id(task);
            let wait = Wait {
                kind: WaitKind::Question,
                owner: task.requester.to_string(),
                reason: question.to_owned(),
                since,
                expires_at: after_ms(since, self.wait_ms),
                effect: Some(id.clone()),
            };
            Ok::<_, RecordError>((
                vec![Event::EffectStarted { id, effect: effect.clone() }, Event::WaitStarted { wait }],
                true,
            ))
        });
        recorded.await.map(|(_, asked)| asked).map_err(stopped)
    }

    async fn tell_agent(&self, text: &str) -> Result<(), JournalError> {
        self.record(&[Event::MessageAdded { source: MessageSource::Platform, text: text.to_owned() }]).await
    }

    async fn finish(&self, attempt: u32, end: AgentEnd, seen: u64) -> Result<bool, JournalError> {
        let recorded = self.log.record(&self.actor, |task| {
            let unseen = task.seq != seen;
            let events = if unseen { Vec::new() } else { vec![Event::AgentEnded { attempt, end: end.clone() }] };
            Ok::<_, RecordError>((events, !unseen))
        });
        recorded.await.map(|(_, finished)| finished).map_err(stopped)
    }

    async fn events_after(&self, seq: u64) -> Result<Vec<Envelope>, JournalError> {
        let events = self.log.events_after(seq).await.map_err(stopped)?;
        Ok(events.iter().map(|event| (**event).clone()).collect())
    }

    async fn keep(&self, bytes: &[u8]) -> Result<Digest, JournalError> {
        let put = self.shared.ports.store.blobs.put(self.known.redact_bytes(bytes, Mask::Named)).await;
        put.map_err(|error| JournalError::Failed(error.to_string()))
    }

    fn show(&self, glimpse: Glimpse<'_>) {
        let item = match glimpse {
            Glimpse::Text { turn, text } => Live::TextDelta { turn, text: text.to_owned() },
            Glimpse::Thinking { turn, text } => Live::ThinkingDelta { turn, text: text.to_owned() },
            Glimpse::Waiting { text } => Live::Progress { text: text.to_owned() },
            Glimpse::Output { source, text } => return self.show_output(source, text),
        };
        self.shared.live.tell(self.log.id(), item);
    }

    fn now(&self) -> Timestamp {
        self.shared.ports.clock.now()
    }

    async fn sleep_until(&self, until: Timestamp) {
        let seq = self.log.task().await.seq;
        tokio::select! {
            () = sleep_until(self.now(), until) => {}
            () = self.log.grown_past(seq) => {}
        }
    }
}
