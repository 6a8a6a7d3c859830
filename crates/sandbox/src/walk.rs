//! Folder trees of any depth: visiting and removing them.
//!
//! An agent can nest folders deeper than a path may be long, than a thread has stack and than a
//! process may open files. So nothing here recurses, every name is one step long, and only two
//! folders are open at a time: the way back up is `..`, and what is found there has to be the folder
//! that was left. The tree must be at rest. Absent: paths, except in what an error tells.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

/// Room for the names of a folder that come with one call.
const NAMES_BYTES: usize = 32 * 1024;

/// One step of a walk.
#[derive(Debug)]
pub enum Step<'a> {
    /// An entry of an open folder, which is entered later if it is a folder itself.
    Entry { folder: BorrowedFd<'a>, name: &'a CStr, kind: FileType },
    /// All that is below the folder of this name was visited.
    Left { folder: BorrowedFd<'a>, name: &'a CStr },
}

/// A walk that came to an end too soon.
#[derive(Debug)]
pub struct Stopped<E> {
    /// Where, from the root of the walk.
    pub at: PathBuf,
    /// Why.
    pub why: E,
}

/// A folder on the way from the root to where the walk is.
#[derive(Debug)]
struct Level {
    name: CString,
    place: Place,
    /// Folders in it that were not entered yet.
    waiting: Vec<CString>,
}

/// Which folder, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
}

/// Visits everything below `root`, a folder before what is in it. With `unlock`, folders that their
/// owner may not read or change are opened up first.
pub fn walk<E: From<Errno>>(
    root: &Path,
    unlock: bool,
    visit: impl FnMut(Step<'_>) -> Result<(), E>,
) -> Result<(), Stopped<E>> {
    go(root, Manner { unlock, moving: false }, visit)
}

/// Visits what there is below `root` while it changes: what vanishes or cannot be entered is passed
/// over. Stops where a folder was moved away from under it.
pub fn survey<E: From<Errno>>(root: &Path, visit: impl FnMut(Step<'_>) -> Result<(), E>) -> Result<(), Stopped<E>> {
    go(root, Manner { unlock: false, moving: true }, visit)
}

/// How a walk takes what is in its way.
#[derive(Debug, Clone, Copy)]
struct Manner {
    /// Closed folders are opened up.
    unlock: bool,
    /// The tree is not at rest.
    moving: bool,
}

fn go<E: From<Errno>>(
    root: &Path,
    Manner { unlock, moving }: Manner,
    mut visit: impl FnMut(Step<'_>) -> Result<(), E>,
) -> Result<(), Stopped<E>> {
    let mut space = Vec::with_capacity(NAMES_BYTES);
    let stop = |above: &[Level], at: &[&CStr], why: E| {
        let names = above.iter().map(|level| level.name.as_c_str()).chain(at.iter().copied());
        Stopped { at: names.map(|name| OsStr::from_bytes(name.to_bytes())).collect(), why }
    };
    let mut above: Vec<Level> = Vec::new();
    let mut folder = open(CWD, root, unlock).map_err(|why| stop(&above, &[], why.into()))?;
    let mut here = Level::enter(&folder, CString::default(), unlock).map_err(|why| stop(&above, &[], why.into()))?;
    let mut fresh = true;
    loop {
        if std::mem::take(&mut fresh) {
            let read = here.read(&folder, space.spare_capacity_mut(), moving, &mut visit);
            read.map_err(|(name, why)| stop(&above, &[&here.name, &name], why))?;
        }
        if let Some(name) = here.waiting.pop() {
            let next = open(&folder, name.as_c_str(), unlock)
                .and_then(|next| Ok((Level::enter(&next, name.clone(), unlock)?, next)));
            if moving && next.is_err() {
                continue;
            }
            let (level, next) = next.map_err(|why| stop(&above, &[&here.name, &name], why.into()))?;
            above.push(std::mem::replace(&mut here, level));
            folder = next;
            fresh = true;
            continue;
        }
        let Some(parent) = above.pop() else { return Ok(()) };
        let left = up(&folder, parent.place).map_err(E::from).and_then(|up| {
            visit(Step::Left { folder: up.as_fd(), name: &here.name })?;
            Ok(up)
        });
        folder = left.map_err(|why| stop(&above, &[&parent.name, &here.name], why))?;
        here = parent;
    }
}

impl Level {
    fn enter(folder: &OwnedFd, name: CString, unlock: bool) -> Result<Self, Errno> {
        let about = rustix::fs::fstat(folder)?;
        if unlock && about.st_mode & 0o700 != 0o700 {
            rustix::fs::fchmod(folder, Mode::RWXU)?;
        }
        Ok(Self { name, place: Place { device: about.st_dev, inode: about.st_ino }, waiting: Vec::new() })
    }

    /// Visits the entries; the error says which one it was about.
    fn read<E: From<Errno>>(
        &mut self,
        folder: &OwnedFd,
        space: &mut [MaybeUninit<u8>],
        moving: bool,
        visit: &mut impl FnMut(Step<'_>) -> Result<(), E>,
    ) -> Result<(), (CString, E)> {
        let mut entries = RawDir::new(folder, space);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                // The folder itself is gone.
                Err(Errno::NOENT) if moving => return Ok(()),
                other => other.map_err(|why| (CString::default(), why.into()))?,
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map(|about| FileType::from_raw_mode(about.st_mode))
                    .map_err(|why| (name.to_owned(), why.into()))?,
                known => known,
            };
            visit(Step::Entry { folder: folder.as_fd(), name, kind }).map_err(|why| (name.to_owned(), why))?;
            if kind == FileType::Directory {
                self.waiting.push(name.to_owned());
            }
        }
        Ok(())
    }
}

fn open(at: impl AsFd, name: impl rustix::path::Arg + Copy, unlock: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&at, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) if unlock => {
            rustix::fs::chmodat(&at, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(&at, name, flags, Mode::empty())
        }
        other => other,
    }
}

/// The folder above, if it is the one that is expected.
fn up(folder: &OwnedFd, expected: Place) -> Result<OwnedFd, Errno> {
    let parent = open(folder, c"..", false)?;
    let about = rustix::fs::fstat(&parent)?;
    let found = Place { device: about.st_dev, inode: about.st_ino };
    if found == expected { Ok(parent) } else { Err(Errno::STALE) }
}

/// Removes a tree, also one whose folders their owner may not enter (an overlay's work folder, or
/// what an agent made). No tree is no error.
pub fn remove(root: &Path) -> io::Result<()> {
    let removed = walk(root, true, |step| match step {
        Step::Entry { kind: FileType::Directory, .. } => Ok(()),
        Step::Entry { folder, name, .. } => rustix::fs::unlinkat(folder, name, AtFlags::empty()),
        Step::Left { folder, name } => rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR),
    });
    let last = removed.map_err(|stopped| stopped.why).and_then(|()| rustix::fs::rmdir(root));
    match last {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

/// Takes a tree out of sight at once, by giving it the name `away`, and removes it when the blocking
/// pool has time for it (here and now where there is none). What fails is left at `away`.
pub fn discard(root: &Path, away: PathBuf) {
    if std::fs::rename(root, &away).is_err() {
        return;
    }
    let work = move || {
        if let Err(error) = remove(&away) {
            tracing::warn!(%error, folder = %away.display(), "left for the next sweep");
        }
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A chain of folders that is deeper than a path can say, with a file at its end.
    fn nest(root: &Path, depth: usize) {
        let mut folder = open(CWD, root, false).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&folder, c"d", Mode::RWXU).unwrap();
            folder = open(&folder, c"d", false).unwrap();
        }
        rustix::fs::openat(&folder, c"end", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_visited_to_its_end_and_removed_on_a_small_stack() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("root");
        fs::create_dir(&root).unwrap();
        nest(&root, 20_000);
        let count = std::thread::Builder::new().stack_size(128 * 1024).spawn(move || {
            let (mut entered, mut left, mut files) = (0, 0, 0);
            walk::<Errno>(&root, false, |step| {
                match step {
                    Step::Entry { kind: FileType::Directory, .. } => entered += 1,
                    Step::Entry { .. } => files += 1,
                    Step::Left { .. } => left += 1,
                }
                Ok(())
            })
            .unwrap();
            remove(&root).unwrap();
            remove(&root).unwrap();
            (entered, left, files, root.exists())
        });
        assert_eq!(count.unwrap().join().unwrap(), (20_000, 20_000, 1, false));
    }

    #[test]
    fn links_are_removed_and_not_followed_and_locked_folders_are_opened() {
        let base = tempfile::tempdir().unwrap();
        let (root, kept) = (base.path().join("root"), base.path().join("kept"));
        fs::create_dir_all(root.join("a/b/locked/in")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&kept, root.join("a/link")).unwrap();
        fs::set_permissions(root.join("a/b/locked"), fs::Permissions::from_mode(0)).unwrap();
        fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o555)).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0)).unwrap();
        remove(&root).unwrap();
        assert!(!root.exists());
        assert_eq!(fs::read(kept.join("file")).unwrap(), b"x");
    }

    #[test]
    fn a_stop_says_where_it_was() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("a/b")).unwrap();
        fs::write(base.path().join("a/b/file"), "x").unwrap();
        let stopped = walk(base.path(), false, |step| match step {
            Step::Entry { kind: FileType::RegularFile, .. } => Err(Errno::PERM),
            _ => Ok(()),
        });
        let stopped = stopped.unwrap_err();
        assert_eq!((stopped.at, stopped.why), (PathBuf::from("a/b/file"), Errno::PERM));
    }
}
