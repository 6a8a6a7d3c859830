//! Blobs: small ones in the database, where they share a group's commit; large ones as files.
//!
//! A file is written beside its place, synced, renamed and its folder synced, so that a name always
//! stands for whole bytes. Absent: deletion. Nothing counts references yet.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use domain::id::Digest;

use super::Sqlite;
use super::folder::{make_private_dir, sync_dir};
use super::reads::unread;
use super::writer::{Answer, BlobJob, Job};
use crate::MAX_BLOB_BYTES;
use crate::error::{BlobError, Fault, ReadError};
use crate::ledger::slice;
use crate::ports::Blobs;

/// Blobs up to this size lie in the database. Above it a file of its own is cheaper.
const INLINE_BYTES: usize = 64 * 1024;
/// Where files are written before they get their name.
const UNFINISHED_FOLDER: &str = "unfinished";

const FIND: &str = "SELECT bytes FROM blob WHERE digest = ?1";

/// Where the large ones lie.
#[derive(Debug)]
pub(super) struct BlobFolder {
    path: PathBuf,
    /// Tells apart the files that are being written.
    written: AtomicU64,
}

impl BlobFolder {
    /// The folder, without what an earlier process left unfinished.
    pub fn new(path: PathBuf) -> Self {
        if let Err(error) = std::fs::remove_dir_all(path.join(UNFINISHED_FOLDER))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "unfinished blobs of an earlier process could not be removed");
        }
        Self { path, written: AtomicU64::new(0) }
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        let (shard, rest) = digest.as_str().split_at(2);
        self.path.join(shard).join(rest)
    }

    fn unfinished(&self) -> PathBuf {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        self.path.join(UNFINISHED_FOLDER).join(number.to_string())
    }
}

/// Writes a file that is whole or absent, also after a loss of power.
fn write_file(place: &Path, unfinished: &Path, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
    let shard = place.parent().unwrap_or(place);
    let there = std::fs::read(place).is_ok_and(|found| Digest::of(&found) == *digest);
    if !there {
        make_private_dir(shard)?;
        make_private_dir(unfinished.parent().unwrap_or(unfinished))?;
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(unfinished, place)
        })();
        if let Err(error) = written {
            // What can't be removed now is removed on the next opening.
            let _ = std::fs::remove_file(unfinished);
            return Err(error);
        }
    }
    // Also for a file that was there: whoever wrote it may have died before this.
    sync_dir(shard)?;
    shard.parent().map_or(Ok(()), sync_dir)
}

fn not_stored(error: io::Error) -> BlobError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BlobError::DiskFull,
        _ => BlobError::Failed(Fault::new("write a blob's file", error)),
    }
}

impl From<ReadError> for BlobError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Failed(fault) => Self::Failed(fault),
            corrupt @ ReadError::Corrupt { .. } => Self::Failed(Fault::new("read a blob", corrupt)),
        }
    }
}

#[async_trait]
impl Blobs for Sqlite {
    async fn put(&self, bytes: Vec<u8>) -> Result<Digest, BlobError> {
        if bytes.len() > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge { bytes: bytes.len(), limit: MAX_BLOB_BYTES });
        }
        let digest = Digest::of(&bytes);
        if bytes.len() <= INLINE_BYTES {
            let job = |reply| Job::Blob(BlobJob { digest: digest.clone(), bytes, answer: Answer::new(reply) });
            self.ask(job).await.unwrap_or(Err(BlobError::Closed))?;
            return Ok(digest);
        }
        if self.is_closed() {
            return Err(BlobError::Closed);
        }
        let (place, unfinished) = (self.blobs.place(&digest), self.blobs.unfinished());
        let written = tokio::task::spawn_blocking(move || {
            write_file(&place, &unfinished, &digest, &bytes).map_err(not_stored).map(|()| digest)
        });
        written.await.unwrap_or_else(|e| Err(BlobError::Failed(Fault::new("write a blob's file", e))))
    }

    async fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let found: Option<Vec<u8>> = sqlx::query_scalar(FIND)
            .bind(digest.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(unread("read a blob"))?;
        let found = match found {
            Some(bytes) => Some(bytes),
            None => match tokio::fs::read(self.blobs.place(digest)).await {
                Ok(bytes) => Some(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(BlobError::Failed(Fault::new("read a blob's file", error))),
            },
        };
        match found {
            Some(bytes) if Digest::of(&bytes) != *digest => Err(BlobError::Corrupt { digest: digest.clone() }),
            found => Ok(found),
        }
    }

    async fn get_range(&self, digest: &Digest, offset: u64, length: u64) -> Result<Option<Vec<u8>>, BlobError> {
        Ok(self.get(digest).await?.map(|bytes| slice(&bytes, offset, length)))
    }
}
