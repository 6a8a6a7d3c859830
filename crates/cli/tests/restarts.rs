//! The server is killed or stopped in the middle of things: the list tells the truth, work goes on.

mod product;

use product::{GATE, Product, Repo, on, project_with_main_free, question, repo_arg};
use serde_json::{Value, json};

#[test]
fn a_server_killed_while_the_model_talks_goes_on_where_it_was() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let long = "word ".repeat(400);
    let model = product.cassette(
        "slow",
        &json!([
            { "text": "first", "calls": [{ "name": "write", "input": { "path": "answer.txt", "content": "42\n" } }] },
            { "text": long, "calls": [{ "name": "shell", "input": { "command": "cat answer.txt" } }], "delay_ms": 5 },
            { "text": "Done." }
        ]),
    );
    let id = product.delegate(&["make the answer right", &repo_arg(&repo), "--base=main", "--model", &model]);
    product.until(&id, "began its second turn", |task| {
        task["attempt"]["turns"] == 1
            && task["open_effects"]
                .as_object()
                .is_some_and(|open| open.values().any(|e| e["effect"]["kind"] == "call_model"))
    });
    product.kill_server();
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    assert_eq!(task["attempt"]["number"], 1, "the same attempt went on, with its files");
    let answers = product.events(&id).iter().filter(|e| e["event"]["result"]["kind"] == "model_answered").count();
    assert_eq!(answers, 3, "no answer counts twice");
}

/// A task whose one command is at work, and says so in a file.
fn at_work(product: &Product, repo: &Repo) -> String {
    let model = product.cassette(
        "tool",
        &json!([
            { "text": "slowly", "calls": [{ "name": "shell", "input": { "command": "echo once >> ran.txt; sleep 2; echo 42 > answer.txt; echo written" } }] },
            { "text": "to be sure", "calls": [{ "name": "write", "input": { "path": "answer.txt", "content": "42\n" } }] },
            { "text": "Done." }
        ]),
    );
    let id = product.delegate(&["make the answer right", &repo_arg(repo), "--base=main", "--model", &model]);
    product.until(&id, "ran its tool", |task| runs(task, "run_tool"));
    std::thread::sleep(std::time::Duration::from_millis(500));
    id
}

fn runs(task: &Value, kind: &str) -> bool {
    task["open_effects"].as_object().is_some_and(|open| open.values().any(|e| e["effect"]["kind"] == kind))
}

/// What the model was told of its first tool call.
fn told(product: &Product, id: &str) -> String {
    let returned = product.events(id).into_iter().find(|e| e["event"]["result"]["kind"] == "tool_returned").unwrap();
    returned["event"]["result"]["text"].as_str().unwrap().to_owned()
}

#[test]
fn a_command_that_runs_when_the_server_is_killed_goes_on_and_its_whole_output_arrives() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = at_work(&product, &repo);
    product.kill_server();
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    assert_eq!(on(&repo, task["change"]["branch"].as_str().unwrap(), "ran.txt"), "once");
    assert_eq!(told(&product, &id), "written\n[exit 0]");
}

#[test]
fn a_command_whose_box_died_with_the_server_is_not_run_twice_and_the_model_is_told() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = at_work(&product, &repo);
    product.kill_server();
    product.kill_boxes();
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    assert_eq!(on(&repo, task["change"]["branch"].as_str().unwrap(), "ran.txt"), "once");
    assert!(told(&product, &id).contains("not known whether it took effect"));
}

#[test]
fn a_server_killed_while_a_gate_runs_proves_the_commit_in_a_new_box() {
    let product = Product::new();
    let repo = project_with_main_free(&[
        (".chargehand/config.toml", GATE),
        ("check.sh", "test ! -e used || exit 7; touch used; sleep 2; test \"$(cat answer.txt)\" = 42\n"),
        ("answer.txt", "41\n"),
    ]);
    let id = product.delegate(&["fix", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "echo 42 > answer.txt"]);
    product.until(&id, "ran its gate", |task| runs(task, "run_gate"));
    std::thread::sleep(std::time::Duration::from_millis(700));
    product.kill_server();
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    assert_eq!(task["evidence"].as_array().unwrap().len(), 1);
}

/// A program that would fail on a tree where it had begun before.
const ONCE: &str = "test ! -e started || exit 9; touch started; sleep 2; rm started; echo 42 > answer.txt";

#[test]
fn a_program_that_runs_when_the_server_is_killed_goes_on_in_its_box() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = product.delegate(&["fix", &repo_arg(&repo), "--base=main", "--", "sh", "-c", ONCE]);
    product.until(&id, "ran its program", |task| runs(task, "run_command"));
    std::thread::sleep(std::time::Duration::from_millis(500));
    product.kill_server();
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    assert_eq!(task["attempt"]["number"], 1);
}

#[test]
fn a_program_whose_box_died_with_the_server_starts_over_on_a_fresh_tree() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = product.delegate(&["fix", &repo_arg(&repo), "--base=main", "--", "sh", "-c", ONCE]);
    product.until(&id, "ran its program", |task| runs(task, "run_command"));
    std::thread::sleep(std::time::Duration::from_millis(500));
    product.kill_server();
    product.kill_boxes();
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    assert_eq!(task["attempt"]["number"], 2);
}

#[test]
fn a_server_that_is_stopped_while_it_works_goes_on_when_it_is_next_needed() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette(
        "stop",
        &json!([
            { "text": "a", "calls": [
                { "name": "write", "input": { "path": "answer.txt", "content": "42\n" } },
                { "name": "shell", "input": { "command": "sleep 5" } } ] },
            { "text": "Done.", "delay_ms": 300 }
        ]),
    );
    let id = product.delegate(&["fix", &repo_arg(&repo), "--base=main", "--model", &model]);
    product.until(&id, "slept in its second tool", |_| {
        product.events(&id).iter().filter(|e| e["event"]["effect"]["kind"] == "run_tool").count() == 2
    });
    product.ok(&["stop"]);
    let listed = product.ok(&["list"]);
    assert_eq!(listed["tasks"][0]["id"], json!(id), "{listed:#}");
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    assert_eq!(on(&repo, task["change"]["branch"].as_str().unwrap(), "answer.txt"), "42");
}

#[test]
fn a_task_that_waits_for_review_still_waits_after_a_kill_and_can_be_landed() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = product.delegate(&["fix", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "echo 42 > answer.txt"]);
    let before = product.settled(&id);
    product.kill_server();
    assert_eq!(product.show(&id), before, "replay gives the same task");
    product.ok(&["approve", &id]);
    product.kill_server();
    product.ok(&["land", &id]);
    product.until(&id, "landed", |task| task["state"] == "completed");
    assert_eq!(on(&repo, "main", "answer.txt"), "42");
}
