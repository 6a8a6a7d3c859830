//! What a provider can do on this machine, for `doctor` and for whoever chooses one.
//!
//! Found out by trying, never guessed from a name. Absent: what a caller may ask for (see `port`).

use serde::{Deserialize, Serialize};

use crate::error::Problem;

/// How strong the wall is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Namespaces on the host's kernel.
    SharedKernel,
    /// A kernel in user space.
    UserKernel,
    /// A virtual machine.
    Vm,
}

/// Which users exist in a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UidMap {
    /// A whole range: packages with foreign owners, `su`, `chown` work.
    Range,
    /// Only root.
    Single,
}

/// Which control groups hold the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupSupport {
    /// The unified hierarchy.
    V2,
    /// Single controllers; which of them.
    V1 {
        /// Memory limit.
        memory: bool,
        /// Process limit.
        pids: bool,
        /// Processor share.
        cpu: bool,
    },
    /// None that this program may write.
    None,
}

impl CgroupSupport {
    /// Whether a memory limit holds.
    #[must_use]
    pub const fn limits_memory(self) -> bool {
        matches!(self, Self::V2 | Self::V1 { memory: true, .. })
    }
}

/// What a provider can do on this machine, found out by trying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The provider's name.
    pub provider: String,
    /// True if sandboxes start.
    pub usable: bool,
    /// The wall.
    pub isolation: Isolation,
    /// Users in a box.
    pub uid_map: UidMap,
    /// Limits.
    pub cgroup: CgroupSupport,
    /// True if a folder that came with a layer can be renamed by `rename(2)`.
    pub folder_rename: bool,
    /// True if a box has a network beyond its own loopback.
    pub network: bool,
    /// True if a limit on disk space holds.
    pub disk_limit: bool,
    /// True if Landlock is a second wall around a box's files.
    pub landlock: bool,
    /// What is lacking, worst first.
    pub problems: Vec<Problem>,
}
