//! Tasks in a memory store, for this crate's tests. Absent: the engine; each test appends itself.

use domain::contract::Contract;
use domain::event::{EVENT_VERSION, Envelope, Event};
use domain::fold::{apply, begin};
use domain::id::{CommitSha, TaskId};
use domain::principal::Principal;
use domain::task::{AgentSpec, Outcome, OutcomeReason, RepoSpec, Task, TaskSpec, TaskState, TaskSummary};
use jiff::Timestamp;
use store::{Append, Store};

/// A commit whose digits are all the same.
pub(crate) fn sha(digit: char) -> CommitSha {
    CommitSha::parse(&digit.to_string().repeat(40)).unwrap()
}

/// A task and the events that it came from.
pub(crate) struct Log {
    pub(crate) store: Store,
    pub(crate) task: Task,
    pub(crate) envelopes: Vec<Envelope>,
}

impl Log {
    /// A task that was accepted.
    pub(crate) async fn begin(store: &Store, bits: u64) -> Self {
        let spec = TaskSpec {
            goal: "make the parser accept trailing commas".to_owned(),
            repo: RepoSpec { origin: "/repo".to_owned(), base_branch: "main".to_owned(), base: sha('0') },
            agent: AgentSpec::Command { argv: vec!["fix".to_owned()] },
            contract: Contract::default(),
            fork: None,
        };
        let first = Envelope {
            v: EVENT_VERSION,
            task: TaskId::from_random(bits),
            seq: 1,
            at: Timestamp::UNIX_EPOCH,
            actor: Principal::person("ada"),
            event: Event::TaskSubmitted { spec: Box::new(spec), notes: Vec::new() },
        };
        let mut log = Self { store: store.clone(), task: begin(&first).unwrap(), envelopes: Vec::new() };
        log.append(vec![first]).await;
        log
    }

    /// More events, by a principal.
    pub(crate) async fn add_by(&mut self, actor: &Principal, events: Vec<Event>) {
        let mut next = Vec::new();
        for event in events {
            let envelope = Envelope {
                v: EVENT_VERSION,
                task: self.task.id.clone(),
                seq: self.task.seq + 1,
                at: Timestamp::UNIX_EPOCH,
                actor: actor.clone(),
                event,
            };
            apply(&mut self.task, &envelope).unwrap();
            next.push(envelope);
        }
        self.append(next).await;
    }

    /// More events, by the platform.
    pub(crate) async fn add(&mut self, events: Vec<Event>) {
        self.add_by(&Principal::platform(), events).await;
    }

    /// So many remarks.
    pub(crate) async fn note(&mut self, count: usize) {
        self.add((0..count).map(|n| Event::Noted { text: format!("remark {n}") }).collect()).await;
    }

    /// The end.
    pub(crate) async fn cancel(&mut self) {
        let outcome = Outcome { reason: OutcomeReason::User, message: "enough".to_owned() };
        self.add(vec![Event::TaskEnded { state: TaskState::Canceled, outcome }]).await;
    }

    async fn append(&mut self, events: Vec<Envelope>) {
        let expected_seq = events.first().unwrap().seq - 1;
        let summary = TaskSummary::from(&self.task);
        let append = Append {
            task: self.task.id.clone(),
            expected_seq,
            events: events.clone(),
            summary,
            wake_at: None,
            idempotency: None,
            lease: None,
        };
        self.store.log.append(append).await.unwrap();
        self.envelopes.extend(events);
    }
}
