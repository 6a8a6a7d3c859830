//! Environments: setup is run once, boxes and gates start from it, and its failure is told in words.

mod product;

use std::io::Write as _;
use std::process::Stdio;

use product::{Product, Repo, main_moves, on, project_with_main_free, question, read_until, repo_arg};
use serde_json::{Value, json};

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

/// All environments, the latest first.
fn environments(product: &Product) -> Vec<Value> {
    product.ok(&["env", "list"])["environments"].as_array().unwrap().clone()
}

/// Asks again and again until there is one like this.
fn until_some(product: &Product, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..2000 {
        if let Some(found) = environments(product).into_iter().find(&wanted) {
            return found;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("there is none: {:#?}\n{}", environments(product), product.log())
}

/// The names of boxes that begin like this.
fn boxes(product: &Product, begin: &str) -> Vec<String> {
    let entries = std::fs::read_dir(product.data().join("sandboxes/run")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(begin)).collect()
}

/// Asks again and again until there is such a box, or none.
fn until_boxes(product: &Product, begin: &str, any: bool) {
    for _ in 0..2000 {
        if boxes(product, begin).is_empty() != any {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("boxes `{begin}`: {:?}\n{}", boxes(product, begin), product.log())
}

fn set_setup_secret(product: &Product, repo: &Repo, (name, host): (&str, &str), value: &str) {
    let place = ["secret", "set", name, &repo_arg(repo), "--environment", "setup", "--host", host];
    let mut set = product.command(&place);
    let mut set = set.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    set.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let set = set.wait_with_output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
}

#[test]
fn what_setup_says_of_any_of_its_secrets_is_told_nowhere_and_what_it_asked_for_stands_in_its_log() {
    let (one, other) = ("canary-first-8d1f6b20c7a4e935", "canary-other-4f1d2a6b9c70e8d3");
    // Setup has the values from somewhere: each command says the one that belongs to the other's network.
    let disguised = |value: &str| value.chars().rev().collect::<String>();
    let environment = "version = 1\n[[setup]]\nrun = \"true\"\n\
        [[setup]]\nrun = \"rev two; curl -sS http://elsewhere.example/tarball?a=b; true\"\nnetwork = [\"a.example\"]\n\
        [[setup]]\nrun = \"rev one; rev two | tr -d '\\\\n'; head -c 4080 /dev/zero | tr '\\\\0' x; echo; exit 3\"\nnetwork = [\"b.example\"]\n\
        [network]\nsetup = [{ host = \"a.example\", secret = { name = \"ONE\", how = \"bearer\" } }, \
        { host = \"b.example\", secret = { name = \"OTHER\", how = \"bearer\" } }]\n";
    let files = [("one", disguised(one)), ("two", disguised(other))];
    let files: Vec<_> = files.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (product, repo) = (Product::new(), with_setup(environment, CHECK));
    product::main_moves(&repo, &files);
    set_setup_secret(&product, &repo, ("ONE", "a.example"), one);
    set_setup_secret(&product, &repo, ("OTHER", "b.example"), other);

    let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "true"]);
    let task = product.settled(&id);
    let message = task["outcome"]["message"].as_str().unwrap();
    assert!(message.contains("setup command 3") && message.contains("[secret OTHER]"), "{message}");
    let built = product.run(&["env", "build", &repo_arg(&repo), "--base=main"]);
    assert!(!built.status.success());
    let log = String::from_utf8_lossy(&built.stdout).into_owned();
    assert!(log.contains("[secret OTHER]") && log.contains("[secret ONE]"), "{log}");
    let refused =
        log.lines().find(|line| line.contains("chargehand: command 2: GET")).unwrap_or_else(|| panic!("{log}"));
    assert!(refused.contains("elsewhere.example:80/tarball?a=b was not let out"), "{log}");

    let record = until_some(&product, |environment| environment["status"] == "failed");
    let everything = format!("{task}{log}{record}{:?}{}", product.events(&id), product.log());
    for value in [one, other] {
        // No part of it either, from where the last words begin.
        for part in [value, &value[..16], &value[value.len() - 12..]] {
            assert!(!everything.contains(part), "{part}: {everything}");
            let found = std::process::Command::new("grep").args(["-rlF", part]).arg(product.data()).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{part}");
        }
    }
    // The authority in whose name the box was spoken to has gone with it.
    let kept = std::process::Command::new("find")
        .arg(product.data())
        .args(["-path", "*/sandboxes", "-prune", "-o", "-name", "*.pem", "-print"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&kept.stdout), "");
}

#[test]
fn a_build_goes_on_when_its_task_is_cancelled_and_the_next_task_finds_it() {
    let environment = "version = 1\n[[setup]]\nrun = \"sleep 3; mkdir -p deps; echo installed > deps/lib\"\n[env]\nMODE = \"testing\"\n";
    let (product, repo) = (Product::new(), with_setup(environment, CHECK));
    let delegate =
        || product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "echo 42 > answer.txt"]);
    let first = delegate();
    until_some(&product, |environment| environment["status"] == "building");
    product.ok(&["cancel", &first]);
    let record = until_some(&product, |environment| environment["status"] == "ready");
    assert!(environments(&product).len() == 1 && record["ended_at"].is_string(), "{record:#}");
    until_boxes(&product, "env-", false);
    let second = delegate();
    assert_eq!(product.settled(&second)["wait"]["kind"], "review");
    assert_eq!(results(&product, &second, "environment_built")[0]["reused"], true);
}

#[test]
fn a_build_that_the_servers_end_cuts_off_has_failed_and_whoever_asks_meanwhile_is_answered_at_once() {
    let environment = "version = 1\n[[setup]]\nrun = \"echo it has begun; sleep 3000\"\ntime_limit_s = 3600\n";
    let (product, repo) = (Product::new(), with_setup(environment, CHECK));
    let args = ["env", "build", &repo_arg(&repo), "--base=main"];
    let mut first = product.beside(&args);
    read_until(&mut first, "it has begun");
    // The build never ends, so whoever waited for it would see nothing.
    let mut second = product.beside(&args);
    read_until(&mut second, "it has begun");
    assert_eq!(environments(&product).len(), 1);
    product.ok(&["stop"]);
    let (first, second) = (first.wait_with_output().unwrap(), second.wait_with_output().unwrap());
    assert!(!first.status.success() && !second.status.success());
    let record = &environments(&product)[0];
    assert_eq!(record["status"], "failed", "{record:#}");
    assert!(record["failure"].as_str().unwrap().contains("build it again"), "{record:#}");
    until_boxes(&product, "env-", false);
}

#[test]
fn a_build_that_cannot_begin_to_run_anything_ends_on_record_too() {
    let environment = "version = 1\n[[setup]]\nrun = \"true\"\nnetwork = true\n[network]\nsetup = [\"cargo\"]\n";
    let (product, repo) = (Product::new(), with_setup(environment, CHECK));
    let built = product.run(&["env", "build", &repo_arg(&repo), "--base=main"]);
    let page = String::from_utf8_lossy(&built.stdout).into_owned();
    assert!(!built.status.success() && page.contains("[network.groups]"), "{page}");
    let record = &environments(&product)[0];
    assert_eq!(record["status"], "failed", "{record:#}");
    assert!(record["failure"].as_str().unwrap().contains("[network.groups]"), "{record:#}");
    assert!(product.page(&["env", "show", record["key"].as_str().unwrap()]).contains("[network.groups]"));
}

#[test]
fn a_build_behind_tasks_that_failed_lately_is_not_made_again_for_each_task() {
    let environment = "version = 1\n[[setup]]\nrun = \"test ! -e broken; mkdir -p deps; echo installed > deps/lib\"\n[env]\nMODE = \"testing\"\n";
    let environment = environment.replace("broken; ", "broken && ");
    let (product, repo) = (Product::new(), with_setup(&environment, CHECK));
    let delegate = || {
        let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "echo 42 > answer.txt"]);
        let task = product.settled(&id);
        assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
        results(&product, &id, "environment_built")[0].clone()
    };
    delegate();
    main_moves(&repo, &[("broken", "")]);
    let note = delegate()["notes"][0].as_str().unwrap().to_owned();
    assert!(note.contains("is being built"), "{note}");
    let failed = until_some(&product, |environment| environment["status"] == "failed");
    let note = delegate()["notes"][0].as_str().unwrap().to_owned();
    assert!(note.contains("could not be built") && note.contains(failed["key"].as_str().unwrap()), "{note}");
    let all = environments(&product);
    assert_eq!(all.len(), 2);
    assert!(all.contains(&failed), "it was not tried again: {all:#?}");
}

#[test]
fn an_environment_that_does_not_follow_the_branch_is_made_anew_when_something_else_differs() {
    let environment = format!("{SETUP}[rebuild]\nwhen_branch_moves = false\nevery_h = 24\n");
    let (product, repo) = (Product::new(), with_setup(&environment, CHECK));
    let delegate = || {
        let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "echo 42 > answer.txt"]);
        let task = product.settled(&id);
        assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
        results(&product, &id, "environment_built")[0]["key"].clone()
    };
    let first = delegate();
    main_moves(&repo, &[("other.txt", "new\n")]);
    assert_eq!(delegate(), first);
    assert_eq!(environments(&product).len(), 1, "only the checkout differs");
    // As after a day, or after the image was exchanged: what lay below the checkout was another thing.
    let file = product.data().join(format!("environments/{}.json", first.as_str().unwrap()));
    let mut record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    record["without_checkout"] = json!("0".repeat(64));
    std::fs::write(&file, record.to_string()).unwrap();
    assert_eq!(delegate(), first, "the task goes on with what is there");
    let fresh = until_some(&product, |environment| environment["status"] == "ready");
    assert_ne!(fresh["key"], first);
    assert_eq!(delegate(), fresh["key"]);
}

#[test]
fn a_move_to_another_commit_leaves_no_box_when_its_task_is_cancelled() {
    let slow = "mkdir -p deps; echo installed > deps/lib; printf '#!/bin/sh\\nsleep 0.5\\nPATH=/usr/local/bin:/usr/bin:/bin exec git \\\"$@\\\"\\n' > deps/git; chmod +x deps/git";
    let environment = format!(
        "version = 1\n[[setup]]\nrun = {slow:?}\n[rebuild]\nwhen_branch_moves = false\n\
         [env]\nMODE = \"testing\"\nPATH = \"/workspace/deps:/usr/local/bin:/usr/bin:/bin\"\n"
    )
    .replace("\\\\\\\"", "\\\"");
    let (product, repo) = (Product::new(), with_setup(&environment, CHECK));
    product.ok(&["env", "build", &repo_arg(&repo), "--base=main"]);
    main_moves(&repo, &[("other.txt", "new\n")]);
    let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "echo 42 > answer.txt"]);
    until_boxes(&product, "move-", true);
    product.ok(&["cancel", &id]);
    until_boxes(&product, "move-", false);
    assert_eq!(environments(&product).len(), 1);
}

#[test]
fn a_url_with_a_password_is_refused_by_name_and_kept_nowhere() {
    let product = Product::new();
    for command in [&["env", "build"][..], &["env", "show"]] {
        let why = product.refused(&[command, &["--repo=https://me:hunter2hunter2@git.example/x.git"]].concat());
        assert!(why.contains("password or token") && !why.contains("hunter2"), "{why}");
    }
    assert!(environments(&product).is_empty());
    let found = std::process::Command::new("grep").args(["-rlF", "hunter2"]).arg(product.data()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}
