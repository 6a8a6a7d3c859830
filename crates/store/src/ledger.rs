//! What an append, a key and a lease mean: pure, and the same for every back end.
//!
//! A [`Ledger`] holds as much of the stored state as the work at hand touches (all of it in memory,
//! the group's tasks in SQLite). It judges one piece of work after the other, each seeing those
//! before it, and changes itself; the back end then writes what changed. Absent: I/O, and time other
//! than as microseconds in an argument.

use std::collections::HashMap;

use domain::event::{chain, chain_root};
use domain::id::{Digest, TaskId};
use domain::task::TaskSummary;
use jiff::Timestamp;

use crate::MAX_EVENT_BYTES;
use crate::error::{AppendError, ChainBroken, LeaseError, ResolveError};
use crate::ports::{Append, Appended, Head, Idempotency, Lease, StoredEvent, StoredKey};

/// Microseconds since 1970, rounded up: what is kept of a time must not be earlier than it.
pub(crate) fn micros_up(at: Timestamp) -> i64 {
    let micros = at.as_microsecond();
    if i128::from(micros) * 1_000 < at.as_nanosecond() { micros.saturating_add(1) } else { micros }
}

/// The time that [`micros_up`] kept.
pub(crate) fn from_micros(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

/// An append whose own parts fit each other, with its events as bytes.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub task: TaskId,
    pub expected_seq: u64,
    pub records: Vec<Vec<u8>>,
    pub summary: TaskSummary,
    pub wake_at_us: Option<i64>,
    pub idempotency: Option<Idempotency>,
    pub lease: Option<Lease>,
}

impl Prepared {
    /// Checks an append against itself and writes its events as bytes.
    pub fn new(append: Append) -> Result<Self, AppendError> {
        let malformed = |why: String| Err(AppendError::Malformed { why });
        let mut seq = append.expected_seq;
        let mut records = Vec::with_capacity(append.events.len());
        for envelope in &append.events {
            seq = seq.saturating_add(1);
            if envelope.task != append.task || envelope.seq != seq {
                return malformed(format!(
                    "event {} of task {} stands where event {seq} of task {} belongs",
                    envelope.seq, envelope.task, append.task
                ));
            }
            let bytes = match envelope.encode() {
                Ok(bytes) => bytes,
                Err(error) => return malformed(format!("event {seq} can't be written: {error}")),
            };
            if bytes.len() > MAX_EVENT_BYTES {
                return Err(AppendError::TooLarge { seq, bytes: bytes.len(), limit: MAX_EVENT_BYTES });
            }
            records.push(bytes);
        }
        if seq == 0 {
            return malformed("a new task needs an event".to_owned());
        }
        if append.summary.id != append.task || append.summary.seq != seq {
            return malformed(format!(
                "the summary is of event {} of task {}, the last event is {seq} of task {}",
                append.summary.seq, append.summary.id, append.task
            ));
        }
        if let Some(lease) = append.lease.as_ref().filter(|lease| lease.task != append.task) {
            return malformed(format!("the lease is of task {}", lease.task));
        }
        Ok(Self {
            task: append.task,
            expected_seq: append.expected_seq,
            records,
            summary: append.summary,
            wake_at_us: append.wake_at.map(micros_up),
            idempotency: append.idempotency,
            lease: append.lease,
        })
    }

    /// Bytes that it puts into the log.
    pub fn size_bytes(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }
}

/// Where a task's chain ends, and where it began.
#[derive(Debug, Clone)]
pub(crate) struct HeadRow {
    pub first_row: u64,
    pub head: Head,
}

/// A task's lease. The row stays when the lease ends, so that epochs only grow.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseRow {
    pub epoch: u64,
    pub owner: Option<String>,
    pub expires_at_us: i64,
}

/// Something to be done with a task's lease; times in microseconds since 1970.
#[derive(Debug)]
pub(crate) enum LeaseWork {
    Acquire { task: TaskId, owner: String, now_us: i64, until_us: i64 },
    Renew { lease: Lease, until_us: i64 },
    Release { lease: Lease },
}

impl LeaseWork {
    pub fn acquire(task: &TaskId, owner: &str, now: Timestamp, ttl_ms: u64) -> Self {
        Self::Acquire {
            task: task.clone(),
            owner: owner.to_owned(),
            now_us: now.as_microsecond(),
            until_us: after(now, ttl_ms),
        }
    }
    pub fn renew(lease: &Lease, now: Timestamp, ttl_ms: u64) -> Self {
        Self::Renew { lease: lease.clone(), until_us: after(now, ttl_ms) }
    }
    pub fn task(&self) -> &TaskId {
        match self {
            Self::Acquire { task, .. } => task,
            Self::Renew { lease, .. } | Self::Release { lease } => &lease.task,
        }
    }
}

fn after(now: Timestamp, ttl_ms: u64) -> i64 {
    let ttl_us = i64::try_from(ttl_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
    micros_up(now).saturating_add(ttl_us)
}

/// The stored state, or the part of it that the work at hand touches.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub last_row: u64,
    pub heads: HashMap<TaskId, HeadRow>,
    pub keys: HashMap<(String, String), StoredKey>,
    pub leases: HashMap<TaskId, LeaseRow>,
}

impl Ledger {
    /// Judges an append; if it is taken, later work sees it as stored.
    pub fn append(&mut self, work: &Prepared) -> Result<Appended, AppendError> {
        if let Some(asked) = &work.idempotency
            && let Some(found) = self.keys.get(&(asked.scope.clone(), asked.key.clone()))
        {
            let task = found.task.clone();
            return Err(if found.body_digest == asked.body_digest {
                AppendError::Duplicate { task }
            } else {
                AppendError::KeyReused { task }
            });
        }
        if let Some(lease) = &work.lease
            && !self.holds(lease)
        {
            return Err(AppendError::LeaseLost { task: work.task.clone() });
        }
        let known = self.heads.get(&work.task);
        let actual = known.map_or(0, |row| row.head.seq);
        if actual != work.expected_seq {
            return Err(AppendError::Conflict { expected: work.expected_seq, actual });
        }
        let first_row = known.map_or(self.last_row + 1, |row| row.first_row);
        let mut head = known.map_or_else(|| Head { seq: 0, hash: chain_root(&work.task) }, |row| row.head.clone());
        let mut stored = Vec::with_capacity(work.records.len());
        for bytes in &work.records {
            self.last_row += 1;
            head = Head { seq: head.seq + 1, hash: chain(&head.hash, bytes) };
            stored.push(StoredEvent {
                row: self.last_row,
                seq: head.seq,
                bytes: bytes.clone(),
                hash: head.hash.clone(),
            });
        }
        let last_seq = head.seq;
        self.heads.insert(work.task.clone(), HeadRow { first_row, head });
        if let Some(key) = &work.idempotency {
            self.keys.insert(
                (key.scope.clone(), key.key.clone()),
                StoredKey { task: work.task.clone(), body_digest: key.body_digest.clone() },
            );
        }
        Ok(Appended { last_seq, row: self.last_row, stored })
    }

    /// Takes, prolongs or gives back a lease. `Ok(None)`: somebody has it, or it was given back.
    pub fn lease(&mut self, work: &LeaseWork) -> Result<Option<Lease>, LeaseError> {
        match work {
            LeaseWork::Acquire { task, owner, now_us, until_us } => {
                let row = self.leases.entry(task.clone()).or_default();
                if row.owner.is_some() && row.expires_at_us > *now_us {
                    return Ok(None);
                }
                *row = LeaseRow { epoch: row.epoch + 1, owner: Some(owner.clone()), expires_at_us: *until_us };
                Ok(Some(Lease { task: task.clone(), owner: owner.clone(), epoch: row.epoch }))
            }
            LeaseWork::Renew { lease, until_us } => {
                if !self.holds(lease) {
                    return Err(LeaseError::Lost { task: lease.task.clone() });
                }
                if let Some(row) = self.leases.get_mut(&lease.task) {
                    row.expires_at_us = *until_us;
                }
                Ok(Some(lease.clone()))
            }
            LeaseWork::Release { lease } => {
                if self.holds(lease)
                    && let Some(row) = self.leases.get_mut(&lease.task)
                {
                    row.owner = None;
                }
                Ok(None)
            }
        }
    }

    fn holds(&self, lease: &Lease) -> bool {
        self.leases
            .get(&lease.task)
            .is_some_and(|row| row.epoch == lease.epoch && row.owner.as_ref() == Some(&lease.owner))
    }
}

/// Recomputes a chain, event by event, over stored bytes.
#[derive(Debug)]
pub(crate) struct ChainCheck {
    task: TaskId,
    row: u64,
    head: Head,
}

impl ChainCheck {
    pub fn new(task: &TaskId) -> Self {
        Self { task: task.clone(), row: 0, head: Head { seq: 0, hash: chain_root(task) } }
    }

    /// Number of the last event taken.
    pub fn seq(&self) -> u64 {
        self.head.seq
    }

    /// Takes the next event as it lies in the store.
    pub fn next(&mut self, event: &StoredEvent) -> Result<(), ChainBroken> {
        let seq = self.head.seq + 1;
        let broken = |what| Err(ChainBroken { task: self.task.clone(), seq, what });
        if event.seq != seq {
            return broken("an event is missing");
        }
        if event.row <= self.row {
            return broken("the order of rows was changed");
        }
        let hash: Digest = chain(&self.head.hash, &event.bytes);
        if hash != event.hash {
            return broken("bytes and hash do not match");
        }
        self.row = event.row;
        self.head = Head { seq, hash };
        Ok(())
    }

    /// Compares the end with the head that was written beside the events; gives the length.
    pub fn finish(self, head: Option<&Head>) -> Result<u64, ChainBroken> {
        let seq = self.head.seq;
        match head {
            None if seq == 0 => Ok(0),
            Some(head) if *head == self.head => Ok(seq),
            Some(head) if head.seq > seq => {
                Err(ChainBroken { task: self.task, seq: seq + 1, what: "events are missing at the end" })
            }
            _ => Err(ChainBroken { task: self.task, seq, what: "the recorded head is another" }),
        }
    }
}

/// Most candidates that an ambiguous prefix names.
pub(crate) const MAX_CANDIDATES: usize = 5;

/// What a prefix means, given the ids that begin with it, sorted, at most one more than
/// [`MAX_CANDIDATES`]. A whole id means itself, also where longer ones begin with it.
pub(crate) fn pick(prefix: &str, wanted: &str, mut found: Vec<TaskId>) -> Result<TaskId, ResolveError> {
    if let Some(exact) = found.iter().position(|id| id.as_str() == wanted) {
        return Ok(found.swap_remove(exact));
    }
    if found.len() > 1 || wanted.is_empty() {
        found.truncate(MAX_CANDIDATES);
        if !found.is_empty() {
            return Err(ResolveError::Ambiguous { prefix: prefix.to_owned(), candidates: found });
        }
    }
    found.pop().ok_or_else(|| ResolveError::NotFound { prefix: prefix.to_owned() })
}

/// At most `length` bytes from `offset` on.
pub(crate) fn slice(bytes: &[u8], offset: u64, length: u64) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len() - start);
    bytes.get(start..start + length).unwrap_or_default().to_vec()
}
