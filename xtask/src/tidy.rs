//! The walls of this repository, as checks: prose does not hold a boundary.
//!
//! Each check is a pure function from text to findings, with tests that it fails on a bad input;
//! this module only fetches the text and prints. A finding says where, what, and what to do.
//! Absent: repairs, except `--write`, which rewrites the one generated file that belongs to tidy.
//! Other generated files (the OpenAPI file) are proved fresh by tests of the crates that make them.

mod graph;
mod sources;
mod upkeep;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::proc::{self, Workspace};

/// Where the edges between our crates are written down.
const GRAPH_FILE: &str = "docs/crate-graph.txt";

/// Runs every check and prints what it finds; gives the number of findings.
///
/// With `write` the graph file is rewritten first, so that only its diff needs a look.
pub fn run(workspace: &Workspace, write: bool) -> anyhow::Result<usize> {
    let mut findings: Vec<String> = Vec::new();
    let edges = graph::Edges::of(workspace);
    if write {
        let path = workspace.root.join(GRAPH_FILE);
        std::fs::write(&path, edges.render()).with_context(|| format!("cannot write {}", path.display()))?;
        println!("tidy: wrote {GRAPH_FILE}");
    }
    let files = tracked_files(&workspace.root)?;
    let text = |name: &str| files.get(Path::new(name)).map(String::as_str);

    findings.extend(match text(GRAPH_FILE) {
        Some(written) => edges.compare(written),
        None => vec![format!("{GRAPH_FILE} is missing; `cargo xtask tidy --write` makes it")],
    });
    findings.extend(edges.storeys());
    for pure in graph::PURE {
        findings.extend(graph::impure(pure, &tree(&["--package", pure, "--edges", "normal"])?));
    }
    findings.extend(graph::banned(&tree(&["--workspace", "--all-features", "--edges", "normal,build,dev"])?));
    for (path, content) in &files {
        findings.extend(sources::check(path, content));
    }
    findings.extend(upkeep::own_clippy_files(files.keys()));
    let crates = upkeep::crate_folders(workspace);
    findings.extend(upkeep::map_of_crates(text("AGENTS.md"), &crates));
    findings.extend(match text("Cargo.lock") {
        Some(lock) => upkeep::lock_file(lock),
        None => vec!["Cargo.lock is missing; it belongs into the repository".to_owned()],
    });
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    let tools = format_and_lints()?;
    let count = findings.len() + tools;
    match count {
        0 => println!("tidy: fine ({} files, {} crates)", files.len(), crates.len()),
        n => eprintln!("tidy: {n} finding{}", if n == 1 { "" } else { "s" }),
    }
    Ok(count)
}

/// The text of every file that is tracked, or would be by `git add`; other than text is left out.
fn tracked_files(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let list = proc::captured(proc::git(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))
        .context("tidy looks at the files that git knows")?;
    let mut files = BTreeMap::new();
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        // A file that was removed but not yet from the index, a link, or no text: nothing to read.
        if let Ok(content) = std::fs::read_to_string(root.join(name)) {
            files.insert(PathBuf::from(name), content);
        }
    }
    Ok(files)
}

/// The names of the packages in a part of the graph that is built on this machine.
fn tree(selection: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut command = proc::cargo();
    command.args(["tree", "--locked", "--prefix", "none", "--format", "{p}"]).args(selection);
    let printed = proc::captured(&mut command)?;
    let mut names: Vec<String> =
        printed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// rustfmt and clippy speak for themselves; gives how many of the two complained.
fn format_and_lints() -> anyhow::Result<usize> {
    let mut count = 0;
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if proc::captured(proc::cargo().args([tool, "--version"])).is_err() {
            eprintln!("tidy: `cargo {tool}` is not installed; run: rustup component add {component}");
            count += 1;
        }
    }
    if count > 0 {
        return Ok(count);
    }
    if !proc::passed_through(proc::cargo().args(["fmt", "--all", "--", "--check", "-l"]))? {
        eprintln!("tidy: these files are not formatted; run: cargo fmt --all");
        count += 1;
    }
    let lints = ["clippy", "--quiet", "--workspace", "--lib", "--bins", "--", "-D", "warnings"];
    if !proc::passed_through(proc::cargo().args(lints))? {
        eprintln!(
            "tidy: clippy found something (above); mend it, or write #[expect(clippy::…, reason = \"…\")] where it must be so"
        );
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_that_is_looked_at_is_the_real_one() {
        let under_store = tree(&["--package", "store", "--edges", "normal"]).unwrap();
        let findings = graph::impure("store", &under_store);
        assert!(findings.iter().any(|finding| finding.starts_with("tokio lies under store")), "{findings:?}");
    }

    #[test]
    fn the_files_that_are_looked_at_are_those_of_the_repository() {
        let workspace = Workspace::find().unwrap();
        let files = tracked_files(&workspace.root).unwrap();
        assert!(files.contains_key(Path::new("xtask/src/tidy.rs")));
        assert!(!files.keys().any(|path| path.starts_with("target")));
    }
}
