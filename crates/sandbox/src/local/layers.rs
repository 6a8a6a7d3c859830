//! From a staged folder to a layer.
//!
//! One walk that looks at every entry once: only files, folders and links may be in a layer, and
//! where the box's users are a range of the host's, everything is given to the box's root (which
//! also takes away set-user-id bits and file capabilities). Absent: archives and their tricks; the
//! host itself filled the folder.

use std::os::unix::fs::lchown;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, chownat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::error::StorageContext as _;
use crate::port::SandboxError;
use crate::walk::{Step, walk};

/// What keeps a tree from becoming a layer.
enum Objection {
    /// The system said no.
    System(Errno),
    /// It may not be in a layer.
    Kind,
}

impl From<Errno> for Objection {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// Checks a tree and gives it to `owner`, if one is named.
pub fn adopt(root: &Path, owner: Option<u32>) -> Result<(), SandboxError> {
    if let Some(owner) = owner {
        lchown(root, Some(owner), Some(owner)).doing("give to the box", root)?;
    }
    let (uid, gid) = (owner.map(Uid::from_raw), owner.map(Gid::from_raw));
    let adopted = walk(root, false, |step| match step {
        Step::Entry { folder, name, kind: FileType::RegularFile | FileType::Directory | FileType::Symlink } => {
            // The kind comes with the folder's entry: no call per file beyond the one that chowns.
            if owner.is_some() {
                chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Ok(())
        }
        Step::Entry { .. } => Err(Objection::Kind),
        Step::Left { .. } => Ok(()),
    });
    adopted.map_err(|stopped| match stopped.why {
        Objection::Kind => SandboxError::BadLayer { path: stopped.at, what: "a device, pipe or socket" },
        Objection::System(errno) => {
            SandboxError::Storage { doing: "give to the box", path: root.join(stopped.at), source: errno.into() }
        }
    })
}
