//! A recipe out of what a tree's files give away, for repositories that have none.
//!
//! Only the files at the top count: what lies deeper is a part of something else. Fetching needs a
//! network, and a network is only what somebody listed; so without a list the recipe fetches
//! nothing and its notes say what to write. Absent: reading any file.

use super::recipe::{Allow, Note, Recipe, SetupCommand, SetupNetwork};

/// A kind of project: what gives it away, how its dependencies are fetched, from where.
struct Kind {
    /// All of these lie at the top.
    files: &'static [&'static str],
    /// What fetches.
    run: &'static str,
    /// The group of hosts that it needs.
    group: &'static str,
    /// Where it keeps what a later offline build needs, if that is a cache folder.
    cache: Option<&'static str>,
}

/// The first that fits of each block of alike ones; a line with the same group is an alternative.
const KINDS: [Kind; 10] = [
    Kind {
        files: &["Cargo.toml", "Cargo.lock"],
        run: "CARGO_NET_OFFLINE=false cargo fetch --locked",
        group: "cargo",
        cache: None,
    },
    Kind { files: &["Cargo.toml"], run: "CARGO_NET_OFFLINE=false cargo fetch", group: "cargo", cache: None },
    Kind { files: &["package.json", "package-lock.json"], run: "npm ci", group: "npm", cache: None },
    Kind {
        files: &["package.json", "pnpm-lock.yaml"],
        run: "pnpm install --frozen-lockfile",
        group: "npm",
        cache: None,
    },
    Kind { files: &["package.json", "yarn.lock"], run: "yarn install --frozen-lockfile", group: "npm", cache: None },
    Kind {
        files: &["uv.lock", "pyproject.toml"],
        run: "uv sync --locked",
        group: "pip",
        cache: Some("/home/agent/.cache/uv"),
    },
    Kind {
        files: &["requirements.txt"],
        run: "PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --user -r requirements.txt",
        group: "pip",
        cache: None,
    },
    Kind {
        files: &["pyproject.toml"],
        run: "PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --user -e .",
        group: "pip",
        cache: None,
    },
    Kind { files: &["go.mod"], run: "go mod download", group: "go", cache: None },
    Kind { files: &["Gemfile.lock"], run: "bundle install", group: "rubygems", cache: None },
];

/// Files that need no setup, and what is said about them.
const QUIET: [(&str, &str); 4] = [
    ("Makefile", "builds need no setup of their own"),
    ("CMakeLists.txt", "builds need no setup of their own"),
    ("package.json", "without a lock file nothing is fetched: what would come is not known"),
    ("pom.xml", "maven fetches while it builds; list its repository under network.tasks"),
];

/// The recipe for a tree, and why its lines are there. `listed` is what setup may reach.
#[must_use]
pub fn derive(tree: &[String], listed: &[Allow]) -> (Recipe, Vec<Note>) {
    let at_top = |name: &str| tree.iter().any(|path| path == name);
    let mut recipe = Recipe::default();
    let mut notes =
        vec![Note::new("", "derived from the repository's files; there is no .chargehand/environment.toml")];
    let mut groups: Vec<&str> = Vec::new();
    for kind in &KINDS {
        if groups.contains(&kind.group) || !kind.files.iter().all(|file| at_top(file)) {
            continue;
        }
        groups.push(kind.group);
        let found = kind.files.join(" and ");
        let Some(allow) = listed.iter().find(|allow| allow.name() == kind.group) else {
            let (run, group) = (kind.run, kind.group);
            let text = format!(
                "{found}: `{run}` is left out, as setup has no network here; to have it, add network.setup = [\"{group}\"] and a [[setup]] with run = \"{run}\" and network = [\"{group}\"]"
            );
            notes.push(Note::new("setup", text));
            continue;
        };
        notes.push(Note::new(format!("setup.{}", recipe.setup.len()), format!("because there is {found}")));
        recipe.setup_network.push(allow.clone());
        recipe.setup.push(SetupCommand {
            network: SetupNetwork::Only(vec![allow.name().to_owned()]),
            ..SetupCommand::offline(kind.run)
        });
        if let Some(cache) = kind.cache {
            notes.push(Note::new("caches", format!("{} keeps what it fetched there", kind.run)));
            recipe.caches.push(cache.into());
        }
    }
    for (file, text) in QUIET {
        if at_top(file) && !(file == "package.json" && groups.contains(&"npm")) {
            notes.push(Note::new("setup", format!("{file}: {text}")));
        }
    }
    if notes.len() == 1 {
        notes.push(Note::new("setup", "nothing at the top of the tree says how it is set up"));
    }
    (recipe, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn without_a_list_of_hosts_nothing_is_fetched_and_the_note_says_what_to_write() {
        let (recipe, notes) = derive(&tree(&["Cargo.toml", "Cargo.lock", "sub/package.json"]), &[]);
        assert_eq!(recipe, Recipe::default());
        let said: Vec<_> = notes.iter().map(|note| note.text.as_str()).collect();
        assert!(
            said.iter().any(|text| text.contains("cargo fetch --locked") && text.contains("network.setup")),
            "{said:?}"
        );
        assert!(!said.iter().any(|text| text.contains("package.json")), "{said:?}");
    }

    #[test]
    fn with_a_list_each_kind_of_project_gets_its_one_command_and_its_own_hosts() {
        let listed = ["cargo", "npm", "pip"].map(|name| Allow::Group(name.into()));
        let names = tree(&["Cargo.toml", "package.json", "package-lock.json", "yarn.lock", "pyproject.toml", "go.mod"]);
        let (recipe, notes) = derive(&names, &listed);
        let lines: Vec<_> = recipe.setup.iter().map(|setup| setup.run.as_str()).collect();
        assert_eq!(
            lines,
            [
                "CARGO_NET_OFFLINE=false cargo fetch",
                "npm ci",
                "PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --user -e ."
            ]
        );
        assert_eq!(recipe.setup[1].network, SetupNetwork::Only(vec!["npm".into()]));
        assert!(notes.iter().any(|note| note.text.contains("go mod download")), "{notes:?}");
        super::super::values::check(&recipe).unwrap();
    }
}
