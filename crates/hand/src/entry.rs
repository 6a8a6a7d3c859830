//! The hand's entry: what the launcher puts on the command line, and the process's own settings.
//!
//! Absent: the environment. What is in it is the box's built environment, meant for the commands.

use std::ffi::{OsStr, OsString};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use crate::serve::Hand;
use crate::{door, os};

/// Runs the hand until the brain ends the box; gives the exit code.
///
/// `args`: `--listen-fd N` (a bound, listening unix socket) and `--home DIR` (the working folder of
/// commands, and what relative paths of requests start from), `--pack-fd N` (the folder that this
/// program was started from, if the launcher gave it along: it is let go of), `--door-fd N` (the folder with the
/// socket of the way out, see [`crate::door`]), `--file-bytes N` (the largest file that a command may write)
#[must_use]
pub fn main(args: &[OsString]) -> i32 {
    match run(args) {
        Ok(()) => 0,
        Err(message) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "hand: {message}");
            1
        }
    }
}

fn run(args: &[OsString]) -> Result<(), String> {
    let (mut listen_fd, mut pack_fd, mut door_fd, mut file_bytes) = (None, None, None, None);
    let mut home = PathBuf::from("/");
    let mut rest = args.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{} needs a value", name.to_string_lossy()))?;
        match name.as_os_str() {
            name if name == OsStr::new("--listen-fd") => {
                listen_fd = value.to_str().and_then(|text| text.parse().ok());
            }
            name if name == OsStr::new("--pack-fd") => pack_fd = value.to_str().and_then(|text| text.parse().ok()),
            name if name == OsStr::new("--door-fd") => door_fd = value.to_str().and_then(|text| text.parse().ok()),
            name if name == OsStr::new("--file-bytes") => {
                file_bytes = value.to_str().and_then(|text| text.parse().ok());
            }
            name if name == OsStr::new("--home") => home = PathBuf::from(value),
            other => return Err(format!("unknown argument {}", other.to_string_lossy())),
        }
    }
    let listen_fd = listen_fd.ok_or("--listen-fd N is missing: only the launcher of a sandbox starts the hand")?;
    let listener = UnixListener::from(os::inherited(listen_fd).map_err(|error| format!("--listen-fd: {error}"))?);
    if let Some(fd) = pack_fd {
        // Nothing of the host is to be in reach of this process longer than it needs it.
        drop(os::inherited(fd).map_err(|error| format!("--pack-fd: {error}"))?);
    }
    os::name_process(c"hand");
    // Closes /proc/1/fd, /proc/1/mem and ptrace to everything else in the box.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // Outside a pid namespace orphans come to us as well; inside one this changes nothing.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    std::env::set_current_dir(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    let door = door_fd.map(os::inherited).transpose().map_err(|error| format!("--door-fd: {error}"))?;
    // After the signals are blocked, so that the door's thread is not the one to get them.
    let hand = Hand::new(listener, &home, file_bytes).map_err(|error| format!("cannot begin: {error}"))?;
    door.map(door::open).transpose().map_err(|error| format!("cannot open the way out: {error}"))?;
    hand.run().map_err(|error| format!("cannot wait: {error}"))
}
