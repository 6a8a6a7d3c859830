//! The store in one folder: a SQLite database, a folder of large blobs and a lock.
//!
//! ```text
//! callers ──job──▶ channel ──≤256──▶ writer task ──1 transaction──▶ chargehand.db (WAL, FULL)
//!    ▲                                    │ after the commit
//!    └──────────────── answer ────────────┘            readers: N read-only connections
//! ```
//!
//! One writer task owns the only writing connection and the folder's lock. It takes what has
//! queued up meanwhile as one group, loads what the group touches, lets the `ledger` judge each
//! piece, writes the changes with one statement a table, commits, and only then answers. So one
//! `fdatasync` serves many producers, and a refused append costs its neighbours nothing.
//!
//! A full disk refuses what is ordinary. What ends a task, gives it up or takes a secret away uses room
//! that was kept back (`reserve`).
//!
//! Leases of earlier processes are void on opening: who holds the folder's lock is the only one.
//! Absent: a second writer, retries after a failed commit, and `synchronous` below FULL.

mod blobs;
mod connect;
mod folder;
mod reads;
mod reserve;
mod secrets;
mod statements;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use domain::id::TaskId;
use jiff::Timestamp;
use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::blobs::BlobFolder;
use self::folder::Folder;
use self::reserve::Reserve;
use self::writer::{Answer, AppendJob, Job, LeaseJob, Writer};
use crate::error::{AppendError, LeaseError, OpenError};
use crate::ledger::{LeaseWork, Prepared};
use crate::ports::{Append, Appended, Lease, Leases, Lifeline, Store};

/// How a folder is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Read-only connections, at least 1.
    pub readers: u32,
    /// How long to wait for a folder that another process is just giving up, in milliseconds.
    pub lock_wait_ms: u64,
    /// Room on the disk that is kept back for calling tasks off when it is full; 0 for none.
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { readers: 4, lock_wait_ms: 500, reserve_bytes: 8 * 1024 * 1024 }
    }
}

/// Jobs that may queue before a producer has to wait.
const QUEUE_JOBS: usize = 1_024;

/// Opens the store in `dir`, which is made if it is missing.
///
/// # Errors
/// [`OpenError`]; `InUse` if another process (or store in this one) has the folder.
pub async fn open(dir: &Path) -> Result<Store, OpenError> {
    open_with(dir, Options::default()).await
}

/// Opens the store in `dir` with other than the usual [`Options`].
///
/// # Errors
/// As [`open`].
pub async fn open_with(dir: &Path, options: Options) -> Result<Store, OpenError> {
    loop {
        let mut reserve = Reserve::of(dir, options.reserve_bytes);
        match open_once(dir, &options).await {
            Err(OpenError::DiskFull { .. }) if reserve.give_up_slice() => {}
            opened => return opened,
        }
    }
}

async fn open_once(dir: &Path, options: &Options) -> Result<Store, OpenError> {
    let folder = Folder::claim(dir, options.lock_wait_ms).await?;
    let connection = connect::writer(&folder).await?;
    let readers = connect::readers(&folder, options.readers.max(1)).await?;
    folder.sync()?;
    let blobs = BlobFolder::new(folder.blobs_dir());
    let mut reserve = Reserve::of(folder.path(), options.reserve_bytes);
    reserve.refill();
    let (jobs, queue) = mpsc::channel(QUEUE_JOBS);
    let mut tasks = JoinSet::new();
    tasks.spawn(Writer::new(connection, folder, reserve).run(queue));
    Ok(Store::of(Arc::new(Sqlite {
        jobs: Mutex::new(Some(jobs)),
        writer: tokio::sync::Mutex::new(tasks),
        readers,
        blobs,
    })))
}

/// The back end behind the ports.
struct Sqlite {
    /// Taken away by `close`; the writer ends when the last sender is gone.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    /// The writer task. Dropping it stops the writer as a crash would.
    writer: tokio::sync::Mutex<JoinSet<()>>,
    readers: SqlitePool,
    blobs: BlobFolder,
}

impl Sqlite {
    /// Hands a job to the writer and waits for the answer. `None`: the writer is gone.
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Job) -> Option<T> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let (reply, answer) = oneshot::channel();
        jobs.send(make(reply)).await.ok()?;
        answer.await.ok()
    }

    fn is_closed(&self) -> bool {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    async fn store(&self, append: Append) -> Result<Appended, AppendError> {
        let work = Prepared::new(append)?;
        let job = |reply| Job::Append(Box::new(AppendJob { work, answer: Answer::new(reply) }));
        self.ask(job).await.unwrap_or(Err(AppendError::Closed))
    }

    async fn lease(&self, work: LeaseWork) -> Result<Option<Lease>, LeaseError> {
        let job = |reply| Job::Lease(LeaseJob { work, answer: Answer::new(reply) });
        self.ask(job).await.unwrap_or(Err(LeaseError::Closed))
    }
}

#[async_trait]
impl Leases for Sqlite {
    async fn acquire(
        &self,
        task: &TaskId,
        owner: &str,
        now: Timestamp,
        ttl_ms: u64,
    ) -> Result<Option<Lease>, LeaseError> {
        self.lease(LeaseWork::acquire(task, owner, now, ttl_ms)).await
    }

    async fn renew(&self, lease: &Lease, now: Timestamp, ttl_ms: u64) -> Result<(), LeaseError> {
        self.lease(LeaseWork::renew(lease, now, ttl_ms)).await.map(|_| ())
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.lease(LeaseWork::Release { lease: lease.clone() }).await.map(|_| ())
    }
}

#[async_trait]
impl Lifeline for Sqlite {
    async fn close(&self) {
        // The readers go first, so that the writer's connection is the last one: closing it moves
        // the whole WAL into the database.
        self.readers.close().await;
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        while let Some(ended) = self.writer.lock().await.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the store's writer did not end by itself");
            }
        }
    }
}
