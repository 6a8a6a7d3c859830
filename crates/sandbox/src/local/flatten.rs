//! Merging the upper layers of a stack into one, so that lookups stay quick.
//!
//! Only what the merged layers say is written, over a base of layers that stay: folders anew with
//! everything that is theirs, all else as one more name of the same file. So nothing is copied,
//! several names of a file stay several names of it, and git's index, which knows files by their
//! numbers, stays valid; the price is a count of names that is higher than the names one sees. A
//! folder that was renamed over several layers gets one redirect to where it lies in the base. What
//! exists is not touched, so boxes on the old stack do not notice. Absent: trees deeper than a path
//! can say, and for an ordinary user folders that are closed to their owner; both are an error, and
//! the old stack goes on.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, linkat, mknodat};
use rustix::io::Errno;

use crate::error::StorageContext as _;
use crate::local::stack::{Dialect, Folder, Found, Part, Stack, attribute, look};
use crate::port::SandboxError;

/// Attributes of the overlay that describe one layer's own history and have no meaning in another.
const HISTORY: [&str; 6] = ["opaque", "redirect", "origin", "impure", "nlink", "upper"];

/// Writes what the layers above the base of `stack` say into `root`, an empty folder.
pub fn flatten(stack: &Stack, dialect: Dialect, root: &Path) -> Result<(), SandboxError> {
    let mut work = Merging { stack, dialect, made: Vec::new(), waiting: Vec::new() };
    work.waiting.push((stack.root(), root.to_owned(), None));
    while let Some((folder, target, expected)) = work.waiting.pop() {
        work.folder(&folder, &target, expected.as_deref())?;
    }
    // Inner folders after outer ones, so their times are set first when this goes backwards.
    for (target, like) in work.made.iter().rev() {
        finish(target, like)?;
    }
    Ok(())
}

struct Merging<'a> {
    stack: &'a Stack,
    dialect: Dialect,
    /// Folders, with whose mode and times they get at the end.
    made: Vec<(PathBuf, Metadata)>,
    /// Folders to merge: what is seen, where it is written, and where it would lie in the base if it
    /// had never been renamed (none if its folder has no base).
    waiting: Vec<(Folder, PathBuf, Option<PathBuf>)>,
}

impl Merging<'_> {
    fn folder(&mut self, folder: &Folder, target: &Path, expected: Option<&Path>) -> Result<(), SandboxError> {
        let Some(top) = folder.parts.first() else { return Ok(()) };
        let like = fs::symlink_metadata(&top.path).doing("look at", &top.path)?;
        self.made.push((target.to_owned(), like));
        copy_attributes(&top.path, target, self.dialect)?;
        let is_root = expected.is_none() && folder.in_base.as_deref() == Some(Path::new(""));
        if !is_root {
            self.say_what_is_below(folder, target, expected)?;
        }
        let base: Vec<Part> = folder.parts.iter().filter(|part| self.stack.is_base(part)).cloned().collect();
        let base = Folder { in_base: folder.in_base.clone(), parts: base };
        for name in self.names(folder)? {
            let to = target.join(&name);
            match self.stack.child(folder, &name).doing("look at", &to)? {
                Found::Nothing => {
                    // A whiteout over nothing would be seen.
                    if !matches!(self.stack.child(&base, &name).doing("look at", &to)?, Found::Nothing) {
                        let zero = mknodat(CWD, &to, FileType::CharacterDevice, Mode::empty(), 0);
                        zero.doing("write a whiteout", &to)?;
                    }
                }
                Found::Leaf(part) => same_file(&part.path, &to).doing("link", &to)?,
                Found::Folder(inner) => {
                    fs::create_dir(&to).doing("create", &to)?;
                    let expected = folder.in_base.as_ref().map(|base| base.join(&name));
                    self.waiting.push((inner, to, expected));
                }
            }
        }
        Ok(())
    }

    /// The names that the merged layers say anything about.
    fn names(&self, folder: &Folder) -> Result<BTreeSet<OsString>, SandboxError> {
        let mut names = BTreeSet::new();
        for part in folder.parts.iter().filter(|part| !self.stack.is_base(part)) {
            for entry in fs::read_dir(&part.path).doing("read", &part.path)? {
                names.insert(entry.doing("read", &part.path)?.file_name());
            }
        }
        Ok(names)
    }

    fn say_what_is_below(&self, folder: &Folder, target: &Path, expected: Option<&Path>) -> Result<(), SandboxError> {
        let set = |name: &str, value: &[u8]| {
            let name = format!("{}{name}", self.dialect.prefix());
            rustix::fs::lsetxattr(target, name, value, XattrFlags::empty()).doing("mark", target)
        };
        match &folder.in_base {
            None => set("opaque", b"y"),
            Some(at) if expected == Some(at) => Ok(()),
            Some(at) => set("redirect", Path::new("/").join(at).as_os_str().as_bytes()),
        }
    }
}

/// One more name for a file, or a copy where it has as many as it can have.
fn same_file(from: &Path, to: &Path) -> io::Result<()> {
    match linkat(CWD, from, CWD, to, AtFlags::empty()) {
        Err(Errno::MLINK) => {
            let about = fs::symlink_metadata(from)?;
            if !about.is_file() {
                return Err(Errno::MLINK.into());
            }
            fs::copy(from, to)?;
            lchown(to, Some(about.uid()), Some(about.gid()))?;
            fs::set_permissions(to, about.permissions())?;
            set_times(to, &about)
        }
        other => Ok(other?),
    }
}

fn copy_attributes(from: &Path, to: &Path, dialect: Dialect) -> Result<(), SandboxError> {
    let mut names = vec![0; 64 * 1024];
    let length = match rustix::fs::llistxattr(from.as_os_str().as_bytes(), &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other.doing("read the attributes of", from)?,
    };
    for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name);
        if name.strip_prefix(dialect.prefix()).is_some_and(|rest| HISTORY.contains(&rest)) {
            continue;
        }
        if let Some(value) = attribute(from, &name).doing("read an attribute of", from)? {
            rustix::fs::lsetxattr(to, &*name, &value, XattrFlags::empty()).doing("write an attribute of", to)?;
        }
    }
    Ok(())
}

fn finish(target: &Path, like: &Metadata) -> Result<(), SandboxError> {
    let about = fs::symlink_metadata(target).doing("look at", target)?;
    if (about.uid(), about.gid()) != (like.uid(), like.gid()) {
        lchown(target, Some(like.uid()), Some(like.gid())).doing("give to the box", target)?;
    }
    fs::set_permissions(target, fs::Permissions::from_mode(like.mode() & 0o7777)).doing("set the mode of", target)?;
    set_times(target, like).doing("set the times of", target)
}

fn set_times(target: &Path, like: &Metadata) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: like.atime(), tv_nsec: like.atime_nsec() },
        last_modification: Timespec { tv_sec: like.mtime(), tv_nsec: like.mtime_nsec() },
    };
    Ok(rustix::fs::utimensat(CWD, target, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Where callers put what a box needs to work and nobody calls a change: settings of its way out, logs.
const ASIDE: &str = "/run/chargehand";

/// Whether an upper says anything that `below` does not show already. A start makes mount points
/// (`made`, and folders on the way to them) and programs touch folders by making files in them and
/// removing them again: neither is a change. What cannot be read is one.
pub fn says_anything(upper: &Path, below: &Stack, made: &[PathBuf]) -> io::Result<bool> {
    let mut waiting = vec![(upper.to_owned(), PathBuf::from("/"), Some(below.root()))];
    while let Some((folder, at, under)) = waiting.pop() {
        let Some(about) = look(&folder)? else { continue };
        let way = made.iter().any(|point| point.starts_with(&at)) || Path::new(ASIDE).starts_with(&at);
        if !way && !same_folder(&folder, &about, under.as_ref())? {
            return Ok(true);
        }
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(true),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let inner = at.join(entry.file_name());
            if inner == Path::new(ASIDE) {
                continue;
            }
            let Some(about) = look(&entry.path())? else { continue };
            if !about.is_dir() {
                if made.contains(&inner) && about.is_file() && about.size() == 0 {
                    continue;
                }
                return Ok(true);
            }
            let under = match &under {
                Some(folder) => match below.child(folder, &entry.file_name())? {
                    Found::Folder(folder) => Some(folder),
                    Found::Nothing | Found::Leaf(_) => None,
                },
                None => None,
            };
            waiting.push((entry.path(), inner, under));
        }
    }
    Ok(false)
}

/// Whether a folder of an upper is one of those below, unchanged but for its times.
fn same_folder(path: &Path, about: &Metadata, below: Option<&Folder>) -> io::Result<bool> {
    let Some(top) = below.and_then(|folder| folder.parts.first()) else { return Ok(false) };
    for prefix in [Dialect::Trusted.prefix(), Dialect::User.prefix()] {
        for name in ["opaque", "redirect"] {
            if attribute(path, &format!("{prefix}{name}"))?.is_some() {
                return Ok(false);
            }
        }
    }
    let other = fs::symlink_metadata(&top.path)?;
    let facts = |about: &Metadata| (about.mode(), about.uid(), about.gid());
    Ok(facts(about) == facts(&other))
}
