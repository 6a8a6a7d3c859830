//! The place where a task's boxes stand: the recipe of its base commit, as boxes are started with.
//!
//! Always from the base commit, never from the agent's tree: what an agent writes into
//! `.chargehand/environment.toml` counts for tasks that start after it has landed. Absent: building
//! (`environment`), and what a recipe may say (`sandbox::environment`).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use domain::effect::{FailureClass, FailureSource};
use domain::id::{CommitSha, Digest, SandboxId};
use domain::step::{EnvironmentChoice, RecipeSource};
use domain::task::Task;
use forge::Project;
use sandbox::environment::key::ToolchainIdentity;
use sandbox::environment::recipe::Permitted;
use sandbox::environment::{Allow, Base, Chosen, Origin, Recipe, RecipeError, Sources, choose, devcontainer, file};
use sandbox::{Limits, ReadOnlyBind, Root, SnapshotRef, StartSpec};

use crate::boxes::WORKSPACE;
use crate::choice::{MAX_FILE_BYTES, plain_file};
use crate::failure::Failure;
use crate::handle::Shared;
use crate::ports::{Ports, Settings};

/// Places kept in memory.
const KEPT: usize = 64;

/// What the server allows and offers to environments.
#[derive(Debug, Clone, Default)]
pub struct EnvironmentSettings {
    /// Host paths that recipes may name.
    pub permitted: Permitted,
    /// What setup may reach where a repository has no file of its own.
    pub default_setup_network: Vec<Allow>,
    /// Image names, and the layouts on this machine that hold them.
    pub images: BTreeMap<String, PathBuf>,
    /// The host's toolchains that boxes see.
    pub toolchains: Vec<ToolchainIdentity>,
    /// The provider and what it makes boxes of, for example `local/1`.
    pub provider: String,
    /// A folder for the records and logs of builds.
    pub records: PathBuf,
}

/// A recipe, and what follows from it for every box.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) chosen: Chosen,
    pub(crate) choice: EnvironmentChoice,
    pub(crate) binds: Vec<ReadOnlyBind>,
    pub(crate) limits: Limits,
    /// Variables that the environment's image wants; the recipe's own win.
    image_env: Vec<(String, String)>,
}

impl Place {
    fn of(chosen: Chosen, settings: &Settings) -> Result<Self, RecipeError> {
        let recipe = &chosen.recipe;
        let source = match &chosen.origin {
            Origin::File(path) if path == file::ENVIRONMENT_FILE => RecipeSource::File,
            Origin::File(_) => RecipeSource::Devcontainer,
            Origin::Derived => RecipeSource::Derived,
        };
        let choice = EnvironmentChoice {
            source,
            recipe_digest: recipe.digest(),
            needs_build: recipe.base != Base::Host || !recipe.setup.is_empty(),
            network: recipe.task_network.iter().map(|allow| allow.name().to_owned()).collect(),
        };
        let binds = recipe.binds(&settings.environments.permitted)?;
        let limits = recipe.limits.within(settings.limits);
        Ok(Self { choice, binds, limits, image_env: Vec::new(), chosen })
    }

    /// The recipe.
    pub(crate) fn recipe(&self) -> &Recipe {
        &self.chosen.recipe
    }

    /// What lies below the layers.
    pub(crate) fn root(&self) -> Root {
        if self.recipe().base == Base::Host { Root::Host } else { Root::Own }
    }

    /// What a box starts with, without a way out.
    pub(crate) fn spec(&self, id: &SandboxId, snapshot: SnapshotRef) -> StartSpec {
        let own = self.recipe().env.iter().map(|(name, value)| (name.clone(), value.clone()));
        StartSpec {
            id: id.clone(),
            snapshot,
            limits: self.limits,
            env: self.image_env.iter().cloned().chain(own).collect(),
            binds: self.binds.clone(),
            workdir: PathBuf::from(WORKSPACE),
            root: self.root(),
            door: None,
        }
    }
}

/// The places that were looked at last.
#[derive(Debug, Default)]
pub(crate) struct Places {
    kept: Mutex<HashMap<(Digest, CommitSha), Arc<Place>>>,
}

impl Places {
    /// The place of a commit.
    pub(crate) async fn of(
        &self,
        ports: &Ports,
        settings: &Settings,
        project: &Project,
        commit: &CommitSha,
    ) -> Result<Arc<Place>, Failure> {
        let name = (project.key().clone(), commit.clone());
        if let Some(place) = self.kept().get(&name) {
            return Ok(place.clone());
        }
        let by_user = |error: RecipeError| Failure::new(FailureClass::Final, FailureSource::User, error.to_string());
        let chosen = read(ports, settings, project, commit).await?.map_err(by_user)?;
        let place = Arc::new(Place::of(chosen, settings).map_err(by_user)?);
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(name, place.clone());
        Ok(place)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<(Digest, CommitSha), Arc<Place>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a task's boxes, with what the image of its environment wants.
pub(crate) async fn place_of(shared: &Shared, project: &Project, task: &Task) -> Result<Arc<Place>, Failure> {
    let place = shared.places.of(&shared.ports, &shared.settings, project, &task.spec.repo.base).await?;
    let image_env = task.environment.as_ref().map(|environment| environment.env.as_slice()).unwrap_or_default();
    if image_env.is_empty() {
        return Ok(place);
    }
    Ok(Arc::new(Place { image_env: image_env.to_vec(), ..(*place).clone() }))
}

/// Reads the recipe at a commit.
async fn read(
    ports: &Ports,
    settings: &Settings,
    project: &Project,
    commit: &CommitSha,
) -> Result<Result<Chosen, RecipeError>, Failure> {
    let offered = &settings.environments;
    let root = ports.forge.list_files(project, commit, forge::Depth::Root).await?;
    let holds = |name: &str| root.iter().any(|entry| entry.path.as_str() == Some(name));
    let environment_toml =
        if holds(".chargehand") { plain_file(ports, project, commit, file::ENVIRONMENT_FILE).await? } else { None };
    let mut devcontainer_json = None;
    if environment_toml.is_none() {
        for path in devcontainer::DEVCONTAINER_FILES {
            let top = path.split('/').next().unwrap_or(path);
            if devcontainer_json.is_none() && holds(top) {
                let bytes = ports.forge.read_file(project, commit, path, MAX_FILE_BYTES).await?;
                devcontainer_json = bytes.map(|bytes| (path, bytes));
            }
        }
    }
    // Deriving looks at names only, and what it derives is worth something where setup may fetch.
    let derives =
        environment_toml.is_none() && devcontainer_json.is_none() && !offered.default_setup_network.is_empty();
    let tree: Vec<String> = if derives {
        let files = ports.forge.list_files(project, commit, forge::Depth::All).await?;
        files.iter().filter_map(|entry| entry.path.as_str().map(str::to_owned)).collect()
    } else {
        Vec::new()
    };
    Ok(choose(Sources {
        environment_toml: environment_toml.as_deref(),
        devcontainer_json: devcontainer_json.as_ref().map(|(path, bytes)| (*path, bytes.as_slice())),
        tree: &tree,
        default_setup_network: &offered.default_setup_network,
        images: Some(&offered.images),
    }))
}
