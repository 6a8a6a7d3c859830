//! Environments: setup is run once, boxes and gates start from it, and its failure is told in words.

mod product;

use product::{Product, Repo, main_moves, on, project_with_main_free, question, repo_arg};
use serde_json::Value;

/// A repository whose check needs what only setup makes, outside of git.
fn with_setup(environment: &str, check: &str) -> Repo {
    let files = [
        &question()[..2],
        &[
            ("answer.txt", "41\n"),
            ("check.sh", check),
            (".gitignore", "deps/\n"),
            (".chargehand/environment.toml", environment),
        ],
    ]
    .concat();
    project_with_main_free(&files)
}

const SETUP: &str = "version = 1\n[[setup]]\nrun = \"mkdir -p deps && echo installed > deps/lib && echo setup ran >&2\"\n\
                     [env]\nMODE = \"testing\"\n";
const CHECK: &str = "grep -q installed deps/lib && test \"$MODE\" = testing && test \"$(cat answer.txt)\" = 42\n";

fn results(product: &Product, id: &str, kind: &str) -> Vec<Value> {
    let events = product.events(id);
    let results = events.iter().map(|event| event["event"]["result"].clone());
    results.filter(|result| result["kind"] == kind).collect()
}

#[test]
fn setup_runs_once_and_agents_and_gates_of_all_tasks_start_from_it() {
    let (product, repo) = (Product::new(), with_setup(SETUP, CHECK));
    let program = "cat deps/lib && echo $MODE && echo 42 > answer.txt && echo agent > deps/lib";
    let delegate = || product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "sh", "-c", program]);
    let first = delegate();
    let task = product.settled(&first);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    assert_eq!(results(&product, &first, "environment_built")[0]["reused"], false);
    let page = product.page(&["logs", &first]);
    assert!(page.contains(".chargehand/environment.toml") && page.contains("built"), "{page}");

    let second = delegate();
    assert_eq!(product.settled(&second)["wait"]["kind"], "review");
    assert_eq!(results(&product, &second, "environment_built")[0]["reused"], true);
    product.ok(&["approve", &first]);
    product.ok(&["land", &first]);
    assert_eq!(on(&repo, "main", "answer.txt"), "42");

    // Another commit of the same recipe goes on with what was built, on its own files.
    main_moves(&repo, &[("other.txt", "new\n"), ("answer.txt", "40\n")]);
    let third = product.delegate(&[
        "x",
        &repo_arg(&repo),
        "--base=main",
        "--",
        "sh",
        "-c",
        "cat other.txt && echo 42 > answer.txt",
    ]);
    let task = product.settled(&third);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    let built = &results(&product, &third, "environment_built")[0];
    assert!(built["notes"][0].as_str().unwrap().contains("being built"), "{built}");
    let patch = product.ok(&["diff", &third])["patch"].as_str().unwrap().to_owned();
    assert!(patch.contains("-40\n+42") && !patch.contains("deps"), "{patch}");
}

#[test]
fn a_setup_that_fails_ends_the_task_with_the_command_and_its_last_words() {
    let environment =
        "version = 1\n[[setup]]\nrun = \"true\"\n[[setup]]\nrun = \"echo no such compiler >&2; exit 3\"\n";
    let (product, repo) = (Product::new(), with_setup(environment, CHECK));
    let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "true"]);
    let task = product.settled(&id);
    assert_eq!((&task["state"], &task["outcome"]["reason"]), (&"failed".into(), &"user".into()), "{task:#}");
    let message = task["outcome"]["message"].as_str().unwrap();
    assert!(message.contains("setup command 2") && message.contains("exit code 3"), "{message}");
    assert!(message.contains("no such compiler"), "{message}");
}

#[test]
fn an_agents_change_to_the_environment_counts_only_after_it_has_landed() {
    let (product, repo) = (Product::new(), with_setup(SETUP, CHECK));
    let program = "echo 42 > answer.txt; sed -i s/testing/changed/ .chargehand/environment.toml";
    let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "sh", "-c", program]);
    let task = product.settled(&id);
    // The gate ran in the environment of the base, where MODE is what it was.
    assert_eq!(task["wait"]["kind"], "review", "{task:#}");
    product.ok(&["approve", &id]);
    product.ok(&["land", &id]);
    let next = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "echo $MODE > mode.txt"]);
    product.settled(&next);
    let patch = product.ok(&["diff", &next])["patch"].as_str().unwrap().to_owned();
    assert!(patch.contains("+changed"), "{patch}");
}

#[test]
fn a_build_that_was_killed_is_made_again() {
    let environment = "version = 1\n[[setup]]\nrun = \"sleep 2; mkdir -p deps; echo installed > deps/lib\"\n[env]\nMODE = \"testing\"\n";
    let (product, repo) = (Product::new(), with_setup(environment, CHECK));
    let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "echo 42 > answer.txt"]);
    product.until(&id, "builds", |task| task["open_effects"].to_string().contains("build_environment"));
    std::thread::sleep(std::time::Duration::from_millis(700));
    product.kill_server();
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
}
