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

/// Deltas kept for a watcher that falls behind; together with [`MAX_PIECE_BYTES`] some 4 MiB a task.
const BACKLOG: usize = 1024;
/// Longest piece of text in one delta, so that a backlog is bounded in bytes too.
const MAX_PIECE_BYTES: usize = 4 << 10;

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

    /// Tells the watchers of a task, long texts piece by piece. Costs nothing when nobody watches.
    pub fn tell(&self, task: &TaskId, item: Live) {
        match item {
            Live::TextDelta { turn, text } => {
                pieces(&text).for_each(|text| self.send(task, Live::TextDelta { turn, text }));
            }
            Live::ThinkingDelta { turn, text } => {
                pieces(&text).for_each(|text| self.send(task, Live::ThinkingDelta { turn, text }));
            }
            Live::Output { source, text } => {
                pieces(&text).for_each(|text| self.send(task, Live::Output { source: source.clone(), text }));
            }
            short @ (Live::Stored { .. } | Live::Progress { .. }) => self.send(task, short),
        }
    }

    fn send(&self, task: &TaskId, item: Live) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = tasks.get(task)
            && sender.send(item).is_err()
        {
            tasks.remove(task);
        }
    }
}

/// A text in pieces of bounded length, cut between characters.
fn pieces(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len().min(MAX_PIECE_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_told_in_bounded_pieces_that_make_it_up_again() {
        let (hub, task) = (LiveHub::default(), TaskId::from_random(1));
        let mut watcher = hub.watch(&task);
        let text = "é€".repeat(5_000);
        hub.tell(&task, Live::Output { source: "shell".into(), text: text.clone() });
        let mut told = String::new();
        while let Ok(Live::Output { text, .. }) = watcher.try_recv() {
            assert!(text.len() <= MAX_PIECE_BYTES);
            told.push_str(&text);
        }
        assert_eq!(told, text);
    }
}
