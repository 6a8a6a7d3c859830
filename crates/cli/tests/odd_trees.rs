//! Trees that are not what they should be: nothing is read that was not meant, nothing is lost for one
//! odd file.

mod product;

use product::{Product, project_with_main_free, question, repo_arg};
use serde_json::json;

#[test]
fn settings_that_are_a_link_are_an_error_and_not_the_loss_of_every_gate() {
    for (link, to) in [
        (".chargehand/config.toml", "../gates.toml"),
        (".chargehand/environment.toml", "../x"),
        (".chargehand", "elsewhere"),
    ] {
        let repo = project_with_main_free(&[
            ("gates.toml", product::GATE),
            ("elsewhere/config.toml", product::GATE),
            ("answer.txt", "41\n"),
        ]);
        let path = repo.path().join(link);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, &path).unwrap();
        repo.git(&["switch", "-q", "main"]);
        repo.commit("a link");
        repo.git(&["switch", "-q", "elsewhere"]);
        let product = Product::new();
        let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "true"]);
        let task = product.settled(&id);
        assert_eq!(task["outcome"]["reason"], "user", "{link}: {task:#}");
        let message = task["outcome"]["message"].as_str().unwrap();
        assert!(message.contains(link) && message.contains("plain file"), "{message}");
    }
}

#[test]
fn a_repository_without_a_commit_inside_the_tree_is_left_out_and_said() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let program = "echo 42 > answer.txt; git init -q sub; echo x > sub/y";
    let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "sh", "-c", program]);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}");
    assert!(task["notes"].to_string().contains("./sub is a git repository without a commit"), "{:#}", task["notes"]);
    let patch = product.ok(&["diff", &id])["patch"].as_str().unwrap().to_owned();
    assert!(patch.contains("+42") && !patch.contains("sub/y"), "{patch}");
}

#[test]
fn a_result_that_is_refused_goes_back_to_the_agent_who_may_mend_it() {
    let (product, repo) = (Product::new(), project_with_main_free(&question()));
    let run =
        |command: &str| json!({ "text": "I run.", "calls": [{ "name": "shell", "input": { "command": command } }] });
    let entries = json!([
        run("echo 42 > answer.txt; mkdir .GIT; echo '[core]' > .GIT/config"),
        { "text": "Done." },
        run("rm -r .GIT"),
        { "text": "Now it is." }
    ]);
    let model = product.cassette("odd", &entries);
    let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--model", &model]);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}");
    assert_eq!(task["attempt"]["round"], 1);
    let told = product.events(&id).iter().any(|e| {
        e["event"]["type"] == "message_added" && e["event"]["text"].as_str().unwrap().contains("can't be taken out")
    });
    assert!(told);
}
