//! Real input: three published crates, each with one operator changed, mended by a program and by
//! a replayed agent. Their own tests are the gates; they fail before and pass after.

mod product;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use product::{Product, Repo, on, repo_arg};
use serde_json::json;

/// A published crate, and the one operator that is changed in it.
struct Planted {
    name: &'static str,
    version: &'static str,
    file: &'static str,
    good: &'static str,
    bad: &'static str,
}

const PLANTED: [Planted; 3] = [
    Planted {
        name: "strsim",
        version: "0.11.1",
        file: "src/lib.rs",
        good: "let cost = usize::from(a_elem != b_elem);",
        bad: "let cost = usize::from(a_elem == b_elem);",
    },
    Planted {
        name: "shlex",
        version: "1.3.0",
        file: "src/bytes.rs",
        good: "if ch2 != '\\n' as u8 { result.push(ch2); }",
        bad: "if ch2 == '\\n' as u8 { result.push(ch2); }",
    },
    Planted {
        name: "heck",
        version: "0.5.0",
        file: "src/lib.rs",
        good: "if next_mode == WordMode::Lowercase && next.is_uppercase() {",
        bad: "if next_mode == WordMode::Lowercase || next.is_uppercase() {",
    },
];

/// The sources as published, brought by cargo itself.
fn sources() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let scratch = tempfile::tempdir().unwrap().keep();
        std::fs::create_dir(scratch.join("src")).unwrap();
        std::fs::write(scratch.join("src/lib.rs"), "").unwrap();
        let mut manifest =
            "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n"
                .to_owned();
        for planted in &PLANTED {
            manifest.push_str(&format!("{} = \"={}\"\n", planted.name, planted.version));
        }
        std::fs::write(scratch.join("Cargo.toml"), manifest).unwrap();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let vendored =
            Command::new(cargo).args(["vendor", "--quiet", "vendor"]).current_dir(&scratch).output().unwrap();
        assert!(vendored.status.success(), "{}", String::from_utf8_lossy(&vendored.stderr));
        scratch.join("vendor")
    })
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if !entry.file_name().to_string_lossy().starts_with(".cargo") {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The crate as a repository whose main has the planted bug.
fn planted(planted: &Planted) -> Repo {
    let repo = Repo::new();
    copy(&sources().join(planted.name), repo.path());
    let source = repo.read(planted.file);
    assert_eq!(source.matches(planted.good).count(), 1, "{} is not the crate that this test knows", planted.name);
    repo.file(planted.file, source.replace(planted.good, planted.bad));
    repo.file(".gitignore", "/target\n/Cargo.lock\n");
    repo.commit("as published, but for one operator");
    repo.git(&["switch", "-q", "-c", "elsewhere"]);
    repo
}

fn lands_mended(product: &Product, repo: &Repo, id: &str, planted: &Planted) {
    product.ok(&["approve", id]);
    product.ok(&["land", id]);
    let task = product.settled(id);
    assert_eq!(task["state"], "completed", "{task:#}");
    let source = on(repo, "main", planted.file);
    assert!(source.contains(planted.good) && !source.contains(planted.bad), "{}", planted.name);
    let changed = repo.git(&["diff", "--name-only", "main~1", "main"]);
    assert_eq!(changed, planted.file, "nothing else was touched");
}

/// Replaces $BAD by $GOOD, as plain text.
const SWAP: &str = r#"{ at = index($0, ENVIRON["BAD"])
    if (at) $0 = substr($0, 1, at - 1) ENVIRON["GOOD"] substr($0, at + length(ENVIRON["BAD"]))
    print }"#;

fn mended_by_a_program(planted_bug: &Planted) {
    let (product, repo) = (Product::new(), planted(planted_bug));
    let repo_arg = repo_arg(&repo);
    // Without the mending, the crate's own tests fail in the clean box: nothing can land.
    let idle = ["leave a note", &repo_arg, "--base=main", "--", "sh", "-c", "echo hello > NOTE"];
    let before = product.settled(&product.delegate(&idle));
    assert_eq!(before["outcome"]["reason"], "stuck", "{before:#}");
    assert_eq!(before["evidence"][0]["passed"], false);
    assert_eq!(before["evidence"][0]["gate"]["source"], "detected from Cargo.toml");

    let (bad, good) = (format!("BAD={}", planted_bug.bad), format!("GOOD={}", planted_bug.good));
    let script =
        format!("awk '{SWAP}' {file} > swapped && cat swapped > {file} && rm swapped", file = planted_bug.file);
    let id = product.delegate(&[
        "put the operator back",
        &repo_arg,
        "--base=main",
        "--",
        "env",
        &bad,
        &good,
        "sh",
        "-c",
        &script,
    ]);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    assert!(task["evidence"].as_array().unwrap().iter().all(|evidence| evidence["passed"] == true));
    lands_mended(&product, &repo, &id, planted_bug);
}

fn mended_by_a_replayed_agent(planted_bug: &Planted) {
    let (product, repo) = (Product::new(), planted(planted_bug));
    let model = product.cassette(
        planted_bug.name,
        &json!([
            { "text": "The tests will tell.", "calls": [{ "name": "shell", "input": { "command": "cargo test --quiet 2>&1 | tail -n 30" } }] },
            { "text": "I leave it as it is and see what the gate says.", "calls": [{ "name": "shell", "input": { "command": "echo looked > NOTE" } }] },
            { "text": "Done." },
            { "text": "The gate is right. One operator is wrong.", "calls": [
                { "name": "shell", "input": { "command": "rm NOTE" } },
                { "name": "search", "input": { "pattern": planted_bug.name, "glob": "*.toml" } },
                { "name": "edit", "input": { "path": planted_bug.file, "old": planted_bug.bad, "new": planted_bug.good } } ] },
            { "text": "Mended." }
        ]),
    );
    let id = product.delegate(&["the tests fail; mend the crate", &repo_arg(&repo), "--base=main", "--model", &model]);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    let passed: Vec<bool> = task["evidence"].as_array().unwrap().iter().map(|e| e["passed"] == true).collect();
    assert_eq!(passed, [false, true], "fails before, passes after");
    lands_mended(&product, &repo, &id, planted_bug);
}

#[test]
fn strsim_is_mended_by_a_program_and_by_a_replayed_agent() {
    mended_by_a_program(&PLANTED[0]);
    mended_by_a_replayed_agent(&PLANTED[0]);
}

#[test]
fn shlex_is_mended_by_a_program_and_by_a_replayed_agent() {
    mended_by_a_program(&PLANTED[1]);
    mended_by_a_replayed_agent(&PLANTED[1]);
}

#[test]
fn heck_is_mended_by_a_program_and_by_a_replayed_agent() {
    mended_by_a_program(&PLANTED[2]);
    mended_by_a_replayed_agent(&PLANTED[2]);
}
