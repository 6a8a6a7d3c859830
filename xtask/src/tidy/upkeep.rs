//! What creeps: lint files that replace the workspace's, a map that no longer fits, a lock file
//! that grows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::proc::Workspace;

/// Most packages in the lock file, ours included.
///
/// Each package is build time and something to trust. The one-machine product came to about 350, of which
/// the certificates of the egress proxy and the archives of environments are some 25; the rest is slack for
/// updates of what is there. Raise it only with the reason in the commit.
const MAX_LOCK_PACKAGES: usize = 365;

/// Where every package has to come from, so that a lock file works on every machine.
const LOCK_SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Lint files below the root: clippy reads the nearest one *instead of* the workspace's.
pub fn own_clippy_files<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Vec<String> {
    files
        .filter(|path| path.file_name().is_some_and(|name| name == "clippy.toml" || name == ".clippy.toml"))
        .filter(|path| path.as_path() != Path::new("clippy.toml"))
        .map(|path| {
            format!(
                "{}: it would replace the workspace's clippy.toml and lose its bans; move the rule there",
                path.display()
            )
        })
        .collect()
}

/// The folders of all crates, from the root: `crates/domain`, `xtask`.
pub fn crate_folders(workspace: &Workspace) -> BTreeSet<String> {
    let folder = |manifest: &Path| {
        let folder = manifest.parent()?.strip_prefix(&workspace.root).ok()?;
        Some(folder.to_string_lossy().into_owned())
    };
    workspace.packages.iter().filter_map(|package| folder(&package.manifest_path)).collect()
}

/// Crates that the map in AGENTS.md lacks, and those that it names although they are gone.
pub fn map_of_crates(map: Option<&str>, crates: &BTreeSet<String>) -> Vec<String> {
    let Some(map) = map else {
        return vec!["AGENTS.md is missing; it has the map, the commands and the rules".to_owned()];
    };
    let named = folders_in(map);
    let is_named = |name: &String| named.contains(name) || (name == "xtask" && map.contains("xtask/"));
    let missing =
        crates.iter().filter(|name| !is_named(name)).map(|name| format!("AGENTS.md: its map does not name `{name}`"));
    let gone = named
        .iter()
        .filter(|name| !crates.contains(*name))
        .map(|name| format!("AGENTS.md names `{name}`, which is not there"));
    missing.chain(gone).collect()
}

/// Every `crates/<name>` in a text.
fn folders_in(text: &str) -> BTreeSet<String> {
    let rests = text.match_indices("crates/").filter_map(|(at, word)| text.get(at + word.len()..));
    rests
        .map(|rest| {
            rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect::<String>()
        })
        .filter(|name| !name.is_empty())
        .map(|name| format!("crates/{name}"))
        .collect()
}

/// A lock file that is too long, or bound to somebody's own registry.
pub fn lock_file(lock: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let count = lock.lines().filter(|line| *line == "[[package]]").count();
    if count == 0 {
        findings.push("Cargo.lock lists no packages".to_owned());
    }
    if count > MAX_LOCK_PACKAGES {
        findings.push(format!(
            "Cargo.lock has {count} packages, more than {MAX_LOCK_PACKAGES}; drop a dependency or a feature, or raise MAX_LOCK_PACKAGES in xtask/src/tidy/upkeep.rs and give the reason in the commit"
        ));
    }
    let sources: BTreeSet<&str> = lock.lines().filter_map(|line| line.strip_prefix("source = ")).collect();
    for source in sources.into_iter().map(|source| source.trim_matches('"')).filter(|source| *source != LOCK_SOURCE) {
        findings.push(format!("Cargo.lock takes packages from {source}; only {LOCK_SOURCE} is there for everybody"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crates(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_crates_own_lint_file_is_found_and_the_workspaces_is_not() {
        let files = ["clippy.toml", "crates/a/clippy.toml", "crates/b/.clippy.toml", "a.toml"].map(PathBuf::from);
        let findings = own_clippy_files(files.iter());
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].starts_with("crates/a/clippy.toml"));
    }

    #[test]
    fn a_crate_that_the_map_lacks_is_found() {
        let map = "- `crates/domain`: nouns\n- `xtask/`: upkeep\n";
        assert_eq!(map_of_crates(Some(map), &crates(&["crates/domain", "xtask"])), Vec::<String>::new());
        let findings = map_of_crates(Some(map), &crates(&["crates/domain", "crates/gates", "xtask"]));
        assert_eq!(findings, ["AGENTS.md: its map does not name `crates/gates`"]);
        assert_eq!(map_of_crates(Some("crates/domain"), &crates(&["crates/domain", "xtask"])).len(), 1);
    }

    #[test]
    fn a_crate_that_the_map_still_names_is_found() {
        let findings = map_of_crates(Some("`crates/domain` `crates/attic/` crates/*"), &crates(&["crates/domain"]));
        assert_eq!(findings, ["AGENTS.md names `crates/attic`, which is not there"]);
    }

    #[test]
    fn a_name_that_only_begins_like_a_crate_does_not_count_as_it() {
        let findings = map_of_crates(Some("crates/store-old"), &crates(&["crates/store"]));
        assert_eq!(findings.len(), 2, "{findings:?}");
    }

    #[test]
    fn a_missing_map_is_found() {
        assert_eq!(map_of_crates(None, &crates(&[])).len(), 1);
    }

    fn lock(count: usize, source: &str) -> String {
        format!("version = 4\n\n{}", format!("[[package]]\nname = \"a\"\nsource = \"{source}\"\n\n").repeat(count))
    }

    #[test]
    fn a_lock_file_over_its_ceiling_is_found() {
        assert_eq!(lock_file(&lock(MAX_LOCK_PACKAGES, LOCK_SOURCE)), Vec::<String>::new());
        let findings = lock_file(&lock(MAX_LOCK_PACKAGES + 1, LOCK_SOURCE));
        assert!(findings.len() == 1 && findings[0].contains("more than"), "{findings:?}");
        assert_eq!(lock_file("").len(), 1);
    }

    #[test]
    fn a_lock_file_bound_to_somebodys_registry_is_found() {
        let findings = lock_file(&lock(2, "sparse+https://mirror.example/index/"));
        assert!(findings.len() == 1 && findings[0].contains("mirror.example"), "{findings:?}");
    }
}
