//! The port: what every provider of sandboxes does, in terms that a container engine or a cluster
//! can also meet.
//!
//! A *layer* is an immutable folder tree, named by the digest of what went into it. A *snapshot* is
//! a stack of layers. A sandbox is a writable view of a snapshot with processes in it; stopping it
//! ends the processes and keeps the files. Deliberately absent: product features (git, gates,
//! agents), and any process state that would have to survive a stop.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::id::{Digest, SandboxId};
use serde::{Deserialize, Serialize};

pub use crate::capabilities::{Capabilities, CgroupSupport, Isolation, UidMap};
pub use crate::error::{Problem, SandboxError};
pub use crate::limits::{Limits, Usage};
use crate::walk;
pub use hand::wire::{Ended, Entry, EntryKind, ExecOutcome};

/// A stack of layers, lowest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// The layers' keys.
    pub layers: Vec<Digest>,
}

/// A folder in which the caller builds the content of a layer.
#[derive(Debug)]
pub struct Staging {
    /// Where the content goes: it appears in the box at the place that was asked for. On the same
    /// filesystem as the layers; dropped without [`Provider::prepare`], it is removed.
    pub content: PathBuf,
    pub(crate) holder: PathBuf,
    /// What the holder is called while it is being removed.
    pub(crate) away: PathBuf,
    pub(crate) taken: bool,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.taken {
            walk::discard(&self.holder, std::mem::take(&mut self.away));
        }
    }
}

/// Whose the files of a staged folder are in the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// All of them root's.
    Root,
    /// Those of the user and group with the number that they have in the staged folder (0 to 65535).
    /// Where a box has one user only, all of them are that user's.
    Kept,
}

/// A host folder or file that a box sees read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOnlyBind {
    /// On the host.
    pub from: PathBuf,
    /// In the box; absolute.
    pub at: PathBuf,
}

/// Whose programs a box sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// The host's: its system folders and toolchains, read-only, around what the snapshot holds.
    #[default]
    Host,
    /// The snapshot's own: its layers are a whole root file system (a distribution's, or a single
    /// static program), and nothing of the host is bound but what [`StartSpec::binds`] asks for.
    /// Folders and files that every box has (`/proc`, `/tmp`, `/etc/hosts`, …) are there where the
    /// layers lack them.
    Own,
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartSpec {
    /// Chosen by the caller, from what the sandbox is for; the same id finds the same files.
    pub id: SandboxId,
    /// Where it starts from.
    pub snapshot: SnapshotRef,
    /// Whose programs it sees.
    pub root: Root,
    /// The way out: a host folder in which a proxy listens at the unix socket `door.sock` (that the
    /// box's users may write to). Inside, 127.0.0.1:3128 leads there, and nothing else is seen of
    /// it; the socket may come later, go and be made anew. Without it there is no way out.
    pub door: Option<PathBuf>,
    /// Limits; they hold from the start, and change at the next start.
    pub limits: Limits,
    /// Added to the provider's built environment.
    pub env: Vec<(String, String)>,
    /// Host paths that the box may read besides the provider's own list.
    pub binds: Vec<ReadOnlyBind>,
    /// Working folder of commands; absolute.
    pub workdir: PathBuf,
}

/// What a start found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartedAs {
    /// A new box on the snapshot.
    Fresh,
    /// New processes on the files of an earlier one.
    Resumed,
    /// It was alive.
    Adopted,
    /// New, because the machine went down without writing the earlier files to disk; they are gone.
    FilesLost,
}

/// A started box.
pub struct Started {
    /// The box.
    pub sandbox: Arc<dyn Sandbox>,
    /// What was found under its id.
    pub found: StartedAs,
}

/// Where a byte string was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundBytes {
    /// Below the root of the box.
    pub path: PathBuf,
    /// Which of the patterns, counted from 0.
    pub pattern: usize,
}

/// A box in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxInfo {
    /// Its id.
    pub id: SandboxId,
    /// Whether processes run.
    pub alive: bool,
    /// Whether they hold still until they are resumed.
    pub suspended: bool,
}

/// A provider of sandboxes.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Finds out, by trying, what works here. Never fails: what does not work is a problem in it.
    async fn probe(&self) -> Capabilities;

    /// An empty folder in which to build the layer `key`, whose content will appear in the box at
    /// `at` (absolute, for example `/workspace`).
    ///
    /// # Errors
    /// If the folder cannot be made.
    async fn stage(&self, key: &Digest, at: &Path) -> Result<Staging, SandboxError>;

    /// Makes what was staged the layer `key`. Whole or not at all; a key that exists already is
    /// left as it is, and the staged folder is dropped. `owners` says whose the files are in the box;
    /// set-user-id and set-group-id bits of files are lost.
    ///
    /// # Errors
    /// [`SandboxError::BadLayer`] for devices (an overlay's whiteouts are devices), pipes and
    /// sockets, for attributes that an overlay takes for its own, and with [`Owners::Kept`] for
    /// users above 65535.
    async fn prepare(&self, key: &Digest, staged: Staging, owners: Owners) -> Result<SnapshotRef, SandboxError>;

    /// The snapshot of one layer, if it is prepared.
    ///
    /// # Errors
    /// If it cannot be found out.
    async fn prepared(&self, key: &Digest) -> Result<Option<SnapshotRef>, SandboxError>;

    /// Removes prepared layers that no box on disk uses and that are not in `keep`; gives how many.
    ///
    /// To be called now and then, as no clock is read here: a layer goes only if it was unused at
    /// the call before this one too, and nobody prepared it, asked for it ([`Provider::prepared`])
    /// or started a box from it since. So whoever has a [`SnapshotRef`] in hand has at least the
    /// time between two calls to start from it, and needs `keep` only for what has to last longer.
    /// The first call after the provider was opened removes nothing.
    ///
    /// # Errors
    /// If it cannot be found out what is used, or a layer cannot be moved out of the way. What was
    /// moved is removed in the background, also after a restart.
    async fn retain_layers(&self, keep: &HashSet<Digest>) -> Result<usize, SandboxError> {
        self.retain_layers_within(keep, 0).await
    }

    /// Like [`Provider::retain_layers`], but only until all layers together take `budget_bytes` or
    /// less; those that were not used for longest go first. A layer that this process has not seen
    /// in use counts as used before all others.
    ///
    /// # Errors
    /// Those of [`Provider::retain_layers`].
    async fn retain_layers_within(&self, keep: &HashSet<Digest>, budget_bytes: u64) -> Result<usize, SandboxError>;

    /// What takes disk space. Walks the files of all boxes, and those of layers once.
    ///
    /// # Errors
    /// If the filesystem does not tell what it has left.
    async fn usage(&self) -> Result<Usage, SandboxError>;

    /// Starts a box. An id with files goes on with them; one that is alive is adopted.
    ///
    /// # Errors
    /// [`SandboxError::Unsupported`] names what the machine lacks.
    async fn start(&self, spec: StartSpec) -> Result<Started, SandboxError>;

    /// The box with this id if it is alive, also from before a restart of the control plane.
    ///
    /// # Errors
    /// If it cannot be found out.
    async fn attach(&self, id: &SandboxId) -> Result<Option<Arc<dyn Sandbox>>, SandboxError>;

    /// Ends all processes of a box and keeps its files. No box is no error.
    ///
    /// # Errors
    /// If a process cannot be ended.
    async fn stop(&self, id: &SandboxId) -> Result<(), SandboxError>;

    /// Lets no process of a box run until it is resumed; they keep their memory and use no processor
    /// time. Whatever is asked of the box resumes it first (each call of [`Sandbox`], and
    /// [`Provider::start`], which adopts it); [`Provider::stop`], [`Provider::snapshot`] and
    /// [`Provider::destroy`] end it as any other. Time limits of commands go on meanwhile, and whoever
    /// follows a command may see [`SandboxError::Unresponsive`]: suspend what nobody follows. Again is
    /// no error.
    ///
    /// # Errors
    /// [`SandboxError::Gone`] if it is not alive.
    async fn suspend(&self, id: &SandboxId) -> Result<(), SandboxError>;

    /// Lets the processes of a suspended box run again. One that was not suspended just goes on.
    ///
    /// # Errors
    /// [`SandboxError::Gone`] if it is not alive.
    async fn resume(&self, id: &SandboxId) -> Result<(), SandboxError>;

    /// Stops a box and makes its changes the layer `key`; gives the snapshot with that layer on
    /// top. The box starts again from the new snapshot; forks are boxes started from it with other
    /// ids. A key that is in the box's stack already is returned without touching the box.
    ///
    /// What one sees is the same before and after, names of one file included. But a file that has
    /// several names is written to as one only until the snapshot; later a write to one of the names
    /// parts it from the others, as it does with files that came with the snapshot. (The index that
    /// would keep them together would tie a box's changes to the layers that it was started on.)
    ///
    /// # Errors
    /// [`SandboxError::Gone`] if no box with files has this id.
    async fn snapshot(&self, id: &SandboxId, key: &Digest) -> Result<SnapshotRef, SandboxError>;

    /// The snapshot on which the box's own changes lie, if a box with files has this id.
    ///
    /// # Errors
    /// If it cannot be found out.
    async fn stack(&self, id: &SandboxId) -> Result<Option<SnapshotRef>, SandboxError>;

    /// Whether the box has changes of its own on its snapshot. Mount points that a start makes are
    /// none, nor is a folder whose times alone changed. Without a box with files: no.
    ///
    /// # Errors
    /// If it cannot be found out.
    async fn changed(&self, id: &SandboxId) -> Result<bool, SandboxError>;

    /// Looks for byte strings in the box's own changes: in contents of files, in names, in what
    /// links lead to. Gives the first that is found. The box has to be stopped.
    ///
    /// # Errors
    /// If something of them cannot be read; then nothing is known.
    async fn search(&self, id: &SandboxId, patterns: Vec<Vec<u8>>) -> Result<Option<FoundBytes>, SandboxError>;

    /// The same view in fewer layers: those above the lowest `keep_lowest` become one, the layer
    /// `key`. For new starts; boxes on the old stack go on with it and do not notice. With fewer than
    /// two such layers the snapshot itself comes back; a key that exists already is taken to be that
    /// merged layer. Files keep their numbers, so that indexes which know them by these stay valid.
    ///
    /// # Errors
    /// [`SandboxError::LayerMissing`]; [`SandboxError::Storage`] for trees deeper than a path can
    /// say and, where the provider has one user, for folders that are closed to their owner. The old
    /// snapshot is of use as before.
    async fn flatten(
        &self,
        snapshot: &SnapshotRef,
        keep_lowest: usize,
        key: &Digest,
    ) -> Result<SnapshotRef, SandboxError>;

    /// Whether commands run in the box, or what they left running, except commands whose exec id begins
    /// with `but` (none, if that is empty). Without a living box: no.
    ///
    /// # Errors
    /// If it cannot be found out.
    async fn busy(&self, id: &SandboxId, but: &str) -> Result<bool, SandboxError>;

    /// All boxes that have files or processes, for the sweeper.
    ///
    /// # Errors
    /// If they cannot be listed.
    async fn list(&self) -> Result<Vec<SandboxInfo>, SandboxError>;

    /// Ends all processes of a box and takes its files out of sight; they are removed in the
    /// background, also after a restart. No box is no error.
    ///
    /// # Errors
    /// If something remains in sight; the same call goes on where it stopped.
    async fn destroy(&self, id: &SandboxId) -> Result<(), SandboxError>;
}

/// A command for a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// Names this run; the same id never runs twice in the life of a box. 1 to 200 bytes.
    pub exec_id: String,
    /// Program (looked up in the box's `PATH`) and arguments.
    pub argv: Vec<OsString>,
    /// Added to the box's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working folder, the box's own if absent.
    pub cwd: Option<PathBuf>,
    /// Wall time after which the command and its processes are ended.
    pub time_limit: Duration,
    /// Bytes of output (both streams together) after which they are ended.
    pub output_cap_bytes: u64,
}

impl ExecRequest {
    /// A command with ten minutes and 8 MiB of output.
    #[must_use]
    pub fn new<A: Into<OsString>>(exec_id: impl Into<String>, argv: impl IntoIterator<Item = A>) -> Self {
        Self {
            exec_id: exec_id.into(),
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
            time_limit: Duration::from_secs(600),
            output_cap_bytes: 8 << 20,
        }
    }

    /// A line for `/bin/sh -c`, otherwise like [`ExecRequest::new`].
    #[must_use]
    pub fn shell(exec_id: impl Into<String>, line: impl Into<OsString>) -> Self {
        Self::new(exec_id, [OsString::from("/bin/sh"), "-c".into(), line.into()])
    }
}

/// A stream of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Which stream.
    pub stream: Stream,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Takes output as it comes.
///
/// Contract: called in order, from the future that is being polled; must not block and must not
/// panic.
pub type OutputSink<'a> = &'a mut (dyn FnMut(OutputChunk) + Send);

/// A running box.
///
/// Paths are the box's; relative ones start at its working folder.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Its id.
    fn id(&self) -> &SandboxId;

    /// Runs a command, or follows the one that already has this exec id from its first byte of
    /// output. Dropping the future ends nothing: the command goes on, and asking again with the
    /// same id gets all of it.
    ///
    /// # Errors
    /// [`SandboxError::Gone`] if the box died; [`SandboxError::Refused`] if the id belongs to
    /// another command. A program that cannot be started is an outcome, not an error.
    async fn exec(&self, request: ExecRequest, output: OutputSink<'_>) -> Result<ExecOutcome, SandboxError>;

    /// Follows the command with this exec id from its first byte of output.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] if there is none in this life of the box.
    async fn follow(&self, exec_id: &str, output: OutputSink<'_>) -> Result<ExecOutcome, SandboxError>;

    /// The outcome is stored: the box drops the command's output and keeps its outcome, which says
    /// so from then on. Costs one short round trip to the box, no disk and no process; for a command
    /// that still runs it does nothing. Unacknowledged output of commands that are over is kept up to
    /// 32 MiB in all, then the oldest is dropped; it lies in the box's memory and `/tmp`.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] if there is no such command.
    async fn acknowledge(&self, exec_id: &str) -> Result<(), SandboxError>;

    /// Ends a command with all its processes; whoever follows it gets the outcome. For a command
    /// that is over, ends what it left running.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] if there is no such command.
    async fn kill(&self, exec_id: &str) -> Result<(), SandboxError>;

    /// At most `max_bytes` of a regular file from `offset`.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] says what the path is instead.
    async fn read(&self, path: &Path, offset: u64, max_bytes: u64) -> Result<FileBytes, SandboxError>;

    /// Makes or replaces a regular file, whole or not at all; missing folders are made. Without a
    /// mode an existing file keeps its own, and a new one gets 0644.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] says why not.
    async fn write(&self, path: &Path, bytes: &[u8], mode: Option<u32>) -> Result<(), SandboxError>;

    /// A folder's entries, sorted by name; at most `max_entries` (4000 are the most in one answer).
    ///
    /// # Errors
    /// [`SandboxError::Refused`] says why not.
    async fn list(&self, path: &Path, max_entries: u32) -> Result<Listing, SandboxError>;

    /// One entry, a link not followed.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] if there is none.
    async fn stat(&self, path: &Path) -> Result<Entry, SandboxError>;

    /// Copies one regular file (no link) to a new file on the host; gives its size in bytes.
    ///
    /// # Errors
    /// [`SandboxError::TooLarge`], or what keeps the file from being read or written; the host file
    /// is then not there. Nor does it stay if the future is dropped.
    async fn copy_out(&self, path: &Path, to: &Path, max_bytes: u64) -> Result<u64, SandboxError>;
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileBytes {
    /// The part.
    pub bytes: Vec<u8>,
    /// The whole file's size in bytes.
    pub file_bytes: u64,
}

/// A folder's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by name.
    pub entries: Vec<Entry>,
    /// True if there were more.
    pub truncated: bool,
}
