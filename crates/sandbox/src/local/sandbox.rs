//! A box of the local provider, seen from outside: its hand's socket and its control groups.
//!
//! Absent: its life (the provider starts, stops and removes it).

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::id::SandboxId;
use hand::frame::{self, CHUNK_BYTES, Kind};
use hand::wire::{Entry, ExecStart, Reply, Request};

use crate::client::{Address, Connection, FollowLimits, Heard, may_be_a_limits_work};
use crate::error::StorageContext as _;
use crate::local::cgroup;
use crate::local::host_file::HostFile;
use crate::local::{suspend, watch};
use crate::port::{Ended, ExecOutcome, ExecRequest, FileBytes, Listing, OutputSink, Sandbox, SandboxError};

/// Between TERM and KILL when a command is ended.
const GRACE: Duration = Duration::from_secs(2);
/// Followers by id alone do not know the command's limits; these bound what a broken hand can do.
const ANY_COMMAND: FollowLimits =
    FollowLimits { time_limit: Duration::from_secs(7 * 24 * 60 * 60), output_cap_bytes: 1 << 32 };

/// What was counted of a box's limits.
struct LimitsWork {
    kills: u64,
    refusals: u64,
    /// Not the kernel's work but the provider's own.
    endings_for_disk: u64,
}

/// A running box.
#[derive(Debug)]
pub struct LocalSandbox {
    address: Address,
    cgroups: Arc<[PathBuf]>,
}

impl LocalSandbox {
    /// The box whose socket lies in `folder`.
    pub fn open(id: SandboxId, folder: &Path, cgroups: Vec<PathBuf>) -> Result<Self, SandboxError> {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let opened = rustix::fs::open(folder, flags, rustix::fs::Mode::empty()).doing("open", folder)?;
        Ok(Self { address: Address { id, folder: opened, name: "hand.sock" }, cgroups: cgroups.into() })
    }

    /// The box's folder, also after it was given another name.
    fn folder(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.address.folder.as_raw_fd().to_string())
    }

    /// The hand, to be asked something: a box that was suspended goes on.
    fn hand(&self) -> &Address {
        if let Err(error) = suspend::wake(&self.folder(), &self.cgroups) {
            tracing::warn!(%error, id = %self.address.id, "it may still be suspended");
        }
        &self.address
    }

    /// Whether the hand answers.
    pub async fn answers(&self) -> Result<(), SandboxError> {
        let request = Request::Stat { path: PathBuf::from("/") };
        self.hand().ask_once(&request, "starting").await.map(drop)
    }

    /// Asks the box to end itself.
    pub async fn shut_down(&self, grace: Duration) -> Result<(), SandboxError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.hand().ask_once(&Request::Shutdown { grace_ms }, "shutting down").await.map(drop)
    }

    /// Reads some lines that the kernel makes up in memory: quicker here than on the blocking pool.
    fn limits_work(&self) -> LimitsWork {
        LimitsWork {
            kills: cgroup::out_of_memory_kills(&self.cgroups),
            refusals: cgroup::refused_processes(&self.cgroups),
            endings_for_disk: watch::endings(&self.folder()),
        }
    }

    async fn run(
        &self,
        request: &Request,
        limits: FollowLimits,
        output: OutputSink<'_>,
    ) -> Result<ExecOutcome, SandboxError> {
        let before = self.limits_work();
        match self.hand().run(request, limits, output).await {
            Ok(mut outcome) => {
                if may_be_a_limits_work(&outcome.ended) {
                    let after = self.limits_work();
                    if after.endings_for_disk > before.endings_for_disk {
                        outcome.ended = Ended::DiskFull;
                    } else if after.kills > before.kills {
                        outcome.ended = Ended::OutOfMemory;
                    } else if after.refusals > before.refusals {
                        outcome.ended = Ended::TooManyProcesses;
                    }
                }
                Ok(outcome)
            }
            Err(SandboxError::Gone { id, .. }) if self.limits_work().kills > before.kills => {
                Err(SandboxError::Gone { id, hint: Some("it ran out of memory".into()) })
            }
            Err(error) => Err(error),
        }
    }

    async fn done(&self, request: &Request, doing: &'static str) -> Result<(), SandboxError> {
        match self.hand().ask_once(request, doing).await? {
            Reply::Done => Ok(()),
            other => Err(self.address.unexpected(&other)),
        }
    }

    /// Asks for a file.
    async fn fetch(&self, request: &Request, max_bytes: u64) -> Result<Fetch<'_>, SandboxError> {
        let mut connection = self.hand().ask(request, "reading a file").await?;
        match connection.reply().await? {
            Reply::Content { file_bytes, .. } => {
                Ok(Fetch { address: &self.address, connection, file_bytes, got: 0, max_bytes })
            }
            other => Err(self.address.unexpected(&other)),
        }
    }

    /// Copies a file to the host as far as the host's file takes it; gives how many bytes came.
    async fn pour(&self, path: &Path, file: &HostFile, max_bytes: u64) -> Result<u64, SandboxError> {
        let one_more = max_bytes.saturating_add(1);
        let request = Request::Read { path: path.to_owned(), offset: 0, max_bytes: one_more, follow: false };
        let mut coming = self.fetch(&request, one_more).await?;
        while let Some(bytes) = coming.next().await? {
            if coming.got > max_bytes {
                return Err(SandboxError::TooLarge { path: path.to_owned(), max_bytes });
            }
            if !file.push(bytes).await {
                break;
            }
        }
        Ok(coming.got)
    }
}

/// A file on its way out of the box.
struct Fetch<'a> {
    address: &'a Address,
    connection: Connection<'a>,
    file_bytes: u64,
    got: u64,
    max_bytes: u64,
}

impl Fetch<'_> {
    /// The next piece, until all have come.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, SandboxError> {
        match self.connection.hear().await? {
            Heard::Bytes(Kind::Data, bytes) => {
                self.got += bytes.len() as u64;
                if self.got > self.max_bytes {
                    return Err(self.address.unexpected(&Reply::Sent { bytes: self.got }));
                }
                Ok(Some(bytes))
            }
            Heard::Reply(Reply::Sent { bytes }) if bytes == self.got => Ok(None),
            Heard::Reply(other) => Err(self.address.unexpected(&other)),
            Heard::Bytes(..) => Err(self.address.unexpected(&Reply::Done)),
        }
    }
}

#[async_trait]
impl Sandbox for LocalSandbox {
    fn id(&self) -> &SandboxId {
        &self.address.id
    }

    async fn exec(&self, request: ExecRequest, output: OutputSink<'_>) -> Result<ExecOutcome, SandboxError> {
        let limits = FollowLimits { time_limit: request.time_limit, output_cap_bytes: request.output_cap_bytes };
        let start = Request::Exec(ExecStart {
            exec_id: request.exec_id,
            argv: request.argv,
            env: request.env,
            cwd: request.cwd,
            time_limit_ms: u64::try_from(request.time_limit.as_millis()).unwrap_or(u64::MAX),
            output_cap_bytes: request.output_cap_bytes,
            grace_ms: u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX),
        });
        self.run(&start, limits, output).await
    }

    async fn follow(&self, exec_id: &str, output: OutputSink<'_>) -> Result<ExecOutcome, SandboxError> {
        self.run(&Request::Attach { exec_id: exec_id.to_owned() }, ANY_COMMAND, output).await
    }

    async fn acknowledge(&self, exec_id: &str) -> Result<(), SandboxError> {
        self.done(&Request::Acknowledge { exec_id: exec_id.to_owned() }, "acknowledging a command").await
    }

    async fn kill(&self, exec_id: &str) -> Result<(), SandboxError> {
        self.done(&Request::Kill { exec_id: exec_id.to_owned() }, "ending a command").await
    }

    async fn read(&self, path: &Path, offset: u64, max_bytes: u64) -> Result<FileBytes, SandboxError> {
        let request = Request::Read { path: path.to_owned(), offset, max_bytes, follow: true };
        let mut coming = self.fetch(&request, max_bytes).await?;
        let mut all = Vec::new();
        while let Some(bytes) = coming.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(FileBytes { bytes: all, file_bytes: coming.file_bytes })
    }

    async fn write(&self, path: &Path, bytes: &[u8], mode: Option<u32>) -> Result<(), SandboxError> {
        let request = Request::Write { path: path.to_owned(), size: bytes.len() as u64, mode };
        let mut connection = self.hand().ask(&request, "writing a file").await?;
        for piece in bytes.chunks(CHUNK_BYTES) {
            let mut framed = Vec::new();
            frame::encode(Kind::Data, piece, &mut framed);
            connection.send(&framed).await?;
        }
        match connection.reply().await? {
            Reply::Written { .. } => Ok(()),
            other => Err(self.address.unexpected(&other)),
        }
    }

    async fn list(&self, path: &Path, max_entries: u32) -> Result<Listing, SandboxError> {
        let request = Request::List { path: path.to_owned(), max_entries };
        match self.hand().ask_once(&request, "listing a folder").await? {
            Reply::Entries { entries, truncated } => Ok(Listing { entries, truncated }),
            other => Err(self.address.unexpected(&other)),
        }
    }

    async fn stat(&self, path: &Path) -> Result<Entry, SandboxError> {
        match self.hand().ask_once(&Request::Stat { path: path.to_owned() }, "looking at a file").await? {
            Reply::Stat { entry } => Ok(entry),
            other => Err(self.address.unexpected(&other)),
        }
    }

    async fn copy_out(&self, path: &Path, to: &Path, max_bytes: u64) -> Result<u64, SandboxError> {
        let file = HostFile::create(to);
        match self.pour(path, &file, max_bytes).await {
            Ok(bytes) => file.finish().await.map(|()| bytes),
            Err(error) => {
                file.give_up().await?;
                Err(error)
            }
        }
    }
}
