//! What an agent needs from whoever runs it: a journal that stores, and hands in a box.
//!
//! Absent: the store and the provider of boxes themselves; the orchestrator implements both.

use std::sync::Arc;

use async_trait::async_trait;
use domain::effect::{Effect, EffectResult};
use domain::event::Envelope;
use domain::id::{Digest, EffectId};
use domain::task::AgentEnd;
use jiff::Timestamp;
use sandbox::Sandbox;

/// Why the journal takes nothing more. The agent stops at once.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The task ended or was canceled meanwhile.
    #[error("the task has ended")]
    Ended,
    /// The event could not be stored.
    #[error("the journal failed: {0}")]
    Failed(String),
}

/// Something to show while it happens. Never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glimpse<'a> {
    /// A piece of the model's answer.
    Text {
        /// In which turn.
        turn: u32,
        /// The piece.
        text: &'a str,
    },
    /// A piece of its reasoning.
    Thinking {
        /// In which turn.
        turn: u32,
        /// The piece.
        text: &'a str,
    },
    /// What is waited for, when nothing else is to be seen.
    Waiting {
        /// In a few words.
        text: &'a str,
    },
    /// A piece of a command's output.
    Output {
        /// Of which tool.
        source: &'a str,
        /// The piece.
        text: &'a str,
    },
}

/// Stores what the agent is about to do and what came of it.
///
/// Contract: when a call returns `Ok`, its event is on disk. Events of others (a person's message)
/// may stand between the agent's own.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Stores the intent of an effect and gives its id.
    async fn start(&self, effect: Effect) -> Result<EffectId, JournalError>;
    /// Stores what came of it.
    async fn end(&self, id: &EffectId, result: EffectResult) -> Result<(), JournalError>;
    /// Stores what came of an effect and that the agent's work ended with it, in one append.
    async fn end_and_finish(
        &self,
        id: &EffectId,
        result: EffectResult,
        attempt: u32,
        end: AgentEnd,
    ) -> Result<(), JournalError>;
    /// Stores the intent of asking a person and the wait, in one append, unless there are events
    /// after `seen`: then nothing is stored, and the answer is false.
    async fn ask(&self, effect: Effect, question: &str, seen: u64) -> Result<bool, JournalError>;
    /// Stores a message of the platform's to the agent.
    async fn tell_agent(&self, text: &str) -> Result<(), JournalError>;
    /// Stores how the agent's work ended, unless there are events after `seen` (somebody may have said
    /// something): then nothing is stored, and the answer is false.
    async fn finish(&self, attempt: u32, end: AgentEnd, seen: u64) -> Result<bool, JournalError>;
    /// The events after `seq`, oldest first, whoever made them.
    async fn events_after(&self, seq: u64) -> Result<Vec<Envelope>, JournalError>;
    /// Keeps bytes under their digest.
    async fn keep(&self, bytes: &[u8]) -> Result<Digest, JournalError>;
    /// Shows something to whoever watches.
    fn show(&self, glimpse: Glimpse<'_>);
    /// What time it is.
    fn now(&self) -> Timestamp;
    /// Returns at `until`, or earlier if an event arrived.
    async fn sleep_until(&self, until: Timestamp);
}

/// Why there are no hands.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct NoHands {
    /// What happened to the box.
    pub message: String,
    /// Whether another attempt would come to the same.
    pub hopeless: bool,
}

/// Why files were not kept.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct NotKept {
    /// What happened.
    pub why: NoHands,
    /// What the box that goes on found of its files, if one does.
    pub found: Option<FilesFound>,
}

/// What a box that was started again found of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesFound {
    /// All of them.
    Kept,
    /// Those that were kept after this turn; 0 for those of the beginning. What came later is lost.
    AsOfTurn(u32),
}

impl FilesFound {
    /// What the agent is told, if something is lost.
    #[must_use]
    pub fn told(self) -> Option<String> {
        match self {
            Self::Kept => None,
            Self::AsOfTurn(0) => Some(
                "The sandbox and its files are gone: it starts again as it was at the beginning, and all earlier changes are lost. Do them again.".to_owned(),
            ),
            Self::AsOfTurn(turn) => Some(format!(
                "The sandbox was lost. Its files are as they were after turn {turn}; whatever was changed after that turn is gone. Look before you go on, and do again what is missing.",
            )),
        }
    }
}

/// The box of the attempt, which may still be starting.
#[async_trait]
pub trait Hands: Send + Sync {
    /// The running box; waits until it is up.
    async fn ready(&self) -> Result<Arc<dyn Sandbox>, NoHands>;
    /// A new box on the files of the one that died, and what is still there of them.
    async fn revive(&self) -> Result<FilesFound, NoHands>;
    /// Whether the files can be kept now and differ from those that were kept last. Not while
    /// programs run in the box that a command left behind: keeping the files would end them.
    async fn can_keep(&self) -> bool;
    /// Keeps the files as the snapshot `key`; gives its layers, lowest first. Whoever needs the box
    /// waits until it goes on from there.
    async fn keep(&self, key: &Digest) -> Result<Vec<Digest>, NotKept>;
}
