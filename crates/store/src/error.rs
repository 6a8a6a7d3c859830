//! What can go wrong, typed by what the caller may do about it.
//!
//! Absent: any back end's own error type. A back end's failure travels as a [`Fault`], which can be
//! given to every append of a group.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use domain::id::{Digest, TaskId};

/// A failure of what stands behind a port: the operation, and what it said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("could not {operation}")]
pub struct Fault {
    /// What was tried.
    pub operation: &'static str,
    /// Why it failed.
    #[source]
    pub source: Arc<dyn Error + Send + Sync>,
}

impl Fault {
    pub(crate) fn new(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { operation, source: Arc::from(source.into()) }
    }
}

/// Why nothing was appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Somebody appended first. Read what is new and decide again.
    #[error("somebody else appended first: expected event {expected} to be the last, but it is {actual}")]
    Conflict {
        /// What the caller took for the last event.
        expected: u64,
        /// What is; 0 if the task does not exist.
        actual: u64,
    },
    /// The request was stored before, with the same body. Answer with that task.
    #[error("this request was accepted before, as task {task}")]
    Duplicate {
        /// The task.
        task: TaskId,
    },
    /// The key was used before, with another body. The requester's mistake.
    #[error("the idempotency key was used before for another request (task {task}); choose a new key")]
    KeyReused {
        /// The earlier request's task.
        task: TaskId,
    },
    /// Somebody else works on the task now. Stop working on it.
    #[error("the lease of task {task} is lost")]
    LeaseLost {
        /// The task.
        task: TaskId,
    },
    /// No room. Nothing was stored; try again once there is.
    #[error("the disk that holds the data folder is full; free some space, then try again")]
    DiskFull,
    /// An event is larger than [`crate::MAX_EVENT_BYTES`]. Put the large part into a blob.
    #[error("event {seq} has {bytes} bytes, more than the {limit} that one event may have")]
    TooLarge {
        /// Its number.
        seq: u64,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The caller's mistake: numbers, task or summary do not fit each other.
    #[error("this append contradicts itself: {why}")]
    Malformed {
        /// How.
        why: String,
    },
    /// This append failed and is not stored; others may work.
    #[error("the append was refused by the storage")]
    Failed(#[source] Fault),
    /// A commit or sync failed, now or earlier. Whether this append is stored is known only after
    /// the store is opened again; until then nothing is written.
    #[error("the store stopped writing after a failure; look at the disk, then restart the server")]
    Broken(#[source] Fault),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why nothing could be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The storage failed.
    #[error("the storage can't be read")]
    Failed(#[source] Fault),
    /// The storage holds what this program does not write.
    #[error("the storage is damaged: {what}; restore it from a backup")]
    Corrupt {
        /// What is wrong.
        what: String,
    },
}

/// An event that does not fit the chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log of task {task} was changed: at event {seq}, {what}")]
pub struct ChainBroken {
    /// The task.
    pub task: TaskId,
    /// The first event that does not hold, or the first one missing.
    pub seq: u64,
    /// What is wrong.
    pub what: &'static str,
}

/// Why a chain is not known to hold.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VerifyError {
    /// It does not.
    #[error(transparent)]
    Broken(#[from] ChainBroken),
    /// It can't be read.
    #[error(transparent)]
    Unread(#[from] ReadError),
}

/// Why a prefix names no task.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// No task begins with it.
    #[error("no task begins with `{prefix}`; `chargehand list` shows all")]
    NotFound {
        /// What was asked for.
        prefix: String,
    },
    /// Several do.
    #[error("`{prefix}` could be {}; give more characters", any_of(.candidates))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Some that it could be, in the order of their ids.
        candidates: Vec<TaskId>,
    },
    /// The list can't be read.
    #[error(transparent)]
    Unread(#[from] ReadError),
}

fn any_of(candidates: &[TaskId]) -> String {
    candidates.iter().map(TaskId::as_str).collect::<Vec<_>>().join(", ")
}

/// Why a lease was not taken, kept or given back.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// It is not the caller's any more. Stop working on the task.
    #[error("the lease of task {task} is lost")]
    Lost {
        /// The task.
        task: TaskId,
    },
    /// No room on the disk.
    #[error("the disk that holds the data folder is full; free some space, then try again")]
    DiskFull,
    /// The storage failed.
    #[error("the lease can't be stored")]
    Failed(#[source] Fault),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a blob was not stored or can't be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlobError {
    /// Too large to store.
    #[error("{bytes} bytes are more than the {limit} that are kept of one output")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The stored bytes are not those of the digest.
    #[error("the stored blob {digest} is damaged; restore it from a backup")]
    Corrupt {
        /// Which.
        digest: Digest,
    },
    /// No room on the disk.
    #[error("the disk that holds the data folder is full; free some space, then try again")]
    DiskFull,
    /// The storage failed.
    #[error("the blob can't be stored or read")]
    Failed(#[source] Fault),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on the data folder.
    #[error(
        "{} is in use by {}; talk to that server, stop it, or choose another data folder",
        .path.display(), holder(.pid)
    )]
    InUse {
        /// The process, as far as it is known.
        pid: Option<u32>,
        /// The data folder.
        path: PathBuf,
    },
    /// The data folder can't be made, read or protected.
    #[error("could not {operation} {}", .path.display())]
    Folder {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The SQLite in this build can lose commits.
    #[error("SQLite {version} can lose commits in WAL mode; build with 3.51.3 or newer")]
    UnsafeSqlite {
        /// Its version.
        version: String,
    },
    /// The database does not take a setting that durability needs.
    #[error("the database says {setting}={actual}, but {needed} is needed; is the folder on a network disk?")]
    UnsafeSetting {
        /// Which setting.
        setting: &'static str,
        /// What it is.
        actual: String,
        /// What it has to be.
        needed: &'static str,
    },
    /// The database was written by a newer program.
    #[error("the data was written by a newer chargehand (schema {found}, this one knows {known}); upgrade")]
    Newer {
        /// Schema in the folder.
        found: i64,
        /// Newest schema known here.
        known: i64,
    },
    /// No room on the disk.
    #[error("the disk that holds {} is full; free some space, then try again", .path.display())]
    DiskFull {
        /// The data folder.
        path: PathBuf,
    },
    /// The database can't be opened.
    #[error("the database can't be opened")]
    Database(#[source] Fault),
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
