//! From a staged folder to a layer.
//!
//! One walk that looks at every entry once: only files, folders and links may be in a layer, and
//! where the box's users are a range of the host's, everything is given to the box's root (which
//! also takes away set-user-id bits and file capabilities). Absent: archives and their tricks; the
//! host itself filled the folder.

use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;

use crate::error::StorageContext as _;
use crate::port::SandboxError;

/// Checks a tree and gives it to `owner`, if one is named.
pub fn adopt(root: &Path, owner: Option<u32>) -> Result<(), SandboxError> {
    if let Some(owner) = owner {
        lchown(root, Some(owner), Some(owner)).doing("give to the box", root)?;
    }
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).doing("read the folder", &folder)? {
            let entry = entry.doing("read the folder", &folder)?;
            let path = entry.path();
            // The kind comes with the folder's entry: no call per file beyond the one that chowns.
            let kind = entry.file_type().doing("look at", &path)?;
            if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
                let inside = path.strip_prefix(root).unwrap_or(&path).to_owned();
                return Err(SandboxError::BadLayer { path: inside, what: "a device, pipe or socket" });
            }
            if let Some(owner) = owner {
                lchown(&path, Some(owner), Some(owner)).doing("give to the box", &path)?;
            }
            if kind.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(())
}
