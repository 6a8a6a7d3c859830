//! Gates that a repository gives away by its files.
//!
//! What people expect is that the platform runs what they would type themselves:
//!
//! 1. **A task runner's `test`** (`justfile`, else `Makefile`) stands alone. Whoever wrote it said
//!    how this project is tested, and it usually calls the languages' own tests; running those
//!    beside it would do the work twice, or wrongly (a step that must come first, a package that
//!    is left out on purpose).
//! 2. Otherwise **every language found** gives one gate, in the order Rust, Node, Python, Go: a
//!    repository with two languages is proved in both.
//! 3. `make check` only if nothing else was found: in C projects it runs the tests, elsewhere it
//!    is as often a linter.
//!
//! Only what declares itself counts: npm's placeholder script, a `tests` folder without Python
//! around it or a target that needs arguments is no gate. Nothing found gives an empty list, which
//! the change shows to its reviewer as "nothing was proved".
//!
//! Commands leave the network and caches to the box. Absent: installing dependencies, guessing from
//! folders below the root, and any program that a repository does not name itself.

use domain::evidence::GateSpec;

use crate::config::DEFAULT_TIME_LIMIT_S;

/// A file whose text is too long to be one that people write is not looked into.
const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Reads one file at the base commit, by its path from the root; `None` if there is none.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// The root folder as detection sees it.
struct Root<'a> {
    paths: &'a [&'a str],
    read: ReadFile<'a>,
}

impl Root<'_> {
    fn has(&self, name: &str) -> bool {
        self.paths.iter().any(|path| path.trim_end_matches('/') == name)
    }

    /// The first of these names that is there.
    fn first<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.has(name))
    }

    /// A file's text; empty if it is not there, too long or not text.
    fn text(&self, path: &str) -> String {
        match (self.read)(path) {
            Some(bytes) if bytes.len() <= MAX_FILE_BYTES => String::from_utf8(bytes).unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// The text of a file in the root folder; nothing is read if it is not there.
    fn root_text(&self, name: &str) -> String {
        if self.has(name) { self.text(name) } else { String::new() }
    }
}

/// The gates that the files of a base commit give away, see the module's rules.
///
/// `paths` are the names of the entries of the root folder (a trailing `/` is allowed); `read`
/// gives the bytes of a file by its path from the root and is asked for fewer than a dozen.
#[must_use]
pub fn detect(paths: &[&str], read: ReadFile<'_>) -> Vec<GateSpec> {
    let root = Root { paths, read };
    if let Some(gate) = just(&root).or_else(|| make(&root, "test")) {
        return vec![gate];
    }
    let languages: Vec<GateSpec> = [rust(&root), node(&root), python(&root), go(&root)].into_iter().flatten().collect();
    if languages.is_empty() { make(&root, "check").into_iter().collect() } else { languages }
}

fn gate(name: &str, command: &[&str], source: &str) -> GateSpec {
    GateSpec {
        name: name.to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        required: true,
        time_limit_ms: DEFAULT_TIME_LIMIT_S * 1000,
        source: format!("detected from {source}"),
    }
}

fn just(root: &Root<'_>) -> Option<GateSpec> {
    let file = root.first(&["justfile", "Justfile", ".justfile"])?;
    let runs = root.text(file).lines().any(is_just_test);
    runs.then(|| gate("just-test", &["just", "test"], file))
}

/// Whether a line of a justfile begins a recipe `test` that runs without arguments.
fn is_just_test(line: &str) -> bool {
    let Some(rest) = line.strip_prefix('@').unwrap_or(line).strip_prefix("test") else { return false };
    let Some((parameters, after)) = rest.split_once(':') else { return false };
    let is_the_name = parameters.is_empty() || parameters.starts_with([' ', '\t']);
    let needs_arguments = parameters
        .split_whitespace()
        .any(|parameter| !parameter.starts_with('*') && !parameter.contains('=') && parameter != "\\");
    is_the_name && !after.starts_with('=') && !needs_arguments
}

fn make(root: &Root<'_>, target: &str) -> Option<GateSpec> {
    // The order in which GNU make looks for them.
    let file = root.first(&["GNUmakefile", "makefile", "Makefile"])?;
    let defines = root.text(file).lines().any(|line| is_make_target(line, target));
    defines.then(|| gate(&format!("make-{target}"), &["make", target], file))
}

/// Whether a line of a makefile is a rule for `target`.
fn is_make_target(line: &str, target: &str) -> bool {
    if line.starts_with(['\t', ' ', '#', '.']) {
        return false;
    }
    let Some((targets, after)) = line.split_once(':') else { return false };
    // `test := x` and `test ::= x` set a variable, `test: VAR = x` only gives a rule a variable.
    let assigns = after.trim_start_matches(':').starts_with('=');
    !assigns && !targets.contains('=') && targets.split_whitespace().any(|word| word == target)
}

fn rust(root: &Root<'_>) -> Option<GateSpec> {
    if !root.has("Cargo.toml") {
        return None;
    }
    let manifest: toml::Table = root.text("Cargo.toml").parse().unwrap_or_default();
    let mut command = vec!["cargo", "test"];
    // Without this a root package hides the tests of the other members, unless the project says
    // which members count.
    if let Some(workspace) = manifest.get("workspace")
        && workspace.get("default-members").is_none()
    {
        command.push("--workspace");
    }
    // The proof shall be about the dependencies that the commit names, not about what cargo would
    // choose on the day.
    if root.has("Cargo.lock") {
        command.push("--locked");
    }
    Some(gate("cargo-test", &command, "Cargo.toml"))
}

fn node(root: &Root<'_>) -> Option<GateSpec> {
    if !root.has("package.json") {
        return None;
    }
    let manifest: serde_json::Value = serde_json::from_str(&root.text("package.json")).ok()?;
    let script = manifest.pointer("/scripts/test")?.as_str()?.trim();
    if script.is_empty() || script.contains("no test specified") {
        return None;
    }
    let named = manifest.get("packageManager").and_then(serde_json::Value::as_str).unwrap_or_default();
    let manager = ["npm", "pnpm", "yarn", "bun"]
        .into_iter()
        .find(|manager| named.strip_prefix(manager).is_some_and(|rest| rest.starts_with('@')));
    let by_lock_file = || match root.first(&["pnpm-lock.yaml", "yarn.lock", "bun.lock", "bun.lockb"]) {
        Some("pnpm-lock.yaml") => "pnpm",
        Some("yarn.lock") => "yarn",
        Some(_) => "bun",
        None => "npm",
    };
    Some(match manager.unwrap_or_else(by_lock_file) {
        "pnpm" => gate("pnpm-test", &["pnpm", "test"], "package.json"),
        "yarn" => gate("yarn-test", &["yarn", "test"], "package.json"),
        // `bun test` would start bun's own test runner instead of the script.
        "bun" => gate("bun-test", &["bun", "run", "test"], "package.json"),
        _ => gate("npm-test", &["npm", "test"], "package.json"),
    })
}

fn python(root: &Root<'_>) -> Option<GateSpec> {
    if let Some(source) = pytest_source(root) {
        return Some(gate("pytest", &["python3", "-m", "pytest"], source));
    }
    let project = root.first(&["pyproject.toml", "setup.py", "setup.cfg"]);
    let folder = root.first(&["tests", "test"]);
    let test_file = root
        .paths
        .iter()
        .copied()
        .find(|path| path.starts_with("test") && path.ends_with(".py") && !path.contains('/'));
    let discover = ["python3", "-m", "unittest", "discover"];
    match (folder, test_file, project) {
        (Some(folder), _, Some(source)) => {
            let mut command = discover.to_vec();
            command.extend(["-s", folder]);
            // A package of tests is imported from the root; loose files are imported from their folder.
            if (root.read)(&format!("{folder}/__init__.py")).is_some() {
                command.extend(["-t", "."]);
            }
            Some(gate("unittest", &command, source))
        }
        (_, Some(source), _) => Some(gate("unittest", &discover, source)),
        _ => None,
    }
}

/// The file that says that tests are pytest's.
fn pytest_source<'n>(root: &Root<'_>) -> Option<&'n str> {
    if let Some(name) = root.first(&["pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "conftest.py"]) {
        return Some(name);
    }
    let requirements = ["requirements-dev.txt", "requirements-test.txt", "dev-requirements.txt", "requirements.txt"];
    let says = |name: &str| {
        let text = root.root_text(name);
        match name {
            "pyproject.toml" => text.contains("[tool.pytest") || names_pytest(&text),
            "setup.cfg" => text.contains("[tool:pytest]") || names_pytest(&text),
            "tox.ini" => text.contains("[pytest]"),
            _ => names_pytest(&text),
        }
    };
    let by_content = ["pyproject.toml", "setup.cfg", "tox.ini"].into_iter().chain(requirements).find(|name| says(name));
    by_content.or_else(|| {
        let in_tests = root.has("tests") && (root.read)("tests/conftest.py").is_some();
        in_tests.then_some("tests/conftest.py")
    })
}

/// Whether a list of requirements names `pytest` itself, not only a plugin of it.
fn names_pytest(text: &str) -> bool {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).any(|line| {
        line.match_indices("pytest").any(|(at, word)| {
            let before = line.get(..at).and_then(|before| before.chars().next_back());
            let after = line.get(at + word.len()..).and_then(|after| after.chars().next());
            let joins = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
            !before.is_some_and(joins) && !after.is_some_and(joins)
        })
    })
}

fn go(root: &Root<'_>) -> Option<GateSpec> {
    root.has("go.mod").then(|| gate("go-test", &["go", "test", "./..."], "go.mod"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Detects over files given as (path, text); shows each gate as `name: command (source)`.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let mut roots: Vec<&str> = files.iter().map(|(path, _)| path.split('/').next().unwrap()).collect();
        roots.dedup();
        let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| text.as_bytes().to_vec());
        detect(&roots, &read)
            .into_iter()
            .map(|gate| {
                assert_eq!(gate.check(), Ok(()));
                format!("{}: {} ({})", gate.name, gate.command.join(" "), gate.source)
            })
            .collect()
    }

    fn check(files: &[(&str, &str)], expect: &[&str]) {
        assert_eq!(found(files), expect, "for {files:?}");
    }

    #[test]
    fn rust_is_tested_as_locked_and_with_all_members() {
        let package = "[package]\nname = \"a\"\n";
        check(&[("Cargo.toml", package)], &["cargo-test: cargo test (detected from Cargo.toml)"]);
        check(
            &[("Cargo.toml", package), ("Cargo.lock", "")],
            &["cargo-test: cargo test --locked (detected from Cargo.toml)"],
        );
        check(
            &[("Cargo.toml", "[workspace]\nmembers = [\"a\"]\n[package]\nname = \"a\"\n")],
            &["cargo-test: cargo test --workspace (detected from Cargo.toml)"],
        );
        check(
            &[("Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\ndefault-members = [\"a\"]\n")],
            &["cargo-test: cargo test (detected from Cargo.toml)"],
        );
        check(&[("Cargo.toml", "not toml [")], &["cargo-test: cargo test (detected from Cargo.toml)"]);
    }

    #[test]
    fn node_needs_a_script_that_tests_something() {
        let with = |script: &str| format!("{{\"scripts\":{{\"test\":{script}}}}}");
        check(&[("package.json", &with("\"node --test\""))], &["npm-test: npm test (detected from package.json)"]);
        check(&[("package.json", &with(r#""echo \"Error: no test specified\" && exit 1""#))], &[]);
        check(&[("package.json", &with("\" \""))], &[]);
        check(&[("package.json", "{\"name\":\"x\"}")], &[]);
        check(&[("package.json", "{broken")], &[]);
    }

    #[test]
    fn the_package_manager_is_the_one_that_is_named_else_the_one_that_locked() {
        let script = "{\"scripts\":{\"test\":\"x\"}}";
        check(
            &[("package.json", script), ("pnpm-lock.yaml", "")],
            &["pnpm-test: pnpm test (detected from package.json)"],
        );
        check(&[("package.json", script), ("yarn.lock", "")], &["yarn-test: yarn test (detected from package.json)"]);
        check(&[("package.json", script), ("bun.lock", "")], &["bun-test: bun run test (detected from package.json)"]);
        check(
            &[("package.json", "{\"packageManager\":\"pnpm@9.1.0\",\"scripts\":{\"test\":\"x\"}}"), ("yarn.lock", "")],
            &["pnpm-test: pnpm test (detected from package.json)"],
        );
    }

    #[test]
    fn python_is_pytests_where_the_project_says_so() {
        let pytest = |source: &str| vec![format!("pytest: python3 -m pytest (detected from {source})")];
        assert_eq!(found(&[("pytest.ini", "")]), pytest("pytest.ini"));
        assert_eq!(found(&[("pyproject.toml", "[tool.pytest.ini_options]\n")]), pytest("pyproject.toml"));
        assert_eq!(found(&[("pyproject.toml", "dev = [\"pytest>=8\"]\n")]), pytest("pyproject.toml"));
        assert_eq!(found(&[("setup.cfg", "[tool:pytest]\n")]), pytest("setup.cfg"));
        assert_eq!(found(&[("tox.ini", "[pytest]\n")]), pytest("tox.ini"));
        assert_eq!(found(&[("requirements-dev.txt", "ruff\npytest==8.1\n")]), pytest("requirements-dev.txt"));
        assert_eq!(found(&[("setup.py", ""), ("tests/conftest.py", "")]), pytest("tests/conftest.py"));
    }

    #[test]
    fn a_plugin_or_a_comment_does_not_make_it_pytests() {
        check(&[("pyproject.toml", "# pytest later\nmypy = [\"my-pytest-plugin\"]\n")], &[]);
    }

    #[test]
    fn other_python_is_unittests() {
        check(
            &[("pyproject.toml", ""), ("tests/test_a.py", "")],
            &["unittest: python3 -m unittest discover -s tests (detected from pyproject.toml)"],
        );
        check(
            &[("setup.py", ""), ("tests/__init__.py", "")],
            &["unittest: python3 -m unittest discover -s tests -t . (detected from setup.py)"],
        );
        check(
            &[("test_math.py", ""), ("math2.py", "")],
            &["unittest: python3 -m unittest discover (detected from test_math.py)"],
        );
        check(&[("main.py", "")], &[]);
        check(&[("tests/data.txt", "")], &[]);
    }

    #[test]
    fn go_is_tested_in_all_packages() {
        check(&[("go.mod", "module x\n")], &["go-test: go test ./... (detected from go.mod)"]);
    }

    #[test]
    fn every_language_gives_its_gate() {
        let gates = found(&[
            ("go.mod", ""),
            ("Cargo.toml", ""),
            ("package.json", "{\"scripts\":{\"test\":\"x\"}}"),
            ("pytest.ini", ""),
        ]);
        let names: Vec<&str> = gates.iter().filter_map(|gate| gate.split(':').next()).collect();
        assert_eq!(names, ["cargo-test", "npm-test", "pytest", "go-test"]);
    }

    #[test]
    fn a_task_runners_test_stands_alone_and_just_comes_before_make() {
        let make = ("Makefile", ".PHONY: test\nbuild:\n\tcc x.c\n\ntest: build\n\t./x\n");
        let rust = ("Cargo.toml", "[package]\nname = \"a\"\n");
        check(&[rust, make], &["make-test: make test (detected from Makefile)"]);
        check(
            &[rust, make, ("justfile", "build:\n  cargo build\n\ntest *args: build\n  cargo test {{args}}\n")],
            &["just-test: just test (detected from justfile)"],
        );
    }

    #[test]
    fn make_check_counts_only_when_nothing_else_is_there() {
        let make = ("Makefile", "check:\n\t./run-tests\n");
        check(&[make], &["make-check: make check (detected from Makefile)"]);
        check(&[make, ("go.mod", "")], &["go-test: go test ./... (detected from go.mod)"]);
    }

    #[test]
    fn what_only_looks_like_a_make_rule_is_none() {
        for line in ["test := 1", "test = a:b", ".PHONY: test", "\ttest: x", "# test: x", "tests:", "test ::= 1"] {
            assert!(!is_make_target(line, "test"), "{line:?}");
        }
        for line in ["test:", "test check: build", "test::", "all test :"] {
            assert!(is_make_target(line, "test"), "{line:?}");
        }
    }

    #[test]
    fn what_only_looks_like_a_runnable_recipe_is_none() {
        for line in ["test := 'x'", "test-all:", "  test:", "test filter:", "test +files:", "alias t := test"] {
            assert!(!is_just_test(line), "{line:?}");
        }
        for line in ["test:", "@test:", "test: build", "test *args:", "test filter='':", "test $x='1' *rest: build"] {
            assert!(is_just_test(line), "{line:?}");
        }
    }

    #[test]
    fn an_empty_repository_has_no_gates() {
        check(&[], &[]);
        check(&[("README.md", "make test")], &[]);
    }
}
