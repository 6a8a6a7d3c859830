//! Taking in a result as a push from a stranger would be: a bundle file, looked at in quarantine.
//!
//! ```text
//! bundle file ─copy, size─→ quarantine repository (borrows the hub's objects, writes none there)
//!   ─unpack under limits, fsck─→ refs/quarantine/head ─ancestry, sizes, paths─→ hub:
//!   refs/chargehand/imports/<task>/<sha>, refs/chargehand/tasks/<task>
//! ```
//!
//! A refused bundle leaves no object and no ref in the hub. The bundle names its own refs, but
//! none of those names is used: one head is taken and gets our name. Absent: any judgement of
//! what the change means; oddities are notes, for policy and people.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use domain::id::{CommitSha, TaskId};
use serde::Serialize;

use crate::builtin::BuiltIn;
use crate::error::{Fault, ImportError, Refusal};
use crate::hub::{Project, blocking};
use crate::quarantine::Quarantine;
use crate::tree::RepoPath;

/// How large a result may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportLimits {
    /// The bundle file.
    pub bundle_bytes: u64,
    /// All new objects together, unpacked.
    pub unpacked_bytes: u64,
    /// One new file, unpacked.
    pub file_bytes: u64,
    /// New commits.
    pub commits: u64,
    /// Changed paths.
    pub changed_paths: u64,
    /// Private memory of each git process that unpacks.
    pub memory_bytes: u64,
}

impl Default for ImportLimits {
    /// 512 MiB as a file, 2 GiB unpacked, 100 MiB a file, 1,000 commits, 100,000 paths, 2 GiB of
    /// memory.
    fn default() -> Self {
        Self {
            bundle_bytes: 512 << 20,
            unpacked_bytes: 2 << 30,
            file_bytes: 100 << 20,
            commits: 1_000,
            changed_paths: 100_000,
            memory_bytes: 2 << 30,
        }
    }
}

/// A result that is now in the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its newest commit.
    pub head: CommitSha,
    /// How many commits it adds to the base; 0 if the head is the base itself.
    pub commits: u64,
    /// How many paths differ from the base.
    pub changed_paths: u64,
    /// What a person should know.
    pub notes: Vec<ImportNote>,
}

/// Something in a result that a person should look at. `Display` gives the sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ImportNote {
    /// A symbolic link that leads out of the repository.
    OutsideLink {
        /// The link.
        path: RepoPath,
        /// Where it points.
        target: RepoPath,
    },
    /// A submodule was added or set to another commit.
    SubmoduleChanged {
        /// Where.
        path: RepoPath,
    },
    /// A submodule was removed.
    SubmoduleRemoved {
        /// Where.
        path: RepoPath,
    },
    /// What git does with files or submodules was changed.
    GitSettingsChanged {
        /// `.gitmodules` or `.gitattributes`.
        path: RepoPath,
    },
    /// A name that is not UTF-8.
    NonUtf8Name {
        /// Which.
        path: RepoPath,
    },
    /// There are more notes than are told.
    More {
        /// How many.
        count: usize,
    },
}

impl std::fmt::Display for ImportNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OutsideLink { path, target } => {
                write!(f, "{path} is a symbolic link out of the repository, to {target}")
            }
            Self::SubmoduleChanged { path } => write!(f, "the submodule {path} was added or points at another commit"),
            Self::SubmoduleRemoved { path } => write!(f, "the submodule {path} was removed"),
            Self::GitSettingsChanged { path } => write!(f, "{path} was changed: it tells git how to treat files"),
            Self::NonUtf8Name { path } => write!(f, "the file name {path} is not UTF-8"),
            Self::More { count } => write!(f, "and {count} more remarks of these kinds"),
        }
    }
}

/// A bundle and what it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// Whose result.
    pub task: &'a TaskId,
    /// What the result must descend from; in the hub.
    pub base: &'a CommitSha,
    /// The bundle: a regular file on the host.
    pub bundle: &'a Path,
    /// How large it may be.
    pub limits: ImportLimits,
}

impl BuiltIn {
    pub(crate) async fn take_in(&self, project: &Project, import: &Import<'_>) -> Result<Imported, ImportError> {
        if !self.has_commit(project, import.base).await? {
            return Err(Fault::NoSuchCommit { commit: import.base.clone() }.into());
        }
        let room = self.dirs.quarantine.join(self.next_room());
        let _cleared = Cleared(room.clone());
        tokio::fs::create_dir_all(&room).await.map_err(Fault::io("making", &room))?;
        self.inspect(project, import, &room).await
    }

    async fn inspect(&self, project: &Project, import: &Import<'_>, room: &Path) -> Result<Imported, ImportError> {
        let bundle = room.join("bundle");
        copy_in(import.bundle, &bundle, import.limits.bundle_bytes).await?;
        let quarantine = Quarantine::make(self, project, import, room.join("repo.git")).await?;
        let head = quarantine.unpack(&bundle).await?;
        let commits = quarantine.check_history(&head).await?;
        quarantine.check_objects(&head, &bundle).await?;
        let (changed_paths, notes) = quarantine.check_paths(&head).await?;
        let lock = self.lock(project);
        let _held = lock.lock().await;
        quarantine.release(&head).await?;
        Ok(Imported { head, commits, changed_paths, notes })
    }
}

/// A folder that goes when this is dropped, also when a call is given up half way.
struct Cleared(PathBuf);

impl Drop for Cleared {
    fn drop(&mut self) {
        // What can't be removed now goes when the next process starts.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Copies a regular file, without following a link to it or waiting at a pipe.
async fn copy_in(from: &Path, to: &Path, max_bytes: u64) -> Result<(), ImportError> {
    const NO_LINK_NO_WAIT: i32 = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    enum Copied {
        Whole,
        NotAFile,
        TooLarge(u64),
    }
    let (source, dest) = (from.to_owned(), to.to_owned());
    let work = move || {
        use std::io::Read as _;
        let file = match std::fs::OpenOptions::new().read(true).custom_flags(NO_LINK_NO_WAIT).open(&source) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Ok(Copied::NotAFile);
            }
            Err(error) => return Err(error),
        };
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Ok(Copied::NotAFile);
        }
        if facts.len() > max_bytes {
            return Ok(Copied::TooLarge(facts.len()));
        }
        let mut copy = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&dest)?;
        let bytes = std::io::copy(&mut file.take(max_bytes.saturating_add(1)), &mut copy)?;
        Ok(if bytes > max_bytes { Copied::TooLarge(bytes) } else { Copied::Whole })
    };
    match blocking(work).await.map_err(Fault::io("reading the bundle", from))? {
        Copied::Whole => Ok(()),
        Copied::NotAFile => Err(Refusal::NotAFile.into()),
        Copied::TooLarge(bytes) => Err(Refusal::BundleTooLarge { bytes, max_bytes }.into()),
    }
}

/// The ref of a task's newest result.
pub(crate) fn task_ref(task: &TaskId) -> String {
    format!("refs/chargehand/tasks/{task}")
}

/// What the refs of all results of a task begin with.
pub(crate) fn imports(task: &TaskId) -> String {
    format!("refs/chargehand/imports/{task}/")
}
