//! How the control plane runs launchers: by a process that it keeps for that, else by one for each box.
//!
//! The kept one starts with the first box and goes with this value, or with the control plane. One
//! that has died is replaced; if that does not help either, each box has a program started for it,
//! which works wherever programs can be started. Absent: what a launcher's answer means for the box.
#![expect(clippy::disallowed_methods, reason = "starts the launcher, the only program that this crate runs")]

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::local::inside::{self, Report};

/// After so many in a row that served nothing no further one is started.
const VAIN_STARTS: u32 = 3;

/// A socket takes so much at any rate before somebody reads.
const EARLY_BYTES: usize = 32 << 10;

/// Runs launchers.
#[derive(Debug)]
pub struct Launchers {
    /// Program and arguments.
    words: Vec<OsString>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    running: Option<Serving>,
    /// Counts the starts since one last served.
    starts: u32,
}

/// A process that serves.
#[derive(Debug)]
struct Serving {
    requests: OwnedFd,
    process: Child,
}

impl Launchers {
    /// With these words a launcher is started.
    pub fn new(words: &[OsString]) -> Self {
        Self { words: words.to_vec(), kept: Mutex::default() }
    }

    /// Has a plan carried out by the kept process; gives what the launcher said, to the word that the
    /// box is ready. Nothing if it said nothing: then it did not begin, or did not come to an end.
    pub fn served(&self, plan: &[u8]) -> Option<String> {
        let said = UnixStream::pair().and_then(|(mut mine, theirs)| {
            // What fits into the socket is there before anybody looks.
            if plan.len() <= EARLY_BYTES {
                send(&mut mine, plan)?;
                self.hand_over(theirs)?;
            } else {
                self.hand_over(theirs)?;
                send(&mut mine, plan)?;
            }
            hear(mine)
        });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            Ok(said) if !said.is_empty() => {
                kept.starts = 0;
                Some(said)
            }
            other => {
                tracing::warn!(error = ?other.err(), "the kept launcher did not answer; this box has one of its own");
                kept.drop_if_dead();
                None
            }
        }
    }

    fn hand_over(&self, socket: UnixStream) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.drop_if_dead();
        if kept.running.is_none() {
            if kept.starts >= VAIN_STARTS {
                return Err(io::Error::other("it was started often enough"));
            }
            kept.starts += 1;
            kept.running = Some(self.serve()?);
        }
        match &kept.running {
            Some(serving) => inside::hand_over(socket, &serving.requests),
            None => Err(io::Error::other("none runs")),
        }
    }

    /// Starts a process that serves.
    fn serve(&self) -> io::Result<Serving> {
        let (requests, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let process = self.command()?.stdin(Stdio::from(theirs)).stdout(Stdio::null()).spawn()?;
        Ok(Serving { requests, process })
    }

    /// Starts a launcher for this plan alone; gives what it said.
    pub fn started(&self, plan: &[u8]) -> io::Result<String> {
        let mut launcher = self.command()?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let sent = launcher.stdin.take().map(|mut input| input.write_all(plan));
        let mut said = String::new();
        let read = launcher.stdout.take().map(|mut output| output.read_to_string(&mut said));
        launcher.wait()?;
        sent.transpose()?;
        read.transpose()?;
        Ok(said)
    }

    fn command(&self) -> io::Result<Command> {
        let (program, arguments) =
            self.words.split_first().ok_or_else(|| io::Error::other("no launcher is configured"))?;
        let mut command = Command::new(program);
        // Its words are the box's first process's too: they tell nothing of where the host keeps things.
        command.arg0("chargehand").args(arguments).env_clear().stderr(Stdio::null());
        Ok(command)
    }
}

fn send(to: &mut UnixStream, plan: &[u8]) -> io::Result<()> {
    to.write_all(plan)?;
    to.shutdown(Shutdown::Write)
}

/// What is said until all is said that matters.
fn hear(from: UnixStream) -> io::Result<String> {
    let mut said = String::new();
    let mut from = BufReader::with_capacity(1 << 10, from);
    loop {
        let begun = said.len();
        if from.read_line(&mut said)? == 0 || said.get(begun..).is_some_and(is_ready) {
            return Ok(said);
        }
    }
}

fn is_ready(line: &str) -> bool {
    matches!(serde_json::from_str(line), Ok(Report::Ready))
}

impl Kept {
    fn drop_if_dead(&mut self) {
        if self.running.as_mut().is_some_and(|serving| !matches!(serving.process.try_wait(), Ok(None))) {
            self.running = None;
        }
    }
}

impl Drop for Serving {
    /// Launchers that it forked are not its children's keepers: they go on.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
