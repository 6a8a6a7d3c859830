//! A command's two pipes and what is kept of them.
//!
//! Up to the cap everything is kept, in the order in which it was read; beyond it nothing is, but
//! the pipes are still read so that nobody is stopped by a full one. Absent: who reads it.

use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::{Child, ChildStderr, ChildStdout};

use crate::frame::{CHUNK_BYTES, Kind};
use crate::os;
use crate::spool::Spool;

#[derive(Debug)]
enum Pipe {
    Out(ChildStdout),
    Err(ChildStderr),
}

impl Pipe {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Out(pipe) => pipe.as_fd(),
            Self::Err(pipe) => pipe.as_fd(),
        }
    }

    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Out(pipe) => pipe.read(space),
            Self::Err(pipe) => pipe.read(space),
        }
    }
}

/// Pipes and kept output of one command.
#[derive(Debug)]
pub struct Output {
    pipes: [Option<Pipe>; 2],
    cap_bytes: u64,
    /// Bytes of stdout that were kept.
    pub stdout_bytes: u64,
    /// Bytes of stderr that were kept.
    pub stderr_bytes: u64,
    /// True once something was thrown away because of the cap.
    pub past_cap: bool,
    /// True once the command is over and later output is nobody's.
    closed: bool,
    /// What is kept.
    pub spool: Spool,
}

impl Output {
    /// Takes the pipes of a child that was just started.
    pub fn of(child: &mut Child, cap_bytes: u64) -> std::io::Result<Self> {
        let pipes = [child.stdout.take().map(Pipe::Out), child.stderr.take().map(Pipe::Err)];
        for pipe in pipes.iter().flatten() {
            os::nonblocking(pipe.fd())?;
        }
        Ok(Self {
            pipes,
            cap_bytes,
            stdout_bytes: 0,
            stderr_bytes: 0,
            past_cap: false,
            closed: false,
            spool: Spool::default(),
        })
    }

    /// The pipes that are still open.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes.iter().flatten().map(Pipe::fd)
    }

    /// Whether nothing more can come.
    pub fn at_end(&self) -> bool {
        self.pipes.iter().all(Option::is_none)
    }

    /// Reads all that is there now, at most about a megabyte from each pipe.
    pub fn read(&mut self, space: &mut Vec<u8>) {
        space.resize(CHUNK_BYTES, 0);
        for index in 0..self.pipes.len() {
            for _ in 0..16 {
                let Some(Some(pipe)) = self.pipes.get_mut(index) else { break };
                match pipe.read(space) {
                    Ok(read) if read > 0 => {
                        let kind = if index == 0 { Kind::Stdout } else { Kind::Stderr };
                        self.keep(kind, space.get(..read).unwrap_or_default());
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => {
                        if let Some(slot) = self.pipes.get_mut(index) {
                            *slot = None;
                        }
                    }
                }
            }
        }
    }

    fn keep(&mut self, kind: Kind, bytes: &[u8]) {
        if self.closed {
            return;
        }
        let room = self.cap_bytes.saturating_sub(self.stdout_bytes + self.stderr_bytes);
        let fits = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        self.past_cap |= fits < bytes.len();
        let Some(bytes) = bytes.get(..fits).filter(|bytes| !bytes.is_empty()) else { return };
        self.spool.append(kind, bytes);
        match kind {
            Kind::Stderr => self.stderr_bytes += fits as u64,
            Kind::Stdout | Kind::Message | Kind::Data => self.stdout_bytes += fits as u64,
        }
    }

    /// The command is over: what a process that it left behind writes from now on is thrown away.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Drops what is kept.
    pub fn forget(&mut self) {
        self.spool = Spool::default();
    }
}
