//! Steps that can be gone back to: a box's files after a turn, and the place where a fork begins.
//!
//! Absent: the files themselves. They lie in layers that `sandbox` keeps; here are only their names.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, TaskId};

/// The files of an attempt as they were when a turn's tool calls had all returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepFiles {
    /// After which turn; 0 is the beginning.
    pub turn: u32,
    /// The snapshot's layers, lowest first.
    pub layers: Vec<Digest>,
}

/// Where a forked task begins: the files and the conversation of another task after one of its turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForkPoint {
    /// The other task.
    pub task: TaskId,
    /// Which of its attempts.
    pub attempt: u32,
    /// After which turn.
    pub turn: u32,
    /// The last event of the other task that the conversation shares.
    pub seq: u64,
    /// The files: the newest that were kept up to that turn. Nothing if they are those of the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<StepFiles>,
}

/// Where an environment's recipe comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecipeSource {
    /// `.chargehand/environment.toml` of the base commit.
    File,
    /// The base commit's `devcontainer.json`.
    Devcontainer,
    /// Made up from what lies in the repository.
    Derived,
}

/// The environment of a task, as chosen at its base commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnvironmentChoice {
    /// Where the recipe comes from.
    pub source: RecipeSource,
    /// Digest of the recipe.
    pub recipe_digest: Digest,
    /// Whether something has to be built before a box can start in it.
    pub needs_build: bool,
    /// What boxes may reach through the egress proxy, as rules for people. Empty means nothing.
    pub network: Vec<String>,
}

/// The environment of a task, and what was built for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaskEnvironment {
    /// What was chosen.
    pub choice: EnvironmentChoice,
    /// The snapshot in which attempts and gates start, once it is built: lowest layer first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Digest>>,
    /// Variables that its image wants in every box.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
}
