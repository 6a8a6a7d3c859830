//! How much disk layers and boxes take.
//!
//! Counted in blocks, as the filesystem does, every file once in its tree. Layers do not change, so
//! each is walked once in the life of this process; flattened layers share files with those that
//! they were made of, so a sum over layers is the most that they can take. Absent: what a process
//! holds open without a name (only the filesystem's free space tells of that).

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use crate::error::StorageContext as _;
use crate::local::boxes::Boxes;
use crate::port::{SandboxError, Usage};
use crate::walk::{Step, survey};

/// Blocks of this size are what the system counts in.
const BLOCK_BYTES: u64 = 512;
/// How often a tree is walked again that changed under the walk.
const TRIES: u32 = 3;

/// Sizes of layers that were walked, by their names.
#[derive(Debug, Default)]
pub struct Sizes(Mutex<HashMap<String, u64>>);

/// What a tree takes, also while it changes.
pub fn measure(root: &Path) -> u64 {
    let mut most = 0;
    for _ in 0..TRIES {
        let (mut bytes, mut linked) = (0_u64, HashSet::new());
        let whole = survey(root, |step| {
            let Step::Entry { folder, name, kind } = step else { return Ok::<_, Errno>(()) };
            // Gone again, or out of reach.
            let Ok(about) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
            let several = kind != FileType::Directory && about.st_nlink > 1;
            if !several || linked.insert((about.st_dev, about.st_ino)) {
                bytes += u64::try_from(about.st_blocks).unwrap_or(0) * BLOCK_BYTES;
            }
            Ok(())
        });
        most = most.max(bytes);
        if whole.is_ok() {
            return bytes;
        }
    }
    most
}

impl Boxes {
    /// What the layer of this name takes.
    pub fn layer_bytes(&self, name: &str) -> u64 {
        let known = self.sizes.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        known.unwrap_or_else(|| {
            let bytes = measure(&self.layout.layer_named(name));
            self.sizes.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), bytes);
            bytes
        })
    }

    /// What the filesystem of the data folder has left for others than root.
    pub fn free_bytes(&self) -> Result<u64, SandboxError> {
        let root = self.layout.root();
        let about = rustix::fs::statvfs(root).doing("ask for the free space of", root)?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }

    /// What everything takes.
    pub fn usage(&self) -> Result<Usage, SandboxError> {
        let names = self.layout.layer_names();
        {
            let mut known = self.sizes.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|name, _| names.contains(name));
        }
        let boxes = self.layout.boxes();
        Ok(Usage {
            layers_bytes: names.iter().map(|name| self.layer_bytes(name)).sum(),
            boxes_bytes: boxes.iter().map(|id| measure(&self.layout.run(id).join("u"))).sum(),
            free_bytes: self.free_bytes()?,
        })
    }
}
