//! The writer task: jobs in, one transaction a group, answers after the commit.
//!
//! A group's outcome is all its answers or one trouble. `Full` is told to the group and forgotten;
//! `Broken` is remembered and told to everyone after; a group that was `Refused` is done again job
//! by job, so that only the culprit is refused. Absent: a retry of a failed commit. After a failed
//! sync the kernel may have dropped the pages, and a second sync would succeed over lost data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use domain::id::{Digest, TaskId};
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::folder::Folder;
use super::reserve::Reserve;
use super::secrets::SecretJob;
use super::statements::{Changes, Line, Touched, Trouble, load, run, write};
use crate::error::{AppendError, BlobError, Fault, LeaseError};
use crate::ledger::{LeaseWork, Ledger, Prepared};
use crate::ports::{Appended, Lease};

/// Most jobs in one transaction.
const GROUP_JOBS: usize = 256;
/// Bytes of events and blobs after which a group takes no further job.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
/// Quiet time after which the WAL is moved into the database.
const IDLE_MS: u64 = 250;
/// How often it is looked whether there is room again for what was kept back.
const RESERVE_LOOK_MS: u64 = 5_000;
/// Most bytes of events that may use room that was kept back.
const ESSENTIAL_BYTES: usize = 64 * 1024;
/// A WAL of this length is moved into the database also when it is not quiet.
const WAL_LONG_BYTES: u64 = 32 * 1024 * 1024;

/// What a caller waits for.
pub(super) struct Answer<T> {
    outcome: Option<T>,
    reply: oneshot::Sender<T>,
}

impl<T> Answer<T> {
    pub fn new(reply: oneshot::Sender<T>) -> Self {
        Self { outcome: None, reply }
    }
    pub fn set(&mut self, outcome: T) {
        self.outcome = Some(outcome);
    }
    /// A caller that went away does not mind.
    fn send(self) {
        if let Some(outcome) = self.outcome {
            let _ = self.reply.send(outcome);
        }
    }
}

/// One append.
pub(super) struct AppendJob {
    pub work: Prepared,
    pub answer: Answer<Result<Appended, AppendError>>,
}

/// Something to be done with a lease.
pub(super) struct LeaseJob {
    pub work: LeaseWork,
    pub answer: Answer<Result<Option<Lease>, LeaseError>>,
}

/// A small blob.
pub(super) struct BlobJob {
    pub digest: Digest,
    pub bytes: Vec<u8>,
    pub answer: Answer<Result<(), BlobError>>,
}

/// Everything that writes.
pub(super) enum Job {
    /// Boxed: it is much larger than the others.
    Append(Box<AppendJob>),
    Lease(LeaseJob),
    Blob(BlobJob),
    Secret(Box<SecretJob>),
}

impl Job {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Append(job) => job.work.size_bytes(),
            Self::Lease(_) => 0,
            Self::Blob(job) => job.bytes.len(),
            Self::Secret(job) => job.size_bytes(),
        }
    }

    /// Whether it has to be stored on a full disk too: it ends a task or cleans up after its end, it
    /// says who works on one, or it takes a secret away. All of them are small and few.
    fn is_essential(&self) -> bool {
        match self {
            Self::Append(job) => job.work.summary.state.is_terminal() && job.work.size_bytes() <= ESSENTIAL_BYTES,
            Self::Lease(_) => true,
            Self::Blob(_) => false,
            Self::Secret(job) => job.takes_away(),
        }
    }

    /// Answers with what was found out.
    fn answer(self) {
        match self {
            Self::Append(job) => job.answer.send(),
            Self::Lease(job) => job.answer.send(),
            Self::Blob(job) => job.answer.send(),
            Self::Secret(job) => job.answer.send(),
        }
    }

    /// Answers with a trouble.
    fn fail(mut self, trouble: &Trouble) {
        match &mut self {
            Self::Append(job) => job.answer.set(Err(match trouble {
                Trouble::Full => AppendError::DiskFull,
                Trouble::Refused(fault) => AppendError::Failed(fault.clone()),
                Trouble::Broken(fault) => AppendError::Broken(fault.clone()),
            })),
            Self::Lease(job) => job.answer.set(Err(match trouble {
                Trouble::Full => LeaseError::DiskFull,
                Trouble::Refused(fault) | Trouble::Broken(fault) => LeaseError::Failed(fault.clone()),
            })),
            Self::Blob(job) => job.answer.set(Err(match trouble {
                Trouble::Full => BlobError::DiskFull,
                Trouble::Refused(fault) | Trouble::Broken(fault) => BlobError::Failed(fault.clone()),
            })),
            Self::Secret(job) => job.answer.set(Err(SecretJob::told(trouble))),
        }
        self.answer();
    }
}

/// The only one who writes.
pub(super) struct Writer {
    connection: SqliteConnection,
    /// What stopped the writing for good.
    broken: Option<Fault>,
    wal: PathBuf,
    /// Length of the WAL at which it is moved into the database.
    checkpoint_at_bytes: u64,
    /// Whether something was committed since the last checkpoint.
    dirty: bool,
    /// Room for what has to be stored on a full disk too.
    reserve: Reserve,
    /// Given back after the connection is closed.
    folder: Folder,
}

impl Writer {
    pub fn new(connection: SqliteConnection, folder: Folder, reserve: Reserve) -> Self {
        let mut wal = folder.database().into_os_string();
        wal.push("-wal");
        Self {
            connection,
            broken: None,
            wal: wal.into(),
            checkpoint_at_bytes: WAL_LONG_BYTES,
            dirty: false,
            reserve,
            folder,
        }
    }

    /// Works until every sender is gone, then closes the database and gives the folder back.
    pub async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut taken = Vec::with_capacity(GROUP_JOBS);
        loop {
            let next = queue.recv_many(&mut taken, GROUP_JOBS);
            let quiet_ms = match (self.dirty, self.reserve.is_short()) {
                (true, _) => Some(IDLE_MS),
                (false, true) => Some(RESERVE_LOOK_MS),
                (false, false) => None,
            };
            let count = match quiet_ms {
                None => next.await,
                Some(quiet_ms) => match tokio::time::timeout(Duration::from_millis(quiet_ms), next).await {
                    Ok(count) => count,
                    Err(_) => {
                        self.quiet().await;
                        continue;
                    }
                },
            };
            if count == 0 {
                break;
            }
            for group in groups(&mut taken) {
                self.finish(group).await;
            }
            self.checkpoint_if_long().await;
        }
        if let Err(error) = self.connection.close().await {
            tracing::error!(%error, "the database was not closed in order; its next opening repairs it");
        }
        drop(self.folder);
    }

    /// Nobody wants anything for a moment.
    async fn quiet(&mut self) {
        if self.dirty {
            self.checkpoint().await;
        }
        self.reserve.refill();
    }

    /// Commits a group and answers all its jobs.
    async fn finish(&mut self, mut group: Vec<Job>) {
        match self.commit(&mut group).await {
            Ok(()) => group.into_iter().for_each(Job::answer),
            Err(Trouble::Refused(fault)) if group.len() > 1 => {
                tracing::warn!(error = %fault, "a group of appends was refused; trying them one by one");
                for job in group {
                    let mut alone = [job];
                    let outcome = self.commit(&mut alone).await;
                    for job in alone {
                        match &outcome {
                            Ok(()) => job.answer(),
                            Err(trouble) => job.fail(trouble),
                        }
                    }
                }
            }
            Err(Trouble::Full) => self.finish_on_a_full_disk(group).await,
            Err(trouble) => group.into_iter().for_each(|job| job.fail(&trouble)),
        }
    }

    /// Refuses what is ordinary; what is essential is stored by itself, in room that was kept back.
    /// An essential job behind a refused one meets a conflict, as behind any other's append.
    async fn finish_on_a_full_disk(&mut self, group: Vec<Job>) {
        for job in group {
            if !job.is_essential() {
                job.fail(&Trouble::Full);
                continue;
            }
            let mut alone = [job];
            let outcome = loop {
                match self.commit(&mut alone).await {
                    Err(Trouble::Full) if self.reserve.give_up_slice() => {}
                    outcome => break outcome,
                }
            };
            for job in alone {
                match &outcome {
                    Ok(()) => job.answer(),
                    Err(trouble) => job.fail(trouble),
                }
            }
        }
    }

    /// One transaction: nothing of it is stored unless this gives `Ok`.
    async fn commit(&mut self, group: &mut [Job]) -> Result<(), Trouble> {
        if let Some(fault) = &self.broken {
            return Err(Trouble::Broken(fault.clone()));
        }
        let done = self.transaction(group).await;
        if let Err(Trouble::Broken(fault)) = &done {
            tracing::error!(error = %fault, cause = %fault.source, "the store stops writing");
            self.broken = Some(fault.clone());
        }
        done
    }

    async fn transaction(&mut self, group: &mut [Job]) -> Result<(), Trouble> {
        run(&mut self.connection, "begin a transaction", "BEGIN IMMEDIATE").await?;
        if let Err(trouble) = judge_and_write(&mut self.connection, group).await {
            self.roll_back().await?;
            return Err(trouble);
        }
        match run(&mut self.connection, "commit a transaction", "COMMIT").await {
            Ok(()) => {
                self.dirty = true;
                Ok(())
            }
            Err(Trouble::Full) => {
                self.roll_back().await?;
                Err(Trouble::Full)
            }
            Err(Trouble::Refused(fault) | Trouble::Broken(fault)) => Err(Trouble::Broken(fault)),
        }
    }

    async fn roll_back(&mut self) -> Result<(), Trouble> {
        match sqlx::query("ROLLBACK").execute(&mut self.connection).await {
            Ok(_) => Ok(()),
            // SQLite itself rolled back when the disk was full.
            Err(error) if error.to_string().contains("no transaction is active") => Ok(()),
            Err(error) => Err(Trouble::Broken(Fault::new("roll a transaction back", error))),
        }
    }

    async fn checkpoint_if_long(&mut self) {
        let wal_bytes = std::fs::metadata(&self.wal).map_or(0, |meta| meta.len());
        if wal_bytes < WAL_LONG_BYTES {
            self.checkpoint_at_bytes = WAL_LONG_BYTES;
        } else if wal_bytes >= self.checkpoint_at_bytes {
            // A reader may hold the WAL's end back: then not again before it is much longer.
            self.checkpoint_at_bytes = wal_bytes + WAL_LONG_BYTES / 2;
            self.checkpoint().await;
        }
    }

    /// Moves what it can of the WAL into the database, without waiting for readers.
    async fn checkpoint(&mut self) {
        self.dirty = false;
        if self.broken.is_some() {
            return;
        }
        match run(&mut self.connection, "move the WAL into the database", "PRAGMA wal_checkpoint(PASSIVE)").await {
            Ok(()) | Err(Trouble::Full) => {}
            Err(Trouble::Refused(fault)) => tracing::warn!(error = %fault, "checkpoint put off"),
            Err(Trouble::Broken(fault)) => {
                tracing::error!(error = %fault, cause = %fault.source, "the store stops writing");
                self.broken = Some(fault);
            }
        }
    }
}

/// Cuts what was taken into groups of bounded size, in order.
fn groups(taken: &mut Vec<Job>) -> Vec<Vec<Job>> {
    let mut groups = Vec::new();
    let mut group = Vec::new();
    let mut bytes = 0;
    for job in taken.drain(..) {
        bytes += job.size_bytes();
        group.push(job);
        if bytes >= GROUP_BYTES {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}

/// Inside a transaction: judges each job, seeing those before it, and writes what they change.
async fn judge_and_write(connection: &mut SqliteConnection, group: &mut [Job]) -> Result<(), Trouble> {
    let mut ledger = load(connection, &touched(group)).await?;
    for job in group.iter_mut() {
        match job {
            Job::Append(job) => job.answer.set(ledger.append(&job.work)),
            Job::Lease(job) => job.answer.set(ledger.lease(&job.work)),
            Job::Blob(job) => job.answer.set(Ok(())),
            Job::Secret(job) => {
                let outcome = job.carry_out(connection).await?;
                job.answer.set(outcome);
            }
        }
    }
    let changes = changes(group, &ledger);
    if changes.is_empty() { Ok(()) } else { write(connection, &changes).await }
}

fn touched(group: &[Job]) -> Touched<'_> {
    let mut tasks = BTreeSet::new();
    let mut keys = Vec::new();
    for job in group {
        match job {
            Job::Append(job) => {
                tasks.insert(&job.work.task);
                keys.extend(&job.work.idempotency);
            }
            Job::Lease(job) => {
                tasks.insert(job.work.task());
            }
            Job::Blob(_) | Job::Secret(_) => {}
        }
    }
    Touched { tasks: tasks.into_iter().collect(), keys }
}

fn changes<'a>(group: &'a [Job], ledger: &'a Ledger) -> Changes<'a> {
    let mut changes = Changes::default();
    // By task: of several changes in a group only the last one is written.
    let mut lines: BTreeMap<&TaskId, Line<'a>> = BTreeMap::new();
    let mut leases = BTreeMap::new();
    for job in group {
        match job {
            Job::Append(job) => {
                let AppendJob { work, answer: Answer { outcome: Some(Ok(appended)), .. } } = job.as_ref() else {
                    continue;
                };
                changes.events.extend(appended.stored.iter().map(|event| (&work.task, event)));
                changes.keys.extend(work.idempotency.as_ref().map(|key| (key, &work.task)));
                if let Some(head) = ledger.heads.get(&work.task) {
                    lines.insert(&work.task, Line { head, summary: &work.summary, wake_at_us: work.wake_at_us });
                }
            }
            Job::Lease(LeaseJob { work, answer: Answer { outcome: Some(Ok(lease)), .. } }) => {
                let released = matches!(work, LeaseWork::Release { .. });
                if let Some(row) = ledger.leases.get(work.task()).filter(|_| lease.is_some() || released) {
                    leases.insert(work.task(), row);
                }
            }
            Job::Blob(job) => changes.blobs.push((&job.digest, &job.bytes)),
            Job::Lease(_) | Job::Secret(_) => {}
        }
    }
    changes.lines = lines.into_values().collect();
    changes.leases = leases.into_iter().collect();
    changes
}
