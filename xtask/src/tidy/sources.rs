//! What each file has to look like: a header on every module, a size that can be read, nothing of
//! the machine that it was written on, and a word that the test command can hear.

use std::path::{Component, Path};

/// Most lines of a module without its tests.
const MAX_CODE_LINES: usize = 500;
/// Most lines of a module with its tests, and of a file of tests.
const MAX_LINES: usize = 800;

/// Folders whose files are data for tests or for the demo, not modules of ours.
const DATA_FOLDERS: [&str; 3] = ["fixtures", "sample", "testdata"];

/// Folders of one machine. In two halves, so that this file does not find itself.
const MACHINE_PATHS: [(&str, &str); 2] = [("/wo", "rk/"), ("/ro", "ot/")];

/// Hosts that packages are fetched from: which one is the business of each user's own settings.
const REGISTRY_HOSTS: [(&str, &str); 7] = [
    ("index.", "crates.io"),
    ("static.", "crates.io"),
    ("registry.", "npmjs.org"),
    ("py", "pi.org"),
    ("files.", "pythonhosted.org"),
    ("proxy.", "golang.org"),
    ("deb.", "debian.org"),
];

/// Everything that is wrong with one file; `path` is from the root.
pub fn check(path: &Path, content: &str) -> Vec<String> {
    let mut findings = foreign_words(path, content);
    let is_rust = path.extension().is_some_and(|extension| extension == "rs");
    let has = |name: &str| path.components().any(|part| part == Component::Normal(name.as_ref()));
    if is_rust && !DATA_FOLDERS.iter().any(|folder| has(folder)) {
        findings.extend(header(path, content));
        findings.extend(size(path, content));
        findings.extend(swallowed_notice(path, content));
    }
    findings
}

fn header(path: &Path, content: &str) -> Option<String> {
    let first = content.lines().next().unwrap_or_default();
    let says_something = first.strip_prefix("//!").is_some_and(|text| !text.trim().is_empty());
    (!says_something)
        .then(|| format!("{}: the first line has to be `//! …` and say what the module is for", path.display()))
}

fn size(path: &Path, content: &str) -> Option<String> {
    let lines = content.lines().count();
    let (counted, limit, what) = if is_test_file(path) {
        (lines, MAX_LINES, "lines of tests")
    } else if code_lines(content) > MAX_CODE_LINES {
        (code_lines(content), MAX_CODE_LINES, "lines without its tests")
    } else {
        (lines, MAX_LINES, "lines with its tests")
    };
    (counted > limit).then(|| {
        format!("{}: {counted} {what}, more than {limit}; find the concept that is missing a module", path.display())
    })
}

/// Whether a whole file is tests: under `tests/`, or named as the tests of a module.
fn is_test_file(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let in_tests = path.components().any(|part| part == Component::Normal("tests".as_ref()));
    in_tests || stem == "tests" || stem.ends_with("_tests")
}

/// Lines outside of `#[cfg(test)]` modules at the left margin, as rustfmt writes them.
fn code_lines(content: &str) -> usize {
    let mut count = 0;
    let mut pending = false;
    let mut inside = false;
    for line in content.lines() {
        if inside {
            inside = line != "}";
            continue;
        }
        if line == "#[cfg(test)]" {
            pending = true;
            continue;
        }
        if pending && line.starts_with("#[") {
            continue;
        }
        let is_module = line.starts_with("mod ") || line.starts_with("pub mod ") || line.starts_with("pub(crate) mod ");
        if pending && is_module {
            pending = false;
            inside = line.ends_with('{');
            continue;
        }
        pending = false;
        count += 1;
    }
    count
}

/// Paths of one machine and hosts of package registries.
fn foreign_words(path: &Path, content: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in content.lines().enumerate() {
        let at = || format!("{}:{}", path.display(), number + 1);
        for (a, b) in MACHINE_PATHS {
            if is_absolute_in(line, &format!("{a}{b}")) {
                findings.push(format!(
                    "{}: a path of one machine ({a}{b}…); take it from a setting or a scratch folder",
                    at()
                ));
            }
        }
        for (a, b) in REGISTRY_HOSTS {
            if line.contains(&format!("{a}{b}")) {
                findings.push(format!(
                    "{}: the host of a package registry ({a}{b}); name the tool and leave the host to its settings",
                    at()
                ));
            }
        }
    }
    findings
}

/// Whether `path` occurs in `line` as the beginning of an absolute path.
fn is_absolute_in(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '}' | ')' | '>' | '*'))
    })
}

/// A notice that the test harness would keep to itself.
fn swallowed_notice(path: &Path, content: &str) -> Option<String> {
    let notice = ["NOT", "RUN: "].join(" ");
    let swallowed = |line: &str| {
        let line = line.trim_start();
        (line.starts_with("println!") || line.starts_with("eprintln!")) && line.contains(&notice)
    };
    let number = content.lines().position(swallowed)? + 1;
    Some(format!(
        "{}:{number}: the test harness keeps what println! and eprintln! write in a test that passes; use writeln!(std::io::stderr(), …)",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, content: &str) -> Vec<String> {
        check(Path::new(path), content)
    }

    fn check_one(path: &str, content: &str, expect: &str) {
        let findings = found(path, content);
        assert!(findings.len() == 1 && findings[0].contains(expect), "{path}: {findings:?}");
    }

    const NONE: Vec<String> = Vec::new();

    #[test]
    fn a_module_without_a_header_is_found() {
        check_one("crates/a/src/lib.rs", "pub fn a() {}\n", "first line");
        check_one("crates/a/src/lib.rs", "\n//! Late.\n", "first line");
        check_one("crates/a/src/lib.rs", "//!\n//! Empty first.\n", "first line");
        check_one("crates/a/src/lib.rs", "", "first line");
        assert_eq!(found("crates/a/src/lib.rs", "//! What it is for.\n"), NONE);
        assert_eq!(found("README.md", "# No Rust\n"), NONE);
        assert_eq!(found("crates/a/tests/fixtures/bug.rs", "fn main() {}\n"), NONE);
    }

    #[test]
    fn a_module_that_is_too_long_without_its_tests_is_found() {
        let code = format!("//! Long.\n{}", "// x\n".repeat(500));
        check_one("crates/a/src/a.rs", &code, "501 lines without its tests");
        assert_eq!(found("crates/a/src/a.rs", &code.replacen("// x\n", "", 1)), NONE);
    }

    #[test]
    fn tests_do_not_count_as_code_but_have_their_own_limit() {
        let with_tests = |code: usize, tests: usize| {
            format!("//! A.\n{}#[cfg(test)]\nmod tests {{\n{}}}\n", "// c\n".repeat(code), "    // t\n".repeat(tests))
        };
        assert_eq!(found("crates/a/src/a.rs", &with_tests(490, 300)), NONE);
        check_one("crates/a/src/a.rs", &with_tests(490, 310), "804 lines with its tests");
        check_one("crates/a/src/a.rs", &with_tests(505, 1), "506 lines without its tests");
    }

    #[test]
    fn code_after_a_test_module_counts_and_a_test_helper_does_too() {
        let text = "//! A.\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod tests;\n#[cfg(test)]\nfn helper() {}\nfn b() {}\n";
        assert_eq!(code_lines(text), 3);
        assert_eq!(code_lines("//! A.\n#[cfg(test)]\nmod tests {\n    fn x() {\n    }\n}\nfn after() {}\n"), 2);
    }

    #[test]
    fn a_file_of_tests_may_be_longer_but_not_without_end() {
        for path in ["crates/a/tests/all.rs", "crates/a/src/b_tests.rs", "crates/a/src/b/tests.rs"] {
            assert_eq!(found(path, &format!("//! T.\n{}", "// x\n".repeat(799))), NONE);
            check_one(path, &format!("//! T.\n{}", "// x\n".repeat(800)), "801 lines of tests");
        }
    }

    #[test]
    fn a_path_of_one_machine_is_found_in_any_file() {
        for (a, b) in MACHINE_PATHS {
            check_one("docs/a.md", &format!("see {a}{b}notes\n"), "docs/a.md:1: a path of one machine");
            assert_eq!(found("docs/a.md", &format!("see scratch{a}{b}notes and {a}{}\n", "x")), NONE);
        }
    }

    #[test]
    fn the_host_of_a_registry_is_found() {
        for (a, b) in REGISTRY_HOSTS {
            check_one("a.toml", &format!("\nurl = \"https://{a}{b}/\"\n"), "a.toml:2: the host of a package registry");
        }
        assert_eq!(found("README.md", "three crates from crates.io\n"), NONE);
    }

    #[test]
    fn a_notice_that_the_harness_swallows_is_found() {
        let notice = ["NOT", "RUN: no namespaces"].join(" ");
        check_one("crates/a/src/a.rs", &format!("//! A.\n    eprintln!(\"{notice}\");\n"), "a.rs:2: the test harness");
        assert_eq!(found("crates/a/src/a.rs", &format!("//! A.\n    writeln!(stderr, \"{notice}\");\n")), NONE);
    }
}
