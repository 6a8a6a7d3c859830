//! Looking for byte strings in a tree at rest.
//!
//! Every regular file is read once, however many strings are looked for. Absent: looking into
//! packed files; what was compressed is not found.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::Path;

use aho_corasick::AhoCorasick;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::port::{FoundBytes, SandboxError};
use crate::walk::{Step, walk};

/// Why a walk ends early.
enum End {
    Found(usize),
    Failed(std::io::Error),
}

impl From<Errno> for End {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno.into())
    }
}

/// The first of `patterns` that is in a file, name or link below `root`. No tree holds nothing.
pub fn search(root: &Path, patterns: &[Vec<u8>]) -> Result<Option<FoundBytes>, SandboxError> {
    if patterns.is_empty() || !root.exists() {
        return Ok(None);
    }
    let failed = |path: &Path, source| SandboxError::Storage { doing: "search", path: path.to_owned(), source };
    let finder = AhoCorasick::new(patterns).map_err(|error| failed(root, std::io::Error::other(error)))?;
    let walked = walk(root, false, |step| match step {
        Step::Entry { folder, name, kind } => {
            if let Some(found) = finder.find(name.to_bytes()) {
                return Err(End::Found(found.pattern().as_usize()));
            }
            look_into(&finder, folder, name, kind)
        }
        Step::Left { .. } => Ok(()),
    });
    match walked {
        Ok(()) => Ok(None),
        Err(stopped) => match stopped.why {
            End::Found(pattern) => Ok(Some(FoundBytes { path: stopped.at, pattern })),
            End::Failed(source) => Err(failed(&stopped.at, source)),
        },
    }
}

fn look_into(finder: &AhoCorasick, folder: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Result<(), End> {
    if kind == FileType::Symlink {
        let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
        return finder.find(target.as_bytes()).map_or(Ok(()), |found| Err(End::Found(found.pattern().as_usize())));
    }
    if kind != FileType::RegularFile {
        return Ok(());
    }
    let file = open(folder, name)?;
    match finder.stream_find_iter(File::from(file)).next() {
        None => Ok(()),
        Some(Ok(found)) => Err(End::Found(found.pattern().as_usize())),
        Some(Err(error)) => Err(End::Failed(error)),
    }
}

/// Opens a file for reading, also one whose owner may not read it: its mode is as before afterwards.
fn open(folder: BorrowedFd<'_>, name: &CStr) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
            rustix::fs::chmodat(folder, name, Mode::RUSR, AtFlags::empty())?;
            let opened = rustix::fs::openat(folder, name, flags, Mode::empty());
            rustix::fs::chmodat(folder, name, mode, AtFlags::empty())?;
            opened
        }
        other => other,
    }
}
