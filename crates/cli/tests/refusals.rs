//! Bad input gets a clear error: one block for people on standard error, one document for programs
//! on standard output, and an exit code that tells wrong usage from failure.

mod product;

use product::{Product, Repo, project, question, repo_arg};

/// What a person reads, what a program reads, and the code.
fn refused(product: &Product, args: &[&str]) -> (String, String, Option<i32>) {
    let people = product.run(args);
    let text = String::from_utf8_lossy(&people.stderr).into_owned();
    assert!(text.contains("error: "), "{args:?}: {text}");
    assert!(people.stdout.is_empty(), "{args:?} printed: {}", String::from_utf8_lossy(&people.stdout));
    // Options of the product end at `--`; what follows belongs to the agent's program.
    let programs = product.run(&[&["--json"], args].concat());
    assert_eq!(programs.status.code(), people.status.code(), "{args:?}");
    let documents = String::from_utf8(programs.stdout).unwrap();
    assert_eq!(documents.lines().count(), 1, "{args:?}: {documents}");
    let document: serde_json::Value = serde_json::from_str(&documents).unwrap();
    assert!(document["error"]["detail"].is_string(), "{document}");
    let kind = document["error"]["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    (text, kind, people.status.code())
}

#[test]
fn a_repository_that_can_not_be_used_is_refused_with_what_to_do() {
    let product = Product::new();
    let plain = tempfile::tempdir().unwrap();
    let at = format!("--repo={}", plain.path().display());
    let (text, kind, code) = refused(&product, &["run", "x", &at, "--", "true"]);
    assert!(text.contains("not a git repository") && text.contains("git init"), "{text}");
    assert_eq!((kind.as_str(), code), ("repository", Some(2)));

    let empty = Repo::new();
    let (text, kind, _) = refused(&product, &["run", "x", &repo_arg(&empty), "--", "true"]);
    assert!(text.contains("no commit"), "{text}");
    assert_eq!(kind, "repository");

    let repo = project(&question());
    let (text, _, _) = refused(&product, &["run", "x", &repo_arg(&repo), "--base=nowhere", "--", "true"]);
    assert!(text.contains("nowhere") && text.contains("main"), "{text}");

    let (text, kind, code) = refused(&product, &["run", "x", "--repo=/nowhere/at/all", "--", "true"]);
    assert!(text.contains("/nowhere/at/all") && text.contains("--repo"), "{text}");
    assert_eq!((kind.as_str(), code), ("cli-usage", Some(2)));
    assert_eq!(product.ok(&["list", "--all"])["tasks"].as_array().unwrap().len(), 0, "nothing was stored");
}

#[test]
fn a_repository_whose_path_is_no_text_is_refused_by_name() {
    use std::os::unix::ffi::OsStrExt as _;
    let product = Product::new();
    let folder = product.home.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&folder).unwrap();
    let named = product.command(&["run", "x", "--repo"]).arg(&folder).args(["--", "true"]).output().unwrap();
    let around = product.command(&["run", "x", "--", "true"]).current_dir(&folder).output().unwrap();
    for output in [named, around] {
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("not UTF-8") && text.contains("caf"), "{text}");
    }
}

#[test]
fn a_goal_an_agent_or_a_program_that_is_missing_is_named() {
    let product = Product::new();
    let repo = project(&question());
    let at = repo_arg(&repo);
    for goal in [&[][..], &[""], &["  "], &["-"]] {
        let (text, _, code) = refused(&product, &[&["run", &at], goal].concat());
        assert!(text.contains("the goal is empty"), "{text}");
        assert_eq!(code, Some(2));
    }
    let (text, _, _) = refused(&product, &["run", "x", &at, "--agent=gremlin"]);
    assert!(text.contains("gremlin") && text.contains("native") && text.contains("command"), "{text}");
    let (text, _, _) = refused(&product, &["run", "x", &at, "--agent=command"]);
    assert!(text.contains("after `--`"), "{text}");
    let (text, _, _) = refused(&product, &["run", "x", &at, "--gate=test"]);
    assert!(text.contains("NAME=COMMAND"), "{text}");
}

#[test]
fn without_a_model_the_ways_out_are_named() {
    let product = Product::new();
    let repo = project(&question());
    let (text, kind, _) = refused(&product, &["run", "x", &repo_arg(&repo)]);
    for way in ["ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "--agent command", "chargehand demo"] {
        assert!(text.contains(way), "{way} is missing: {text}");
    }
    assert_eq!(kind, "no-model");
}

#[test]
fn a_key_that_only_this_shell_has_is_not_taken_for_the_servers() {
    let product = Product::new();
    let repo = project(&question());
    product.ok(&["list"]);
    let output =
        product.command(&["run", "x", &repo_arg(&repo)]).env("ANTHROPIC_API_KEY", "sk-very-secret").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("the server was started without it") && text.contains("chargehand stop"), "{text}");
    assert!(!text.contains("very-secret"));
}

#[test]
fn a_contract_with_an_unknown_field_or_another_version_is_refused_by_name() {
    let product = Product::new();
    let repo = project(&question());
    let check = |name: &str, content: &str, wanted: &[&str]| {
        let path = product.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        let contract = format!("--contract={}", path.display());
        let (text, _, code) = refused(&product, &["run", "x", &repo_arg(&repo), &contract, "--", "true"]);
        assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{name}: {text}");
        assert_eq!(code, Some(2), "{name}");
    };
    check("typo.toml", "contract = \"aac/0.1\"\n[autonmy]\n", &["autonmy", "line 2"]);
    check("typo.json", "{\"contract\":\"aac/0.1\",\"budget\":{\"truns\":3}}", &["truns"]);
    check("major.toml", "contract = \"aac/1.0\"\n", &["aac/1.0", "aac/0.1"]);
    check("promise.toml", "[isolation]\nnet = \"full\"\n", &["isolation.net"]);
    check("zero.toml", "[budget]\nturns = 0\n", &["budget", "at least 1"]);
}

#[test]
fn a_wrong_settings_file_is_named_with_its_line_and_without_its_keys() {
    let product = Product::new();
    let file = product.home.path().join("bad.toml");
    std::fs::write(&file, "model = \"a/b\"\n[providers.acme]\nkind = \"chat\"\napi_key = sk-very-secret\n").unwrap();
    let config = format!("--config={}", file.display());
    let (text, kind, code) = refused(&product, &[&config, "list"]);
    assert!(text.contains("bad.toml, line 4") && !text.contains("secret"), "{text}");
    assert_eq!((kind.as_str(), code), ("cli-settings", Some(2)));
    let (text, _, _) = refused(&product, &["--config=/nowhere.toml", "list"]);
    assert!(text.contains("/nowhere.toml"), "{text}");
    let page = product.page(&[&config, "environment"]);
    assert!(page.contains("CHARGEHAND_CONFIG"), "what helps to mend the settings does not need them");
}

#[test]
fn a_command_line_that_makes_no_sense_is_one_document_too() {
    let product = Product::new();
    for args in [&["--json"][..], &["--json", "frobnicate"], &["show", "--json"], &["list", "--json", "--state=asleep"]]
    {
        let output = product.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["error"]["type"], "urn:chargehand:problem:cli-usage", "{args:?}");
    }
    let (text, _, code) = refused(&product, &["show", "../../etc"]);
    assert!(text.contains("is not an id"), "{text}");
    assert_eq!(code, Some(2));
    let (text, kind, code) = refused(&product, &["show", "zzzz"]);
    assert!(text.contains("zzzz"), "{text}");
    assert_eq!((kind.as_str(), code), ("not-found", Some(1)));
}

#[test]
fn a_data_folder_that_can_not_be_had_is_said_before_anything_starts() {
    let product = Product::new();
    let file = product.home.path().join("file");
    std::fs::write(&file, "").unwrap();
    for command in ["list", "serve"] {
        let output = product.run(&[command, &format!("--data-dir={}/below", file.display())]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("data folder") && text.contains("below"), "{text}");
        assert_eq!(output.status.code(), Some(1));
    }
    let (text, _, code) = refused(&product, &["list", &format!("--data-dir=/tmp/{}", "x".repeat(120))]);
    assert!(text.contains("too long for a unix socket"), "{text}");
    assert_eq!(code, Some(2));
}
