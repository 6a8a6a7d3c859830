//! Environments on the wire.
//!
//! Absent: recipes as structures; a recipe travels as the TOML that a person would write.

use domain::id::{CommitSha, Digest};
use domain::step::EnvironmentChoice;
use jiff::Timestamp;
use orchestrator::{EnvironmentRecord, EnvironmentState, RecipeView};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Bytes of a build's log in one answer.
pub const MAX_LOG_BYTES: u64 = 256 << 10;

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentStatus {
    /// Under way.
    Building,
    /// Tasks start from it.
    Ready,
    /// Tasks start from it until a newer one is ready.
    Stale,
    /// It could not be built.
    Failed,
}

impl From<EnvironmentState> for EnvironmentStatus {
    fn from(state: EnvironmentState) -> Self {
        match state {
            EnvironmentState::Building => Self::Building,
            EnvironmentState::Ready => Self::Ready,
            EnvironmentState::Stale => Self::Stale,
            EnvironmentState::Failed => Self::Failed,
        }
    }
}

/// One environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentInfo {
    /// Digest of everything that went in.
    pub key: Digest,
    /// The repository.
    pub repo: String,
    /// The commit at which the recipe was read.
    pub commit: CommitSha,
    /// Digest of the recipe.
    pub recipe_digest: Digest,
    /// Where it stands.
    pub status: EnvironmentStatus,
    /// When its build began.
    pub began_at: Timestamp,
    /// When that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Wall time of the setup commands, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_ms: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// When a task started from it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
}

impl From<EnvironmentRecord> for EnvironmentInfo {
    fn from(record: EnvironmentRecord) -> Self {
        Self {
            key: record.key,
            repo: record.repo,
            commit: record.commit,
            recipe_digest: record.recipe,
            status: record.state.into(),
            began_at: record.began_at,
            ended_at: record.ended_at,
            setup_ms: record.setup_ms,
            failure: record.failure,
            notes: record.notes,
            used_at: record.used_at,
        }
    }
}

/// All environments, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentList {
    /// The environments.
    pub environments: Vec<EnvironmentInfo>,
    /// Records that can't be read, with the reason.
    pub damaged: Vec<String>,
}

/// Which repository, and which branch of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RecipeQuery {
    /// The repository: an absolute path on the server's machine, or a URL.
    pub repo: String,
    /// The branch; left out, the one that is checked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// The recipe of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecipeBody {
    /// At which commit.
    pub commit: CommitSha,
    /// What follows from it for tasks.
    pub choice: EnvironmentChoice,
    /// As an `environment.toml`; a comment stands above each line that was made up.
    pub toml: String,
    /// Remarks on what boxes may reach.
    pub notes: Vec<String>,
    /// What was built for it, at this commit or an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<EnvironmentInfo>,
}

impl From<RecipeView> for RecipeBody {
    fn from(view: RecipeView) -> Self {
        let (commit, choice, toml, notes) = (view.commit, view.choice, view.toml, view.notes);
        Self { commit, choice, toml, notes, built: view.record.map(Into::into) }
    }
}

/// A build that was begun, or found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildBegun {
    /// The environment's key.
    pub key: Digest,
}

/// Which part of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// `next_offset` of the part before; 0 for the beginning.
    pub offset: u64,
}

/// A part of a build's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogBody {
    /// The part as text; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Where the next part begins.
    pub next_offset: u64,
    /// Whether nothing more will come.
    pub complete: bool,
}

/// What to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CollectBody {
    /// Everything that no unfinished task stands on, instead of what nobody used lately.
    pub all: bool,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Collected {
    /// The environments.
    pub removed: Vec<EnvironmentInfo>,
}
