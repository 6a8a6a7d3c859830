//! A new file on the host, written as its bytes come out of a box.
//!
//! The writing is done on the blocking pool, a few pieces behind what comes, so that a slow disk
//! holds up no other task. A file that is not finished is removed, also when nobody waits for it any
//! more. Absent: what is in it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::StorageContext as _;
use crate::port::SandboxError;

/// How many pieces may wait for the disk.
const WAITING: usize = 4;

/// A file in the making.
#[derive(Debug)]
pub struct HostFile {
    pieces: mpsc::Sender<Piece>,
    writer: JoinHandle<Result<(), SandboxError>>,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// All have come: the file stays.
    End,
}

impl HostFile {
    /// Makes a file where there is none yet.
    pub fn create(path: &Path) -> Self {
        let (pieces, coming) = mpsc::channel(WAITING);
        let path: PathBuf = path.to_owned();
        Self { pieces, writer: tokio::task::spawn_blocking(move || write(&path, coming)) }
    }

    /// Appends a piece. False if the file has failed; [`HostFile::finish`] says how.
    pub async fn push(&self, bytes: Vec<u8>) -> bool {
        self.pieces.send(Piece::Bytes(bytes)).await.is_ok()
    }

    /// The file is whole.
    pub async fn finish(self) -> Result<(), SandboxError> {
        // A writer that has failed does not listen; it is asked below.
        let _ = self.pieces.send(Piece::End).await;
        settle(self.writer).await
    }

    /// The file is not wanted: comes back when it is gone. The error is one of its own writing.
    pub async fn give_up(self) -> Result<(), SandboxError> {
        drop(self.pieces);
        settle(self.writer).await
    }
}

async fn settle(writer: JoinHandle<Result<(), SandboxError>>) -> Result<(), SandboxError> {
    writer.await.map_err(|error| SandboxError::Start {
        step: "worker".into(),
        detail: format!("the work did not come to an end: {error}"),
    })?
}

fn write(path: &Path, mut pieces: mpsc::Receiver<Piece>) -> Result<(), SandboxError> {
    let mut file = File::create_new(path).doing("create", path)?;
    let written = loop {
        match pieces.blocking_recv() {
            Some(Piece::End) => return Ok(()),
            None => break Ok(()),
            Some(Piece::Bytes(bytes)) => {
                if let Err(error) = file.write_all(&bytes) {
                    break Err(error);
                }
            }
        }
    };
    let _ = fs::remove_file(path);
    written.doing("write", path)
}
