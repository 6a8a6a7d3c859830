//! The loop: waits for signals, connections, output and deadlines, and lets each part do its step.
//!
//! It holds no rules of its own. Absent: threads; whatever happens, happens between two waits.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::command::Surroundings;
use crate::ledger::Ledger;
use crate::os;
use crate::peer::{Peer, Verdict};

/// Connections beyond this wait in the listener's queue.
const PEERS: usize = 256;

/// The hand at work.
#[derive(Debug)]
pub struct Hand {
    listener: UnixListener,
    signals: OwnedFd,
    home: PathBuf,
    ledger: Ledger,
    peers: Vec<Peer>,
}

impl Hand {
    /// Takes the listening socket; paths of requests are relative to `home`.
    pub fn new(listener: UnixListener, home: &Path, around: Surroundings) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let signals = os::child_signals()?;
        Ok(Self { listener, signals, home: home.to_owned(), ledger: Ledger::new(around), peers: Vec::new() })
    }

    /// Serves until the brain asks for the end of the box.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            self.wait()?;
            os::drain(&self.signals);
            while let Some((pid, status)) = os::reap() {
                self.ledger.on_exit(pid, status);
            }
            self.accept();
            let now = Instant::now();
            self.ledger.step(now);
            let mut ending = None;
            self.peers.retain_mut(|peer| {
                if ending.is_some() {
                    return true;
                }
                if peer.wants_to_read() && !peer.receive() {
                    return false;
                }
                match peer.step(&mut self.ledger, &self.home, now) {
                    Verdict::Stay => true,
                    Verdict::Close => false,
                    Verdict::Shutdown(grace_ms) => {
                        ending = Some(grace_ms);
                        true
                    }
                }
            });
            self.ledger.trim(|exec_id| self.peers.iter().any(|peer| peer.follows(exec_id)));
            if let Some(grace_ms) = ending {
                end_box(Duration::from_millis(grace_ms));
                for peer in &mut self.peers {
                    peer.say_done();
                }
                return Ok(());
            }
        }
    }

    fn accept(&mut self) {
        while self.peers.len() < PEERS {
            let Ok((stream, _)) = self.listener.accept() else { return };
            if stream.set_nonblocking(true).is_ok() {
                self.peers.push(Peer::new(stream));
            }
        }
    }

    /// Sleeps until something can be done.
    fn wait(&mut self) -> io::Result<()> {
        let wakes_at = self.ledger.wakes_at();
        let mut gone = Vec::new();
        {
            let mut fds = Vec::with_capacity(self.peers.len() + 4);
            for peer in &self.peers {
                let mut events = PollFlags::empty();
                events.set(PollFlags::IN, peer.wants_to_read());
                events.set(PollFlags::OUT, peer.wants_to_write());
                fds.push(PollFd::from_borrowed_fd(peer.stream.as_fd(), events));
            }
            fds.push(PollFd::new(&self.signals, PollFlags::IN));
            if self.peers.len() < PEERS {
                fds.push(PollFd::new(&self.listener, PollFlags::IN));
            }
            fds.extend(self.ledger.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let timeout = wakes_at.map(|at| {
                // A millisecond more, so that the wait does not end just before the deadline.
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                }
            });
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for (index, fd) in fds.iter().take(self.peers.len()).enumerate() {
                if fd.revents().intersects(PollFlags::HUP | PollFlags::ERR) && !fd.revents().contains(PollFlags::IN) {
                    gone.push(index);
                }
            }
        }
        for index in gone.into_iter().rev() {
            self.peers.swap_remove(index);
        }
        Ok(())
    }
}

/// Ends every process of the box: TERM, and KILL after the grace.
fn end_box(grace: Duration) {
    os::signal_box(libc::SIGTERM);
    os::signal_box(libc::SIGCONT);
    let until = Instant::now() + grace.min(Duration::from_secs(60));
    while Instant::now() < until {
        while os::reap().is_some() {}
        if !os::has_children() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    os::signal_box(libc::SIGKILL);
}
