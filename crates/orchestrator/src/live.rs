//! What is happening right now, for those who watch: token deltas, tool output, and the hint that
//! an event was stored.
//!
//! Nothing here is stored and nothing is promised: a slow watcher loses deltas, never events,
//! because events are read from the store. Absent: history.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::id::TaskId;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Deltas kept for a watcher that falls behind.
const BACKLOG: usize = 1024;

/// One thing that a watcher sees before, or without, its being stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Live {
    /// Events up to this number are in the store.
    Stored {
        /// The last one's number.
        seq: u64,
    },
    /// A piece of the model's answer.
    TextDelta {
        /// In which turn.
        turn: u32,
        /// The piece.
        text: String,
    },
    /// A piece of the model's reasoning.
    ThinkingDelta {
        /// In which turn.
        turn: u32,
        /// The piece.
        text: String,
    },
    /// A piece of a command's output.
    Output {
        /// Of the tool or gate with this name.
        source: String,
        /// The piece, as text.
        text: String,
    },
    /// What the platform is busy with, for a progress line.
    Progress {
        /// In a few words.
        text: String,
    },
}

/// Hands live items to whoever watches a task.
#[derive(Debug, Clone, Default)]
pub struct LiveHub {
    tasks: Arc<Mutex<HashMap<TaskId, broadcast::Sender<Live>>>>,
}

impl LiveHub {
    /// Watches a task from now on.
    #[must_use]
    pub fn watch(&self, task: &TaskId) -> broadcast::Receiver<Live> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|_, sender| sender.receiver_count() > 0);
        tasks.entry(task.clone()).or_insert_with(|| broadcast::channel(BACKLOG).0).subscribe()
    }

    /// Tells the watchers of a task. Costs nothing when nobody watches.
    pub fn tell(&self, task: &TaskId, item: Live) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = tasks.get(task)
            && sender.send(item).is_err()
        {
            tasks.remove(task);
        }
    }
}
