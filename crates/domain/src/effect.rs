//! Deeds, as data: what is intended before it is done, and what came of it.
//!
//! Each effect is stored as an intent before it begins and as a result after it ended, under one
//! id. An intent without a result, found after a crash, is looked up at the place where it was to
//! happen. Absent: how anything is done.

use serde::{Deserialize, Serialize};

use crate::evidence::{CommandEnd, Evidence, GateSpec};
use crate::id::{CommitSha, Digest, SandboxId};

/// Something that is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Effect {
    /// Start the sandbox of an attempt, or continue it.
    OpenSandbox {
        /// Its id, derived from what it is for.
        sandbox: SandboxId,
        /// Which attempt.
        attempt: u32,
    },
    /// Stop a sandbox and remove its files.
    CloseSandbox {
        /// Which.
        sandbox: SandboxId,
    },
    /// Ask the model for its next answer.
    CallModel {
        /// In which attempt.
        attempt: u32,
        /// Number of the turn, from 1 in each attempt.
        turn: u32,
        /// The model asked.
        model: String,
        /// Digest of the whole request.
        request_digest: Digest,
    },
    /// Run a tool that the model asked for.
    RunTool {
        /// In which attempt.
        attempt: u32,
        /// In which turn.
        turn: u32,
        /// The provider's id of the call.
        call_id: String,
        /// The tool.
        tool: String,
        /// Its input, JSON as the model wrote it.
        input_json: String,
    },
    /// Build the environment in which attempts and gates of the task start, or find it built.
    BuildEnvironment {
        /// Digest of its recipe.
        recipe_digest: Digest,
    },
    /// Keep the files of an attempt's sandbox as they are after a turn.
    Snapshot {
        /// Of which sandbox.
        sandbox: SandboxId,
        /// In which attempt.
        attempt: u32,
        /// After which turn.
        turn: u32,
    },
    /// Run the program of a `command` agent.
    RunCommand {
        /// In which attempt.
        attempt: u32,
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Bring the result out of the box, as a bundle, into the host's repository.
    Collect {
        /// Of which attempt.
        attempt: u32,
        /// After which round of feedback.
        round: u32,
    },
    /// Run a gate in a clean sandbox.
    RunGate {
        /// Which.
        gate: GateSpec,
        /// On which commit.
        commit: CommitSha,
    },
    /// Make the change visible in the origin.
    Publish {
        /// The proposed commit.
        commit: CommitSha,
    },
    /// Merge the base branch, which moved, with the change, in the host's repository.
    MergeBase {
        /// The change.
        commit: CommitSha,
        /// Where the base branch stands now.
        onto: CommitSha,
    },
    /// Move the base branch of the origin.
    Land {
        /// To this commit.
        commit: CommitSha,
        /// The branch.
        branch: String,
        /// From this commit.
        expected_base: CommitSha,
        /// Whether a clean work tree that has the branch checked out may move along.
        update_worktree: bool,
    },
}

impl Effect {
    /// The kind's name, as on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::OpenSandbox { .. } => "open_sandbox",
            Self::CloseSandbox { .. } => "close_sandbox",
            Self::CallModel { .. } => "call_model",
            Self::RunTool { .. } => "run_tool",
            Self::BuildEnvironment { .. } => "build_environment",
            Self::Snapshot { .. } => "snapshot",
            Self::RunCommand { .. } => "run_command",
            Self::Collect { .. } => "collect",
            Self::RunGate { .. } => "run_gate",
            Self::Publish { .. } => "publish",
            Self::MergeBase { .. } => "merge_base",
            Self::Land { .. } => "land",
        }
    }

    /// Whether `result` is a possible answer to this effect.
    #[must_use]
    pub const fn is_answered_by(&self, result: &EffectResult) -> bool {
        matches!(
            (self, result),
            (_, EffectResult::Failed { .. })
                | (Self::OpenSandbox { .. }, EffectResult::SandboxOpened { .. })
                | (Self::CloseSandbox { .. }, EffectResult::SandboxClosed)
                | (Self::CallModel { .. }, EffectResult::ModelAnswered { .. })
                | (Self::RunTool { .. }, EffectResult::ToolReturned { .. })
                | (Self::BuildEnvironment { .. }, EffectResult::EnvironmentBuilt { .. })
                | (Self::Snapshot { .. }, EffectResult::SnapshotTaken { .. })
                | (Self::RunCommand { .. }, EffectResult::CommandEnded { .. })
                | (Self::Collect { .. }, EffectResult::Collected { .. })
                | (Self::RunGate { .. }, EffectResult::GateRan { .. })
                | (Self::Publish { .. }, EffectResult::Published { .. })
                | (Self::MergeBase { .. }, EffectResult::BaseMerged { .. })
                | (Self::Land { .. }, EffectResult::Landed { .. })
        )
    }
}

/// What the engine may do about a failed effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The same again, later.
    Retry,
    /// The same again would fail again until a person changes something.
    NeedsPerson,
    /// It can't be done.
    Final,
    /// It is not known whether it happened: the platform stopped in between.
    Unknown,
}

/// Why an effect failed, in the terms of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureSource {
    /// The platform: sandbox, disk, git.
    Infra,
    /// The model's provider.
    Model,
    /// The user's repository, settings or branch.
    User,
}

/// Tokens by class; the classes do not overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenUsage {
    /// Fresh input.
    pub input_tokens: u64,
    /// Input read from the provider's cache.
    pub cache_read_tokens: u64,
    /// Input written to the provider's cache.
    pub cache_write_tokens: u64,
    /// Output, reasoning included.
    pub output_tokens: u64,
}

impl TokenUsage {
    /// Adds another call's tokens; numbers from a provider may be any.
    pub const fn add(&mut self, other: &Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.cache_read_tokens = self.cache_read_tokens.saturating_add(other.cache_read_tokens);
        self.cache_write_tokens = self.cache_write_tokens.saturating_add(other.cache_write_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
    }

    /// All classes together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.input_tokens
            .saturating_add(self.cache_read_tokens)
            .saturating_add(self.cache_write_tokens)
            .saturating_add(self.output_tokens)
    }
}

/// What came of an effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EffectResult {
    /// The sandbox is up.
    SandboxOpened {
        /// Whether it goes on with files from before.
        resumed: bool,
        /// How long it took.
        duration_ms: u64,
    },
    /// The sandbox is gone.
    SandboxClosed,
    /// The model answered.
    ModelAnswered {
        /// The answer, JSON, byte for byte as `model` made it.
        message_json: String,
        /// Tokens used, where the provider says.
        usage: Option<TokenUsage>,
        /// What it cost in millionths of a US dollar, where a price is known.
        cost_micro_usd: Option<u64>,
        /// How long it took.
        duration_ms: u64,
    },
    /// The tool returned.
    ToolReturned {
        /// What the model is shown.
        text: String,
        /// Whether the tool failed.
        is_error: bool,
        /// The whole output, where `text` is only a part of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output_digest: Option<Digest>,
        /// How long it took.
        duration_ms: u64,
    },
    /// The environment is there.
    EnvironmentBuilt {
        /// Its name among all builds.
        key: Digest,
        /// Its snapshot's layers, lowest first.
        layers: Vec<Digest>,
        /// Variables that its image wants in every box.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        env: Vec<(String, String)>,
        /// Remarks on it, for people.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
        /// Whether an earlier build was found.
        reused: bool,
        /// How long it took.
        duration_ms: u64,
    },
    /// The files are kept, and the sandbox goes on from them.
    SnapshotTaken {
        /// The snapshot's layers, lowest first.
        layers: Vec<Digest>,
        /// How long it took.
        duration_ms: u64,
    },
    /// The program of a `command` agent ended.
    CommandEnded {
        /// How.
        end: CommandEnd,
        /// The last lines of its output.
        output_tail: String,
        /// The whole output.
        output_digest: Digest,
        /// How long it took.
        duration_ms: u64,
    },
    /// The result is in the host's repository.
    Collected {
        /// Its commit; nothing if no file was changed.
        commit: Option<CommitSha>,
        /// Remarks on it, for people.
        notes: Vec<String>,
    },
    /// The gate ran.
    GateRan {
        /// Its record.
        evidence: Box<Evidence>,
    },
    /// The change can be seen in the origin.
    Published {
        /// On this branch.
        branch: String,
    },
    /// The merge exists in the host's repository.
    BaseMerged {
        /// The merge commit, whose first parent is the moved base.
        commit: CommitSha,
    },
    /// The base branch has moved.
    Landed {
        /// Where it stands now.
        commit: CommitSha,
        /// Where it stood.
        previous: CommitSha,
        /// Whether a work tree moved along.
        worktree_updated: bool,
    },
    /// It did not work.
    Failed {
        /// What can be done.
        class: FailureClass,
        /// Whose fault.
        source: FailureSource,
        /// For the person.
        message: String,
        /// For `Retry`: not before this long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
}
