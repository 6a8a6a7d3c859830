//! What a task may use, and how much the platform bears: limits hold, queues empty, large things work.

mod product;

use product::{Product, Repo, on, project_with_main_free, question, repo_arg};
use serde_json::{Value, json};

/// Delegates under a contract that is written to a file.
fn under(product: &Product, repo: &Repo, contract: &Value, more: &[&str]) -> String {
    let file = product.home.path().join("contract.json");
    std::fs::write(&file, contract.to_string()).unwrap();
    let contract = format!("--contract={}", file.display());
    product.delegate(&[&["do it", &repo_arg(repo), "--base=main", &contract], more].concat())
}

#[test]
fn a_budget_of_turns_stops_the_task_and_what_was_made_can_be_read() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette(
        "busy",
        &json!([
            { "text": "a", "calls": [{ "name": "write", "input": { "path": "answer.txt", "content": "42\n" } }] },
            { "text": "b", "calls": [{ "name": "shell", "input": { "command": "true" } }] },
            { "text": "Done." }
        ]),
    );
    let id = under(&product, &repo, &json!({ "budget": { "turns": 2 } }), &["--model", &model]);
    let task = product.settled(&id);
    assert_eq!((&task["state"], &task["outcome"]["reason"]), (&json!("failed"), &json!("budget")), "{task:#}");
    assert_eq!(task["attempt"]["turns"], 2);
    assert!(product.page(&["diff", &id]).contains("+42"));
    assert!(
        repo.head_of(&format!("chargehand/{}", &id[..8])).is_none(),
        "unproved work is not shown in the repository"
    );
}

#[test]
fn time_that_is_up_ends_a_program_that_would_run_for_ever() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let contract = json!({ "budget": { "wall_ms": 2500 } });
    let id = under(&product, &repo, &contract, &["--", "sh", "-c", "sleep 600"]);
    let task = product.settled(&id);
    assert_eq!((&task["state"], &task["outcome"]["reason"]), (&json!("failed"), &json!("timeout")), "{task:#}");
    product.until(&id, "closed its box", |task| task["sandboxes"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn a_deadline_that_has_passed_ends_the_task_before_any_work() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let contract = json!({ "deadline": "2020-01-01T00:00:00Z" });
    let id = under(&product, &repo, &contract, &["--", "true"]);
    let task = product.settled(&id);
    assert_eq!(task["outcome"]["reason"], "timeout", "{task:#}");
    assert!(product.events(&id).iter().all(|e| e["event"]["type"] != "attempt_started"));
}

#[test]
fn a_program_that_floods_its_output_is_ended_with_that_reason() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = product.delegate(&["flood", &repo_arg(&repo), "--base=main", "--", "yes", "so it goes"]);
    let task = product.settled(&id);
    assert_eq!(task["state"], "failed", "{task:#}");
    assert!(task["outcome"]["message"].as_str().unwrap().contains("bytes of output"), "{task:#}");
}

#[test]
fn more_tasks_than_places_all_come_to_their_review() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let ids: Vec<String> = (0..20)
        .map(|n| {
            let program = format!("echo 42 > answer.txt; echo {n} > note{n}.txt");
            product.delegate(&["fix", &repo_arg(&repo), "--base=main", "--", "sh", "-c", &program])
        })
        .collect();
    for (n, id) in ids.iter().enumerate() {
        let task = product.settled(id);
        assert_eq!(task["wait"]["kind"], "review", "{task:#}");
        let branch = task["change"]["branch"].as_str().unwrap();
        assert_eq!(on(&repo, branch, &format!("note{n}.txt")), n.to_string());
    }
}

#[test]
fn a_repository_of_a_hundred_thousand_files_is_worked_on_and_proved() {
    let (product, repo) = (Product::new(), Repo::with_commit());
    repo.many_files("big", 100_000);
    let gate = "--gate=there=test -f answer.txt && test -f dir0099/file99999.txt";
    let id = product.delegate(&["fix", &repo_arg(&repo), "--base=big", gate, "--", "sh", "-c", "echo 42 > answer.txt"]);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}");
    product.ok(&["approve", &id]);
    product.ok(&["land", &id]);
    product.until(&id, "landed", |task| task["state"] == "completed");
    assert_eq!(on(&repo, "big", "answer.txt"), "42");
    assert_eq!(repo.git(&["diff", "--name-only", "big~1", "big"]), "answer.txt");
}
