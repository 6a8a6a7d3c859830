//! What the launcher is told and what it says. Absent: anything it would have to decide.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::local::cgroup::Group;

/// Everything about one start. Relative paths start at `run`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The process that waits for the launcher; without it nothing is started.
    pub parent: i32,
    /// The box's folder on the host; becomes the launcher's working folder, so that mounts show
    /// relative names.
    pub run: PathBuf,
    /// Lower folders, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Who mounts the root, and how.
    pub root: RootMount,
    /// Users.
    pub ids: IdMap,
    /// Host paths that are bound read-only.
    pub binds: Vec<Bind>,
    /// True if the box's root is not the host's, and may be of another kind of machine.
    pub own_root: bool,
    /// The host folder in which the box's way out listens.
    pub door: Option<PathBuf>,
    /// Working folder of commands.
    pub workdir: PathBuf,
    /// The whole environment of the box.
    pub env: Vec<(String, String)>,
    /// Groups to make and join.
    pub groups: Vec<Group>,
    /// Processes, also as a resource limit.
    pub pids: u32,
    /// Open files of one process.
    pub open_files: u32,
    /// Largest file that a process may write, in bytes.
    pub file_bytes: Option<u64>,
    /// This boot, for the pid file.
    pub boot: String,
}

/// How the overlay comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootMount {
    /// True: mounted with the host's rights, so that folders of layers can be renamed. False:
    /// mounted inside the user namespace.
    pub by_host: bool,
    /// Use the mount call that kernels before 6.8 understand.
    pub classic: bool,
}

/// Which users of the host the box's users are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The host's user that is the box's root.
    pub outer_uid: u32,
    /// The host's group that is the box's root group.
    pub outer_gid: u32,
    /// How many.
    pub count: u32,
}

/// A host path in the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// On the host.
    pub from: PathBuf,
    /// In the box, absolute.
    pub at: PathBuf,
    /// True if its mount point may have to be made.
    pub make: bool,
}

/// One line of the launcher's output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The box's first process exists and is written down.
    Running {
        /// Its pid on the host.
        pid: i32,
    },
    /// That process is the hand: what is asked of its socket is answered.
    Ready,
    /// A step failed; nothing runs.
    Failed(Failed),
}

/// A failed step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Which.
    pub step: Step,
    /// The system's error number.
    pub errno: i32,
    /// What was being done.
    pub detail: String,
}

/// The steps of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Understanding the plan.
    Plan,
    /// The hand's socket.
    Socket,
    /// Making and joining control groups.
    Groups,
    /// Making the namespaces.
    Namespaces,
    /// Writing the id maps.
    IdMaps,
    /// Writing the pid file.
    PidFile,
    /// The overlay.
    Overlay,
    /// A read-only bind.
    Bind,
    /// `/proc`.
    Proc,
    /// `/dev`.
    Dev,
    /// Changing the root.
    Pivot,
    /// Looking at what the root is.
    Root,
    /// Loopback.
    Loopback,
    /// Resource limits, capabilities, filter.
    Confine,
    /// Becoming the hand.
    Hand,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plan => "plan",
            Self::Socket => "socket",
            Self::Groups => "control groups",
            Self::Namespaces => "namespaces",
            Self::IdMaps => "id maps",
            Self::PidFile => "pid file",
            Self::Overlay => "overlay",
            Self::Bind => "bind",
            Self::Proc => "proc",
            Self::Dev => "dev",
            Self::Pivot => "pivot",
            Self::Root => "root",
            Self::Loopback => "loopback",
            Self::Confine => "confine",
            Self::Hand => "hand",
        })
    }
}

/// Names the step of a failed call.
pub trait AtStep<T> {
    /// Adds step and detail.
    fn at(self, step: Step, detail: impl FnOnce() -> String) -> Result<T, Failed>;
}

impl<T, E: Into<std::io::Error>> AtStep<T> for Result<T, E> {
    fn at(self, step: Step, detail: impl FnOnce() -> String) -> Result<T, Failed> {
        self.map_err(|error| {
            let error = error.into();
            let errno = error.raw_os_error().unwrap_or(0);
            Failed { step, errno, detail: format!("{}: {error}", detail()) }
        })
    }
}
