//! The server in the background: started by whoever needs it, had by one at a time, ended by
//! `stop`; and what its commands say.

mod product;

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Child, Command};

use product::{Product, project, project_with_main_free, question, repo_arg};
use serde_json::Value;

fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_list_starts_a_server_and_stop_ends_it() {
    let product = Product::new();
    let listed = product.run(&["list"]);
    assert!(listed.status.success());
    assert!(String::from_utf8_lossy(&listed.stdout).contains("No tasks"));
    assert!(String::from_utf8_lossy(&listed.stderr).contains("chargehand stop"), "it says that it started a server");
    let pid = product.server_pid().unwrap();
    assert!(alive(pid));
    let again = product.run(&["list"]);
    assert!(again.stderr.is_empty(), "the second command finds the server and has nothing to say about it");

    let stopped = product.ok(&["stop"]);
    assert_eq!((stopped["stopped"].as_bool(), stopped["pid"].as_i64()), (Some(true), Some(i64::from(pid))));
    assert!(!alive(pid), "it has ended when `stop` returns");
    assert_eq!(product.ok(&["stop"])["stopped"], false);
}

#[test]
fn of_many_who_start_it_at_once_one_has_the_folder_and_all_are_served() {
    let product = Product::new();
    let callers: Vec<Child> = (0..6).map(|_| product.beside(&["list", "--json"])).collect();
    for caller in callers {
        let output = caller.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let pid = product.server_pid().unwrap();
    product.ok(&["list"]);
    assert_eq!(product.server_pid(), Some(pid));
    assert!(alive(pid));
}

#[test]
fn a_second_server_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let product = Product::new();
    product.ok(&["list"]);
    let pid = product.server_pid().unwrap();
    let second = product.run(&["serve"]);
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(5), "{text}");
    assert!(text.contains(&pid.to_string()) && text.contains("chargehand stop"), "{text}");
    product.ok(&["list"]);
    assert_eq!(product.server_pid(), Some(pid));
}

#[test]
fn a_server_that_can_not_start_is_told_with_what_it_said() {
    let product = Product::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = product.command(&["list"]).env("CHARGEHAND_LISTEN", &address).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&address) && text.contains("server.log"), "{text}");
    drop(taken);
    product.ok(&["list"]);
}

#[test]
fn serving_in_the_foreground_says_where_and_ends_cleanly_when_asked() {
    let product = Product::new();
    let mut server = product.beside(&["serve", "--listen=127.0.0.1:0", "--json"]);
    let mut line = Vec::new();
    let mut out = server.stdout.take().unwrap();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "it ended before it said where it listens");
        line.push(byte[0]);
    }
    let said: Value = serde_json::from_slice(&line).unwrap();
    assert!(said["tcp"].as_str().unwrap().starts_with("127.0.0.1:"));
    let token_file = said["token_file"].as_str().unwrap();
    assert!(std::fs::read_to_string(token_file).unwrap().len() >= 32);
    product.ok(&["list"]);
    let asked = Command::new("kill").args(["-INT", &server.id().to_string()]).status().unwrap();
    assert!(asked.success());
    assert!(server.wait().unwrap().success());
}

#[test]
fn waiting_tells_by_its_exit_code_how_the_task_stands() {
    let product = Product::new();
    let repo = project_with_main_free(&question());
    let at = repo_arg(&repo);
    let id = product.delegate(&[&at, "--base=main", "--", "sh", "-c", "echo 42 > answer.txt"]);
    assert_eq!(product.run(&["wait", &id[..6]]).status.code(), Some(4), "it waits for a review");
    assert_eq!(product.run(&["approve", &id, "--land"]).status.code(), Some(0));
    assert_eq!(product.run(&["wait", &id]).status.code(), Some(0), "it is done");
    let failed = product.delegate(&[&at, "--base=main", "--", "false"]);
    assert_eq!(product.run(&["wait", &failed]).status.code(), Some(3), "it is not done");
    let follow = product.run(&[
        "run",
        &at,
        "--base=main",
        "-f",
        "--",
        "sh",
        "-c",
        "echo 42 > answer.txt; echo extra > more.txt",
    ]);
    assert_eq!(follow.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&follow.stdout).contains("approve"), "it says what to do");
}

#[test]
fn what_agents_and_repositories_say_can_not_move_the_cursor() {
    let product = Product::new();
    let repo = project_with_main_free(&question());
    let script = "printf '\\033[2J\\033]0;title\\007 gone\\n'; echo 42 > answer.txt; printf 'x\\342\\200\\256y\\033[2J\\n' > 'bad\u{1b}[2Jname'";
    let id =
        product.delegate(&[&repo_arg(&repo), "--base=main", "tidy \u{1b}[2J up \u{202e}gpj", "--", "sh", "-c", script]);
    product.settled(&id);
    for args in [
        &["list"][..],
        &["show", &id],
        &["logs", &id],
        &["logs", &id, "--full"],
        &["diff", &id, "--stat"],
        &["evidence", &id],
        &["why", &id],
    ] {
        let output = product.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{args:?}: {text:?}");
    }
    let patch = product.run(&["diff", &id]).stdout;
    assert!(patch.windows(4).any(|bytes| bytes == b"\x1b[2J"), "for another program, not a byte of the patch differs");
}

#[test]
fn doctor_names_what_is_there_and_never_a_key() {
    let product = Product::new();
    let output = product.command(&["doctor", "--json"]).env("ANTHROPIC_API_KEY", "sk-very-secret").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("very-secret"));
    let report: Value = serde_json::from_str(&text).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let find = |what: &str| {
        checks.iter().find(|check| check["what"] == what).unwrap_or_else(|| panic!("no check of {what}: {text}"))
    };
    assert_eq!(find("anthropic")["found"], "key from ANTHROPIC_API_KEY");
    assert_eq!(find("git")["mark"], "ok");
    for check in checks {
        assert!(
            check["mark"] == "ok" || check["fix"].as_str().is_some_and(|fix| !fix.is_empty()),
            "no way out: {check}"
        );
    }
    let worst = output.status.code() == Some(1);
    assert_eq!(worst, report["worst"] == "problem");
}

#[test]
fn doctor_says_that_a_key_is_in_the_settings_file_and_why_an_endpoint_does_not_answer() {
    let product = Product::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = product.home.path().join("keys.toml");
    let text = format!(
        "[providers.acme]\nkind = \"chat\"\nbase_url = \"https://acme.example/v1\"\napi_key = \"sk-very-secret\"\n\
         [providers.mine]\nkind = \"chat\"\nbase_url = \"http://{free}/v1\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let config = format!("--config={}", file.display());
    for args in [&[&config, "doctor"][..], &[&config, "doctor", "--json"]] {
        let output = product.run(args);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("key from the settings file") && !text.contains("very-secret"), "{text}");
        assert!(text.contains("Connection refused") && !text.contains("error sending request"), "{text}");
        assert!(text.contains("chmod 600"), "others may read it: {text}");
    }
}

#[test]
fn a_whole_output_and_a_document_of_each_kind_can_be_had() {
    let product = Product::new();
    let repo = project(&question());
    let id = product.delegate(&[&repo_arg(&repo), "--", "sh", "-c", "echo 42 > answer.txt"]);
    product.settled(&id);
    let output = product.run(&["evidence", &id, "--output=answer"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "the answer is 42\n");
    assert!(product.refused(&["evidence", &id, "--output=other"]).contains("its gates: answer"));
    assert_eq!(product.ok(&["evidence", &id])["gates"][0]["status"], "passed");
    assert_eq!(product.ok(&["diff", &id])["files"][0]["path"], "answer.txt");
    assert_eq!(product.ok(&["why", &id])["task"], id.as_str());
    assert!(product.ok(&["logs", &id])["events"].as_array().is_some_and(|events| events.len() > 5));
    assert_eq!(product.ok(&["list", "--state=input_required"])["tasks"][0]["id"], id.as_str());
}
