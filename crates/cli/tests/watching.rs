//! Those who watch a task: what they see before it is stored, over restarts of the server, and what
//! is left when they stop watching.

mod product;

use std::process::Child;

use product::{
    CHECK, GATE, Product, interrupt, main_moves, on, project_with_main_free, question, read_until, repo_arg, writes,
};
use serde_json::{Value, json};

/// A program that takes a while; the tests look at order and never at time.
const WORK: &str = "echo began; sleep 2; echo 42 > answer.txt; echo ended";

/// Ctrl-C: it ends at once, and says what goes on without calling that an error.
fn stopped_by_the_person(watcher: Child) {
    interrupt(&watcher);
    let output = watcher.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("No longer watching") && text.contains("The task goes on"), "{text}");
    assert!(!text.contains("error"), "{text}");
}

fn runs(task: &Value, kind: &str) -> bool {
    task["open_effects"].as_object().is_some_and(|open| open.values().any(|e| e["effect"]["kind"] == kind))
}

#[test]
fn what_the_model_says_is_seen_before_its_answer_is_stored() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let long = format!("First of all. {}", "word ".repeat(2_000));
    let model = product.cassette("slow", &json!([{ "text": long, "delay_ms": 10 }]));
    let id = product.delegate(&["make the answer right", &repo_arg(&repo), "--base=main", "--model", &model]);
    let mut watcher = product.beside(&["logs", &id, "-f"]);
    let seen = read_until(&mut watcher, "First of all.");
    let answered = product.events(&id).iter().any(|event| event["event"]["result"]["kind"] == "model_answered");
    assert!(!answered, "it was shown only when it was stored: {seen}");
    product.ok(&["cancel", &id]);
    let output = watcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "the task ended without being done");
    let rest = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(rest.contains("canceled") && !rest.contains('✗'), "{rest}");
}

#[test]
fn who_watches_sees_every_event_once_although_the_server_dies_meanwhile() {
    let product = Product::new();
    let repo = project_with_main_free(&question());
    let id = product.delegate(&[&repo_arg(&repo), "--base=main", "--", "sh", "-c", WORK]);
    let watcher = product.beside(&["logs", &id, "-f", "--raw"]);
    product.until(&id, "runs its program", |task| {
        task["open_effects"]
            .as_object()
            .is_some_and(|open| open.values().any(|effect| effect["effect"]["kind"] == "run_command"))
    });
    product.kill_server();
    product.ok(&["list"]);
    let output = watcher.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(4),
        "it ends when the task waits for a person: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let seen: Vec<u64> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    let all: Vec<u64> = (1..=seen.len() as u64).collect();
    assert_eq!(seen, all, "no gap, nothing twice");
}

#[test]
fn who_stops_watching_leaves_the_task_at_work() {
    let product = Product::new();
    let repo = project_with_main_free(&question());
    let id = product.delegate(&[&repo_arg(&repo), "--base=main", "--", "sh", "-c", WORK]);
    let mut watcher = product.beside(&["logs", &id, "-f"]);
    read_until(&mut watcher, "command");
    stopped_by_the_person(watcher);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}");
}

#[test]
fn who_delegates_and_stops_watching_leaves_the_task_at_work() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let mut watcher = product.beside(&["run", &repo_arg(&repo), "--base=main", "-f", "--", "sh", "-c", WORK]);
    read_until(&mut watcher, "began");
    stopped_by_the_person(watcher);
    let listed = product.ok(&["list"]);
    let task = &listed["tasks"][0];
    assert!(["submitted", "working", "input_required"].contains(&task["state"].as_str().unwrap()), "{listed:#}");
    let id = task["id"].as_str().unwrap().to_owned();
    assert_eq!(product.settled(&id)["wait"]["kind"], "review");
    let listed = product.ok(&["list"]);
    assert_eq!(
        (&listed["tasks"][0]["state"], &listed["tasks"][0]["gates_passed"]),
        (&json!("input_required"), &json!(1))
    );
}

#[test]
fn who_lands_and_stops_watching_finds_in_the_list_what_came_of_it() {
    let product = Product::new();
    let slow = format!("sleep 1\n{CHECK}");
    let files = [(".chargehand/config.toml", GATE), ("check.sh", slow.as_str()), ("answer.txt", "41\n")];
    let repo = project_with_main_free(&files);
    let model = product.cassette("fix", &writes("42\n"));
    let id = product.delegate(&["make the answer right", &repo_arg(&repo), "--base=main", "--model", &model]);
    assert_eq!(product.settled(&id)["wait"]["kind"], "review");
    // The merge has to be proved before it lands, so that the landing takes a while.
    main_moves(&repo, &[("other.txt", "somebody else's\n")]);
    let watcher = product.beside(&["approve", &id, "--land"]);
    product.until(&id, "proves the merge", |task| runs(task, "run_gate"));
    stopped_by_the_person(watcher);
    let listed = product.ok(&["list"]);
    let (state, approved) = (&listed["tasks"][0]["state"], &listed["tasks"][0]["approved"]);
    assert!(["working", "completed"].contains(&state.as_str().unwrap()), "{listed:#}");
    assert_eq!(approved, &json!(true), "{listed:#}");
    product.until(&id, "landed", |task| task["state"] == "completed");
    assert_eq!(product.ok(&["list"])["tasks"][0]["state"], "completed");
    assert_eq!(on(&repo, "main", "answer.txt"), "42");
}
