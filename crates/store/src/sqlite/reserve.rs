//! Room that is kept back, so that a full disk does not keep a task from being called off.
//!
//! ```text
//! reserve (8 MiB, allocated) ── an essential write meets a full disk ──▶ one slice is given up, the write tried again
//!          ▲                                                                 … until it is stored or nothing is left
//!          └────────────── there is plenty of room again: made whole ◀─────────┘
//! ```
//!
//! It is given up in slices because whoever fills the disk goes on filling it: a slice that is lost to
//! them leaves the next one. Absent: room for ordinary writes. They are refused, and nothing is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

const FILE: &str = "reserve";
/// In how many slices it is given up.
const SLICES: u64 = 8;
/// It is made only where the disk has so many times its size, so that it is never what fills the disk.
const PLENTY: u64 = 3;

/// The file that takes up room.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// Its size when it is whole; 0 for none.
    whole_bytes: u64,
    /// Its size now.
    bytes: u64,
}

impl Reserve {
    /// The reserve of a data folder as it lies there.
    pub fn of(folder: &Path, whole_bytes: u64) -> Self {
        let path = folder.join(FILE);
        let bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        Self { path, whole_bytes, bytes }
    }

    /// Whether it should be larger than it is.
    pub const fn is_short(&self) -> bool {
        self.bytes < self.whole_bytes
    }

    /// Makes it whole again where there is plenty of room. A failure leaves it as it is.
    pub fn refill(&mut self) {
        if !self.is_short() || self.room().is_none_or(|room| room < self.whole_bytes.saturating_mul(PLENTY)) {
            return;
        }
        match self.fill() {
            Ok(()) => self.bytes = self.whole_bytes,
            Err(error) => {
                tracing::warn!(%error, "no room could be kept back for a full disk");
                // A file that is only partly there takes up what others need.
                self.set(0);
            }
        }
    }

    /// Gives up a slice. `false`: nothing is left to give.
    pub fn give_up_slice(&mut self) -> bool {
        if self.bytes == 0 {
            return false;
        }
        let slice = (self.whole_bytes / SLICES).max(1);
        self.set(self.bytes.saturating_sub(slice));
        tracing::warn!(left_bytes = self.bytes, "the disk is full; room that was kept back is given up");
        true
    }

    fn set(&mut self, bytes: u64) {
        let cut = OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(bytes));
        // What can't be cut is of no more use.
        self.bytes = if cut.is_ok() { bytes } else { 0 };
    }

    fn fill(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.whole_bytes) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(&mut file, self.whole_bytes),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes that this program may still use on the disk.
    fn room(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(self.path.parent()?).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

fn write_zeros(file: &mut File, bytes: u64) -> io::Result<()> {
    let block = vec![0_u8; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(block.get(..part).unwrap_or(&block))?;
        left -= part as u64;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn it_takes_up_room_gives_it_up_in_slices_and_is_made_whole_again() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = || std::fs::metadata(dir.path().join(FILE)).unwrap().blocks() * 512;
        let mut reserve = Reserve::of(dir.path(), 1 << 20);
        assert!(reserve.is_short() && !reserve.give_up_slice());
        reserve.refill();
        assert!(!reserve.is_short());
        assert!(blocks() >= 1 << 20, "it is only {} bytes", blocks());
        assert!(!Reserve::of(dir.path(), 1 << 20).is_short(), "it outlives the process");
        let mut slices = 0;
        while reserve.give_up_slice() {
            slices += 1;
        }
        assert_eq!((slices, blocks()), (SLICES, 0));
        reserve.refill();
        assert!(!reserve.is_short() && blocks() >= 1 << 20);
    }

    #[test]
    fn it_is_not_made_where_it_would_take_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::of(dir.path(), u64::MAX / 2);
        reserve.refill();
        assert!(reserve.is_short() && !dir.path().join(FILE).exists());
        assert!(!Reserve::of(dir.path(), 0).is_short());
    }
}
