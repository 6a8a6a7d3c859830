//! The whole store in this process: for tests, and as the reference that the others are compared
//! with. The same `ledger` judges; the state is simply all of it.
//!
//! Absent: durability. An acknowledged append is gone with the process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use domain::id::{Digest, TaskId};
use domain::principal::Principal;
use domain::task::TaskSummary;
use jiff::Timestamp;

use crate::MAX_BLOB_BYTES;
use crate::error::{AppendError, BlobError, LeaseError, ReadError, ResolveError, VerifyError};
use crate::ledger::{ChainCheck, LeaseWork, Ledger, MAX_CANDIDATES, Prepared, from_micros, pick, slice};
use crate::ports::{
    Append, Appended, Blobs, EventLog, Filter, Head, Lease, Leases, Lifeline, Store, StoredEvent, StoredKey, TaskIndex,
    Verified,
};

use crate::secrets::{
    AuditAction, Change, SealedSecret, SecretAudit, SecretLine, SecretName, SecretScope, Secrets, SecretsError,
    effective, judge,
};

/// A new, empty store.
#[must_use]
pub fn open() -> Store {
    Store::of(Arc::new(Memory::default()))
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    events: HashMap<TaskId, Vec<StoredEvent>>,
    /// By the row of the task's first event: the order of lists.
    lines: BTreeMap<u64, Line>,
    blobs: HashMap<Digest, Vec<u8>>,
    secrets: BTreeMap<(SecretScope, SecretName), SealedSecret>,
    audit: Vec<SecretAudit>,
    closed: bool,
}

struct Line {
    summary: TaskSummary,
    wake_at_us: Option<i64>,
}

#[derive(Default)]
struct Memory(Mutex<State>);

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self, work: &LeaseWork) -> Result<Option<Lease>, LeaseError> {
        let mut state = self.state();
        if state.closed { Err(LeaseError::Closed) } else { state.ledger.lease(work) }
    }
}

#[async_trait]
impl EventLog for Memory {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let work = Prepared::new(append)?;
        let mut state = self.state();
        if state.closed {
            return Err(AppendError::Closed);
        }
        let appended = state.ledger.append(&work)?;
        if let Some(row) = state.ledger.heads.get(&work.task) {
            let first_row = row.first_row;
            state.lines.insert(first_row, Line { summary: work.summary, wake_at_us: work.wake_at_us });
        }
        state.events.entry(work.task).or_default().extend(appended.stored.iter().cloned());
        Ok(appended)
    }

    async fn read(&self, task: &TaskId, after_seq: u64, limit: u32) -> Result<Vec<StoredEvent>, ReadError> {
        let state = self.state();
        let events = state.events.get(task).map(Vec::as_slice).unwrap_or_default();
        let after = usize::try_from(after_seq).unwrap_or(usize::MAX);
        let wanted = events.iter().skip(after).take(limit as usize);
        Ok(wanted.cloned().collect())
    }

    async fn head(&self, task: &TaskId) -> Result<Option<Head>, ReadError> {
        Ok(self.state().ledger.heads.get(task).map(|row| row.head.clone()))
    }

    async fn verify(&self, task: &TaskId) -> Result<Verified, VerifyError> {
        let state = self.state();
        let mut check = ChainCheck::new(task);
        for event in state.events.get(task).map(Vec::as_slice).unwrap_or_default() {
            check.next(event)?;
        }
        let events = check.finish(state.ledger.heads.get(task).map(|row| &row.head))?;
        Ok(Verified { events })
    }
}

#[async_trait]
impl TaskIndex for Memory {
    async fn list(&self, filter: Filter) -> Result<Vec<TaskSummary>, ReadError> {
        let state = self.state();
        let below = match &filter.before {
            None => u64::MAX,
            Some(task) => state.ledger.heads.get(task).map_or(0, |row| row.first_row),
        };
        let wanted = state.lines.range(..below).rev().map(|(_, line)| &line.summary).filter(|line| {
            (filter.states.is_empty() || filter.states.contains(&line.state))
                && !(filter.open_only && line.state.is_terminal())
        });
        Ok(wanted.take(filter.limit as usize).cloned().collect())
    }

    async fn summary(&self, task: &TaskId) -> Result<Option<TaskSummary>, ReadError> {
        let state = self.state();
        let row = state.ledger.heads.get(task).map(|row| row.first_row);
        Ok(row.and_then(|row| state.lines.get(&row)).map(|line| line.summary.clone()))
    }

    async fn resolve(&self, prefix: &str) -> Result<TaskId, ResolveError> {
        let wanted = prefix.to_ascii_lowercase();
        let state = self.state();
        let mut found: Vec<TaskId> =
            state.ledger.heads.keys().filter(|id| id.as_str().starts_with(&wanted)).cloned().collect();
        found.sort();
        found.truncate(MAX_CANDIDATES + 1);
        pick(prefix, &wanted, found)
    }

    async fn unfinished(&self) -> Result<Vec<TaskId>, ReadError> {
        let state = self.state();
        let wanted = state.lines.values().filter(|line| !line.summary.state.is_terminal() || line.wake_at_us.is_some());
        Ok(wanted.map(|line| line.summary.id.clone()).collect())
    }

    async fn due(&self, now: Timestamp) -> Result<Vec<TaskId>, ReadError> {
        let now_us = now.as_microsecond();
        let state = self.state();
        let mut due: Vec<(i64, u64, TaskId)> = state
            .lines
            .iter()
            .filter_map(|(row, line)| Some((line.wake_at_us?, *row, line.summary.id.clone())))
            .filter(|(wake_at_us, ..)| *wake_at_us <= now_us)
            .collect();
        due.sort();
        Ok(due.into_iter().map(|(.., id)| id).collect())
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, ReadError> {
        Ok(self.state().lines.values().filter_map(|line| line.wake_at_us).min().map(from_micros))
    }

    async fn by_key(&self, scope: &str, key: &str) -> Result<Option<StoredKey>, ReadError> {
        Ok(self.state().ledger.keys.get(&(scope.to_owned(), key.to_owned())).cloned())
    }
}

#[async_trait]
impl Leases for Memory {
    async fn acquire(
        &self,
        task: &TaskId,
        owner: &str,
        now: Timestamp,
        ttl_ms: u64,
    ) -> Result<Option<Lease>, LeaseError> {
        self.lease(&LeaseWork::acquire(task, owner, now, ttl_ms))
    }

    async fn renew(&self, lease: &Lease, now: Timestamp, ttl_ms: u64) -> Result<(), LeaseError> {
        self.lease(&LeaseWork::renew(lease, now, ttl_ms)).map(|_| ())
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.lease(&LeaseWork::Release { lease: lease.clone() }).map(|_| ())
    }
}

#[async_trait]
impl Blobs for Memory {
    async fn put(&self, bytes: Vec<u8>) -> Result<Digest, BlobError> {
        if bytes.len() > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge { bytes: bytes.len(), limit: MAX_BLOB_BYTES });
        }
        let digest = Digest::of(&bytes);
        let mut state = self.state();
        if state.closed {
            return Err(BlobError::Closed);
        }
        state.blobs.insert(digest.clone(), bytes);
        Ok(digest)
    }

    async fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, BlobError> {
        Ok(self.state().blobs.get(digest).cloned())
    }

    async fn get_range(&self, digest: &Digest, offset: u64, length: u64) -> Result<Option<Vec<u8>>, BlobError> {
        Ok(self.state().blobs.get(digest).map(|bytes| slice(bytes, offset, length)))
    }
}

impl Memory {
    fn change(&self, change: Change, actor: &Principal, at: Timestamp) -> Result<SecretLine, SecretsError> {
        let mut state = self.state();
        if state.closed {
            return Err(SecretsError::Closed);
        }
        let place = (change.scope().clone(), change.name().clone());
        let told = judge(&change, state.secrets.get(&place).map(|secret| &secret.line))?;
        let audit = SecretAudit {
            row: state.audit.len() as u64 + 1,
            at,
            actor: actor.clone(),
            action: change.action(),
            name: told.name.clone(),
            scope: told.scope.clone(),
            hosts: told.hosts.clone(),
            added_as: told.added_as.clone(),
        };
        match change {
            Change::Put { secret, .. } => state.secrets.insert(place, *secret),
            Change::Remove { .. } => state.secrets.remove(&place),
        };
        state.audit.push(audit);
        Ok(told)
    }

    fn lines(&self) -> Vec<SecretLine> {
        self.state().secrets.values().map(|secret| secret.line.clone()).collect()
    }
}

#[async_trait]
impl Secrets for Memory {
    async fn put(
        &self,
        secret: SealedSecret,
        action: AuditAction,
        actor: &Principal,
        at: Timestamp,
    ) -> Result<(), SecretsError> {
        self.change(Change::Put { secret: Box::new(secret), action }, actor, at).map(|_| ())
    }

    async fn remove(
        &self,
        scope: &SecretScope,
        name: &SecretName,
        actor: &Principal,
        at: Timestamp,
    ) -> Result<SecretLine, SecretsError> {
        self.change(Change::Remove { scope: scope.clone(), name: name.clone() }, actor, at)
    }

    async fn list(&self) -> Result<Vec<SecretLine>, ReadError> {
        Ok(self.lines())
    }

    async fn for_box(&self, repo: &str, environment: Option<&str>) -> Result<Vec<SecretLine>, ReadError> {
        Ok(effective(self.lines(), repo, environment))
    }

    async fn get(&self, scope: &SecretScope, name: &SecretName) -> Result<Option<SealedSecret>, ReadError> {
        Ok(self.state().secrets.get(&(scope.clone(), name.clone())).cloned())
    }

    async fn audit(&self, limit: u32) -> Result<Vec<SecretAudit>, ReadError> {
        Ok(self.state().audit.iter().rev().take(limit as usize).cloned().collect())
    }
}

#[async_trait]
impl Lifeline for Memory {
    async fn close(&self) {
        self.state().closed = true;
    }
}
