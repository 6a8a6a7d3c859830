//! The log of a build: written as it comes, and never longer than it may be.
//!
//! What is over the limit is not written until the end; then its last part follows, because how
//! something failed stands there. Absent: redaction; what is given here has no values in it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// Bytes of the beginning that are kept.
pub const LOG_HEAD_BYTES: u64 = 8 << 20;
/// Bytes of the end that are kept of a longer log.
pub const LOG_TAIL_BYTES: usize = 64 << 10;

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPart {
    /// From the offset that was asked for.
    pub bytes: Vec<u8>,
    /// Where the next part begins.
    pub next_offset: u64,
    /// True if nothing more will come.
    pub complete: bool,
}

/// Reads a part of a log; no file is an empty, complete one. `ended` says that nobody writes any more.
pub(crate) fn read_part(path: &Path, offset: u64, max_bytes: u64, ended: bool) -> io::Result<LogPart> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(LogPart { bytes: Vec::new(), next_offset: offset, complete: true });
        }
        other => other?,
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    (&file).take(max_bytes).read_to_end(&mut bytes)?;
    let next_offset = offset + bytes.len() as u64;
    let length = file.metadata()?.len();
    Ok(LogPart { bytes, next_offset, complete: ended && next_offset >= length })
}

/// A log that is being written. Dropped, it is complete.
#[derive(Debug)]
pub struct BuildLog {
    file: File,
    written: u64,
    skipped: u64,
    tail: VecDeque<u8>,
    broken: Option<io::Error>,
}

impl BuildLog {
    /// An empty log, instead of one that may be there.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        // A reader of an earlier log keeps that one; it isn't cut under its hands.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().append(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, written: 0, skipped: 0, tail: VecDeque::new(), broken: None })
    }

    /// Adds to the log. A disk that is full ends the log and not the build; [`BuildLog::finish`]
    /// tells.
    pub fn write(&mut self, bytes: &[u8]) {
        let room = usize::try_from(LOG_HEAD_BYTES - self.written).unwrap_or(usize::MAX);
        let (head, rest) = bytes.split_at(bytes.len().min(room));
        self.put(head);
        self.written += head.len() as u64;
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(LOG_TAIL_BYTES);
        self.tail.drain(..over);
        self.skipped += over as u64;
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.broken.is_none() && !bytes.is_empty() {
            self.broken = self.file.write_all(bytes).err();
        }
    }

    fn close(&mut self) {
        if self.skipped > 0 {
            self.put(format!("\nchargehand: {} bytes of the log are left out here\n", self.skipped).as_bytes());
        }
        let tail: Vec<u8> = std::mem::take(&mut self.tail).into();
        self.put(&tail);
        self.skipped = 0;
    }

    /// Completes the log.
    ///
    /// # Errors
    /// What kept a part of it from being written.
    pub fn finish(mut self) -> io::Result<()> {
        self.close();
        self.broken.take().map_or(Ok(()), Err)
    }
}

impl Drop for BuildLog {
    fn drop(&mut self) {
        self.close();
    }
}
