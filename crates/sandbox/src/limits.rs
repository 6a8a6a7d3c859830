//! What a box may take of the machine, and what boxes take of its disk.
//!
//! Absent: what happens to who takes more (each limit has an ending of its own, [`crate::Ended`]).

use serde::{Deserialize, Serialize};

/// Limits of one box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of all processes together, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Processor time in thousandths of one processor; none means no limit.
    pub cpu_millis: Option<u32>,
    /// Open files of one process.
    pub open_files: u32,
    /// Largest file that a process may write, in bytes; none means no limit.
    #[serde(default)]
    pub file_bytes: Option<u64>,
    /// Disk space of the box's own changes, in bytes; none means no limit. Commands that pass it are
    /// ended ([`crate::Ended::DiskFull`]); it may be passed by what is written until that is noticed, see
    /// [`crate::Capabilities::disk_limit`].
    #[serde(default)]
    pub disk_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 4 << 30,
            pids: 2048,
            cpu_millis: None,
            open_files: 16_384,
            file_bytes: None,
            disk_bytes: None,
        }
    }
}

/// What takes disk space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Layers, in bytes; a file that is in several layers counts in each.
    pub layers_bytes: u64,
    /// Boxes' own changes, in bytes. What is being removed is in neither.
    pub boxes_bytes: u64,
    /// What the filesystem has left, in bytes.
    pub free_bytes: u64,
}
