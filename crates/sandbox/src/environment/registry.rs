//! Which environments were built, how, and what became of them: a folder of records and logs.
//!
//! ```text
//! KEY.json   one build: written whole or not at all, so a reader never sees half of one
//! KEY.log    what setup said, written as it comes, bounded
//! ```
//!
//! The folder is the table: there is no list beside it that could differ. A record that cannot be
//! read is named and left alone; everything else goes on. Absent: layers (the provider has them; a
//! record only names them), the clock, and deciding when to build.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::id::{CommitSha, Digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::build::Built;
use super::log::{self, BuildLog};
use crate::port::SnapshotRef;

pub use super::log::LogPart;

/// A longer record is no record.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// One build of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The environment's key.
    pub key: Digest,
    /// The repository, as the caller names it.
    pub repo: String,
    /// The base commit at which the recipe was read.
    pub commit: CommitSha,
    /// Digest of the recipe.
    pub recipe: Digest,
    /// The key as it would be without the checkout: what differs between two builds of one recipe
    /// besides the commit. None in records of earlier versions.
    #[serde(default)]
    pub without_checkout: Option<Digest>,
    /// Variables that its imported image wants. None in records of earlier versions.
    #[serde(default)]
    pub env: Option<Vec<(String, String)>>,
    /// Where it stands.
    pub state: State,
    /// When the build began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Wall time of the setup commands, in milliseconds.
    pub setup_ms: Option<u64>,
    /// Size of its own layers in bytes, if somebody measured it.
    pub size_bytes: Option<u64>,
    /// What attempts start from; there if it was ready once.
    pub snapshot: Option<SnapshotRef>,
    /// Why it failed.
    pub failure: Option<String>,
    /// What a person should know: programs that were left running, what was dropped.
    pub notes: Vec<String>,
    /// When an attempt started from it last.
    pub used_at: Option<Timestamp>,
}

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Under way.
    Building,
    /// Attempts can start from it.
    Ready,
    /// There is none; the record says why.
    Failed,
    /// Attempts can start from it until a newer one is ready.
    Stale,
}

impl State {
    /// Whether attempts can start from it.
    #[must_use]
    pub const fn usable(self) -> bool {
        matches!(self, Self::Ready | Self::Stale)
    }
}

/// What a build is of.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The environment's key.
    pub key: Digest,
    /// The repository, as the caller names it.
    pub repo: String,
    /// The base commit.
    pub commit: CommitSha,
    /// Digest of the recipe.
    pub recipe: Digest,
    /// The key as it would be without the checkout.
    pub without_checkout: Digest,
    /// Variables that its imported image wants.
    pub env: Vec<(String, String)>,
}

/// A file that should have been a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Which file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// All records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Latest first.
    pub records: Vec<Record>,
    /// Skipped.
    pub damaged: Vec<Damaged>,
}

/// Which records stay.
#[derive(Debug, Clone, Default)]
pub struct KeepPolicy {
    /// Usable ones that stay for each repository, the latest first.
    pub per_repo: usize,
    /// Usable ones that were used or built after this stay too.
    pub used_after: Option<Timestamp>,
    /// Failed ones that ended after this stay.
    pub failed_after: Option<Timestamp>,
    /// These stay whatever else is said: tasks stand on them.
    pub in_use: HashSet<Digest>,
}

/// What a clean-up removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The records, with their logs. Their layers go when the provider is next asked to keep only
    /// what [`Registry::layers`] names.
    pub records: Vec<Record>,
    /// Bytes of records and logs.
    pub bytes: u64,
}

/// The registry's folder could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {} in the list of environments: {source}", .path.display())]
pub struct RegistryError {
    /// What was tried.
    pub doing: &'static str,
    /// On what.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, RegistryError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, RegistryError> {
        self.map_err(|source| RegistryError { doing, path: path.to_owned(), source })
    }
}

/// The folder. All calls block for as long as small files take; those that say that something lasts,
/// for as long as the disk takes. Clones are one registry: of two changes to a record, the second
/// sees the first. Two that were opened apart are not.
#[derive(Debug, Clone)]
pub struct Registry {
    folder: PathBuf,
    /// Held from reading a record to having written it.
    turn: Arc<Mutex<()>>,
}

/// Whether a change has to be on disk when the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Now,
    Soon,
}

/// Numbers the files that become records.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Registry {
    /// Opens the folder; made if missing, for the server's user alone.
    ///
    /// # Errors
    /// [`RegistryError`] if it cannot be made.
    pub fn open(folder: &Path) -> Result<Self, RegistryError> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).doing("create", folder)?;
        Ok(Self { folder: folder.to_owned(), turn: Arc::default() })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_file(&self, key: &Digest) -> PathBuf {
        self.folder.join(format!("{key}.json"))
    }

    fn log_file(&self, key: &Digest) -> PathBuf {
        self.folder.join(format!("{key}.log"))
    }

    /// All records, latest first, and the files that are none.
    ///
    /// # Errors
    /// [`RegistryError`] if the folder cannot be read.
    pub fn list(&self) -> Result<Listed, RegistryError> {
        let mut listed = Listed::default();
        for entry in fs::read_dir(&self.folder).doing("read", &self.folder)? {
            let file = entry.doing("read", &self.folder)?.path();
            if file.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&file) {
                Ok(Some(record)) => listed.records.push(record),
                Ok(None) => {}
                Err(why) => listed.damaged.push(Damaged { file, why }),
            }
        }
        listed.records.sort_by(|a, b| b.began_at.cmp(&a.began_at).then_with(|| a.key.cmp(&b.key)));
        listed.damaged.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(listed)
    }

    /// The record of a key; a damaged one is none.
    #[must_use]
    pub fn get(&self, key: &Digest) -> Option<Record> {
        read(&self.record_file(key)).ok().flatten()
    }

    /// Writes a record, whole or not at all; it lasts when this returns.
    ///
    /// # Errors
    /// [`RegistryError`] if it cannot be written; the earlier one stays.
    pub fn put(&self, record: &Record) -> Result<(), RegistryError> {
        let _turn = self.turn();
        self.write(record, Lasting::Now)
    }

    /// Writes a record, whole or not at all. Whoever calls has the turn.
    fn write(&self, record: &Record, lasting: Lasting) -> Result<(), RegistryError> {
        let file = self.record_file(&record.key);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let new = file.with_extension(format!("json.{}-{number}.new", std::process::id()));
        let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::from).doing("write", &file)?;
        let written = File::create(&new).and_then(|mut out| {
            out.write_all(&bytes)?;
            if lasting == Lasting::Now { out.sync_all() } else { Ok(()) }
        });
        if let Err(source) = written.and_then(|()| fs::rename(&new, &file)) {
            let _ = fs::remove_file(&new);
            return Err(RegistryError { doing: "write", path: file, source });
        }
        if lasting == Lasting::Soon {
            return Ok(());
        }
        File::open(&self.folder).and_then(|folder| folder.sync_all()).doing("write to disk", &self.folder)
    }

    /// Notes that a build begins, and opens its log from the beginning. What was usable under the
    /// key stays named by the record.
    ///
    /// # Errors
    /// [`RegistryError`] if record or log cannot be written.
    pub fn begin(&self, subject: Subject, now: Timestamp) -> Result<BuildLog, RegistryError> {
        let _turn = self.turn();
        let earlier = self.get(&subject.key);
        let log = self.log_file(&subject.key);
        let opened = BuildLog::create(&log).doing("write", &log)?;
        let Subject { key, repo, commit, recipe, without_checkout, env } = subject;
        let record = Record {
            key,
            repo,
            commit,
            recipe,
            without_checkout: Some(without_checkout),
            env: Some(env),
            state: State::Building,
            began_at: now,
            ended_at: None,
            setup_ms: None,
            size_bytes: None,
            snapshot: earlier.as_ref().and_then(|record| record.snapshot.clone()),
            failure: None,
            notes: Vec::new(),
            used_at: earlier.and_then(|record| record.used_at),
        };
        self.write(&record, Lasting::Now)?;
        Ok(opened)
    }

    /// Notes how a build ended, or in words why there is none; gives the record as it is now. A record
    /// that is gone stays gone.
    ///
    /// # Errors
    /// [`RegistryError`] if it cannot be written.
    pub fn finish(
        &self,
        key: &Digest,
        done: Result<&Built, String>,
        now: Timestamp,
    ) -> Result<Option<Record>, RegistryError> {
        self.change(key, Lasting::Now, |record| {
            record.ended_at = Some(now);
            match done {
                Ok(built) => {
                    let left = built.leftovers.iter().map(|name| {
                        format!("setup left `{name}` running; it was ended, and belongs under `start` if it is needed")
                    });
                    record.state = State::Ready;
                    record.setup_ms = Some(built.setup_ms);
                    record.snapshot = Some(built.snapshot.clone());
                    record.notes = left.chain(built.notes.iter().cloned()).collect();
                }
                Err(failure) => {
                    record.state = State::Failed;
                    record.snapshot = None;
                    record.failure = Some(failure);
                }
            }
        })
    }

    /// Notes the size of an environment's own layers.
    ///
    /// # Errors
    /// [`RegistryError`] if it cannot be written.
    pub fn measured(&self, key: &Digest, size_bytes: u64) -> Result<Option<Record>, RegistryError> {
        self.change(key, Lasting::Soon, |record| record.size_bytes = Some(size_bytes))
    }

    /// Notes that an attempt starts from an environment. A crash may forget it: then it looks older
    /// than it is. None if it is gone.
    ///
    /// # Errors
    /// [`RegistryError`] if it cannot be written.
    pub fn used(&self, key: &Digest, now: Timestamp) -> Result<Option<Record>, RegistryError> {
        self.change(key, Lasting::Soon, |record| record.used_at = Some(now))
    }

    /// Notes that a newer one is wanted; attempts go on with it meanwhile.
    ///
    /// # Errors
    /// [`RegistryError`] if it cannot be written.
    pub fn stale(&self, key: &Digest) -> Result<Option<Record>, RegistryError> {
        self.change(key, Lasting::Soon, |record| {
            if record.state == State::Ready {
                record.state = State::Stale;
            }
        })
    }

    /// After a restart: builds that were under way have failed; gives them. The next build of the
    /// same key begins anew, or finds that the earlier one had come to its end.
    ///
    /// # Errors
    /// [`RegistryError`] if the folder cannot be read or a record cannot be written.
    pub fn recover(&self, now: Timestamp) -> Result<Vec<Record>, RegistryError> {
        let mut recovered = Vec::new();
        for record in self.list()?.records.into_iter().filter(|record| record.state == State::Building) {
            recovered.extend(self.change(&record.key, Lasting::Now, |record| {
                record.state = State::Failed;
                record.ended_at = Some(now);
                // Nobody knows how far it came; the next build finds what is whole.
                record.snapshot = None;
                record.failure = Some("the server ended while it was building; build it again".into());
            })?);
        }
        for entry in fs::read_dir(&self.folder).doing("read", &self.folder)?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(entry.path()).doing("remove", &entry.path())?;
            }
        }
        Ok(recovered)
    }

    fn change(
        &self,
        key: &Digest,
        lasting: Lasting,
        change: impl FnOnce(&mut Record),
    ) -> Result<Option<Record>, RegistryError> {
        let _turn = self.turn();
        let Some(mut record) = self.get(key) else { return Ok(None) };
        change(&mut record);
        self.write(&record, lasting)?;
        Ok(Some(record))
    }

    /// The latest usable environment of a repository with this recipe.
    ///
    /// # Errors
    /// [`RegistryError`] if the folder cannot be read.
    pub fn last_good(&self, repo: &str, recipe: &Digest) -> Result<Option<Record>, RegistryError> {
        let fits = |record: &Record| record.state.usable() && record.repo == repo && record.recipe == *recipe;
        Ok(self.list()?.records.into_iter().find(fits))
    }

    /// The layers of everything usable: what the provider has to keep.
    ///
    /// # Errors
    /// [`RegistryError`] if the folder cannot be read.
    pub fn layers(&self) -> Result<HashSet<Digest>, RegistryError> {
        let records = self.list()?.records.into_iter();
        Ok(records.filter_map(|record| record.snapshot).flat_map(|snapshot| snapshot.layers).collect())
    }

    /// Removes records, with their logs, that the policy does not keep. One that is building stays.
    ///
    /// # Errors
    /// [`RegistryError`] if something cannot be removed; the same call goes on.
    pub fn gc(&self, keep: &KeepPolicy) -> Result<Removed, RegistryError> {
        let _turn = self.turn();
        let mut removed = Removed::default();
        let mut seen: Vec<String> = Vec::new();
        for record in self.list()?.records {
            let after = |time: Option<Timestamp>, limit: Option<Timestamp>| {
                limit.is_some_and(|limit| time.unwrap_or(record.began_at) > limit)
            };
            let stays = keep.in_use.contains(&record.key)
                || match record.state {
                    State::Building => true,
                    State::Failed => after(record.ended_at, keep.failed_after),
                    State::Ready | State::Stale => {
                        let earlier = seen.iter().filter(|repo| **repo == record.repo).count();
                        seen.push(record.repo.clone());
                        earlier < keep.per_repo || after(record.used_at.max(record.ended_at), keep.used_after)
                    }
                };
            if stays {
                continue;
            }
            // The log first: a log without a record would be found by nobody.
            for file in [self.log_file(&record.key), self.record_file(&record.key)] {
                removed.bytes += fs::metadata(&file).map_or(0, |about| about.len());
                match fs::remove_file(&file) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other.doing("remove", &file)?,
                }
            }
            removed.records.push(record);
        }
        Ok(removed)
    }

    /// At most `max_bytes` of a log from `offset`; call again with `next_offset` while it is not
    /// complete. No log is an empty, complete one.
    ///
    /// # Errors
    /// [`RegistryError`] if it cannot be read.
    pub fn read_log(&self, key: &Digest, offset: u64, max_bytes: u64) -> Result<LogPart, RegistryError> {
        let path = self.log_file(key);
        // Before the log is read: what comes after this look is in the next part.
        let ended = self.get(key).is_none_or(|record| record.state != State::Building);
        log::read_part(&path, offset, max_bytes, ended).doing("read", &path)
    }
}

/// Reads one record; none if there is no file.
fn read(file: &Path) -> Result<Option<Record>, String> {
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| error.to_string())?,
    };
    let mut bytes = Vec::new();
    opened.take(MAX_RECORD_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_RECORD_BYTES {
        return Err("it is longer than a record can be".into());
    }
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if file.file_stem().and_then(|stem| stem.to_str()) != Some(record.key.as_str()) {
        return Err(format!("it is the record of {}", record.key));
    }
    Ok(Some(record))
}
