//! Steps that can be gone back to: files and conversation after each turn.

mod product;

use product::{Product, project_with_main_free, question, repo_arg};
use serde_json::{Value, json};

fn write(content: &str) -> Value {
    json!({ "text": "I write.", "calls": [{ "name": "write", "input": { "path": "answer.txt", "content": content } }] })
}

fn shell(command: &str) -> Value {
    json!({ "text": "I run.", "calls": [{ "name": "shell", "input": { "command": command } }] })
}

/// Writes 40, then 41 with a second file, looks, writes 42, and is done.
fn four_turns() -> Value {
    json!([
        write("40\n"),
        shell("echo 41 > answer.txt; mkdir -p notes; echo two > notes/second.txt"),
        shell("cat answer.txt"),
        write("42\n"),
        { "text": "Done." }
    ])
}

fn kept_turns(product: &Product, id: &str) -> Vec<u64> {
    let events = product.events(id);
    let started = |effect: &str| {
        events.iter().find(|e| e["event"]["id"] == effect && e["event"]["type"] == "effect_started").unwrap().clone()
    };
    events
        .iter()
        .filter(|e| e["event"]["result"]["kind"] == "snapshot_taken")
        .map(|e| started(e["event"]["id"].as_str().unwrap())["event"]["effect"]["turn"].as_u64().unwrap())
        .collect()
}

#[test]
fn files_are_kept_after_each_turn_that_changed_some_and_two_turns_can_be_compared() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette("four", &four_turns());
    let id = product.delegate(&["make it right", &repo_arg(&repo), "--base=main", "--model", &model]);
    assert_eq!(product.settled(&id)["wait"]["kind"], "review", "{}", product.log());
    assert_eq!(kept_turns(&product, &id), [1, 2, 4], "turn 3 only looked");

    let between = product.ok(&["diff", &format!("{id}@1..3")]);
    let patch = between["patch"].as_str().unwrap();
    assert!(patch.contains("-40") && patch.contains("+41") && patch.contains("notes/second.txt"), "{patch}");
    let all = product.ok(&["diff", &format!("{id}@0..4")]);
    let patch = all["patch"].as_str().unwrap();
    assert!(patch.contains("-41\n+42"), "{patch}");
    assert!(product.refused(&["diff", &format!("{id}@0..9")]).contains("turns 0 (the beginning) to 5"));
    assert!(product.refused(&["diff", &format!("{id}@0")]).contains("0..5"));
}

#[test]
fn a_fork_begins_with_the_files_and_the_conversation_of_its_step() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette("four", &four_turns());
    let id = product.delegate(&["make it right", &repo_arg(&repo), "--base=main", "--model", &model]);
    product.settled(&id);

    let forked = product.ok(&["fork", &format!("{id}@2"), "-m", "and be quick"]);
    let fork = forked["task"]["id"].as_str().unwrap();
    assert_ne!(fork, id);
    let task = product.settled(fork);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    let turns: Vec<u64> = product
        .events(fork)
        .iter()
        .filter(|e| e["event"]["effect"]["kind"] == "call_model")
        .map(|e| e["event"]["effect"]["turn"].as_u64().unwrap())
        .collect();
    assert_eq!(turns, [3, 4, 5], "the replayed model goes on with its third answer");
    let patch = product.ok(&["diff", fork])["patch"].as_str().unwrap().to_owned();
    assert!(patch.contains("+42") && patch.contains("notes/second.txt"), "{patch}");

    // A fork of a fork finds the shared turns where they lie.
    let again = product.ok(&["fork", &format!("{fork}@1")]);
    let again = again["task"]["id"].as_str().unwrap();
    let task = product.settled(again);
    assert_eq!(task["spec"]["fork"]["task"], json!(id), "{task:#}");
    assert_eq!(task["wait"]["kind"], "review", "{task:#}");

    // After its last word the agent has nothing to do, unless somebody tells it.
    assert!(product.refused(&["fork", &format!("{id}@5")]).contains("-m"));
    assert!(product.refused(&["fork", &format!("{id}@7")]).contains("to 5 are"));
    assert!(product.refused(&["fork", &id]).contains("@4"));
    let program = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "sh", "-c", "echo 42 > answer.txt"]);
    product.settled(&program);
    assert!(product.refused(&["fork", &format!("{program}@1")]).contains("program"));
}

#[test]
fn the_same_fork_under_the_same_key_is_made_once() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette("four", &four_turns());
    let id = product.delegate(&["make it right", &repo_arg(&repo), "--base=main", "--model", &model]);
    product.settled(&id);
    let fork = || product.ok(&["fork", &format!("{id}@1"), "--idempotency-key", "once"])["task"]["id"].clone();
    assert_eq!(fork(), fork());
}

#[test]
fn an_attempt_whose_box_is_gone_goes_on_from_the_last_kept_files_and_the_agent_is_told() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let entries = json!([
        write("40\n"),
        shell("echo two > second.txt"),
        { "text": "I think.", "delay_ms": 4000, "calls": [{ "name": "write", "input": { "path": "answer.txt", "content": "42\n" } }] },
        { "text": "Done." }
    ]);
    let model = product.cassette("slow", &entries);
    let id = product.delegate(&["make it right", &repo_arg(&repo), "--base=main", "--model", &model]);
    product.until(&id, "kept the files of turn 2", |task| task["attempt"]["files"]["turn"] == 2);
    product.kill_server();
    product.kill_boxes();
    // As if the folder had been on a disk that is no more; layers are elsewhere.
    for entry in std::fs::read_dir(product.data().join("sandboxes/run")).unwrap().flatten() {
        let gone = product.home.path().join("gone");
        std::fs::rename(entry.path(), &gone).unwrap();
    }
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    let patch = product.ok(&["diff", &id])["patch"].as_str().unwrap().to_owned();
    assert!(patch.contains("second.txt") && patch.contains("+42"), "{patch}");
    let told = product.events(&id).iter().any(|e| {
        e["event"]["type"] == "message_added" && e["event"]["text"].as_str().unwrap().contains("after turn 2")
    });
    assert!(told, "the agent was told what was lost");
}

#[test]
fn many_steps_stay_on_few_layers_and_can_all_be_gone_back_to() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let turns = (1..=20).map(|turn| {
        let command =
            format!("echo {turn} > step.txt; echo {turn} >> all.txt; rm -f old-*.txt; echo {turn} > old-{turn}.txt");
        shell(&command)
    });
    let entries: Vec<Value> = turns.chain([write("42\n"), json!({ "text": "Done." })]).collect();
    let model = product.cassette("many", &json!(entries));
    let id = product.delegate(&["make it right", &repo_arg(&repo), "--base=main", "--model", &model]);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    assert_eq!(kept_turns(&product, &id), (1..=21).collect::<Vec<u64>>());
    let most = product
        .events(&id)
        .iter()
        .filter_map(|e| e["event"]["result"]["layers"].as_array().map(Vec::len))
        .max()
        .unwrap();
    assert!(most <= 17, "{most} layers");
    let between = product.ok(&["diff", &format!("{id}@15..19")]);
    let patch = between["patch"].as_str().unwrap();
    assert!(patch.contains("-15\n+19") && patch.contains("old-15.txt") && patch.contains("old-19.txt"), "{patch}");
    assert!(patch.contains("+16\n+17\n+18\n+19"), "{patch}");
    // The look was into the files as they were, and left nothing.
    let boxes = std::fs::read_dir(product.data().join("sandboxes/run")).unwrap().count();
    assert_eq!(boxes, 1, "the attempt's own");
}

#[test]
fn a_recorded_conversation_is_replayed_byte_for_byte_also_that_of_a_fork() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette("four", &four_turns());
    let id = product.delegate(&["make it right", &repo_arg(&repo), "--base=main", "--model", &model]);
    product.settled(&id);
    let fork = product.ok(&["fork", &format!("{id}@2"), "-m", "go on"])["task"]["id"].as_str().unwrap().to_owned();
    product.settled(&fork);
    let answers = |id: &str| -> Vec<String> {
        let events = product.events(id);
        events.iter().filter_map(|e| e["event"]["result"]["message_json"].as_str().map(str::to_owned)).collect()
    };
    for (task, expected) in [(&id, answers(&id)), (&fork, answers(&id))] {
        let file = product.home.path().join(format!("{task}.cassette.json"));
        product.ok(&["record", task, "-o", &file.display().to_string()]);
        let again = format!("replay:{}", file.display());
        let played = product.delegate(&["make it right", &repo_arg(&repo), "--base=main", "--model", &again]);
        assert_eq!(product.settled(&played)["wait"]["kind"], "review");
        assert_eq!(answers(&played), expected);
        assert!(product.refused(&["record", task, "-o", &file.display().to_string()]).contains("exists"));
    }
}

#[test]
fn programs_that_the_environment_starts_do_not_keep_files_from_being_kept_and_run_on() {
    let environment = "version = 1\nstart = [\"echo begun >> /tmp/starts; sleep 1000\"]\n";
    let repo = project_with_main_free(&[&question()[..], &[(".chargehand/environment.toml", environment)]].concat());
    let product = Product::new();
    let entries = json!([
        write("40\n"),
        shell("pgrep -f 'sleep 1000' > /dev/null && echo it runs > running.txt"),
        shell("sleep 1000 > /dev/null 2>&1 & echo 3 > three.txt"),
        write("42\n"),
        { "text": "Done." }
    ]);
    let model = product.cassette("started", &entries);
    let id = product.delegate(&["make it right", &repo_arg(&repo), "--base=main", "--model", &model]);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    let patch = product.ok(&["diff", &id])["patch"].as_str().unwrap().to_owned();
    assert!(patch.contains("it runs"), "{patch}");
    // What the agent itself left running is not ended for the sake of a step.
    assert_eq!(kept_turns(&product, &id), [1, 2]);
}

#[test]
fn a_task_that_ran_out_of_turns_can_be_forked_where_it_stopped() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette("four", &four_turns());
    let id = product.delegate(&["make it right", &repo_arg(&repo), "--base=main", "--model", &model, "--turns=2"]);
    let task = product.settled(&id);
    assert_eq!(task["outcome"]["reason"], "budget", "{task:#}");
    assert_eq!(kept_turns(&product, &id), [1, 2]);
    let fork = product.ok(&["fork", &format!("{id}@2")])["task"]["id"].as_str().unwrap().to_owned();
    let task = product.settled(&fork);
    assert_eq!(task["outcome"]["reason"], "budget", "it has two turns of its own: {task:#}");
    let patch = product.ok(&["diff", &format!("{fork}@2..4")])["patch"].as_str().unwrap().to_owned();
    assert!(patch.contains("+42") && !patch.contains("notes"), "{patch}");
}

#[test]
fn a_step_whose_files_are_gone_is_refused_before_a_task_is_made() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let model = product.cassette("four", &four_turns());
    let id = product.delegate(&["make it right", &repo_arg(&repo), "--base=main", "--model", &model]);
    product.settled(&id);
    product.ok(&["cancel", &id]);
    product.run(&["stop"]);
    let layers = product.data().join("sandboxes/layers");
    std::fs::rename(&layers, product.data().join("sandboxes/elsewhere")).unwrap();
    std::fs::create_dir(&layers).unwrap();
    let refused = product.refused(&["fork", &format!("{id}@2")]);
    assert!(refused.contains("no longer kept"), "{refused}");
    assert!(product.refused(&["diff", &format!("{id}@0..2")]).contains("can't be had"));
    assert_eq!(product.ok(&["list", "--all"])["tasks"].as_array().unwrap().len(), 1);
}
