//! The ports, by role, and the values that pass through them.
//!
//! Every trait is object-safe and says what holds when a call returns. Absent: default methods. A
//! port does; what to do is decided by its callers.

use std::sync::Arc;

use async_trait::async_trait;
use domain::event::Envelope;
use domain::id::{Digest, TaskId};
use domain::task::{TaskState, TaskSummary};
use jiff::Timestamp;

use crate::error::{AppendError, BlobError, LeaseError, ReadError, ResolveError, VerifyError};
use crate::secrets::Secrets;

/// What is to be stored in one transaction.
#[derive(Debug, Clone)]
pub struct Append {
    /// The task.
    pub task: TaskId,
    /// Number of the last event that the caller has seen; 0 for a new task.
    pub expected_seq: u64,
    /// The events, numbered from `expected_seq + 1` without gaps. May be empty for a task that
    /// exists, to change only `wake_at`.
    pub events: Vec<Envelope>,
    /// The task's line in lists after these events.
    pub summary: TaskSummary,
    /// When somebody should look at the task again; kept to the microsecond, never early.
    pub wake_at: Option<Timestamp>,
    /// Makes a repeated request harmless.
    pub idempotency: Option<Idempotency>,
    /// The right to work on the task, if the caller claims to have it.
    pub lease: Option<Lease>,
}

/// A request's own name. The first append under it wins; a repetition finds that task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Who chose the key, and for what; keys of different scopes never meet.
    pub scope: String,
    /// The key.
    pub key: String,
    /// Digest of the request's body: another body under the same key is an error.
    pub body_digest: Digest,
}

/// What was stored under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The task.
    pub task: TaskId,
    /// Digest of the request's body.
    pub body_digest: Digest,
}

/// What an append gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Number of the task's last event now.
    pub last_seq: u64,
    /// Row of the last event stored over all tasks when this append was stored.
    pub row: u64,
    /// The events as stored, in order.
    pub stored: Vec<StoredEvent>,
}

/// An event as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place among all events of all tasks; grows with every event, from 1.
    pub row: u64,
    /// Its place in its task, from 1.
    pub seq: u64,
    /// The bytes as written; [`Envelope::decode`] reads them.
    pub bytes: Vec<u8>,
    /// Its hash, chained to the event before it.
    pub hash: Digest,
}

/// The end of a task's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Number of the last event.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
}

/// A chain that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Its length.
    pub events: u64,
}

/// The right to work on a task, until it expires or somebody else has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The task.
    pub task: TaskId,
    /// Who has it.
    pub owner: String,
    /// Grows with every acquisition of this task; an append under an older one is refused.
    pub epoch: u64,
}

/// Which lines of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Only these states; empty means all.
    pub states: Vec<TaskState>,
    /// Only tasks that have not ended.
    pub open_only: bool,
    /// At most so many.
    pub limit: u32,
    /// Only tasks older than this one: the last of the page before. An unknown task gives an
    /// empty page.
    pub before: Option<TaskId>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { states: Vec::new(), open_only: false, limit: 100, before: None }
    }
}

/// The append-only log. The only truth.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Stores events, the derived line, the wake-up time and the idempotency key: all or nothing.
    /// When it returns `Ok`, all of it survives a loss of power. When the future is dropped before
    /// it is done, the append may or may not happen.
    ///
    /// A key is looked at first, then the lease, then `expected_seq`, so that a repeated request
    /// finds its task also when the task has moved on.
    ///
    /// # Errors
    /// [`AppendError`], typed by what the caller may do.
    async fn append(&self, append: Append) -> Result<Appended, AppendError>;

    /// Up to `limit` events of a task after number `after_seq`, in order. Empty for an unknown task.
    ///
    /// # Errors
    /// [`ReadError`] if the storage fails or holds what it can't have written.
    async fn read(&self, task: &TaskId, after_seq: u64, limit: u32) -> Result<Vec<StoredEvent>, ReadError>;

    /// Where a task's chain ends; `None` for an unknown task.
    ///
    /// # Errors
    /// [`ReadError`] if the storage fails.
    async fn head(&self, task: &TaskId) -> Result<Option<Head>, ReadError>;

    /// Recomputes a task's chain over the stored bytes. An unknown task has a chain of no events.
    ///
    /// # Errors
    /// [`VerifyError::Broken`] names the first event that does not hold.
    async fn verify(&self, task: &TaskId) -> Result<Verified, VerifyError>;
}

/// What is derived from the events and written with them.
#[async_trait]
pub trait TaskIndex: Send + Sync {
    /// Lines of the list, newest task first.
    ///
    /// # Errors
    /// [`ReadError`] if the storage fails.
    async fn list(&self, filter: Filter) -> Result<Vec<TaskSummary>, ReadError>;

    /// One line; `None` for an unknown task.
    ///
    /// # Errors
    /// [`ReadError`] if the storage fails.
    async fn summary(&self, task: &TaskId) -> Result<Option<TaskSummary>, ReadError>;

    /// The task whose id is `prefix` or alone begins with it. Upper-case letters count as lower-case.
    ///
    /// # Errors
    /// [`ResolveError`] if none does or several do.
    async fn resolve(&self, prefix: &str) -> Result<TaskId, ResolveError>;

    /// Tasks that somebody has to look after, oldest first: those that have not ended, and those
    /// that have but still have a wake-up time, because their clean-up is pending.
    ///
    /// # Errors
    /// [`ReadError`] if the storage fails.
    async fn unfinished(&self) -> Result<Vec<TaskId>, ReadError>;

    /// Tasks whose wake-up time has come, the longest due first.
    ///
    /// # Errors
    /// [`ReadError`] if the storage fails.
    async fn due(&self, now: Timestamp) -> Result<Vec<TaskId>, ReadError>;

    /// The earliest wake-up time of all, past ones too.
    ///
    /// # Errors
    /// [`ReadError`] if the storage fails.
    async fn next_wake(&self) -> Result<Option<Timestamp>, ReadError>;

    /// What was stored under an idempotency key, for callers with work to do before they append.
    ///
    /// # Errors
    /// [`ReadError`] if the storage fails.
    async fn by_key(&self, scope: &str, key: &str) -> Result<Option<StoredKey>, ReadError>;
}

/// Who works on which task.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease of a task, if nobody has it or it expired; `None` if somebody has it, also
    /// if that is `owner`. `ttl_ms` counts from `now`.
    ///
    /// # Errors
    /// [`LeaseError`] if the storage fails.
    async fn acquire(
        &self,
        task: &TaskId,
        owner: &str,
        now: Timestamp,
        ttl_ms: u64,
    ) -> Result<Option<Lease>, LeaseError>;

    /// Makes a lease last until `ttl_ms` after `now`, also one that expired and nobody took.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] if it was released or somebody else has the task.
    async fn renew(&self, lease: &Lease, now: Timestamp, ttl_ms: u64) -> Result<(), LeaseError>;

    /// Gives a lease back. Does nothing to a lease that somebody else has meanwhile.
    ///
    /// # Errors
    /// [`LeaseError`] if the storage fails.
    async fn release(&self, lease: &Lease) -> Result<(), LeaseError>;
}

/// Bytes, by their digest.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Stores bytes; when it returns, they survive a loss of power. Equal bytes are stored once.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] over [`crate::MAX_BLOB_BYTES`], [`BlobError::DiskFull`] without room.
    async fn put(&self, bytes: Vec<u8>) -> Result<Digest, BlobError>;

    /// All bytes of a blob, checked against its digest; `None` if there is no such blob.
    ///
    /// # Errors
    /// [`BlobError::Corrupt`] if the bytes are not those that were stored.
    async fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, BlobError>;

    /// The bytes from `offset` on, at most `length` of them; fewer or none at the end. The whole
    /// blob is read and checked, so that no byte is given out that was not stored.
    ///
    /// # Errors
    /// As [`Blobs::get`].
    async fn get_range(&self, digest: &Digest, offset: u64, length: u64) -> Result<Option<Vec<u8>>, BlobError>;
}

/// The end of a store's life.
#[async_trait]
pub trait Lifeline: Send + Sync {
    /// Finishes what was begun, stops the writer, waits for it and gives the folder back. Later
    /// appends get an error. Without it, dropping the store is as a crash: nothing acknowledged is lost.
    async fn close(&self);
}

/// The ports of one store, complete at construction.
#[derive(Clone)]
pub struct Store {
    /// The events.
    pub log: Arc<dyn EventLog>,
    /// The lists.
    pub index: Arc<dyn TaskIndex>,
    /// The leases.
    pub leases: Arc<dyn Leases>,
    /// The blobs.
    pub blobs: Arc<dyn Blobs>,
    /// The sealed secrets; a [`crate::Vault`] opens them.
    pub secrets: Arc<dyn Secrets>,
    lifeline: Arc<dyn Lifeline>,
}

impl Store {
    /// A store from one back end that plays all roles.
    pub(crate) fn of<B>(back_end: Arc<B>) -> Self
    where
        B: EventLog + TaskIndex + Leases + Blobs + Secrets + Lifeline + 'static,
    {
        Self {
            log: back_end.clone(),
            index: back_end.clone(),
            leases: back_end.clone(),
            blobs: back_end.clone(),
            secrets: back_end.clone(),
            lifeline: back_end,
        }
    }

    /// See [`Lifeline::close`].
    pub async fn close(&self) {
        self.lifeline.close().await;
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}
