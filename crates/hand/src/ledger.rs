//! Every command that was ever asked for, by its exec id: at most one run each.
//!
//! An entry is never removed, only its kept output is: by acknowledgement, or, from the oldest on,
//! when commands that are over keep more than [`KEPT_BYTES`] together. That costs some hundred bytes
//! per command for the life of the box, and buys that no id runs twice. Absent: connections
//! (followers look in here by id).

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::command::{Started, Surroundings};
use crate::os::ExitStatus;
use crate::wire::{Ended, ExecOutcome, ExecStart, Failure, FailureCode};

/// So much output of commands that are over is kept, framing included; the latest one's is kept
/// whatever its size, which its own cap bounds.
pub const KEPT_BYTES: u64 = 32 << 20;

/// One command.
#[derive(Debug)]
pub struct Item {
    /// Tells another command under the same id.
    fingerprint: u64,
    /// Absent if it could not be started.
    started: Option<Started>,
    outcome: Option<ExecOutcome>,
}

impl Item {
    /// How it ended, once it has.
    pub const fn outcome(&self) -> Option<&ExecOutcome> {
        self.outcome.as_ref()
    }

    /// Copies kept output from `offset`; see [`crate::spool::Spool::copy_to`].
    pub fn copy_to(&self, offset: u64, max: usize, out: &mut Vec<u8>) -> u64 {
        self.started.as_ref().map_or(0, |started| started.output.spool.copy_to(offset, max, out))
    }

    /// Bytes of kept output, framing included.
    pub fn kept(&self) -> u64 {
        self.started.as_ref().map_or(0, |started| started.output.spool.len())
    }

    /// Whether there is nothing more to do for it.
    fn at_rest(&self) -> bool {
        self.outcome.is_some() && self.started.as_ref().is_none_or(|started| started.output.at_end())
    }

    /// Drops the kept output of a command that is over; gives how much that was.
    fn forget(&mut self) -> u64 {
        let kept = self.kept();
        if let (Some(outcome), Some(started)) = (&mut self.outcome, &mut self.started) {
            outcome.output_dropped = outcome.stdout_bytes + outcome.stderr_bytes > 0;
            started.output.forget();
            return kept;
        }
        0
    }
}

/// All commands.
#[derive(Debug, Default)]
pub struct Ledger {
    items: HashMap<String, Item>,
    /// Those that run or whose pipes are open: what a step costs is not to grow with what is over.
    busy: Vec<String>,
    /// Those that are over and keep output, in the order in which they ended.
    keeping: VecDeque<String>,
    /// Bytes that these keep.
    kept: u64,
    space: Vec<u8>,
    /// What all commands have in common.
    around: Surroundings,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(around: Surroundings) -> Self {
        Self { around, ..Self::default() }
    }

    /// Starts a command, or finds the one with this id. True if it was there before.
    pub fn start(&mut self, request: &ExecStart, now: Instant) -> Result<bool, Failure> {
        let fingerprint = fingerprint(request);
        if let Some(item) = self.items.get(&request.exec_id) {
            if item.fingerprint == fingerprint {
                return Ok(true);
            }
            return Err(Failure {
                code: FailureCode::ExecConflict,
                message: format!("exec id {} was used for another command; use a new id", request.exec_id),
            });
        }
        if request.exec_id.is_empty() || request.exec_id.len() > 200 || request.exec_id.contains('\0') {
            return Err(Failure {
                code: FailureCode::BadRequest,
                message: "an exec id has 1 to 200 bytes and no NUL".into(),
            });
        }
        let item = match Started::start(request, &self.around, now) {
            Ok(started) => Item { fingerprint, started: Some(started), outcome: None },
            Err(message) => Item {
                fingerprint,
                started: None,
                outcome: Some(ExecOutcome {
                    ended: Ended::NotStarted { message },
                    duration_ms: 0,
                    stdout_bytes: 0,
                    stderr_bytes: 0,
                    output_dropped: false,
                }),
            },
        };
        if !item.at_rest() {
            self.busy.push(request.exec_id.clone());
        }
        self.items.insert(request.exec_id.clone(), item);
        Ok(false)
    }

    /// Finds a command.
    pub fn get(&self, exec_id: &str) -> Result<&Item, Failure> {
        self.items.get(exec_id).ok_or_else(|| unknown(exec_id))
    }

    /// Begins the end of a command; of one that is over, ends what it left behind.
    pub fn kill(&mut self, exec_id: &str, now: Instant) -> Result<(), Failure> {
        let item = self.items.get_mut(exec_id).ok_or_else(|| unknown(exec_id))?;
        if let Some(started) = &mut item.started {
            match item.outcome {
                None => started.end(Ended::Killed, now),
                Some(_) => started.kill_remains(),
            }
        }
        Ok(())
    }

    /// Drops the kept output of a command that is over.
    pub fn acknowledge(&mut self, exec_id: &str) -> Result<(), Failure> {
        let item = self.items.get_mut(exec_id).ok_or_else(|| unknown(exec_id))?;
        self.kept -= item.forget();
        self.keeping.retain(|keeping| keeping != exec_id);
        Ok(())
    }

    /// Drops kept output, the oldest first, until what is kept is within its bound. That of the
    /// latest command and what somebody is being sent stay.
    pub fn trim(&mut self, is_followed: impl Fn(&str) -> bool) {
        let mut spared = Vec::new();
        while self.kept > KEPT_BYTES && self.keeping.len() > 1 {
            let Some(oldest) = self.keeping.pop_front() else { break };
            if is_followed(&oldest) {
                spared.push(oldest);
            } else if let Some(item) = self.items.get_mut(&oldest) {
                self.kept -= item.forget();
            }
        }
        spared.into_iter().rev().for_each(|exec_id| self.keeping.push_front(exec_id));
    }

    /// A child of this process has ended; it need not be a command.
    pub fn on_exit(&mut self, pid: i32, status: ExitStatus) {
        for exec_id in &self.busy {
            let Some(item) = self.items.get_mut(exec_id).filter(|item| item.outcome.is_none()) else { continue };
            if let Some(started) = item.started.as_mut().filter(|started| started.leader() == pid) {
                started.on_exit(status);
            }
        }
    }

    /// Brings every command forward.
    pub fn step(&mut self, now: Instant) {
        let Self { items, busy, keeping, kept, space, around: _ } = self;
        busy.retain(|exec_id| {
            let Some(item) = items.get_mut(exec_id) else { return false };
            let Some(started) = &mut item.started else { return false };
            if item.outcome.is_some() {
                started.output.read(space);
            } else {
                item.outcome = started.step(now, space);
                if item.outcome.is_some() && started.output.spool.len() > 0 {
                    *kept += started.output.spool.len();
                    keeping.push_back(exec_id.clone());
                }
            }
            !item.at_rest()
        });
    }

    /// When [`Ledger::step`] wants to be called at the latest.
    pub fn wakes_at(&self) -> Option<Instant> {
        let running = self.busy().filter(|item| item.outcome.is_none());
        running.filter_map(|item| Some(item.started.as_ref()?.wakes_at())).min()
    }

    /// Every open output pipe.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.busy().filter_map(|item| item.started.as_ref()).flat_map(|started| started.output.fds())
    }

    fn busy(&self) -> impl Iterator<Item = &Item> {
        self.busy.iter().filter_map(|exec_id| self.items.get(exec_id))
    }
}

fn unknown(exec_id: &str) -> Failure {
    Failure {
        code: FailureCode::UnknownExec,
        message: format!("no command with the exec id {exec_id} ran in this box"),
    }
}

fn fingerprint(request: &ExecStart) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&request.argv, &request.env, &request.cwd).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a command that writes so many bytes, to its end.
    fn run(ledger: &mut Ledger, exec_id: &str, bytes: u64) {
        let request = ExecStart {
            exec_id: exec_id.to_owned(),
            argv: ["head", "-c", &bytes.to_string(), "/dev/zero"].map(Into::into).to_vec(),
            env: Vec::new(),
            cwd: None,
            time_limit_ms: 60_000,
            output_cap_bytes: 1 << 30,
            grace_ms: 0,
        };
        assert!(!ledger.start(&request, Instant::now()).unwrap());
        let leader = ledger.get(exec_id).unwrap().started.as_ref().unwrap().leader();
        let pid = rustix::process::Pid::from_raw(leader);
        while ledger.get(exec_id).unwrap().outcome().is_none() {
            ledger.step(Instant::now());
            if let Ok(Some(_)) = rustix::process::waitpid(pid, rustix::process::WaitOptions::NOHANG) {
                // What was written before the end has to be read before the end is heard.
                (0..100).for_each(|_| ledger.step(Instant::now()));
                ledger.on_exit(leader, ExitStatus::Code(0));
            }
        }
        assert_eq!(ledger.get(exec_id).unwrap().outcome().unwrap().stdout_bytes, bytes);
    }

    fn dropped(ledger: &Ledger) -> Vec<bool> {
        ["a", "b", "c", "d"].iter().map(|id| ledger.get(id).unwrap().outcome().unwrap().output_dropped).collect()
    }

    #[test]
    fn beyond_the_bound_the_oldest_output_goes_but_not_what_is_followed_and_not_the_latest() {
        let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let mut ledger = Ledger::new(Surroundings { env, file_bytes: None });
        for id in ["a", "b", "c"] {
            run(&mut ledger, id, 10 << 20);
        }
        ledger.trim(|_| false);
        assert_eq!(ledger.keeping, ["a", "b", "c"], "30 MiB are within the bound");
        run(&mut ledger, "d", 40 << 20);
        ledger.trim(|id| id == "a");
        assert_eq!(
            (dropped(&ledger), &ledger.keeping),
            (vec![false, true, true, false], &VecDeque::from(["a", "d"].map(String::from)))
        );
        ledger.trim(|_| false);
        assert_eq!(dropped(&ledger), [true, true, true, false]);
        assert_eq!(ledger.kept, ledger.get("d").unwrap().kept());
        ledger.acknowledge("d").unwrap();
        assert_eq!((ledger.kept, ledger.keeping.len(), ledger.busy.len()), (0, 0, 0));
    }
}
