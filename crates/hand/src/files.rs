//! Files inside the box, for the brain: read, write, list, look at.
//!
//! Paths are the box's own, so a link can lead nowhere but into the box. Nothing here blocks on
//! what an agent prepared: pipes, devices and sockets are recognised before they are read, and a
//! file is replaced by rename, whole or not at all. Absent: copying to the host (the brain's side
//! writes what it was sent).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::wire::{Entry, EntryKind, Failure, FailureCode};

/// An open file that is to be sent.
#[derive(Debug)]
pub struct Source {
    /// The file.
    pub file: File,
    /// Its size in bytes when it was opened.
    pub file_bytes: u64,
    /// Its permission bits.
    pub mode: u32,
}

/// Opens a regular file for reading.
pub fn open(path: &Path, follow: bool) -> Result<Source, Failure> {
    let no_follow = if follow { 0 } else { libc::O_NOFOLLOW };
    // O_NONBLOCK: opening a pipe must not wait for somebody to write into it.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | no_follow).open(path);
    let file = opened.map_err(|error| {
        // O_NOFOLLOW says ELOOP for a link; ENXIO is a socket or a device without a driver.
        if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) {
            not_regular(path)
        } else {
            failed(path, &error)
        }
    })?;
    let about = file.metadata().map_err(|error| failed(path, &error))?;
    if !about.is_file() {
        return Err(not_regular(path));
    }
    Ok(Source { file, file_bytes: about.len(), mode: about.mode() & 0o7777 })
}

/// A file that is being received.
#[derive(Debug)]
pub struct Incoming {
    target: PathBuf,
    temporary: PathBuf,
    file: File,
    remaining: u64,
    size: u64,
    kept: bool,
}

impl Incoming {
    /// Makes room for a file of `size` bytes beside its target.
    pub fn create(path: &Path, size: u64, mode: Option<u32>) -> Result<Self, Failure> {
        // A link is written through, as every editor does.
        let target = if fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink()) {
            fs::canonicalize(path).map_err(|error| failed(path, &error))?
        } else {
            path.to_owned()
        };
        let existing = fs::metadata(&target).ok();
        if existing.as_ref().is_some_and(|about| !about.is_file()) {
            return Err(not_regular(path));
        }
        let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(Failure {
                code: FailureCode::BadRequest,
                message: format!("{} names no file", path.display()),
            });
        };
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
        let (temporary, file) = temporary_beside(folder, name).map_err(|error| failed(path, &error))?;
        let incoming = Self { target, temporary, file, remaining: size, size, kept: false };
        let mode = mode.or_else(|| existing.map(|about| about.mode())).unwrap_or(0o644) & 0o777;
        let set = incoming.file.set_permissions(fs::Permissions::from_mode(mode));
        set.map_err(|error| failed(path, &error))?;
        Ok(incoming)
    }

    /// Takes a piece.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(rest) = self.remaining.checked_sub(bytes.len() as u64) else {
            return Err(Failure {
                code: FailureCode::BadRequest,
                message: "more bytes came than were announced".into(),
            });
        };
        self.file.write_all(bytes).map_err(|error| failed(&self.target, &error))?;
        self.remaining = rest;
        Ok(())
    }

    /// Puts the file in its place; gives its size in bytes.
    pub fn finish(mut self) -> Result<u64, Failure> {
        fs::rename(&self.temporary, &self.target).map_err(|error| failed(&self.target, &error))?;
        self.kept = true;
        Ok(self.size)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn temporary_beside(folder: &Path, name: &std::ffi::OsStr) -> io::Result<(PathBuf, File)> {
    for attempt in 0..1000_u32 {
        // The name is cut so that it stays a legal one beside a name of the longest length.
        let short: String = name.to_string_lossy().chars().take(40).collect();
        let path = folder.join(format!(".{short}.{attempt}.incoming"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|file| (path, file)),
        }
    }
    Err(io::Error::other("no free name for a temporary file"))
}

/// The entries of a folder, sorted by name; true if there were more than `max`.
pub fn list(path: &Path, max: u32) -> Result<(Vec<Entry>, bool), Failure> {
    let about = fs::metadata(path).map_err(|error| failed(path, &error))?;
    if !about.is_dir() {
        let message = format!("{} is not a folder", path.display());
        return Err(Failure { code: FailureCode::NotFolder, message });
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| failed(path, &error))? {
        names.push(entry.map_err(|error| failed(path, &error))?.file_name());
    }
    names.sort();
    let truncated = names.len() > max as usize;
    names.truncate(max as usize);
    // What vanished since it was listed is left out.
    Ok((names.into_iter().filter_map(|name| stat(&path.join(name)).ok()).collect(), truncated))
}

/// One entry, a link not followed.
pub fn stat(path: &Path) -> Result<Entry, Failure> {
    let about = fs::symlink_metadata(path).map_err(|error| failed(path, &error))?;
    let kind = match about.file_type() {
        kind if kind.is_file() => EntryKind::File,
        kind if kind.is_dir() => EntryKind::Folder,
        kind if kind.is_symlink() => EntryKind::Link,
        _ => EntryKind::Other,
    };
    let name = path.file_name().unwrap_or(path.as_os_str()).to_owned();
    Ok(Entry { name, kind, size_bytes: about.len(), mode: about.mode() & 0o7777 })
}

fn not_regular(path: &Path) -> Failure {
    Failure { code: FailureCode::NotRegular, message: format!("{} is not a regular file", path.display()) }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    use io::ErrorKind as K;
    let code = match error.kind() {
        K::NotFound => FailureCode::NotFound,
        K::PermissionDenied | K::ReadOnlyFilesystem => FailureCode::Denied,
        K::NotADirectory => FailureCode::NotFolder,
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => FailureCode::NoSpace,
        K::IsADirectory => FailureCode::NotRegular,
        _ => FailureCode::Io,
    };
    Failure { code, message: format!("{}: {error}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_in_place_only_when_all_of_it_has_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c.txt");
        let mut incoming = Incoming::create(&path, 4, None).unwrap();
        incoming.push(b"ab").unwrap();
        assert!(!path.exists());
        incoming.push(b"cd").unwrap();
        assert_eq!(incoming.finish().unwrap(), 4);
        assert_eq!(fs::read(&path).unwrap(), b"abcd");
        assert_eq!(list(path.parent().unwrap(), 10).unwrap().0.len(), 1, "a temporary file was left");
    }

    #[test]
    fn a_file_that_came_in_part_leaves_nothing_and_the_old_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.txt");
        fs::write(&path, "old").unwrap();
        let mut incoming = Incoming::create(&path, 4, None).unwrap();
        incoming.push(b"ab").unwrap();
        drop(incoming);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(list(folder.path(), 10).unwrap().0.len(), 1);
    }

    #[test]
    fn an_existing_file_keeps_its_mode_and_a_link_is_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("run.sh"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("run.sh", &link).unwrap();
        let mut incoming = Incoming::create(&link, 3, None).unwrap();
        incoming.push(b"new").unwrap();
        incoming.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(stat(&path).unwrap().mode, 0o755);
        assert_eq!(stat(&link).unwrap().kind, EntryKind::Link);
    }

    #[test]
    fn a_pipe_or_a_device_is_no_file_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!(open(&pipe, true).unwrap_err().code, FailureCode::NotRegular);
        assert_eq!(open(Path::new("/dev/zero"), true).unwrap_err().code, FailureCode::NotRegular);
        assert_eq!(open(folder.path(), true).unwrap_err().code, FailureCode::NotRegular);
        assert_eq!(open(&folder.path().join("none"), true).unwrap_err().code, FailureCode::NotFound);
    }

    #[test]
    fn a_link_is_read_only_if_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        fs::write(folder.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        assert_eq!(open(&link, false).unwrap_err().code, FailureCode::NotRegular);
        assert_eq!(open(&link, true).unwrap().file_bytes, 1);
    }
}
