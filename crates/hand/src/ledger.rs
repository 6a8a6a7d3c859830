//! Every command that was ever asked for, by its exec id: at most one run each.
//!
//! An entry is never removed, only its kept output is (by acknowledgement); that costs some hundred
//! bytes per command for the life of the box, and buys that no id runs twice. Absent: connections
//! (followers look in here by id).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::command::Started;
use crate::os::ExitStatus;
use crate::wire::{Ended, ExecOutcome, ExecStart, Failure, FailureCode};

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
}

/// All commands.
#[derive(Debug, Default)]
pub struct Ledger {
    items: HashMap<String, Item>,
    space: Vec<u8>,
}

impl Ledger {
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
        let item = match Started::start(request, now) {
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
        if let (Some(outcome), Some(started)) = (&mut item.outcome, &mut item.started) {
            outcome.output_dropped = outcome.stdout_bytes + outcome.stderr_bytes > 0;
            started.output.forget();
        }
        Ok(())
    }

    /// A child of this process has ended; it need not be a command.
    pub fn on_exit(&mut self, pid: i32, status: ExitStatus) {
        let running = self.items.values_mut().filter(|item| item.outcome.is_none());
        for started in running.filter_map(|item| item.started.as_mut()) {
            if started.leader() == pid {
                started.on_exit(status);
            }
        }
    }

    /// Brings every command forward.
    pub fn step(&mut self, now: Instant) {
        for item in self.items.values_mut() {
            let Some(started) = &mut item.started else { continue };
            match item.outcome {
                None => item.outcome = started.step(now, &mut self.space),
                Some(_) => started.output.read(&mut self.space),
            }
        }
    }

    /// When [`Ledger::step`] wants to be called at the latest.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.items
            .values()
            .filter(|item| item.outcome.is_none())
            .filter_map(|item| Some(item.started.as_ref()?.wakes_at()))
            .min()
    }

    /// Every open output pipe.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.items.values().filter_map(|item| item.started.as_ref()).flat_map(|started| started.output.fds())
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
