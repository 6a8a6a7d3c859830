//! The dependency graph: edges between our crates, their storeys, what may lie under a pure crate,
//! and what may not be built at all.
//!
//! Edges are what a `Cargo.toml` declares, optional ones too. `docs/crate-graph.txt` has one line
//! for each crate (`orchestrator -> agent domain …`) and one for its test-only edges
//! (`orchestrator (dev) -> testkit`), so that a new edge is a line in a review.

use std::collections::{BTreeMap, BTreeSet};

use crate::proc::Workspace;

/// Crates that do no I/O and read no clock.
pub const PURE: [&str; 3] = ["domain", "policy", "gates"];

/// What would make a pure crate impure.
const IMPURE: [&str; 8] = ["tokio", "sqlx", "reqwest", "axum", "hyper", "async-std", "smol", "rusqlite"];

/// What may be in no build of ours, and why.
const BANNED: [(&str, &str); 4] = [
    ("ring", "there is one TLS and crypto provider, aws-lc-rs; rustls panics when it finds two and none is chosen"),
    ("rsa", "its timing leak RUSTSEC-2023-0071 is not mended; sign with aws-lc-rs"),
    ("native-tls", "TLS is rustls with aws-lc-rs, the same on every machine"),
    ("openssl-sys", "nothing may need OpenSSL to be installed; TLS is rustls with aws-lc-rs"),
];

/// From bottom to top, as in DESIGN. An edge goes only to a lower storey.
const STOREYS: [&[&str]; 7] = [
    &["domain"],
    &["policy", "gates", "hand"],
    &["store", "sandbox", "egress", "model", "forge"],
    &["agent", "triggers"],
    &["orchestrator"],
    &["server"],
    &["cli"],
];

/// Crates beside the storeys: nothing of the product depends on them.
const BESIDE: [&str; 2] = ["testkit", "xtask"];

const HEADER: &str = "\
# Every edge between our crates. A new one is a decision about the design: `cargo xtask tidy` fails
# until it stands here, and `cargo xtask tidy --write` rewrites this file for the review to see.
# Lines with (dev) are for tests only. Storeys: xtask/src/tidy/graph.rs.
";

/// The edges between our crates.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edges {
    normal: BTreeMap<String, BTreeSet<String>>,
    dev: BTreeMap<String, BTreeSet<String>>,
}

impl Edges {
    /// As the manifests declare them.
    pub fn of(workspace: &Workspace) -> Self {
        let mut edges = Self::default();
        for package in &workspace.packages {
            edges.normal.entry(package.name.clone()).or_default();
            for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
                let is_dev = dependency.kind.as_deref() == Some("dev");
                let side = if is_dev { &mut edges.dev } else { &mut edges.normal };
                side.entry(package.name.clone()).or_default().insert(dependency.name.clone());
            }
        }
        edges
    }

    /// The graph file's text.
    pub fn render(&self) -> String {
        let mut text = HEADER.to_owned();
        for (from, to) in &self.normal {
            text.push_str(&line(from, to));
            if let Some(dev) = self.dev.get(from) {
                text.push_str(&line(&format!("{from} (dev)"), dev));
            }
        }
        text
    }

    /// Edges that the graph file lacks, and those that it lists although they are gone.
    pub fn compare(&self, written: &str) -> Vec<String> {
        let (listed, mut findings) = parse(written);
        for (is, was, mark) in [(&self.normal, &listed.normal, ""), (&self.dev, &listed.dev, " (dev)")] {
            let missing = difference(is, was).into_iter().map(|(from, to)| {
                format!(
                    "the edge {from}{mark} -> {to} is not in docs/crate-graph.txt; if it is meant, run `cargo xtask tidy --write` and give the reason in the commit"
                )
            });
            findings.extend(missing);
            let gone = difference(was, is).into_iter().map(|(from, to)| {
                format!(
                    "docs/crate-graph.txt lists {from}{mark} -> {to}, which is gone; run `cargo xtask tidy --write`"
                )
            });
            findings.extend(gone);
        }
        for name in self.normal.keys().filter(|name| !listed.normal.contains_key(*name)) {
            findings.push(format!("docs/crate-graph.txt does not list {name}; run `cargo xtask tidy --write`"));
        }
        for name in listed.normal.keys().filter(|name| !self.normal.contains_key(*name)) {
            findings.push(format!("docs/crate-graph.txt lists {name}, which is gone; run `cargo xtask tidy --write`"));
        }
        findings
    }

    /// Edges that do not go down.
    pub fn storeys(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (from, targets) in &self.normal {
            if BESIDE.contains(&from.as_str()) {
                continue;
            }
            let Some(upper) = storey(from) else {
                findings.push(format!(
                    "{from} has no storey; decide where it belongs and add it to STOREYS in xtask/src/tidy/graph.rs"
                ));
                continue;
            };
            for to in targets {
                if BESIDE.contains(&to.as_str()) {
                    findings.push(format!("{from} -> {to}: {to} is no part of the product; use it in tests only"));
                } else if let Some(lower) = storey(to)
                    && lower >= upper
                {
                    findings.push(format!(
                        "{from} (storey {upper}) -> {to} (storey {lower}): an edge goes only downward; pass a value, or put the trait into the lower crate"
                    ));
                }
            }
        }
        findings
    }
}

fn storey(name: &str) -> Option<usize> {
    STOREYS.iter().position(|storey| storey.contains(&name))
}

fn line(from: &str, to: &BTreeSet<String>) -> String {
    let words: Vec<&str> = [from, "->"].into_iter().chain(to.iter().map(String::as_str)).collect();
    words.join(" ") + "\n"
}

/// Reads a graph file; the second value has findings about lines that can't be read.
fn parse(written: &str) -> (Edges, Vec<String>) {
    let mut edges = Edges::default();
    let mut findings = Vec::new();
    for line in written.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((from, to)) = line.split_once("->") else {
            findings.push(format!("docs/crate-graph.txt: `{line}` is no edge; it should look like `a -> b c`"));
            continue;
        };
        let (name, side) = match from.trim().strip_suffix("(dev)") {
            Some(name) => (name.trim(), &mut edges.dev),
            None => (from.trim(), &mut edges.normal),
        };
        side.entry(name.to_owned()).or_default().extend(to.split_whitespace().map(str::to_owned));
    }
    (edges, findings)
}

/// Edges of `a` that `b` does not have.
fn difference<'a>(
    a: &'a BTreeMap<String, BTreeSet<String>>,
    b: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<(&'a str, &'a str)> {
    a.iter()
        .flat_map(|(from, targets)| targets.iter().map(move |to| (from.as_str(), to.as_str())))
        .filter(|(from, to)| !b.get(*from).is_some_and(|targets| targets.contains(*to)))
        .collect()
}

/// What makes a pure crate impure, by the names of all packages under it.
pub fn impure(name: &str, under: &[String]) -> Vec<String> {
    let found = under.iter().filter(|package| IMPURE.contains(&package.as_str()));
    found
        .map(|package| {
            format!(
                "{package} lies under {name}, which is pure; `cargo tree -p {name} -e normal -i {package}` shows how it came in"
            )
        })
        .collect()
}

/// Packages that may not be built.
pub fn banned(built: &[String]) -> Vec<String> {
    let found = BANNED.iter().filter(|(name, _)| built.iter().any(|package| package == name));
    found
        .map(|(name, reason)| {
            format!("{name} is built: {reason}; `cargo tree --workspace --all-features -i {name}` shows how it came in")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(text: &str) -> Edges {
        let (edges, findings) = parse(text);
        assert!(findings.is_empty(), "{findings:?}");
        edges
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    const GOOD: &str = "cli -> orchestrator server\ndomain ->\nforge -> domain policy\nforge (dev) -> testkit\norchestrator -> domain forge\n";

    #[test]
    fn what_is_rendered_is_read_back_and_has_no_findings() {
        let good = edges(GOOD);
        assert_eq!(edges(&good.render()), good);
        assert_eq!(good.compare(&good.render()), Vec::<String>::new());
        assert_eq!(good.storeys(), Vec::<String>::new());
    }

    #[test]
    fn an_edge_that_is_not_written_down_is_found() {
        let findings = edges(GOOD).compare(&GOOD.replace("forge -> domain policy", "forge -> domain"));
        assert!(findings.len() == 1 && findings[0].contains("forge -> policy is not in"), "{findings:?}");
        let dev = edges(GOOD).compare(&GOOD.replace("forge (dev) -> testkit\n", ""));
        assert!(dev.len() == 1 && dev[0].contains("forge (dev) -> testkit"), "{dev:?}");
    }

    #[test]
    fn an_edge_or_crate_that_is_gone_is_found() {
        let edge = edges(GOOD).compare(&GOOD.replace("domain ->", "domain -> policy"));
        assert!(edge.len() == 1 && edge[0].contains("domain -> policy, which is gone"), "{edge:?}");
        let name = edges(GOOD).compare(&format!("{GOOD}attic ->\n"));
        assert!(name.len() == 1 && name[0].contains("lists attic"), "{name:?}");
        let unlisted = edges(&format!("{GOOD}hand ->\n")).compare(GOOD);
        assert!(unlisted.len() == 1 && unlisted[0].contains("does not list hand"), "{unlisted:?}");
    }

    #[test]
    fn a_line_that_is_no_edge_is_found() {
        let findings = edges(GOOD).compare(&format!("{GOOD}forge depends on domain\n"));
        assert!(findings.len() == 1 && findings[0].contains("is no edge"), "{findings:?}");
    }

    #[test]
    fn an_edge_upward_or_sideways_is_found_even_if_it_is_written_down() {
        for bad in ["domain -> store", "gates -> policy", "agent -> orchestrator", "store -> store"] {
            let findings = edges(bad).storeys();
            assert!(findings.len() == 1 && findings[0].contains("only downward"), "{bad}: {findings:?}");
        }
    }

    #[test]
    fn the_product_never_depends_on_what_lies_beside_it() {
        let findings = edges("store -> testkit").storeys();
        assert!(findings.len() == 1 && findings[0].contains("tests only"), "{findings:?}");
        assert_eq!(edges("testkit -> domain").storeys(), Vec::<String>::new());
    }

    #[test]
    fn a_crate_without_a_storey_is_found() {
        let findings = edges("utils -> domain").storeys();
        assert!(findings.len() == 1 && findings[0].contains("utils has no storey"), "{findings:?}");
    }

    #[test]
    fn a_runtime_under_a_pure_crate_is_found() {
        let findings = impure("gates", &names(&["gates", "serde", "tokio"]));
        assert!(findings.len() == 1 && findings[0].contains("tokio lies under gates"), "{findings:?}");
        assert_eq!(impure("gates", &names(&["gates", "serde", "tokio-fake"])), Vec::<String>::new());
    }

    #[test]
    fn a_banned_crate_is_found_with_the_reason() {
        let findings = banned(&names(&["aws-lc-rs", "ring", "serde"]));
        assert!(findings.len() == 1 && findings[0].contains("aws-lc-rs"), "{findings:?}");
        assert_eq!(banned(&names(&["aws-lc-rs", "string"])), Vec::<String>::new());
    }

    #[test]
    fn the_pure_crates_are_the_bottom_ones() {
        for pure in PURE {
            assert!(storey(pure).unwrap() <= 1);
        }
    }
}
