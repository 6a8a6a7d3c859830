//! The hand's entry: what the launcher hands over, and the process's own settings.
//!
//! The launcher does not start a program: the process that it made into a box's first one calls
//! [`run`] and is the hand from then on. So the hand runs whatever root a box has (another C library or
//! none), and nothing of it is to be found in the box. Absent: the environment of the process, which is
//! empty; the commands' one is handed over.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use crate::command::Surroundings;
use crate::serve::Hand;
use crate::{door, os};

/// What a hand starts with.
#[derive(Debug)]
pub struct Setup {
    /// A bound, listening unix socket.
    pub listener: OwnedFd,
    /// The folder with the socket of the way out, see [`crate::door`].
    pub door: Option<OwnedFd>,
    /// The working folder of commands, and what relative paths of requests start from.
    pub home: PathBuf,
    /// The whole environment of commands.
    pub env: Vec<(String, String)>,
    /// The largest file that a command may write, in bytes.
    pub file_bytes: Option<u64>,
}

/// Is the hand until the brain ends the box.
///
/// # Errors
/// If it cannot begin, or not wait for what happens.
pub fn run(setup: Setup) -> io::Result<()> {
    os::name_process(c"hand");
    // Closes /proc/1/fd, /proc/1/mem and ptrace to everything else in the box.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // Outside a pid namespace orphans come to us as well; inside one this changes nothing.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    std::env::set_current_dir(&setup.home)?;
    let surroundings = Surroundings { env: setup.env, file_bytes: setup.file_bytes };
    // Before the door's thread is made, so that it is not the one to get the signals blocked here.
    let hand = Hand::new(UnixListener::from(setup.listener), &setup.home, surroundings)?;
    setup.door.map(door::open).transpose()?;
    hand.run()
}
