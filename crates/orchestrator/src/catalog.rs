//! Environments as people ask for them: what a repository's recipe is, what was built, and why not.
//!
//! Absent: what tasks do with them (`builds`).

use std::collections::HashSet;
use std::sync::Arc;

use domain::id::{CommitSha, Digest};
use domain::step::EnvironmentChoice;
use forge::Origin;
use jiff::SignedDuration;
use sandbox::environment::registry::{KeepPolicy, Listed, LogPart, Record, Removed};

use crate::builds;
use crate::doors;
use crate::failure::Failure;
use crate::handle::Handle;
use crate::place::Place;
use crate::request::SubmitError;

/// Environments that a repository keeps although nobody used them lately.
const KEPT_PER_REPO: usize = 2;
/// How long an environment stays after it was used or failed.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Why a question about environments has no answer.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// No such environment.
    #[error("no environment begins with `{0}`; `chargehand env list` shows them")]
    NotFound(String),
    /// Several begin like this.
    #[error("several environments begin with `{0}`; write more of it")]
    Ambiguous(String),
    /// The repository, its recipe or what it is made of.
    #[error("{0}")]
    Repository(String),
    /// The platform failed.
    #[error("{0}")]
    Platform(String),
}

impl From<Failure> for EnvironmentError {
    fn from(failure: Failure) -> Self {
        use domain::effect::FailureSource;
        match failure.source {
            FailureSource::User => Self::Repository(failure.message),
            FailureSource::Infra | FailureSource::Model => Self::Platform(failure.message),
        }
    }
}

/// The recipe of a repository at a commit.
#[derive(Debug, Clone)]
pub struct RecipeView {
    /// At which commit.
    pub commit: CommitSha,
    /// What follows from it for tasks.
    pub choice: EnvironmentChoice,
    /// The recipe as an `environment.toml`, with a comment above each line that was made up.
    pub toml: String,
    /// Remarks on what boxes may reach.
    pub notes: Vec<String>,
    /// What was built for it, at this commit or an earlier one.
    pub record: Option<Record>,
}

impl Handle {
    /// All environments, the latest first.
    ///
    /// # Errors
    /// [`EnvironmentError::Platform`].
    pub fn environments(&self) -> Result<Listed, EnvironmentError> {
        let listed = builds::registry(&self.shared)?.list();
        listed.map_err(|error| EnvironmentError::Platform(error.to_string()))
    }

    /// The environment whose key begins like this.
    ///
    /// # Errors
    /// [`EnvironmentError`].
    pub fn environment(&self, prefix: &str) -> Result<Record, EnvironmentError> {
        let records = self.environments()?.records.into_iter();
        let mut fitting = records.filter(|record| !prefix.is_empty() && record.key.as_str().starts_with(prefix));
        match (fitting.next(), fitting.next()) {
            (Some(record), None) => Ok(record),
            (None, _) => Err(EnvironmentError::NotFound(prefix.to_owned())),
            (Some(_), Some(_)) => Err(EnvironmentError::Ambiguous(prefix.to_owned())),
        }
    }

    /// A part of a build's log.
    ///
    /// # Errors
    /// [`EnvironmentError::Platform`].
    pub fn environment_log(&self, key: &Digest, offset: u64, max_bytes: u64) -> Result<LogPart, EnvironmentError> {
        let part = builds::registry(&self.shared)?.read_log(key, offset, max_bytes);
        part.map_err(|error| EnvironmentError::Platform(error.to_string()))
    }

    /// The recipe of a repository's branch as it is now.
    ///
    /// # Errors
    /// [`EnvironmentError::Repository`] says what is wrong with it.
    pub async fn recipe(&self, repo: &str, base: Option<&str>) -> Result<RecipeView, EnvironmentError> {
        let (project, commit, place) = self.place_at(repo, base).await?;
        let allow = &place.recipe().task_network;
        let notes = doors::remarks(&self.shared, allow, project.origin_text()).await?;
        let registry = builds::registry(&self.shared)?;
        let record = registry.last_good(project.origin_text(), &place.choice.recipe_digest);
        let record = record.map_err(|error| EnvironmentError::Platform(error.to_string()))?;
        Ok(RecipeView { commit, choice: place.choice.clone(), toml: place.chosen.to_toml(), notes, record })
    }

    async fn place_at(
        &self,
        repo: &str,
        base: Option<&str>,
    ) -> Result<(forge::Project, CommitSha, Arc<Place>), EnvironmentError> {
        let wrong = |why: String| EnvironmentError::Repository(why);
        let (forge, shared) = (&self.shared.ports.forge, &self.shared);
        let origin = Origin::parse(repo).map_err(|error| wrong(error.to_string()))?;
        if origin.has_secret() {
            return Err(wrong(SubmitError::OriginSecret.to_string()));
        }
        let project = forge.open(&origin).await.map_err(|error| wrong(error.to_string()))?;
        let base = forge.resolve_base(&project, base).await.map_err(|error| wrong(error.to_string()))?;
        let place = shared.places.of(&shared.ports, &shared.settings, &project, &base.sha).await?;
        Ok((project, base.sha, place))
    }

    /// Begins to build the environment of a repository's branch as it is now, if it is not there; gives
    /// its key. The build goes on when the caller does not wait.
    ///
    /// # Errors
    /// [`EnvironmentError::Repository`] for what is known before anything is run.
    pub async fn build_environment(&self, repo: &str, base: Option<&str>) -> Result<Digest, EnvironmentError> {
        let (project, commit, place) = self.place_at(repo, base).await?;
        if !place.choice.needs_build {
            return Err(EnvironmentError::Repository(
                "this environment has nothing to build: boxes start with the host's programs and the checkout".into(),
            ));
        }
        let wanted = builds::wanted(&self.shared, &project, &place, &commit).await?;
        let key = wanted.key.clone();
        builds::begin(&self.shared, wanted).await?;
        Ok(key)
    }

    /// Removes environments that nobody used lately, with their logs; their layers go at the next tidying.
    ///
    /// # Errors
    /// [`EnvironmentError::Platform`].
    pub async fn collect_environments(&self, all: bool) -> Result<Removed, EnvironmentError> {
        self.shared.collect_environments(all).await.map_err(EnvironmentError::from)
    }
}

impl crate::handle::Shared {
    /// Removes environments that nobody used lately and no unfinished task stands on.
    pub(crate) async fn collect_environments(&self, all: bool) -> Result<Removed, Failure> {
        let before = self.ports.clock.now().checked_sub(KEPT_FOR).ok().filter(|_| !all);
        let mut in_use = HashSet::new();
        let unfinished = self.ports.store.index.unfinished().await;
        for id in unfinished.map_err(|error| Failure::infra(error.to_string()))? {
            let Ok(log) = self.logs.open(&id).await else { continue };
            let task = log.task().await;
            in_use.extend(task.environment.into_iter().flat_map(|environment| environment.layers.unwrap_or_default()));
        }
        // The uppermost of an environment's layers has its key.
        let per_repo = if all { 0 } else { KEPT_PER_REPO };
        let keep = KeepPolicy { per_repo, used_after: before, failed_after: before, in_use };
        builds::change(self, move |registry| registry.gc(&keep)).await
    }
}
