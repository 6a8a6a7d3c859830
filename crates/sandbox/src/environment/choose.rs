//! Which recipe a repository has: the first of its own file, its `devcontainer.json`, and what its
//! files give away.
//!
//! All three come from the **base** commit; an agent's change to them counts once it has landed.
//! Absent: git. The caller reads the files and lists the tree.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::recipe::{Allow, Note, Recipe, RecipeError};
use super::{derive, devcontainer, file, render};

/// What the base commit holds, and what the server offers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// Content of [`file::ENVIRONMENT_FILE`].
    pub environment_toml: Option<&'a [u8]>,
    /// Path and content of the first of [`devcontainer::DEVCONTAINER_FILES`] that is there.
    pub devcontainer_json: Option<(&'a str, &'a [u8])>,
    /// Paths of all files of the commit, as git lists them.
    pub tree: &'a [String],
    /// What the server lets setup reach where a repository has no file of its own. With nothing, a
    /// derived recipe fetches nothing.
    pub default_setup_network: &'a [Allow],
    /// Image names, and the layouts on this machine that hold them.
    pub images: Option<&'a BTreeMap<String, PathBuf>>,
}

/// Where a recipe comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A file of the repository.
    File(String),
    /// The tree's files.
    Derived,
}

/// A recipe, where it comes from, and what a person should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The recipe.
    pub recipe: Recipe,
    /// Where it comes from.
    pub origin: Origin,
    /// Why lines are there, and what was left out.
    pub notes: Vec<Note>,
}

impl Chosen {
    /// The recipe as an `environment.toml`, each note a comment above its line. Read again, it is
    /// the same recipe.
    #[must_use]
    pub fn to_toml(&self) -> String {
        render::to_toml(&self.recipe, &self.notes)
    }
}

impl Recipe {
    /// The recipe as an `environment.toml`. Read again, it is the same recipe.
    #[must_use]
    pub fn to_toml(&self) -> String {
        render::to_toml(self, &[])
    }
}

/// Chooses the recipe.
///
/// # Errors
/// [`RecipeError`] if a file is there and is wrong; another source is not tried then.
pub fn choose(sources: Sources<'_>) -> Result<Chosen, RecipeError> {
    if let Some(bytes) = sources.environment_toml {
        let recipe = file::parse(bytes)?;
        return Ok(Chosen { recipe, origin: Origin::File(file::ENVIRONMENT_FILE.into()), notes: Vec::new() });
    }
    if let Some((path, bytes)) = sources.devcontainer_json {
        let empty = BTreeMap::new();
        let offer = devcontainer::Offer {
            setup_network: sources.default_setup_network,
            images: sources.images.unwrap_or(&empty),
        };
        let (recipe, notes) = devcontainer::parse(path, bytes, offer)?;
        return Ok(Chosen { recipe, origin: Origin::File(path.to_owned()), notes });
    }
    let (recipe, notes) = derive::derive(sources.tree, sources.default_setup_network);
    Ok(Chosen { recipe, origin: Origin::Derived, notes })
}
