//! A process of the host that may have ended since it was written down.
//!
//! Pids are used again; a pid with its start time is not. Signals go through a descriptor that was
//! checked first, so a stranger with the same pid is never hit. Absent: waiting for children (the
//! box's first process is not ours).

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its pid on the host.
    pub pid: i32,
    /// When it started, in clock ticks after boot.
    pub started: u64,
}

impl Identity {
    /// Whether it has child processes but those of commands whose exec id begins with `but`; for the
    /// first process of a box: whether anything else lives in the box, since what loses its parent
    /// becomes a child of the first. Yes where the kernel does not tell.
    pub fn has_children_but(self, but: &str) -> bool {
        let pid = self.pid;
        let Ok(list) = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) else { return true };
        list.split_ascii_whitespace().any(|child| but.is_empty() || !carries_mark(child, but))
    }

    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        if matches!(fields.next()?, "Z" | "X" | "x") {
            return None;
        }
        Some(Self { pid, started: fields.nth(18)?.parse().ok()? })
    }

    /// Whether it still runs.
    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Ends it and waits until it, and with it its pid namespace, is gone. False if it is still
    /// there after the patience.
    pub fn kill(self, patience: Duration) -> bool {
        let Some(handle) = self.handle() else { return true };
        let _ = pidfd_send_signal(&handle, Signal::KILL);
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&handle, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&timeout)), Ok(ready) if ready > 0)
    }

    fn handle(self) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Checked after opening: the descriptor is now bound to whoever has the pid.
        self.alive().then_some(handle)
    }
}

/// All processes of the pid namespace whose first process this is: itself and all that descend from it,
/// since there an orphan becomes a child of the first. (To ask the kernel for the namespace of each takes
/// rights over them that an ordinary user does not have.)
pub fn in_namespace_of(first: Identity) -> Vec<Pid> {
    if !first.alive() {
        return Vec::new();
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in pids.filter_map(|pid| Some((pid, parent_of(pid)?))) {
        children.entry(parent).or_default().push(pid);
    }
    let (mut found, mut open) = (Vec::new(), vec![first.pid]);
    while let Some(pid) = open.pop() {
        found.extend(Pid::from_raw(pid));
        open.extend(children.remove(&pid).unwrap_or_default());
    }
    found
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether a process is there and was not stopped.
pub fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'T' | 't' | 'Z' | 'X' | 'x'))
}

/// Whether a process was started by a command whose exec id begins with `start`.
fn carries_mark(pid: &str, start: &str) -> bool {
    let mark = format!("{}={start}", hand::wire::EXEC_MARK);
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_that_was_used_again_is_another_process_and_is_not_killed() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.alive());
        let before_me = Identity { started: me.started - 1, ..me };
        assert!(!before_me.alive());
        assert!(before_me.kill(Duration::from_secs(1)), "nothing to kill counts as killed");
    }
}
