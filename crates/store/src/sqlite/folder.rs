//! The data folder: made for its owner alone, and for one process at a time.
//!
//! The lock is `flock` on a file, so the kernel gives it back however the process ends; the process
//! id inside is only there to be shown. Absent: removing the lock file, which would let two
//! processes lock two files of one name.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::OpenError;

const LOCK_FILE: &str = "lock";
const DATABASE_FILE: &str = "chargehand.db";
const BLOB_FOLDER: &str = "blobs";
/// Between two looks at a lock that somebody holds.
const LOCK_RETRY_MS: u64 = 20;

/// A data folder that this process alone may write. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Holds the lock as long as it is open.
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing and takes its lock, waiting at most `wait_ms` for it.
    pub async fn claim(path: &Path, wait_ms: u64) -> Result<Self, OpenError> {
        let fresh = !path.exists();
        make_private_dir(path).map_err(|e| trouble("make the folder", path, e))?;
        let lock_path = path.join(LOCK_FILE);
        let ours = fresh || lock_path.exists() || is_empty(path);
        if ours {
            // A folder with other things in it keeps the permissions that its owner gave it.
            std::fs::set_permissions(path, Permissions::from_mode(0o700))
                .map_err(|e| trouble("protect the folder", path, e))?;
        }
        let mut lock = private_file(&lock_path).map_err(|e| trouble("open the lock file", &lock_path, e))?;
        let mut waited_ms = 0;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(e)) => return Err(trouble("lock the file", &lock_path, e)),
                Err(TryLockError::WouldBlock) if waited_ms < wait_ms => {
                    tokio::time::sleep(Duration::from_millis(LOCK_RETRY_MS)).await;
                    waited_ms += LOCK_RETRY_MS;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(OpenError::InUse { pid: read_pid(&mut lock), path: path.to_owned() });
                }
            }
        }
        write_pid(&mut lock).map_err(|e| trouble("write the process id into", &lock_path, e))?;
        let folder = Self { path: path.to_owned(), _lock: lock };
        let database = folder.database();
        // SQLite gives its other files the permissions of this one.
        private_file(&database).map_err(|e| trouble("make the database file", &database, e))?;
        let blobs = folder.blobs_dir();
        make_private_dir(&blobs).map_err(|e| trouble("make the folder", &blobs, e))?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE_FILE)
    }
    pub fn blobs_dir(&self) -> PathBuf {
        self.path.join(BLOB_FOLDER)
    }

    /// Makes the names of new files, and of the folder itself, survive a loss of power.
    pub fn sync(&self) -> Result<(), OpenError> {
        let sync = |path: &Path| sync_dir(path).map_err(|e| trouble("sync the folder", path, e));
        sync(&self.path)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // A parent that can't be read can't be synced by us; whoever made it takes care of it.
        match parent.map(sync) {
            Some(Err(OpenError::Folder { source, .. })) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Some(result) => result,
            None => Ok(()),
        }
    }
}

fn trouble(operation: &'static str, path: &Path, source: io::Error) -> OpenError {
    if source.kind() == io::ErrorKind::StorageFull {
        return OpenError::DiskFull { path: path.to_owned() };
    }
    OpenError::Folder { operation, path: path.to_owned(), source }
}

/// Makes a folder, and those above it, for the owner alone.
pub(super) fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.seek(io::SeekFrom::Start(0)).ok()?;
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(io::SeekFrom::Start(0))?;
    writeln!(lock, "{}", std::process::id())
}
