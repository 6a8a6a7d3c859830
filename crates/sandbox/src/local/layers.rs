//! From a staged folder to a layer.
//!
//! One walk that looks at every entry once: only files, folders and links may be in a layer, none of
//! them with a mark that the overlay would take for its own (a whiteout, a redirect: such a mark
//! reaches into other layers), and none runs with its owner's rights. Where the box's users are a
//! range of the host's, everything is given to them. Absent: archives and their tricks; the host
//! itself filled the folder.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::lchown;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, Stat, chmodat, chownat, llistxattr, statat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::error::StorageContext as _;
use crate::port::{Owners, SandboxError};
use crate::walk::{Step, walk};

/// How many users a box has when it has a range.
pub const RANGE: u32 = 65_536;
/// Attributes that mean something to the overlay: those it reads with the host's rights, and those
/// it reads in a user namespace.
const MARKS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// What keeps a tree from becoming a layer.
enum Objection {
    /// The system said no.
    System(Errno),
    /// It may not be in a layer.
    Bad(&'static str),
}

impl From<Errno> for Objection {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// Checks a tree and gives it to the box's root, if the box's root is a user of its own.
pub fn adopt(root: &Path, owner: Option<u32>) -> Result<(), SandboxError> {
    adopt_as(root, owner, Owners::Root)
}

/// Checks a tree and gives it to the users that begin at `start`, if they are users of their own.
pub fn adopt_as(root: &Path, start: Option<u32>, owners: Owners) -> Result<(), SandboxError> {
    let mut adoption = Adoption { start, owners, linked: HashSet::new(), names: vec![0; 4096] };
    let refused = |why: Objection, at: &Path| match why {
        Objection::Bad(what) => SandboxError::BadLayer { path: at.to_owned(), what },
        Objection::System(errno) => {
            SandboxError::Storage { doing: "give to the box", path: root.join(at), source: errno.into() }
        }
    };
    adoption.unmarked(root.as_os_str().as_bytes()).map_err(|why| refused(why, Path::new("")))?;
    if let Some(start) = start {
        let about = rustix::fs::stat(root).doing("look at", root)?;
        let (uid, gid) = adoption.becomes(start, &about).map_err(|why| refused(why, Path::new("")))?;
        lchown(root, Some(uid), Some(gid)).doing("give to the box", root)?;
    }
    let adopted = walk(root, false, |step| match step {
        Step::Entry { folder, name, kind } => adoption.entry(folder, name, kind),
        Step::Left { .. } => Ok(()),
    });
    adopted.map_err(|stopped| refused(stopped.why, &stopped.at))
}

struct Adoption {
    start: Option<u32>,
    owners: Owners,
    /// Files with several names that were given away under one of them.
    linked: HashSet<(u64, u64)>,
    /// Room for the names of attributes.
    names: Vec<u8>,
}

impl Adoption {
    fn entry(&mut self, folder: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Result<(), Objection> {
        if !matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Symlink) {
            return Err(Objection::Bad("a device, pipe or socket; only files, folders and links can be in a layer"));
        }
        let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.to_bytes());
        self.unmarked(&path)?;
        let Some(start) = self.start else {
            if kind == FileType::RegularFile {
                let mode = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
                if mode & 0o6000 != 0 {
                    chmodat(folder, name, Mode::from_raw_mode(mode & 0o1777), AtFlags::empty())?;
                }
            }
            return Ok(());
        };
        let (uid, gid) = match self.owners {
            // No call per file beyond the one that gives it away.
            Owners::Root => (start, start),
            Owners::Kept => {
                let about = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if kind != FileType::Directory
                    && about.st_nlink > 1
                    && !self.linked.insert((about.st_dev, about.st_ino))
                {
                    return Ok(());
                }
                self.becomes(start, &about)?
            }
        };
        // Of a file this also takes away set-user-id bits and capabilities.
        chownat(folder, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// To whom something goes, by whose it is.
    fn becomes(&self, start: u32, about: &Stat) -> Result<(u32, u32), Objection> {
        match self.owners {
            Owners::Root => Ok((start, start)),
            Owners::Kept if about.st_uid < RANGE && about.st_gid < RANGE => {
                Ok((start.saturating_add(about.st_uid), start.saturating_add(about.st_gid)))
            }
            Owners::Kept => Err(Objection::Bad("owned by a user or group above 65535, whom no box has")),
        }
    }

    fn unmarked(&mut self, path: &[u8]) -> Result<(), Objection> {
        let length = loop {
            match llistxattr(path, &mut self.names) {
                Ok(length) => break length,
                Err(Errno::RANGE) => self.names.resize(self.names.len() * 4, 0),
                Err(Errno::OPNOTSUPP) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        };
        let names = self.names.get(..length).unwrap_or_default().split(|byte| *byte == 0);
        if names.into_iter().any(|name| MARKS.iter().any(|mark| name.starts_with(mark))) {
            return Err(Objection::Bad(
                "marked for the overlay filesystem (an attribute *.overlay.*), which would change what other layers show",
            ));
        }
        Ok(())
    }
}
