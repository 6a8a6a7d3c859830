//! Writing what an archive says below one folder, and nowhere else.
//!
//! Every path is resolved by the kernel in one call that cannot leave the folder: for archives no
//! link may lie on the way at all; for the layers of an image a link of a lower layer may, and leads
//! where it would inside the image. The last step never follows a link. Folders get their owner,
//! mode and time at the end, so that what a folder forbids does not keep its content out. Absent:
//! archives; and any name that is not plain (made by [`Inside::parse`] only).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::report::{ImportError, ImportReport};
use crate::walk;

/// The highest user that a box has.
const MAX_ID: u64 = 65_535;
/// Who owns what belongs to a higher one.
const NOBODY: u32 = 65_534;
/// The longest path, in bytes.
const MAX_PATH_BYTES: usize = 4000;

/// A relative path of plain names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inside(PathBuf);

impl Inside {
    /// A name of an archive; none for its root. Leading slashes mean the root of the box.
    pub fn parse(name: &[u8], depth: usize, report: &mut ImportReport) -> Result<Option<Self>, ImportError> {
        let bad = |why: &'static str| ImportError::BadName { name: printable(name), why };
        if name.is_empty() {
            return Err(bad("is empty"));
        }
        if name.iter().any(|byte| *byte < 0x20 || *byte == 0x7f) {
            return Err(bad("has a control character in it"));
        }
        if name.len() > MAX_PATH_BYTES {
            return Err(bad("is longer than a path may be"));
        }
        report.absolute_names += u64::from(name.starts_with(b"/"));
        let mut path = PathBuf::new();
        for part in Path::new(OsStr::from_bytes(name)).components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(part) if part.len() > 255 => return Err(bad("has a part that is too long")),
                Component::Normal(part) => path.push(part),
                Component::ParentDir | Component::Prefix(_) => return Err(bad("leads upwards")),
            }
        }
        if path.components().count() > depth {
            return Err(bad("lies deeper than is allowed"));
        }
        Ok((!path.as_os_str().is_empty()).then_some(Self(path)))
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder it lies in, and its last part.
    pub fn split(&self) -> (&Path, &OsStr) {
        (self.0.parent().unwrap_or(Path::new("")), self.0.file_name().unwrap_or_default())
    }

    /// The folder it lies in; none for the root.
    pub fn above(&self) -> Option<Self> {
        self.0.parent().filter(|path| !path.as_os_str().is_empty()).map(|path| Self(path.to_owned()))
    }

    /// Its neighbour of another name, which has to be plain.
    pub fn beside(&self, name: &OsStr) -> Option<Self> {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.as_bytes().contains(&b'/');
        plain.then(|| Self(self.split().0.join(name)))
    }
}

/// Bytes of an archive for people.
pub fn printable(name: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(name).chars().take(200).collect();
    text.escape_debug().to_string()
}

/// What an entry is besides its content.
#[derive(Debug, Clone, Copy)]
pub struct About {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub modified_s: i64,
}

/// Where an import lands.
pub struct Ground {
    root: OwnedFd,
    /// Whether files can be given to others.
    privileged: bool,
    /// Layers of an image over one another, and not one archive.
    layered: bool,
    folders: BTreeMap<PathBuf, About>,
    parent: Option<(PathBuf, OwnedFd)>,
    /// Made by the layer that is being written, where there are several.
    made: BTreeSet<PathBuf>,
    pub report: ImportReport,
}

impl Ground {
    /// An empty folder to write into.
    pub fn open(root: &Path, layered: bool) -> Result<Self, ImportError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())
            .map_err(|errno| ImportError::Write { at: root.to_owned(), source: errno.into() })?;
        Ok(Self {
            root,
            privileged: rustix::process::geteuid().is_root(),
            layered,
            folders: BTreeMap::new(),
            parent: None,
            made: BTreeSet::new(),
            report: ImportReport::default(),
        })
    }

    /// Begins the next layer of an image.
    pub fn next_layer(&mut self) {
        self.made.clear();
    }

    fn note_made(&mut self, name: &Inside) {
        if self.layered {
            self.made.insert(name.path().to_owned());
        }
    }

    /// Whether the layer that is being written made this, or something in it. A path sorts right
    /// before what is in it.
    pub fn made_here(&self, name: &Inside) -> bool {
        self.made.range(name.path().to_owned()..).next().is_some_and(|made| made.starts_with(name.path()))
    }

    fn resolve(&self) -> ResolveFlags {
        if self.layered {
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
        } else {
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS
        }
    }

    /// Opens something below the root.
    pub fn look(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 0..64 {
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), self.resolve()) {
                // The kernel could not be sure that nothing moved meanwhile.
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The folder in which `name` is to be; made if it is missing.
    fn parent_of(&mut self, name: &Inside) -> Result<OwnedFd, ImportError> {
        let (folder, _) = name.split();
        if let Some((known, fd)) = &self.parent
            && known == folder
        {
            return fd.try_clone().map_err(|source| ImportError::Write { at: name.path().to_owned(), source });
        }
        let found = match self.look(folder, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                self.make_way(folder).and_then(|()| self.look(folder, OFlags::PATH | OFlags::DIRECTORY))
            }
            other => other,
        };
        let found = found.map_err(|errno| on_the_way(name, errno))?;
        let kept = found.try_clone().map_err(|source| ImportError::Write { at: name.path().to_owned(), source })?;
        self.parent = Some((folder.to_owned(), kept));
        Ok(found)
    }

    fn make_way(&self, folder: &Path) -> Result<(), Errno> {
        let mut path = PathBuf::new();
        for part in folder {
            let above = self.look(&path, OFlags::PATH | OFlags::DIRECTORY)?;
            match rustix::fs::mkdirat(&above, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => path.push(part),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Does `make` in the parent of `name`; what is there already is replaced and `make` tried again.
    fn place<T>(
        &mut self,
        name: &Inside,
        mut make: impl FnMut(&OwnedFd, &OsStr) -> Result<T, Errno>,
    ) -> Result<(OwnedFd, T), ImportError> {
        let parent = self.parent_of(name)?;
        let (_, last) = name.split();
        let made = match make(&parent, last) {
            Err(Errno::EXIST) => {
                self.clear_the_place(name, &parent)?;
                make(&parent, last)
            }
            other => other,
        };
        let made = made.map_err(|errno| write_error(name, errno))?;
        self.note_made(name);
        Ok((parent, made))
    }

    fn clear_the_place(&mut self, name: &Inside, parent: &OwnedFd) -> Result<(), ImportError> {
        let (_, last) = name.split();
        let about = rustix::fs::statat(parent, last, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| write_error(name, e))?;
        let folder = FileType::from_raw_mode(about.st_mode) == FileType::Directory;
        if folder && !self.layered {
            return Err(ImportError::Conflict { name: name.path().to_owned(), was: "a folder" });
        }
        self.report.replaced += u64::from(!self.layered);
        self.remove(name)
    }

    /// A regular file.
    pub fn file(&mut self, name: &Inside, about: About, content: &mut impl Read) -> Result<u64, ImportError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (_, made) =
            self.place(name, |parent, last| rustix::fs::openat(parent, last, flags, Mode::RUSR | Mode::WUSR))?;
        let mut file = File::from(made);
        let mut buffer = vec![0; 128 * 1024];
        let mut bytes = 0;
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ImportError::reading(name.path(), error)),
            };
            file.write_all(buffer.get(..count).unwrap_or_default())
                .map_err(|source| ImportError::Write { at: name.path().to_owned(), source })?;
            bytes += count as u64;
        }
        self.report.files += 1;
        self.report.bytes += bytes;
        self.settle(name, &file, about)?;
        Ok(bytes)
    }

    /// A folder; one that is there stays, with what is in it.
    pub fn folder(&mut self, name: &Inside, about: About) -> Result<(), ImportError> {
        let parent = self.parent_of(name)?;
        let (_, last) = name.split();
        match rustix::fs::mkdirat(&parent, last, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let found = rustix::fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW);
                let found = FileType::from_raw_mode(found.map_err(|errno| write_error(name, errno))?.st_mode);
                if found != FileType::Directory {
                    if !self.layered {
                        return Err(ImportError::Conflict { name: name.path().to_owned(), was: "a file or link" });
                    }
                    self.remove(name)?;
                    rustix::fs::mkdirat(&parent, last, Mode::RWXU).map_err(|errno| write_error(name, errno))?;
                }
            }
            Err(errno) => return Err(write_error(name, errno)),
        }
        self.report.folders += 1;
        self.note_made(name);
        self.folders.insert(name.path().to_owned(), about);
        Ok(())
    }

    /// A symbolic link. Where it leads is the box's affair: it is never followed on the host.
    pub fn link(&mut self, name: &Inside, target: &[u8], about: About) -> Result<(), ImportError> {
        if target.is_empty() || target.len() > MAX_PATH_BYTES || target.contains(&0) {
            return Err(ImportError::BadName { name: printable(target), why: "cannot be what a link leads to" });
        }
        let to = OsStr::from_bytes(target);
        let (parent, ()) = self.place(name, |parent, last| rustix::fs::symlinkat(to, parent, last))?;
        let (_, last) = name.split();
        self.report.links += 1;
        let (uid, gid) = self.owner(about);
        if self.privileged {
            rustix::fs::chownat(&parent, last, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| write_error(name, e))?;
        }
        rustix::fs::utimensat(&parent, last, &times(about), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| write_error(name, e))
    }

    /// Another name for a file that was written before.
    pub fn hard_link(&mut self, name: &Inside, target: &Inside) -> Result<(), ImportError> {
        let bad = |why: &'static str| ImportError::HardLink {
            name: name.path().to_owned(),
            target: target.path().to_owned(),
            why,
        };
        let (folder, last) = target.split();
        let from = self.look(folder, OFlags::PATH | OFlags::DIRECTORY).map_err(|errno| match errno {
            Errno::LOOP | Errno::XDEV => bad("a link lies on the way there"),
            _ => bad("there is no such file before it in the archive"),
        })?;
        let about = rustix::fs::statat(&from, last, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|_| bad("there is no such file before it in the archive"))?;
        if FileType::from_raw_mode(about.st_mode) == FileType::Directory {
            return Err(bad("that is a folder"));
        }
        if name == target {
            return Err(bad("that is itself"));
        }
        self.place(name, |parent, own| rustix::fs::linkat(&from, last, parent, own, AtFlags::empty()))?;
        self.report.hard_links += 1;
        Ok(())
    }

    /// Removes what is at `name`, a folder with all that is in it.
    pub fn remove(&mut self, name: &Inside) -> Result<(), ImportError> {
        self.parent = None;
        let (folder, last) = name.split();
        let parent = match self.look(folder, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other.map_err(|errno| on_the_way(name, errno))?,
        };
        match rustix::fs::unlinkat(&parent, last, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(write_error(name, errno)),
        }
        let below = self.folders.range(name.path().to_owned()..).map(|(path, _)| path);
        let below: Vec<PathBuf> = below.take_while(|path| path.starts_with(name.path())).cloned().collect();
        for path in below {
            self.folders.remove(&path);
        }
        // The folder is named by its open parent, so no link is on the way; the walk follows none.
        let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_fd().as_raw_fd())).join(last);
        walk::remove(&path).map_err(|source| ImportError::Write { at: name.path().to_owned(), source })
    }

    /// Removes what lower layers left in the folder `name`, and keeps what this layer made there;
    /// what is no folder stays.
    pub fn hide(&mut self, name: Option<&Inside>) -> Result<(), ImportError> {
        let path = name.map_or(Path::new(""), Inside::path).to_owned();
        let folder = match self.look(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
            Ok(folder) => folder,
            Err(_) => return Ok(()),
        };
        let listed = rustix::fs::Dir::new(folder)
            .map_err(|errno| ImportError::Write { at: path.clone(), source: errno.into() })?;
        for entry in listed {
            let entry = entry.map_err(|errno| ImportError::Write { at: path.clone(), source: errno.into() })?;
            let child = path.join(OsStr::from_bytes(entry.file_name().to_bytes()));
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let child = Inside(child);
            if !self.made_here(&child) {
                self.remove(&child)?;
            } else {
                self.hide(Some(&child))?;
            }
        }
        Ok(())
    }

    fn owner(&mut self, about: About) -> (Option<Uid>, Option<Gid>) {
        if about.uid > MAX_ID || about.gid > MAX_ID {
            self.report.foreign_owners += 1;
        }
        let id = |id: u64| u32::try_from(id).ok().filter(|_| id <= MAX_ID).unwrap_or(NOBODY);
        (Some(Uid::from_raw(id(about.uid))), Some(Gid::from_raw(id(about.gid))))
    }

    fn settle(&mut self, name: &Inside, file: &impl AsFd, about: About) -> Result<(), ImportError> {
        self.report.rights_dropped += u64::from(about.mode & 0o6000 != 0);
        let (uid, gid) = self.owner(about);
        if self.privileged {
            rustix::fs::fchown(file, uid, gid).map_err(|errno| write_error(name, errno))?;
        }
        // Whoever writes as an ordinary user has to be able to read what it wrote.
        let mode = about.mode & 0o1777 | if self.privileged { 0 } else { 0o600 };
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).map_err(|errno| write_error(name, errno))?;
        rustix::fs::futimens(file, &times(about)).map_err(|errno| write_error(name, errno))
    }

    /// Gives folders what the archive said of them; gives the report.
    pub fn finish(mut self) -> Result<ImportReport, ImportError> {
        for (path, about) in std::mem::take(&mut self.folders).into_iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let folder = match self.look(&path, flags) {
                Ok(folder) => folder,
                // Something else took its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(write_error(&Inside(path), errno)),
            };
            let mode = about.mode | if self.privileged { 0 } else { 0o700 };
            self.settle(&Inside(path), &folder, About { mode, ..about })?;
        }
        Ok(self.report)
    }
}

fn times(about: About) -> Timestamps {
    let time = Timespec { tv_sec: about.modified_s, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn write_error(name: &Inside, errno: Errno) -> ImportError {
    ImportError::Write { at: name.path().to_owned(), source: errno.into() }
}

fn on_the_way(name: &Inside, errno: Errno) -> ImportError {
    match errno {
        Errno::LOOP | Errno::XDEV => ImportError::ThroughLink { name: name.path().to_owned() },
        Errno::NOTDIR => {
            ImportError::Conflict { name: name.path().to_owned(), was: "below something that is no folder" }
        }
        errno => write_error(name, errno),
    }
}
