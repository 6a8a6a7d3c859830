//! Runs one program with a built environment, a time limit and bounded output.
//!
//! The program leads its own process group. When its time is up, or when the future is dropped,
//! the whole group gets SIGTERM, on which git removes its lock files; a group that outlives its
//! time limit by the grace is killed. Absent: any knowledge of git; see `git`.
#![expect(clippy::disallowed_methods, reason = "this is the one module of forge that starts programs: git")]

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// How much of standard error is kept: its end.
const STDERR_TAIL_BYTES: usize = 4096;
/// How long a group may take to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(3);
/// How long the pipes may stay open after the program itself ended: a daemon started by a hook
/// may hold them for ever.
const PIPE_GRACE: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub program: &'a Path,
    pub args: &'a [OsString],
    pub cwd: &'a Path,
    /// The whole environment.
    pub env: &'a [(OsString, OsString)],
    pub stdin: &'a [u8],
    pub limits: Limits,
}

/// How far it may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub time: Duration,
    pub stdout_bytes: usize,
    /// Whether too much output ends in a truncated success instead of an error.
    pub truncate: bool,
    /// Private memory of each process, and the size of each file it writes.
    pub memory_and_file_bytes: Option<(u64, u64)>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    /// Whether `stdout` is only the beginning; `status` then says nothing.
    pub truncated: bool,
    pub stderr_tail: Vec<u8>,
}

/// Why there is no exit status to speak of.
#[derive(Debug)]
pub(crate) enum RunError {
    Missing(PathBuf),
    Start(io::Error),
    Pipe(io::Error),
    TimedOut { stderr_tail: Vec<u8> },
    TooMuchOutput,
}

/// Ends the process group when dropped, unless it was told that the program has ended.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // The group may be gone already.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
    }
}

/// Runs the job to its end.
pub(crate) async fn run(job: &Job<'_>) -> Result<Ran, RunError> {
    let mut command = Command::new(job.program);
    command.args(job.args).current_dir(job.cwd).env_clear().process_group(0);
    command.envs(job.env.iter().map(|(name, value)| (name, value)));
    command.stdin(if job.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if job.cwd.is_dir() => RunError::Missing(job.program.to_owned()),
        _ => RunError::Start(error),
    })?;
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let mut group = Group(pid);
    if let (Some((memory, file)), Some(pid)) = (job.limits.memory_and_file_bytes, pid) {
        restrict(pid, memory, file)?;
    }
    let mut seen = Seen::default();
    match tokio::time::timeout(job.limits.time, attend(&mut child, job, &mut seen)).await {
        Ok(Ok(status)) => {
            group.0 = None;
            Ok(Ran { status, stdout: seen.stdout, truncated: false, stderr_tail: seen.stderr })
        }
        Ok(Err(Halt::Full)) => {
            let status = end(&mut child, &mut group).await?;
            if job.limits.truncate {
                Ok(Ran { status, stdout: seen.stdout, truncated: true, stderr_tail: seen.stderr })
            } else {
                Err(RunError::TooMuchOutput)
            }
        }
        Ok(Err(Halt::Broken(error))) => Err(RunError::Pipe(error)),
        Err(_elapsed) => {
            end(&mut child, &mut group).await?;
            Err(RunError::TimedOut { stderr_tail: seen.stderr })
        }
    }
}

fn restrict(pid: Pid, memory: u64, file: u64) -> Result<(), RunError> {
    for (resource, bytes) in [(Resource::Data, memory), (Resource::Fsize, file)] {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        match prlimit(Some(pid), resource, limit) {
            // It may be over already.
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(RunError::Start(error.into())),
        }
    }
    Ok(())
}

async fn end(child: &mut Child, group: &mut Group) -> Result<ExitStatus, RunError> {
    group.signal(Signal::TERM);
    let status = match tokio::time::timeout(TERM_GRACE, child.wait()).await {
        Ok(status) => status,
        Err(_elapsed) => {
            group.signal(Signal::KILL);
            child.wait().await
        }
    };
    group.0 = None;
    status.map_err(RunError::Pipe)
}

#[derive(Default)]
struct Seen {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

enum Halt {
    Full,
    Broken(io::Error),
}

async fn attend(child: &mut Child, job: &Job<'_>, seen: &mut Seen) -> Result<ExitStatus, Halt> {
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let Seen { stdout: out, stderr: err } = seen;
    let talk = async {
        let write = async {
            if let Some(mut pipe) = stdin {
                // A program may end without reading everything; its status tells.
                let _ = pipe.write_all(job.stdin).await;
            }
            Ok(())
        };
        let read =
            async { if let Some(pipe) = stdout { fill(pipe, out, job.limits.stdout_bytes).await } else { Ok(()) } };
        let complain = async { if let Some(pipe) = stderr { tail(pipe, err).await } else { Ok(()) } };
        tokio::try_join!(write, read, complain)
    };
    tokio::pin!(talk);
    tokio::select! {
        done = &mut talk => {
            done?;
            child.wait().await.map_err(Halt::Broken)
        }
        status = child.wait() => {
            let status = status.map_err(Halt::Broken)?;
            if let Ok(done) = tokio::time::timeout(PIPE_GRACE, talk).await {
                done?;
            }
            Ok(status)
        }
    }
}

async fn fill(mut pipe: impl AsyncRead + Unpin, out: &mut Vec<u8>, max_bytes: usize) -> Result<(), Halt> {
    loop {
        if out.len() > max_bytes {
            out.truncate(max_bytes);
            return Err(Halt::Full);
        }
        if out.capacity() - out.len() < 8192 {
            out.reserve(out.len().clamp(8192, 1 << 20));
        }
        if pipe.read_buf(out).await.map_err(Halt::Broken)? == 0 {
            return Ok(());
        }
    }
}

async fn tail(mut pipe: impl AsyncRead + Unpin, err: &mut Vec<u8>) -> Result<(), Halt> {
    loop {
        let read = pipe.read_buf(err).await.map_err(Halt::Broken)?;
        if read == 0 {
            break;
        }
        if err.len() > 2 * STDERR_TAIL_BYTES {
            err.drain(..err.len() - STDERR_TAIL_BYTES);
        }
    }
    if err.len() > STDERR_TAIL_BYTES {
        err.drain(..err.len() - STDERR_TAIL_BYTES);
    }
    Ok(())
}
