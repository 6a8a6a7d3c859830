//! What is done behind everybody's back: removing what was taken out of sight, and writing layers to
//! disk.
//!
//! Two threads, so that a removal of an hour holds up nothing; both end when the data folder is let
//! go, the remover after what it was given. What a dead process left undone is found again when the
//! folder is opened. A layer is marked durable only after everything written before the mark is on
//! disk; so the mark is proof, and its absence is none of the contrary. Absent: order between
//! chores, and any waiting for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::walk;

/// The name of a durable layer's mark.
pub const DURABLE: &str = "durable";
/// How long more layers are awaited, to be written with the same call.
const GATHER: Duration = Duration::from_millis(200);

/// Where chores are handed in.
#[derive(Debug)]
pub struct Chores {
    rubbish: Sender<PathBuf>,
    layers: Sender<PathBuf>,
}

impl Chores {
    /// Starts the threads. Where there can be none, removals happen at once and nothing is durable.
    pub fn new() -> Self {
        let (rubbish, away) = channel::<PathBuf>();
        let (layers, written) = channel::<PathBuf>();
        let spawned = thread::Builder::new().name("remover".into()).spawn(move || {
            for tree in away {
                remove(&tree);
            }
        });
        let spawned = spawned.and(thread::Builder::new().name("writer".into()).spawn(move || write(&written)));
        if let Err(error) = spawned {
            tracing::warn!(%error, "there is no thread for chores");
        }
        Self { rubbish, layers }
    }

    /// Removes a tree that is out of sight.
    pub fn remove(&self, away: PathBuf) {
        if let Err(unsent) = self.rubbish.send(away) {
            remove(&unsent.0);
        }
    }

    /// Writes a layer to disk, by its folder, and marks it.
    pub fn make_durable(&self, layer: PathBuf) {
        let _ = self.layers.send(layer);
    }
}

/// Whether the layer in this folder outlasts the machine's going down.
pub fn is_durable(layer: &Path) -> bool {
    layer.join(DURABLE).exists()
}

fn remove(away: &Path) {
    if let Err(error) = walk::remove(away) {
        tracing::warn!(%error, folder = %away.display(), "left for the next opening");
    }
}

fn write(layers: &Receiver<PathBuf>) {
    while let Ok(first) = layers.recv() {
        let mut gathered = vec![first];
        loop {
            match layers.recv_timeout(GATHER) {
                Ok(layer) => gathered.push(layer),
                Err(RecvTimeoutError::Timeout) => break,
                // Nobody is there any more; the next one who opens the folder asks again.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        gathered.retain(|layer| layer.exists() && !is_durable(layer));
        let Some(any) = gathered.first() else { continue };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let synced = rustix::fs::open(any, flags, Mode::empty()).and_then(|folder| rustix::fs::syncfs(&folder));
        if let Err(error) = synced {
            tracing::warn!(%error, "layers could not be written to disk; they would be lost if the machine went down");
            continue;
        }
        for layer in gathered {
            // It may have been removed meanwhile.
            let _ = fs::write(layer.join(DURABLE), "");
        }
    }
}
