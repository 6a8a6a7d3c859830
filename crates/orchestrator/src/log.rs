//! One task's log: the task as folded, its newest events, and the one way to add to them.
//!
//! [`TaskLog::record`] is the only place in the program that appends to a task, but for its first
//! event, which [`Logs::create`] stores. It decides on the
//! state that it holds, folds the new events before it stores them, and stores them before it
//! tells anybody. Whoever else holds the log sees the new state when the append has been
//! acknowledged. Absent: what should happen next.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use domain::event::{EVENT_VERSION, Envelope, Event, chain, chain_root};
use domain::fold::{self, Illegal};
use domain::id::TaskId;
use domain::plan::{Action, plan};
use domain::principal::Principal;
use domain::task::{Task, TaskSummary};
use jiff::Timestamp;
use store::{Append, AppendError, Idempotency, Store};
use tokio::sync::watch;

use crate::live::{Live, LiveHub};
use crate::ports::Clock;

/// Events read from the store at once.
const PAGE: u32 = 1_000;
/// Events kept in memory, so that a waiting task costs little however long its history is.
const TAIL: usize = 128;
/// How often an append is tried again after somebody else's.
const MAX_CONFLICTS: u32 = 5;

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No such task.
    #[error("there is no task {0}")]
    NotFound(TaskId),
    /// The events can't follow: the task has ended, or this is a bug.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] AppendError),
    /// The agent's journal could not go on.
    #[error("the agent of task {task} was stopped: {why}")]
    Agent {
        /// The task.
        task: TaskId,
        /// Why.
        why: String,
    },
    /// The log can't be read.
    #[error("the log of task {task} can't be read: {why}")]
    Unreadable {
        /// The task.
        task: TaskId,
        /// Why.
        why: String,
    },
}

struct State {
    task: Task,
    /// The newest events, oldest first; older ones are read from the store when somebody asks.
    tail: VecDeque<Arc<Envelope>>,
}

impl State {
    fn push(&mut self, envelope: Envelope) {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(Arc::new(envelope));
    }

    /// The events after `seq`, if all of them are in memory.
    fn after(&self, seq: u64) -> Option<Vec<Arc<Envelope>>> {
        let known = seq >= self.task.seq || self.tail.front().is_some_and(|oldest| oldest.seq <= seq + 1);
        known.then(|| self.tail.iter().filter(|event| event.seq > seq).cloned().collect())
    }
}

/// One task's log.
pub struct TaskLog {
    id: TaskId,
    store: Store,
    live: LiveHub,
    clock: Arc<dyn Clock>,
    state: tokio::sync::Mutex<State>,
    /// The number of the last event, and whether the task has ended.
    head: watch::Sender<(u64, bool)>,
}

impl TaskLog {
    async fn load(logs: &Logs, id: &TaskId) -> Result<Self, RecordError> {
        let state = read(&logs.store, id).await?;
        Ok(Self::holding(logs, id.clone(), state))
    }

    fn holding(logs: &Logs, id: TaskId, state: State) -> Self {
        let head = watch::Sender::new((state.task.seq, state.task.state.is_terminal()));
        Self {
            id,
            store: logs.store.clone(),
            live: logs.live.clone(),
            clock: logs.clock.clone(),
            state: tokio::sync::Mutex::new(state),
            head,
        }
    }

    /// The task's id.
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// The task as it stands.
    pub async fn task(&self) -> Task {
        self.state.lock().await.task.clone()
    }

    /// The events after `seq`.
    ///
    /// # Errors
    /// [`RecordError::Unreadable`] if older ones can't be read from the store.
    pub async fn events_after(&self, seq: u64) -> Result<Vec<Arc<Envelope>>, RecordError> {
        if let Some(events) = self.state.lock().await.after(seq) {
            return Ok(events);
        }
        let mut events = Vec::new();
        read_after(&self.store, &self.id, seq, |envelope| {
            events.push(Arc::new(envelope));
            Ok(())
        })
        .await?;
        Ok(events)
    }

    /// Returns when the task has ended.
    pub async fn ended(&self) {
        let mut head = self.head.subscribe();
        // The sender lives as long as `self`, so waiting can only end by the task's end.
        let _ = head.wait_for(|(_, ended)| *ended).await;
    }

    /// Returns when there are events after `seq`.
    pub async fn grown_past(&self, seq: u64) {
        let mut head = self.head.subscribe();
        let _ = head.wait_for(|(last, _)| *last > seq).await;
    }

    /// Decides on the task as it stands, and stores what was decided.
    ///
    /// Gives the task after it, and what `decide` gave beside the events. No event is stored if
    /// `decide` gives none.
    ///
    /// # Errors
    /// What `decide` gives as its error, or [`RecordError`] made into it.
    pub async fn record<T, E, F>(&self, actor: &Principal, mut decide: F) -> Result<(Task, T), E>
    where
        E: From<RecordError>,
        F: FnMut(&Task) -> Result<(Vec<Event>, T), E>,
    {
        let mut state = self.state.lock().await;
        let mut conflicts = 0;
        loop {
            let (events, extra) = decide(&state.task)?;
            if events.is_empty() {
                return Ok((state.task.clone(), extra));
            }
            let at = self.clock.now();
            let mut task = state.task.clone();
            let mut envelopes = Vec::with_capacity(events.len());
            for event in events {
                let envelope = Envelope {
                    v: EVENT_VERSION,
                    task: self.id.clone(),
                    seq: task.seq + 1,
                    at,
                    actor: actor.clone(),
                    event,
                };
                fold::apply(&mut task, &envelope).map_err(RecordError::from)?;
                envelopes.push(envelope);
            }
            let append = Append {
                task: self.id.clone(),
                expected_seq: state.task.seq,
                events: envelopes.clone(),
                summary: TaskSummary::from(&task),
                wake_at: wake_at(&task, at),
                idempotency: None,
                lease: None,
            };
            match self.store.log.append(append).await {
                Ok(_) => {
                    envelopes.into_iter().for_each(|envelope| state.push(envelope));
                    state.task = task.clone();
                    self.head.send_replace((task.seq, task.state.is_terminal()));
                    self.live.tell(&self.id, Live::Stored { seq: task.seq });
                    return Ok((task, extra));
                }
                // An append whose caller was canceled may have been stored all the same.
                Err(AppendError::Conflict { .. }) if conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    *state = read(&self.store, &self.id).await?;
                    self.head.send_replace((state.task.seq, state.task.state.is_terminal()));
                }
                Err(error) => return Err(RecordError::from(error).into()),
            }
        }
    }
}

/// When somebody should look at the task again; nothing if nobody needs to.
fn wake_at(task: &Task, now: Timestamp) -> Option<Timestamp> {
    plan(task, now).first().map(|action| match action {
        Action::WakeAt(at) => *at,
        _ => now,
    })
}

/// Hands each stored event after `seq` to `take`, page by page.
async fn read_after(
    store: &Store,
    id: &TaskId,
    seq: u64,
    mut take: impl FnMut(Envelope) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    let unreadable = |why: String| RecordError::Unreadable { task: id.clone(), why };
    let mut after = seq;
    // Read from its beginning, a log proves itself: each event hangs on the one before.
    let mut chained = (seq == 0).then(|| chain_root(id));
    loop {
        let page = store.log.read(id, after, PAGE).await.map_err(|error| unreadable(error.to_string()))?;
        let last = page.len() < PAGE as usize;
        for stored in page {
            after = stored.seq;
            if let Some(hash) = &mut chained {
                *hash = chain(hash, &stored.bytes);
                if *hash != stored.hash {
                    return Err(unreadable(format!(
                        "event {after} is not the one that was stored: the log was changed"
                    )));
                }
            }
            let decoded = Envelope::decode(&stored.bytes);
            take(decoded.map_err(|error| unreadable(format!("event {after}: {error}")))?)?;
        }
        if last {
            return Ok(());
        }
    }
}

async fn read(store: &Store, id: &TaskId) -> Result<State, RecordError> {
    let mut state: Option<State> = None;
    read_after(store, id, 0, |envelope| {
        match &mut state {
            None => {
                let mut begun = State { task: fold::begin(&envelope)?, tail: VecDeque::new() };
                begun.push(envelope);
                state = Some(begun);
            }
            Some(state) => {
                fold::apply(&mut state.task, &envelope)?;
                state.push(envelope);
            }
        }
        Ok(())
    })
    .await?;
    state.ok_or_else(|| RecordError::NotFound(id.clone()))
}

/// The logs that somebody holds right now. Each task has at most one, so there is one writer.
pub struct Logs {
    store: Store,
    live: LiveHub,
    clock: Arc<dyn Clock>,
    held: Mutex<HashMap<TaskId, Weak<TaskLog>>>,
    /// Held while a log is loaded, so that two callers never load two.
    loading: tokio::sync::Mutex<()>,
}

impl Logs {
    /// Logs over a store.
    pub fn new(store: Store, live: LiveHub, clock: Arc<dyn Clock>) -> Self {
        Self { store, live, clock, held: Mutex::new(HashMap::new()), loading: tokio::sync::Mutex::new(()) }
    }

    fn find(&self, id: &TaskId) -> Option<Arc<TaskLog>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get(id).and_then(Weak::upgrade)
    }

    /// Holds a log, or gives the one that somebody else came to hold meanwhile.
    fn hold(&self, log: TaskLog) -> Arc<TaskLog> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = held.get(&log.id).and_then(Weak::upgrade) {
            return first;
        }
        let log = Arc::new(log);
        held.retain(|_, weak| weak.strong_count() > 0);
        held.insert(log.id.clone(), Arc::downgrade(&log));
        log
    }

    /// The log of a task.
    ///
    /// # Errors
    /// [`RecordError::NotFound`], or that it can't be read.
    pub async fn open(&self, id: &TaskId) -> Result<Arc<TaskLog>, RecordError> {
        if let Some(log) = self.find(id) {
            return Ok(log);
        }
        let _one = self.loading.lock().await;
        if let Some(log) = self.find(id) {
            return Ok(log);
        }
        Ok(self.hold(TaskLog::load(self, id).await?))
    }

    /// Stores the first events of a new task: its submission, and what is said to it at once.
    ///
    /// # Errors
    /// [`RecordError::Store`], also for a request that was stored before.
    pub async fn create(
        &self,
        first: Envelope,
        then: Vec<Event>,
        idempotency: Option<Idempotency>,
    ) -> Result<Arc<TaskLog>, RecordError> {
        let mut task = fold::begin(&first)?;
        let mut events = vec![first.clone()];
        for event in then {
            let next = Envelope { seq: task.seq + 1, event, ..first.clone() };
            fold::apply(&mut task, &next)?;
            events.push(next);
        }
        let append = Append {
            task: first.task.clone(),
            expected_seq: 0,
            events: events.clone(),
            summary: TaskSummary::from(&task),
            wake_at: wake_at(&task, first.at),
            idempotency,
            lease: None,
        };
        self.store.log.append(append).await?;
        let id = first.task.clone();
        let seq = task.seq;
        let tail = events.into_iter().map(Arc::new).collect();
        let log = self.hold(TaskLog::holding(self, id.clone(), State { task, tail }));
        self.live.tell(&id, Live::Stored { seq });
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::contract::Contract;
    use domain::id::CommitSha;
    use domain::task::{AgentSpec, Outcome, OutcomeReason, RepoSpec, TaskSpec, TaskState};

    struct FixedClock;
    impl Clock for FixedClock {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
    }

    async fn fresh() -> (Logs, Arc<TaskLog>) {
        let logs = Logs::new(store::memory::open(), LiveHub::default(), Arc::new(FixedClock));
        let base = CommitSha::parse(&"a".repeat(40)).unwrap();
        let spec = TaskSpec {
            goal: "mend it".into(),
            repo: RepoSpec { origin: "/repo".into(), base_branch: "main".into(), base },
            agent: AgentSpec::Command { argv: vec!["true".into()] },
            contract: Contract::default(),
            fork: None,
        };
        let first = Envelope {
            v: EVENT_VERSION,
            task: TaskId::from_random(1),
            seq: 1,
            at: Timestamp::UNIX_EPOCH,
            actor: Principal::person("ada"),
            event: Event::TaskSubmitted { spec: Box::new(spec), notes: vec![] },
        };
        let log = logs.create(first, Vec::new(), None).await.unwrap();
        (logs, log)
    }

    async fn note(log: &TaskLog, text: &str) -> Result<Task, RecordError> {
        let event = Event::Noted { text: text.to_owned() };
        log.record(&Principal::platform(), |_| Ok::<_, RecordError>((vec![event.clone()], ())))
            .await
            .map(|(task, ())| task)
    }

    #[tokio::test]
    async fn many_at_once_record_one_after_the_other_without_a_gap() {
        let (_logs, log) = fresh().await;
        let all = (0..50).map(|n| {
            let log = log.clone();
            async move { note(&log, &n.to_string()).await.unwrap() }
        });
        futures_util::future::join_all(all).await;
        let seqs: Vec<u64> = log.events_after(0).await.unwrap().iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=51).collect::<Vec<u64>>());
        assert_eq!(log.task().await.notes.len(), 50);
    }

    #[tokio::test]
    async fn an_append_that_was_stored_unseen_is_found_and_built_upon() {
        let (logs, log) = fresh().await;
        // Another holder of the same store stands for an append whose caller was canceled.
        let others = Logs::new(logs.store.clone(), LiveHub::default(), Arc::new(FixedClock));
        note(&*others.open(log.id()).await.unwrap(), "theirs").await.unwrap();
        let task = note(&log, "ours").await.unwrap();
        assert_eq!((task.seq, task.notes.as_slice()), (3, &["theirs".to_owned(), "ours".to_owned()][..]));
    }

    #[tokio::test]
    async fn events_older_than_those_in_memory_come_from_the_store() {
        let (_logs, log) = fresh().await;
        for n in 0..(TAIL * 2) {
            note(&log, &n.to_string()).await.unwrap();
        }
        assert_eq!(log.events_after(0).await.unwrap().len(), TAIL * 2 + 1);
        assert_eq!(log.events_after(TAIL as u64 * 2).await.unwrap().len(), 1);
        assert!(log.events_after(TAIL as u64 * 2 + 1).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_can_not_follow_is_not_stored() {
        let (logs, log) = fresh().await;
        let outcome = Outcome { reason: OutcomeReason::User, message: "no".into() };
        let end = Event::TaskEnded { state: TaskState::Canceled, outcome };
        log.record(&Principal::platform(), |_| Ok::<_, RecordError>((vec![end.clone()], ()))).await.unwrap();
        log.ended().await;
        let again = log.record(&Principal::platform(), |_| Ok::<_, RecordError>((vec![end.clone()], ()))).await;
        assert!(matches!(again, Err(RecordError::Illegal(_))));
        assert_eq!(logs.store.log.head(log.id()).await.unwrap().unwrap().seq, 2);
    }

    #[tokio::test]
    async fn a_task_has_one_log_however_many_hold_it() {
        let (logs, log) = fresh().await;
        let again = logs.open(log.id()).await.unwrap();
        assert!(Arc::ptr_eq(&log, &again));
    }
}
