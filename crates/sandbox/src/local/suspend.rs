//! Boxes that hold still: no process of theirs runs, none is lost.
//!
//! By the freezer of the box's control groups where there is one, else by stopping every process of
//! its pid namespace. A marker in the box's folder is written before and removed after, so whoever
//! finds the marker and lets the box go on is right at any time. Everything that is asked of the hand
//! does that first: a request never waits for a box that holds still. Absent: freeing memory (the
//! kernel swaps out what rests, if it has where to).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::id::SandboxId;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::StorageContext as _;
use crate::local::boxes::Boxes;
use crate::local::process::{self, Identity};
use crate::port::SandboxError;

/// The marker's name in a box's folder.
const MARKER: &str = "suspended";
/// How often is looked whether all processes hold still, and the pause between two looks. One that
/// waits for a disk in the kernel takes part only afterwards.
const LOOKS: u32 = 2500;
const PAUSE: Duration = Duration::from_millis(2);

impl Boxes {
    /// Lets no process of a box run.
    pub fn suspend(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let gone = || SandboxError::Gone { id: id.clone(), hint: None };
        let first = self.layout.living(id).ok_or_else(gone)?;
        let groups = self.layout.record(id)?.map(|record| record.cgroups).unwrap_or_default();
        let run = self.layout.run(id);
        let marker = run.join(MARKER);
        fs::write(&marker, first.pid.to_string()).doing("write", &marker)?;
        let still = match freezer(&groups) {
            Some((file, freezer)) => freezer.freeze(&file).doing("freeze", &file)?,
            None => stop_all(first),
        };
        if still {
            return Ok(());
        }
        wake(&run, &groups).doing("let go on", &run)?;
        Err(SandboxError::Start { step: "suspend".into(), detail: "some of its processes do not hold still".into() })
    }

    /// Lets them run again. A box that was not suspended just goes on.
    pub fn resume(&self, id: &SandboxId) -> Result<(), SandboxError> {
        if self.layout.living(id).is_none() {
            return Err(SandboxError::Gone { id: id.clone(), hint: None });
        }
        let groups = self.layout.record(id)?.map(|record| record.cgroups).unwrap_or_default();
        let run = self.layout.run(id);
        wake(&run, &groups).doing("let go on", &run)
    }

    /// Whether a box was suspended and not resumed.
    pub fn is_suspended(&self, id: &SandboxId) -> bool {
        self.layout.run(id).join(MARKER).exists()
    }
}

/// Lets the box of this folder go on if it was suspended. Costs one look at a file if it was not.
pub fn wake(run: &Path, groups: &[PathBuf]) -> io::Result<()> {
    let marker = run.join(MARKER);
    let first = match fs::read_to_string(&marker) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    match freezer(groups) {
        Some((file, freezer)) => freezer.thaw(&file)?,
        None => {
            let first = first.trim().parse().ok().and_then(Identity::of);
            for pid in first.map(process::in_namespace_of).unwrap_or_default() {
                let _ = kill_process(pid, Signal::CONT);
            }
        }
    }
    match fs::remove_file(&marker) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The two kinds of freezer.
#[derive(Debug, Clone, Copy)]
enum Freezer {
    V1,
    V2,
}

/// The file that freezes a box, if one of its groups has it.
fn freezer(groups: &[PathBuf]) -> Option<(PathBuf, Freezer)> {
    let kinds = [("cgroup.freeze", Freezer::V2), ("freezer.state", Freezer::V1)];
    let mut files = groups.iter().flat_map(|group| kinds.map(|(name, kind)| (group.join(name), kind)));
    files.find(|(file, _)| file.exists())
}

impl Freezer {
    /// False if not all hold still in time.
    fn freeze(self, file: &Path) -> io::Result<bool> {
        for _ in 0..LOOKS {
            // In version 1 writing again takes in what was born meanwhile.
            fs::write(file, if matches!(self, Self::V1) { "FROZEN" } else { "1" })?;
            let still = match self {
                Self::V1 => fs::read_to_string(file)?.trim() == "FROZEN",
                Self::V2 => {
                    let events = fs::read_to_string(file.with_file_name("cgroup.events"))?;
                    events.lines().any(|line| line == "frozen 1")
                }
            };
            if still {
                return Ok(true);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(false)
    }

    fn thaw(self, file: &Path) -> io::Result<()> {
        fs::write(file, if matches!(self, Self::V1) { "THAWED" } else { "0" })
    }
}

/// Stops every process of a pid namespace: its first, then whoever is found, until a look finds
/// nobody who runs. False if one of them does not stop in time.
fn stop_all(first: Identity) -> bool {
    let halt = |pid: Pid| kill_process(pid, Signal::STOP).is_ok();
    let Some(pid) = Pid::from_raw(first.pid) else { return true };
    if !first.alive() || !halt(pid) {
        return true;
    }
    for _ in 0..LOOKS {
        let running: Vec<Pid> = process::in_namespace_of(first).into_iter().filter(|pid| process::runs(*pid)).collect();
        if running.is_empty() {
            return true;
        }
        for pid in running {
            halt(pid);
        }
        std::thread::sleep(PAUSE);
    }
    false
}
