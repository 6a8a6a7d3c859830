//! Tasks as the orchestrator would write them: real events, folded to real summaries.
//!
//! Absent: fakes. What is appended here is what the product appends, with invented goals.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use domain::contract::Contract;
use domain::event::{EVENT_VERSION, Envelope, Event};
use domain::id::{CommitSha, Digest, TaskId};
use domain::principal::Principal;
use domain::task::{AgentSpec, Outcome, OutcomeReason, RepoSpec, TaskSpec, TaskState, TaskSummary};
use jiff::Timestamp;
use store::{Append, Idempotency};

/// A moment, in seconds after an agreed one.
pub fn second(n: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + n).unwrap()
}

pub fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

pub fn key(scope: &str, key: &str, body: &str) -> Idempotency {
    Idempotency { scope: scope.to_owned(), key: key.to_owned(), body_digest: Digest::of(body.as_bytes()) }
}

/// The events of a task, in the order in which they are to be stored.
#[derive(Debug, Clone)]
pub struct Story {
    pub id: TaskId,
    pub events: Vec<Envelope>,
}

impl Story {
    pub fn new(id: TaskId) -> Self {
        Self { id, events: Vec::new() }
    }

    /// The append of the task's submission.
    pub fn submit(&mut self) -> Append {
        let goal = format!("mend the parser of {}, ünïcode \"quoted\" \u{0} and all", self.id);
        let spec = TaskSpec {
            goal,
            repo: RepoSpec {
                origin: "/srv/origin".to_owned(),
                base_branch: "main".to_owned(),
                base: CommitSha::parse(&"a".repeat(40)).unwrap(),
            },
            agent: AgentSpec::Command { argv: vec!["fix".to_owned()] },
            contract: Contract::default(),
            fork: None,
        };
        self.append(vec![Event::TaskSubmitted { spec: Box::new(spec), notes: Vec::new() }])
    }

    /// The append of one remark.
    pub fn note(&mut self, text: &str) -> Append {
        self.append(vec![Event::Noted { text: text.to_owned() }])
    }

    /// The append that begins work.
    pub fn start(&mut self) -> Append {
        self.append(vec![Event::AttemptStarted { attempt: 1 }])
    }

    /// The append of the task's end.
    pub fn end(&mut self, state: TaskState) -> Append {
        let outcome = Outcome { reason: OutcomeReason::User, message: "enough".to_owned() };
        self.append(vec![Event::TaskEnded { state, outcome }])
    }

    /// The append of some events after those that are there.
    pub fn append(&mut self, events: Vec<Event>) -> Append {
        let expected_seq = self.events.len() as u64;
        for event in events {
            let seq = self.events.len() as u64 + 1;
            self.events.push(Envelope {
                v: EVENT_VERSION,
                task: self.id.clone(),
                seq,
                at: second(seq as i64),
                actor: Principal::person("ada"),
                event,
            });
        }
        Append {
            task: self.id.clone(),
            expected_seq,
            events: self.events[expected_seq as usize..].to_vec(),
            summary: self.summary(),
            wake_at: None,
            idempotency: None,
            lease: None,
        }
    }

    /// Forgets the last events, as one does whose append was refused.
    pub fn back_to(&mut self, seq: usize) {
        self.events.truncate(seq);
    }

    pub fn summary(&self) -> TaskSummary {
        TaskSummary::from(&domain::fold(&self.events).unwrap())
    }
}
