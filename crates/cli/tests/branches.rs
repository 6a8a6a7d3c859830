//! What happens to branches and work trees: nothing moves unsaid, nothing is lost.

mod product;

use product::{Product, Repo, add, main_moves, on, project, project_with_main_free, question, repo_arg, writes};
use serde_json::{Value, json};

/// A task on main that waits for its review.
fn in_review(product: &Product, repo: &Repo) -> String {
    let model = product.cassette("fix", &writes("42\n"));
    let id = product.delegate(&["make the answer right", &repo_arg(&repo), "--base=main", "--model", &model]);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    id
}

fn lands(product: &Product, id: &str, more: &[&str]) -> Value {
    product.ok(&["approve", id]);
    let _ = product.run(&[&["land", id], more].concat());
    product.settled(id)
}

#[test]
fn a_base_that_moved_is_merged_proved_again_and_landed_as_a_merge() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = in_review(&product, &repo);
    let moved = main_moves(&repo, &[("other.txt", "somebody else's\n")]);
    let task = lands(&product, &id, &[]);
    assert_eq!(task["state"], "completed", "{task:#}");
    assert_eq!(repo.git(&["rev-parse", "main^1"]), moved);
    assert_eq!(
        (on(&repo, "main", "answer.txt"), on(&repo, "main", "other.txt")),
        ("42".into(), "somebody else's".into())
    );
    let merge = repo.git(&["rev-parse", "main"]);
    let proved =
        task["evidence"].as_array().unwrap().iter().any(|e| e["commit"] == json!(merge) && e["passed"] == true);
    assert!(proved, "the merge itself was proved");
}

#[test]
fn a_base_that_moved_into_a_conflict_lands_nothing_and_names_the_files() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = in_review(&product, &repo);
    main_moves(&repo, &[("answer.txt", "40\n")]);
    let task = lands(&product, &id, &[]);
    assert_eq!(task["state"], "input_required", "{task:#}");
    let reason = task["wait"]["reason"].as_str().unwrap();
    assert!(reason.contains("answer.txt") && reason.contains("main"), "{reason}");
    assert_eq!(on(&repo, "main", "answer.txt"), "40");
}

#[test]
fn a_base_whose_history_was_rewritten_does_not_get_back_what_was_taken_out() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let clean = repo.head_of("main").unwrap();
    main_moves(&repo, &[("leak.txt", "a key\n")]);
    let id = in_review(&product, &repo);
    repo.git(&["branch", "-q", "-f", "main", &clean]);
    let task = lands(&product, &id, &[]);
    assert_eq!(task["state"], "input_required", "{task:#}");
    assert!(task["wait"]["reason"].as_str().unwrap().contains("rewritten"), "{task:#}");
    assert!(repo.read_at("main", "leak.txt").is_none());
}

#[test]
fn a_landing_never_writes_over_a_file_that_git_ignores() {
    let product = Product::new();
    let repo = project(&[&question()[..], &[(".gitignore", ".env\n")]].concat());
    std::fs::write(repo.path().join(".env"), "mine\n").unwrap();
    let program = "echo 42 > answer.txt; echo theirs > .env; git add -f .env";
    let id = product.delegate(&["fix", &repo_arg(&repo), "--", "sh", "-c", program]);
    product.settled(&id);
    let task = lands(&product, &id, &["--update-worktree"]);
    assert_eq!(std::fs::read_to_string(repo.path().join(".env")).unwrap(), "mine\n", "{task:#}");
}

#[test]
fn a_merge_that_breaks_the_gate_does_not_land() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = in_review(&product, &repo);
    main_moves(&repo, &[("check.sh", "echo nothing is good enough; exit 1\n")]);
    let task = lands(&product, &id, &[]);
    assert_eq!(task["state"], "input_required", "{task:#}");
    assert!(task["wait"]["reason"].as_str().unwrap().contains("answer"), "{task:#}");
    assert_eq!(on(&repo, "main", "answer.txt"), "41");
}

#[test]
fn a_base_that_was_deleted_is_said_and_the_change_is_still_there() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = in_review(&product, &repo);
    repo.git(&["branch", "-q", "-D", "main"]);
    let task = lands(&product, &id, &[]);
    assert_eq!(task["state"], "input_required", "{task:#}");
    assert!(task["wait"]["reason"].as_str().unwrap().contains("no longer exists"), "{task:#}");
    let branch = task["change"]["branch"].as_str().unwrap().to_owned();
    assert_eq!(on(&repo, &branch, "answer.txt"), "42");
}

#[test]
fn a_checked_out_branch_moves_only_with_consent_and_only_over_a_clean_tree() {
    let (product, repo) = (Product::new(), project(&question()));
    let id = in_review(&product, &repo);
    let task = lands(&product, &id, &[]);
    let reason = task["wait"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("checked out") && reason.contains("--update-worktree"), "{reason}");
    assert_eq!(repo.status(), "");

    std::fs::write(repo.path().join("answer.txt"), "my own\n").unwrap();
    let _ = product.run(&["land", &id, "--update-worktree"]);
    let task = product.settled(&id);
    assert!(task["wait"]["reason"].as_str().unwrap().contains("uncommitted changes"), "{task:#}");
    assert_eq!(std::fs::read_to_string(repo.path().join("answer.txt")).unwrap(), "my own\n");

    repo.git(&["checkout", "-q", "--", "answer.txt"]);
    let _ = product.run(&["land", &id, "--update-worktree"]);
    assert_eq!(product.settled(&id)["state"], "completed");
    assert_eq!(std::fs::read_to_string(repo.path().join("answer.txt")).unwrap(), "42\n");
    assert_eq!(repo.status(), "");
}

#[test]
fn a_published_branch_that_somebody_looks_at_does_not_cost_the_task() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette(
        "again",
        &json!([
            { "text": "a", "calls": [{ "name": "write", "input": { "path": "answer.txt", "content": "42\n" } }] },
            { "text": "Done." },
            { "text": "b", "calls": [{ "name": "write", "input": { "path": "notes.txt", "content": "why\n" } }] },
            { "text": "Documented." }
        ]),
    );
    let id = product.delegate(&["make the answer right", &repo_arg(&repo), "--base=main", "--model", &model]);
    let first = product.settled(&id);
    repo.git(&["switch", "-q", first["change"]["branch"].as_str().unwrap()]);
    product.ok(&["say", &id, "write down why"]);
    let task = product.until(&id, "came back to review", |task| {
        task["wait"]["kind"] == "review" && task["change"]["head"] != first["change"]["head"]
    });
    assert!(task["wait"]["reason"].as_str().unwrap().contains("could not be shown"), "{task:#}");
    product.ok(&["approve", &id]);
    product.ok(&["land", &id]);
    product.until(&id, "landed", |task| task["state"] == "completed");
    assert_eq!(on(&repo, "main", "notes.txt"), "why");
}

#[test]
fn a_dirty_tree_is_allowed_said_and_not_part_of_the_task() {
    let (product, repo) = (Product::new(), project(&question()));
    std::fs::write(repo.path().join("answer.txt"), "my own\n").unwrap();
    std::fs::write(repo.path().join("draft.txt"), "not yet\n").unwrap();
    let model = product.cassette("fix", &writes("42\n"));
    let submitted = product.ok(&["run", "make the answer right", &repo_arg(&repo), "--model", &model]);
    let notes = submitted["notes"].to_string();
    assert!(notes.contains("uncommitted"), "{notes}");
    let id = submitted["task"]["id"].as_str().unwrap();
    let task = product.settled(id);
    let branch = task["change"]["branch"].as_str().unwrap();
    assert!(!repo.git(&["ls-tree", "--name-only", branch]).contains("draft.txt"));
    assert_eq!(std::fs::read_to_string(repo.path().join("answer.txt")).unwrap(), "my own\n");
}

#[test]
fn submodules_lfs_pointers_and_names_that_are_no_text_are_said() {
    let (product, repo) = (Product::new(), project(&question()));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    add(&repo, &[(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n"), ("a.bin", pointer)]);
    let commit = repo.git(&["rev-parse", "HEAD"]);
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},vendored")]);
    repo.git(&["config", "-f", ".gitmodules", "submodule.vendored.path", "vendored"]);
    repo.git(&["config", "-f", ".gitmodules", "submodule.vendored.url", "https://example.com/v.git"]);
    repo.git(&["add", ".gitmodules"]);
    let odd = repo.path().join(std::ffi::OsStr::from_encoded(b"caf\xe9.txt"));
    std::fs::write(odd, "coffee\n").unwrap();
    repo.git(&["add", "-A", "--", "caf*"]);
    repo.git(&["commit", "-q", "-m", "odd things"]);
    let submitted =
        product.ok(&["run", "make the answer right", &repo_arg(&repo), "--", "sh", "-c", "echo 42 > answer.txt"]);
    let notes = submitted["notes"].to_string();
    for word in ["submodule", "LFS", "UTF-8"] {
        assert!(notes.contains(word), "{word}: {notes}");
    }
    let task = product.settled(submitted["task"]["id"].as_str().unwrap());
    assert_eq!(task["wait"]["kind"], "review", "{task:#}");
    assert!(repo.git(&["ls-tree", "--name-only", "-z", task["change"]["branch"].as_str().unwrap()]).contains("caf"));
}

trait Encoded {
    fn from_encoded(bytes: &[u8]) -> &std::ffi::OsStr;
}
impl Encoded for std::ffi::OsStr {
    fn from_encoded(bytes: &[u8]) -> &std::ffi::OsStr {
        std::os::unix::ffi::OsStrExt::from_bytes(bytes)
    }
}
