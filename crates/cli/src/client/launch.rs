//! Starting the server in the background, and ending it.
//!
//! Two commands may start it at the same moment: the store's lock lets one of them have the data
//! folder, the other ends with its own exit code, and both commands find the one that runs.
//! Absent: any supervision; a server that died is started again by the next command.

#![expect(
    clippy::disallowed_methods,
    reason = "the command line starts its own program as the server; no user's program is run here"
)]

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use server::api::Health;

use super::{CallError, Client};
use crate::failure::{Failure, IN_USE};
use crate::settings::{Flags, Settings, make_private_dir};
use crate::terminal::remark;

/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to end when asked to.
const END_LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// After so long the person is told what is waited for.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// A log of more bytes is set aside at the next start.
const MAX_LOG_BYTES: u64 = 10 << 20;
/// What is shown of the log, in bytes.
const TAIL_BYTES: u64 = 4 << 10;

/// Starts the server and waits until it answers.
pub(super) async fn start(client: &Client, settings: &Settings, flags: &Flags, quiet: bool) -> Result<Health, Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new("server-start", "The server can't be started", format!("{what}: {error}"))
    };
    make_private_dir(&settings.data_dir)
        .map_err(|error| failed(&format!("the data folder {} can't be made", settings.data_dir.display()), &error))?;
    let log_path = settings.log_path();
    let log =
        open_log(&log_path).map_err(|error| failed(&format!("{} can't be written", log_path.display()), &error))?;
    let begin = log.metadata().map_or(0, |meta| meta.len());
    let mut child = spawn(settings, flags, log).map_err(|error| failed("its program can't be run", &error))?;
    let started = Instant::now();
    let (mut told, mut lost_race) = (quiet, false);
    loop {
        match client.health().await {
            Ok(health) => {
                if !quiet {
                    remark(&format!(
                        "(started the server in the background; log: {}; `chargehand stop` ends it)",
                        log_path.display()
                    ));
                }
                return Ok(health);
            }
            Err(CallError::NoServer | CallError::Broken(_)) => {}
            Err(error) => return Err(error.into()),
        }
        match child.try_wait() {
            Ok(Some(status)) if status.code() == Some(i32::from(IN_USE)) => lost_race = true,
            Ok(Some(status)) => return Err(ended(&log_path, begin, &status.to_string())),
            Ok(None) | Err(_) => {}
        }
        if started.elapsed() > START_LIMIT {
            let why = if lost_race {
                "another server has the data folder and does not answer"
            } else {
                "it does not answer yet"
            };
            return Err(ended(&log_path, begin, &format!("{why} after {} s", START_LIMIT.as_secs())));
        }
        if !told && started.elapsed() > PATIENCE {
            told = true;
            remark("starting the server …");
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn open_log(path: &Path) -> std::io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() > MAX_LOG_BYTES) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    File::options().create(true).append(true).mode(0o600).open(path)
}

fn spawn(settings: &Settings, flags: &Flags, log: File) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--data-dir").arg(&settings.data_dir);
    if flags.config.is_some() || settings.config_file.exists {
        command.arg("--config").arg(std::path::absolute(&settings.config_file.path)?);
    }
    command.args(["serve", "--detached"]);
    let errors = log.try_clone()?;
    command.current_dir(&settings.data_dir).stdin(Stdio::null()).stdout(log).stderr(errors).spawn()
}

/// The failure of a start, with what the server wrote since then.
fn ended(log: &Path, begin: u64, how: &str) -> Failure {
    let tail = tail(log, begin).unwrap_or_default();
    let said = if tail.trim().is_empty() { "it said nothing".to_owned() } else { tail };
    Failure::new(
        "server-start",
        "The server can't be started",
        format!("{said}\n({how}; its log is {})", log.display()),
    )
}

fn tail(log: &Path, begin: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(begin.max(end.saturating_sub(TAIL_BYTES)).min(end)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The process that listens on the data folder's socket, as the kernel says; `None` if none does.
///
/// # Errors
/// If the socket can't be asked.
pub fn server_pid(settings: &Settings) -> Result<Option<i32>, Failure> {
    match UnixStream::connect(settings.socket_path()) {
        Ok(stream) => {
            let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|error| {
                Failure::new(
                    "stop",
                    "The server can't be found",
                    format!("the socket does not say whose it is: {error}"),
                )
            })?;
            Ok(Some(peer.pid.as_raw_nonzero().get()))
        }
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(Failure::new(
            "stop",
            "The server can't be found",
            format!("{}: {error}", settings.socket_path().display()),
        )),
    }
}

/// Asks the server to end, and waits until it has.
///
/// # Errors
/// If it may not be asked, or does not end in time.
pub async fn end_server(pid: i32) -> Result<(), Failure> {
    let failed = |why: String| Failure::new("stop", "The server was not stopped", why);
    let Some(process) = Pid::from_raw(pid) else {
        return Err(failed("it runs where its process can't be seen".to_owned()));
    };
    // The descriptor stands for this very process, also if its number is given to another.
    let pidfd = match pidfd_open(process, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(failed(format!("process {pid} can't be reached: {error}"))),
    };
    match pidfd_send_signal(&pidfd, Signal::TERM) {
        Ok(()) => {}
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(failed(format!("process {pid} can't be asked to end: {error}"))),
    }
    let asked = Instant::now();
    while !has_ended(&pidfd) {
        if asked.elapsed() > END_LIMIT {
            let seconds = END_LIMIT.as_secs();
            return Err(failed(format!(
                "process {pid} was asked to end and has not after {seconds} s; `kill -9 {pid}` ends it, and nothing that was stored is lost"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// A process's descriptor can be read once the process has ended.
fn has_ended(pidfd: &rustix::fd::OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}
