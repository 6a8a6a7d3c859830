//! Whole paths with the real binary: delegated, worked on in a box, proved, approved, landed.
//! Only the model is replayed.

mod product;

use product::{Product, on, project_with_main_free, question, repo_arg, writes};
use serde_json::json;

#[test]
fn a_replayed_agent_is_proved_approved_and_landed_and_the_log_tells_who_did_what() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let before = repo.git(&["rev-parse", "main"]);
    let model = product.cassette("fix", &writes("42\n"));
    let id = product.delegate(&["make the answer right", &repo_arg(&repo), "--base=main", "--model", &model]);

    let task = product.settled(&id);
    assert_eq!(task["state"], "input_required", "{task:#}\n{}", product.log());
    assert_eq!(task["wait"]["kind"], "review");
    assert_eq!(on(&repo, "main", "answer.txt"), "41", "nothing moves before somebody said so");
    assert_eq!(on(&repo, task["change"]["branch"].as_str().unwrap(), "answer.txt"), "42");

    let evidence = product.ok(&["evidence", &id]);
    assert_eq!(evidence["gates"][0]["record"]["evidence"]["passed"], true, "{evidence:#}");
    assert_eq!(evidence["gates"][0]["record"]["evidence"]["commit"], task["change"]["commit"]);

    let refused = product.refused(&["land", &id]);
    assert!(refused.contains("approve"), "{refused}");
    product.ok(&["approve", &id, "-m", "looks right"]);
    product.ok(&["land", &id]);
    let task = product.settled(&id);
    assert_eq!((&task["state"], &task["outcome"]["reason"]), (&json!("completed"), &json!("done")), "{task:#}");
    assert_eq!(on(&repo, "main", "answer.txt"), "42");
    assert_eq!(repo.git(&["rev-parse", "main~1"]), before, "a fast-forward");

    let why = product.page(&["why", &id]);
    assert!(why.contains("by_human") && why.contains("looks right"), "{why}");
    let events = product.events(&id);
    assert!(events.iter().all(|event| event["actor"]["name"].as_str().is_some_and(|name| !name.is_empty())));
    let landing = events.iter().find(|e| e["event"]["effect"]["kind"] == "land").unwrap();
    let approved = events.iter().find(|e| e["event"]["type"] == "approved").unwrap();
    assert!(approved["seq"].as_u64() < landing["seq"].as_u64());
    assert_eq!(approved["actor"]["kind"], "person");
}

#[test]
fn a_gate_that_fails_goes_back_to_the_agent_with_its_output() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette(
        "twice",
        &json!([
            { "text": "I guess.", "calls": [{ "name": "write", "input": { "path": "answer.txt", "content": "43\n" } }] },
            { "text": "It is right now, I am sure." },
            { "text": "It was not.", "calls": [{ "name": "write", "input": { "path": "answer.txt", "content": "42\n" } }] },
            { "text": "Now it is." }
        ]),
    );
    let id = product.delegate(&["make the answer right", &repo_arg(&repo), "--base=main", "--model", &model]);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}");
    assert_eq!(task["attempt"]["round"], 1);
    let feedback = product.events(&id).into_iter().find(|e| e["event"]["source"] == "gates").unwrap();
    assert!(feedback["event"]["text"].as_str().unwrap().contains("the answer is 43"), "{feedback:#}");
    let ran: Vec<bool> = task["evidence"].as_array().unwrap().iter().map(|e| e["passed"] == true).collect();
    assert_eq!(ran, [false, true]);
}

#[test]
fn gates_that_never_pass_end_the_task_as_stuck_and_nothing_lands() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = product.delegate(&["write 43", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "echo 43 > answer.txt"]);
    let task = product.settled(&id);
    assert_eq!((&task["state"], &task["outcome"]["reason"]), (&json!("failed"), &json!("stuck")), "{task:#}");
    assert!(product.refused(&["approve", &id]).contains("ended"));
    assert_eq!(on(&repo, "main", "answer.txt"), "41");
}

#[test]
fn an_agent_that_loosens_the_gate_in_its_own_change_is_still_held_to_the_base_commits_gate() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let program =
        "printf '[[gate]]\\nname=\"answer\"\\ncommand=[\"true\"]\\n' > .chargehand/config.toml; echo 43 > answer.txt";
    let id = product.delegate(&["cheat", &repo_arg(&repo), "--base=main", "--", "sh", "-c", program]);
    let task = product.settled(&id);
    assert_eq!(task["outcome"]["reason"], "stuck", "{task:#}");
    assert_eq!(task["evidence"][0]["gate"]["command"], json!(["sh", "check.sh"]));
}

#[test]
fn a_rejected_change_ends_the_task_with_the_reason_and_lands_nothing() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette("fix", &writes("42\n"));
    let id = product.delegate(&["make the answer right", &repo_arg(&repo), "--base=main", "--model", &model]);
    assert_eq!(product.settled(&id)["wait"]["kind"], "review");
    let page = product.page(&["reject", &id, "-m", "the answer is not the question"]);
    assert!(page.contains("rejected") && page.contains("nothing was landed"), "{page}");
    let task = product.show(&id);
    assert_eq!((&task["state"], &task["outcome"]["reason"]), (&json!("rejected"), &json!("user")), "{task:#}");
    assert_eq!(task["outcome"]["message"], "the answer is not the question");
    assert!(product.page(&["why", &id]).contains("the answer is not the question"));
    assert!(product.page(&["list"]).contains("rejected"));
    assert_eq!(on(&repo, "main", "answer.txt"), "41");
    assert!(product.refused(&["approve", &id]).contains("ended"));
}

#[test]
fn what_nobody_can_have_seen_is_not_approved() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = product.delegate(&["sleep", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "sleep 600"]);
    for args in [&["approve", &id][..], &["approve", &id, "--commit=abc"], &["approve", &id, "--land"]] {
        let text = product.refused(args);
        assert!(text.contains("nothing to approve") && text.contains("not proposed a change yet"), "{text}");
    }
    product.ok(&["cancel", &id]);
    let text = product.refused(&["approve", &id]);
    assert!(text.contains("ended without a change (canceled)"), "{text}");
    assert!(product.events(&id).iter().all(|event| event["event"]["type"] != "approved"));
    assert!(product.refused(&["diff", &id]).contains("ended without a change"));
    assert!(product.page(&["evidence", &id]).contains("ended without a commit"));
}

#[test]
fn a_question_waits_for_its_answer_and_the_work_goes_on_with_it() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette(
        "asks",
        &json!([
            { "text": "Which?", "calls": [{ "name": "ask", "input": { "question": "41 or 42?" } }] },
            { "text": "So it is.", "calls": [{ "name": "write", "input": { "path": "answer.txt", "content": "42\n" } }] },
            { "text": "Done." }
        ]),
    );
    let id = product.delegate(&["make the answer right", &repo_arg(&repo), "--base=main", "--model", &model]);
    let task = product.settled(&id);
    assert_eq!((&task["wait"]["kind"], &task["wait"]["reason"]), (&json!("question"), &json!("41 or 42?")), "{task:#}");
    assert!(task["wait"]["expires_at"].is_string() && task["wait"]["owner"].is_string());
    assert!(product.refused(&["say", &id, "hello"]).contains("answer"));
    product.ok(&["answer", &id, "the second"]);
    let task = product.until(&id, "went to review", |task| task["wait"]["kind"] == "review");
    assert_eq!(task["attempt"]["turns"], 3);
}

#[test]
fn a_word_during_review_reopens_the_work_and_voids_the_approval() {
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
    let first = product.settled(&id)["change"]["head"].clone();
    product.ok(&["approve", &id]);
    product.ok(&["say", &id, "write down why"]);
    let task = product.until(&id, "proposed something new", |task| {
        task["wait"]["kind"] == "review" && task["change"]["head"] != first
    });
    assert!(product.refused(&["land", &id]).contains("not approved"), "{task:#}");
    product.ok(&["approve", &id]);
    product.ok(&["land", &id]);
    product.until(&id, "landed", |task| task["state"] == "completed");
    assert_eq!(on(&repo, "main", "notes.txt"), "why");
}

#[test]
fn cancel_stops_a_running_command_and_leaves_no_box_behind() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let id = product.delegate(&["sleep", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "sleep 600"]);
    product.until(&id, "ran its program", |task| {
        task["open_effects"].as_object().is_some_and(|open| open.values().any(|e| e["effect"]["kind"] == "run_command"))
    });
    product.ok(&["cancel", &id]);
    assert_eq!(product.show(&id)["state"], "canceled");
    product.until(&id, "closed its box", |task| task["sandboxes"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(std::fs::read_dir(product.data().join("sandboxes/run")).unwrap().count(), 0);
    assert!(product.refused(&["say", &id, "come back"]).contains("ended"));
}

#[test]
fn the_same_key_and_request_are_one_task_and_another_request_under_it_is_refused() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let arg = repo_arg(&repo);
    let run = |goal: &str| {
        product.json(&["run", goal, &arg, "--base=main", "--idempotency-key=k1", "--agent=command", "--", "true"])
    };
    let (first, second) = (run("one"), run("one"));
    assert_eq!(first["task"]["id"], second["task"]["id"]);
    assert_eq!((&first["created"], &second["created"]), (&json!(true), &json!(false)));
    let other = run("two");
    assert!(other["error"]["detail"].as_str().is_some_and(|text| text.contains("already used")), "{other:#}");
}
