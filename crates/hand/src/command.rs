//! One command: how it is started, watched and ended.
//!
//! Its life is running → (ending) → over. Ending begins by time limit, output cap or request, and
//! lasts until no process of the command is left. Absent: the clock (`now` is an argument) and who
//! hears of it (see `ledger`).
#![expect(clippy::disallowed_methods, reason = "starting programs is what the hand is for")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::os::{self, ExitStatus};
use crate::output::Output;
use crate::tree::{self, Root};
use crate::wire::{EXEC_MARK, Ended, ExecOutcome, ExecStart};

/// Between two looks at the process table while a command is being ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// After so many looks with KILL everything in the box is killed: something forks faster than one
/// process after the other can be signalled.
const LOOKS_BEFORE_BOX: u32 = 60;
/// How a shell tells that its program was ended by SIGXFSZ.
const SHELLS_SIGXFSZ: i32 = 128 + libc::SIGXFSZ;
/// A time limit that is none.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why a command is being ended, and how far that is.
#[derive(Debug)]
struct Ending {
    why: Ended,
    /// When TERM becomes KILL.
    kill_at: Instant,
    next_look: Instant,
    looks_with_kill: u32,
}

/// What all commands of a box have in common.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Their environment, before what each adds.
    pub env: Vec<(String, String)>,
    /// The largest file that they may write.
    pub file_bytes: Option<u64>,
}

/// A command that was started.
#[derive(Debug)]
pub struct Started {
    exec_id: String,
    leader: i32,
    leader_started: u64,
    began: Instant,
    deadline: Instant,
    grace: Duration,
    /// Whether its files have a largest size.
    limits_files: bool,
    exit: Option<ExitStatus>,
    ending: Option<Ending>,
    /// Its pipes and what is kept of them.
    pub output: Output,
}

impl Started {
    /// Starts a command. The error is the text for [`Ended::NotStarted`].
    pub fn start(request: &ExecStart, around: &Surroundings, now: Instant) -> Result<Self, String> {
        let (program, arguments) = request.argv.split_first().ok_or("the command is empty")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_clear().envs(around.env.iter().map(|(name, value)| (name, value)));
        command.envs(request.env.iter().map(|(name, value)| (name, value)));
        command.env(EXEC_MARK, &request.exec_id);
        if let Some(folder) = &request.cwd {
            if !folder.is_dir() {
                return Err(format!("the working folder {} does not exist", folder.display()));
            }
            command.current_dir(folder);
        }
        os::as_command(&mut command, around.file_bytes);
        let mut child =
            command.spawn().map_err(|source| format!("cannot start {}: {source}", program.to_string_lossy()))?;
        let leader = i32::try_from(child.id()).unwrap_or(i32::MAX);
        // Under memory pressure the command goes first; without the hand the whole box is lost.
        let _ = std::fs::write(format!("/proc/{leader}/oom_score_adj"), "300");
        let output = Output::of(&mut child, request.output_cap_bytes).map_err(|source| {
            os::signal(leader, libc::SIGKILL);
            format!("cannot read the output of {}: {source}", program.to_string_lossy())
        })?;
        Ok(Self {
            exec_id: request.exec_id.clone(),
            leader,
            leader_started: tree::start_of(leader).unwrap_or(0),
            began: now,
            deadline: now + Duration::from_millis(request.time_limit_ms).min(A_YEAR),
            grace: Duration::from_millis(request.grace_ms).min(A_YEAR),
            limits_files: around.file_bytes.is_some(),
            exit: None,
            ending: None,
            output,
        })
    }

    /// The pid of its first process.
    pub const fn leader(&self) -> i32 {
        self.leader
    }

    /// Its first process has ended.
    pub const fn on_exit(&mut self, status: ExitStatus) {
        self.exit = Some(status);
    }

    /// When [`Started::step`] wants to be called at the latest.
    pub fn wakes_at(&self) -> Instant {
        self.ending.as_ref().map_or(self.deadline, |ending| ending.next_look)
    }

    /// Begins the end of the command. The first reason stays.
    pub fn end(&mut self, why: Ended, now: Instant) {
        if self.ending.is_some() {
            return;
        }
        for pid in self.members() {
            os::signal(pid, libc::SIGTERM);
            // A stopped process hears TERM only when it goes on.
            os::signal(pid, libc::SIGCONT);
        }
        self.ending = Some(Ending { why, kill_at: now + self.grace, next_look: now, looks_with_kill: 0 });
    }

    /// Kills what the command left behind when it was over.
    pub fn kill_remains(&self) {
        for pid in self.members() {
            os::signal(pid, libc::SIGKILL);
        }
    }

    /// Brings the command forward: reads its output, sees to its limits, and gives its outcome once
    /// it is over.
    pub fn step(&mut self, now: Instant, space: &mut Vec<u8>) -> Option<ExecOutcome> {
        self.output.read(space);
        if self.ending.is_none() {
            // An exit that was seen counts before a limit that passed in the same moment.
            if let Some(exit) = self.exit {
                return Some(self.over(self.ended_by(exit), now));
            }
            if self.output.past_cap {
                self.end(Ended::OutputCapReached, now);
            } else if now >= self.deadline {
                self.end(Ended::TimedOut, now);
            }
        }
        let ending = self.ending.as_mut()?;
        if now < ending.next_look {
            return None;
        }
        ending.next_look = now + LOOK_EVERY;
        let (why, kill) = (ending.why.clone(), now >= ending.kill_at);
        let alive = self.members();
        if alive.is_empty() && self.exit.is_some() {
            self.output.read(space);
            return Some(self.over(why, now));
        }
        if kill {
            // All are stopped before the first is killed, so that none can fork for another.
            for signal in [libc::SIGSTOP, libc::SIGKILL] {
                for pid in &alive {
                    os::signal(*pid, signal);
                }
            }
            if let Some(ending) = self.ending.as_mut() {
                ending.looks_with_kill += 1;
                if ending.looks_with_kill.is_multiple_of(LOOKS_BEFORE_BOX) {
                    os::signal_box(libc::SIGKILL);
                }
            }
        }
        None
    }

    fn over(&mut self, ended: Ended, now: Instant) -> ExecOutcome {
        self.output.close();
        ExecOutcome {
            ended,
            duration_ms: u64::try_from(now.duration_since(self.began).as_millis()).unwrap_or(u64::MAX),
            stdout_bytes: self.output.stdout_bytes,
            stderr_bytes: self.output.stderr_bytes,
            output_dropped: false,
        }
    }

    const fn ended_by(&self, exit: ExitStatus) -> Ended {
        match exit {
            _ if self.output.past_cap => Ended::OutputCapReached,
            ExitStatus::Signal(libc::SIGXFSZ) | ExitStatus::Code(SHELLS_SIGXFSZ) if self.limits_files => {
                Ended::FileTooLarge
            }
            ExitStatus::Code(code) => Ended::Exited { code },
            ExitStatus::Signal(signal) => Ended::Signaled { signal },
        }
    }

    fn members(&self) -> Vec<i32> {
        tree::members(Root { exec_id: &self.exec_id, leader: self.leader, started: self.leader_started })
    }
}
