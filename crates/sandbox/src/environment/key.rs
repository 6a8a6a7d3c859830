//! The key of an environment: the digest of everything that went in.
//!
//! Two builds with one key are one environment; whatever could change what a build makes has to be
//! a part. Parts are written with their length, so that no two sets of parts read alike. Absent:
//! what must not matter (when, by whom, for which task), and looking at the machine: the caller says
//! what it found, [`ToolchainIdentity::look`] helps for folders.

use std::path::{Path, PathBuf};

use domain::id::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::recipe::Recipe;

/// Raised when builds do something else than before with the same parts.
const BUILD_GENERATION: u32 = 1;

/// A toolchain of the host as it is now: its folder and when that last changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ToolchainIdentity {
    /// For people, with a version where one is known.
    pub name: String,
    /// On the host.
    pub path: PathBuf,
    /// Modification time of the folder, in nanoseconds since 1970; 0 if it is not there.
    pub changed_ns: i128,
}

impl ToolchainIdentity {
    /// Looks at a folder.
    #[must_use]
    pub fn look(name: &str, path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let changed_ns = std::fs::metadata(path)
            .map_or(0, |about| i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec()));
        Self { name: name.to_owned(), path: path.to_owned(), changed_ns }
    }
}

/// Everything that goes into an environment.
#[derive(Debug, Clone, Copy)]
pub struct KeyParts<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Digest of the imported base; none for the host's toolchains.
    pub base: Option<&'a Digest>,
    /// The host's toolchains that boxes see; in any order. Empty if the base is no host's.
    pub toolchains: &'a [ToolchainIdentity],
    /// Key of the layer with the checkout.
    pub checkout: &'a Digest,
    /// The provider and what it makes boxes of, for example `local/1`.
    pub provider: &'a str,
}

/// The key.
#[must_use]
pub fn environment_key(parts: KeyParts<'_>) -> Digest {
    let mut toolchains = parts.toolchains.to_vec();
    toolchains.sort();
    let described = (
        "environment",
        BUILD_GENERATION,
        parts.recipe,
        parts.base,
        toolchains.iter().map(|t| (&t.name, t.path.to_string_lossy(), t.changed_ns.to_string())).collect::<Vec<_>>(),
        parts.checkout,
        parts.provider,
    );
    // A JSON array of plain data: it cannot fail, and no two values are written alike.
    Digest::of(&serde_json::to_vec(&described).unwrap_or_default())
}

/// The key as it is at a time: where the recipe wants a rebuild every so many hours, it is another
/// one in each such span, so that the earlier environment becomes the last good one by itself.
#[must_use]
pub fn environment_key_at(parts: KeyParts<'_>, now: Timestamp) -> Digest {
    let key = environment_key(parts);
    match parts.recipe.rebuild.every_h.filter(|hours| *hours > 0) {
        None => key,
        Some(hours) => {
            let span = now.as_second().div_euclid(i64::from(hours) * 3600);
            Digest::of(format!("{key}\nin span {span} of {hours} hours").as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::recipe::SetupCommand;
    use super::*;

    #[test]
    fn the_key_is_the_same_for_the_same_parts_and_another_for_every_part_that_differs() {
        let recipe = Recipe::default();
        let other_recipe = Recipe { setup: vec![SetupCommand::offline("true")], ..Recipe::default() };
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let tool = |name: &str, changed_ns| ToolchainIdentity { name: name.into(), path: "/x".into(), changed_ns };
        let (one, two, later) =
            ([tool("r", 1), tool("p", 2)], [tool("p", 2), tool("r", 1)], [tool("p", 2), tool("r", 9)]);
        let parts = KeyParts { recipe: &recipe, base: None, toolchains: &one, checkout: &a, provider: "local/1" };
        let key = environment_key(parts);
        assert_eq!(key, environment_key(KeyParts { toolchains: &two, ..parts }));
        let others = [
            KeyParts { recipe: &other_recipe, ..parts },
            KeyParts { base: Some(&a), ..parts },
            KeyParts { toolchains: &later, ..parts },
            KeyParts { toolchains: &[], ..parts },
            KeyParts { checkout: &b, ..parts },
            KeyParts { provider: "local/2", ..parts },
        ];
        let keys: std::collections::HashSet<Digest> = others.map(environment_key).into_iter().chain([key]).collect();
        assert_eq!(keys.len(), 7);
    }

    #[test]
    fn with_a_schedule_the_key_is_another_one_in_each_span_and_without_one_never() {
        use super::super::recipe::Rebuild;
        let at = |hour: i64| Timestamp::from_second(1_800_000_000 / 86_400 * 86_400 + hour * 3600 + 7).unwrap();
        let checkout = Digest::of(b"a");
        let key = |every_h, hour| {
            let rebuild = Rebuild { every_h, when_branch_moves: true };
            let recipe = Recipe { rebuild, ..Recipe::default() };
            let parts = KeyParts { recipe: &recipe, base: None, toolchains: &[], checkout: &checkout, provider: "x" };
            environment_key_at(parts, at(hour))
        };
        assert_eq!(key(Some(24), 0), key(Some(24), 23));
        assert_ne!(key(Some(24), 23), key(Some(24), 24));
        assert_eq!(key(None, 0), key(None, 1000));
    }
}
