//! One watcher of one task: a stream that first reads the store and then follows it.
//!
//! ```text
//!   CatchUp ──page after page, until the store has no more──→ Follow ──hint, lag or timer──→ CatchUp
//!      └──the task has ended and everything was sent──→ Over        └──deltas pass by──┘
//! ```
//!
//! Stored events come only from the store, each after the one before it, so there is no gap and
//! no event twice, however slow the watcher is or however much the hub dropped. The hub only says
//! when to look; a timer looks anyway. Nothing is read before the watcher has taken what was read
//! before, so a watcher that never reads costs one page of memory.
//!
//! Absent: any promise about deltas.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use domain::id::TaskId;
use domain::task::TaskState;
use futures_util::Stream;
use orchestrator::Live;
use serde::Deserialize;
use store::{EventLog, StoredEvent};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

use crate::api::{LiveItem, Problem, ProblemType, StreamEnd};
use crate::sse;

/// Events read at once.
const PAGE: u32 = 64;
/// Longest silence on the wire, and longest delay of an event whose hint was lost.
const SILENCE: Duration = Duration::from_secs(15);

/// What a watcher wants to see.
pub(crate) struct Wish {
    /// The task.
    pub(crate) task: TaskId,
    /// Events after this number.
    pub(crate) after: u64,
    /// The task's state at the time of asking, if it had ended.
    pub(crate) ended: Option<TaskState>,
    /// Whether to stay when the task has ended.
    pub(crate) follow_after_end: bool,
    /// Whether deltas are shown.
    pub(crate) show_live: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    CatchUp,
    Follow,
    Over,
}

/// A watcher.
pub(crate) struct Watch {
    wish: Wish,
    log: Arc<dyn EventLog>,
    live: Receiver<Live>,
    shutdown: CancellationToken,
    sent: u64,
    ended: Option<TaskState>,
    phase: Phase,
    queue: VecDeque<Bytes>,
}

impl Watch {
    /// A watcher that has seen nothing yet. `live` must have been subscribed to before the task's
    /// state was looked up, so that no hint falls in between.
    pub(crate) fn new(wish: Wish, log: Arc<dyn EventLog>, live: Receiver<Live>, shutdown: CancellationToken) -> Self {
        let (sent, ended) = (wish.after, wish.ended);
        Self { wish, log, live, shutdown, sent, ended, phase: Phase::CatchUp, queue: VecDeque::from([sse::HELLO]) }
    }

    /// The bytes of the stream, message by message.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
        futures_util::stream::unfold(self, |mut watch| async move {
            let frame = watch.next().await?;
            Some((Ok(frame), watch))
        })
    }

    /// The next message; nothing when the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.shutdown.is_cancelled() {
                return None;
            }
            if let Some(frame) = self.queue.pop_front() {
                return Some(frame);
            }
            match self.phase {
                Phase::Over => return None,
                Phase::CatchUp => self.catch_up().await,
                Phase::Follow => self.follow().await,
            }
        }
    }

    async fn catch_up(&mut self) {
        let page = match self.log.read(&self.wish.task, self.sent, PAGE).await {
            Ok(page) => page,
            Err(error) => return self.break_off(&error.to_string()),
        };
        let whole_page = page.len() >= PAGE as usize;
        for event in page {
            if event.seq != self.sent + 1 {
                let what = format!("event {} follows event {} in the store", event.seq, self.sent);
                return self.break_off(&what);
            }
            self.ended = end_of(&event).or(self.ended);
            self.sent = event.seq;
            self.queue.push_back(sse::stored(event.seq, &event.bytes));
        }
        if whole_page {
            return;
        }
        match self.ended {
            Some(state) if !self.wish.follow_after_end => {
                self.queue.push_back(sse::passing("end", &StreamEnd { seq: self.sent, state }));
                self.phase = Phase::Over;
            }
            _ => self.skip_stale(),
        }
    }

    /// Deltas that came before the hint of an event that was sent already are part of the past.
    fn skip_stale(&mut self) {
        let mut fresh = VecDeque::new();
        self.phase = loop {
            match self.live.try_recv() {
                Ok(Live::Stored { seq }) if seq <= self.sent => fresh.clear(),
                Ok(Live::Stored { .. }) => break Phase::CatchUp,
                Ok(item) => fresh.extend(self.show(item)),
                Err(TryRecvError::Lagged(_)) => {
                    fresh.clear();
                    break Phase::CatchUp;
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break Phase::Follow,
            }
        };
        self.queue.append(&mut fresh);
    }

    async fn follow(&mut self) {
        let said = tokio::select! {
            () = self.shutdown.cancelled() => {
                self.phase = Phase::Over;
                return;
            }
            said = tokio::time::timeout(SILENCE, self.live.recv()) => said,
        };
        match said {
            Ok(Ok(Live::Stored { seq })) if seq <= self.sent => {}
            Ok(Ok(Live::Stored { .. }) | Err(RecvError::Lagged(_))) => self.phase = Phase::CatchUp,
            Ok(Ok(item)) => self.queue.extend(self.show(item)),
            Ok(Err(RecvError::Closed)) => self.phase = Phase::Over,
            Err(_silence) => {
                self.queue.push_back(sse::KEEP_ALIVE);
                self.phase = Phase::CatchUp;
            }
        }
    }

    fn show(&self, item: Live) -> Option<Bytes> {
        let item = LiveItem::of(item).filter(|_| self.wish.show_live)?;
        Some(sse::passing("live", &item))
    }

    /// Ends the stream with a reason. The client may come back with the last number that it has.
    fn break_off(&mut self, what: &str) {
        tracing::error!(task = %self.wish.task, after = self.sent, error = what, "a watcher's stream broke off");
        let detail = format!("the events after {} can't be read: {what}; the server's log has the cause", self.sent);
        self.queue.push_back(sse::passing("problem", &Problem::new(ProblemType::Internal, detail)));
        self.phase = Phase::Over;
    }
}

/// The state in which the task ended, if this is the event that ended it. Only that much of the
/// event is read, so that events of a later version pass through too.
fn end_of(event: &StoredEvent) -> Option<TaskState> {
    #[derive(Deserialize)]
    struct Glance<'a> {
        #[serde(borrow)]
        event: Inner<'a>,
    }
    #[derive(Deserialize)]
    struct Inner<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        state: Option<TaskState>,
    }
    let glance = serde_json::from_slice::<Glance<'_>>(&event.bytes).ok()?;
    if glance.event.kind == "task_ended" { glance.event.state } else { None }
}

#[cfg(test)]
mod tests;
