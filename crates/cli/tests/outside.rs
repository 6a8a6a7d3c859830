//! The way out of a task's boxes: what is listed passes with its secret, all else is refused, and both
//! stand in the log.

mod product;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use product::{Product, Repo, project_with_main_free, question, repo_arg};

/// A far side that speaks plain HTTP and remembers what it was asked.
struct FarSide {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FarSide {
    /// Echoes the credential that it was given, as a careless far side does.
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
                let sent = head.lines().find(|line| line.to_lowercase().starts_with("authorization:"));
                let body = format!("hello from outside; you sent {}\n", sent.unwrap_or("nothing"));
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes());
                seen.lock().unwrap().push(head);
            }
        });
        Self { port, asked }
    }
}

const CANARY: &str = "canary-4f1d2a6b9c";

/// A product whose server knows the far side as a host inside the company.
fn product(far: &FarSide) -> Product {
    let product = Product::new();
    // The harness empties the settings file before each command, so it has a name of its own.
    let settings = "[network]\nprivate_hosts = [\"api.corp.example\"]\nplain_http_hosts = [\"api.corp.example\"]\n\
                    [network.hosts]\n\"api.corp.example\" = \"127.0.0.1\"\n";
    std::fs::write(product.home.path().join("set.toml"), settings).unwrap();
    let _ = far;
    product
}

fn repository(far: &FarSide) -> Repo {
    let environment = format!(
        "version = 1\n[network]\ntasks = [{{ host = \"api.corp.example\", ports = [{}], methods = [\"GET\"], \
         secret = {{ name = \"CORP_TOKEN\", how = \"bearer\" }} }}]\n",
        far.port
    );
    project_with_main_free(&[&question()[..], &[(".chargehand/environment.toml", &environment)]].concat())
}

#[test]
fn a_listed_host_is_reached_with_its_secret_and_nothing_else_is_and_the_log_has_both() {
    let far = FarSide::new();
    let (product, repo) = (product(&far), repository(&far));
    let mut set = product.command(&[
        "secret",
        "set",
        "CORP_TOKEN",
        &repo_arg(&repo),
        "--host",
        &format!("api.corp.example:{}", far.port),
    ]);
    set.env("CHARGEHAND_CONFIG", product.home.path().join("set.toml"));
    let mut set = set.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    set.stdin.take().unwrap().write_all(CANARY.as_bytes()).unwrap();
    let set = set.wait_with_output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));

    let url = format!("http://api.corp.example:{}", far.port);
    let program = format!(
        "curl -sS {url}/things?x=1 > got.txt; curl -sS -X DELETE {url}/things > refused.txt; \
         curl -sS http://other.example/ >> refused.txt; curl -sS --noproxy '*' --max-time 2 {url}/ > direct.txt 2>&1; \
         env > env.txt; echo 42 > answer.txt"
    );
    let id = product.delegate(&["reach out", &repo_arg(&repo), "--base=main", "--", "sh", "-c", &program]);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    let branch = task["change"]["branch"].as_str().unwrap();
    let file = |name: &str| String::from_utf8(repo.read_at(branch, name).unwrap_or_default()).unwrap();
    assert!(file("got.txt").starts_with("hello from outside"), "{}", file("got.txt"));
    assert!(file("refused.txt").contains("not allowed") && file("refused.txt").contains("not on the allow-list"));
    assert!(file("direct.txt").contains("curl:"), "there is no way but the door: {}", file("direct.txt"));

    let asked = far.asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let bearer = asked[0].contains(&format!("Bearer {CANARY}")) || asked[0].contains(&format!("bearer {CANARY}"));
    assert!(bearer, "{asked:?}\n{}\n{:#?}", product.page(&["secret", "list"]), task["notes"]);

    // The far side echoed the secret; neither box nor log have it.
    let everything = [file("got.txt"), file("env.txt"), format!("{:?}", product.events(&id)), product.log()].concat();
    assert!(!everything.contains(CANARY), "{everything}");
    let requests: Vec<_> = product
        .events(&id)
        .iter()
        .filter(|e| e["event"]["type"] == "egress_reported")
        .flat_map(|e| e["event"]["requests"].as_array().unwrap().clone())
        .collect();
    assert_eq!(requests.len(), 3, "{requests:#?}");
    assert_eq!(requests[0]["secret"], "CORP_TOKEN");
    assert_eq!(requests[0]["path"], "/things?x=1");
    assert!(requests[0]["denied"].is_null() && requests[1]["denied"].is_string() && requests[2]["denied"].is_string());
    let page = product.page(&["logs", &id]);
    assert!(page.contains("not let out") && page.contains("api.corp.example: 1 request"), "{page}");
}

#[test]
fn setup_fetches_with_a_secret_of_its_own_and_neither_secret_nor_way_out_is_in_the_snapshot() {
    let far = FarSide::new();
    let product = product(&far);
    let environment = format!(
        "version = 1\nsetup_secrets = [\"SETUP_TOKEN\"]\n[[setup]]\nrun = \"curl -sS http://api.corp.example:{port}/pkg > deps && echo $SETUP_TOKEN >> deps\"\nnetwork = true\n\
         [[setup]]\nrun = \"! curl -sS --max-time 3 http://api.corp.example:{port}/second\"\n\
         [network]\nsetup = [{{ host = \"api.corp.example\", ports = [{port}], secret = {{ name = \"SETUP_TOKEN\", how = \"bearer\" }} }}]\n",
        port = far.port
    );
    let files = [(".chargehand/environment.toml", environment.as_str()), (".gitignore", "deps\n")];
    let repo = project_with_main_free(&[&question()[..], &files].concat());
    let host = format!("api.corp.example:{}", far.port);
    let place = ["--environment", "setup", "--host", &host];
    let mut set = product.command(&[&["secret", "set", "SETUP_TOKEN", &repo_arg(&repo)][..], &place].concat());
    set.env("CHARGEHAND_CONFIG", product.home.path().join("set.toml"));
    let mut set = set.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    set.stdin.take().unwrap().write_all(CANARY.as_bytes()).unwrap();
    let set = set.wait_with_output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));

    let program = "cp deps got.txt; ls /run/chargehand >> got.txt 2>&1; echo 42 > answer.txt";
    let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "sh", "-c", program]);
    let task = product.settled(&id);
    assert_eq!(task["wait"]["kind"], "review", "{task:#}\n{}", product.log());
    let asked = far.asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "only the command that may reach something did: {asked:?}");
    assert!(asked[0].contains(CANARY), "{asked:?}");
    let branch = task["change"]["branch"].as_str().unwrap();
    let got = String::from_utf8(repo.read_at(branch, "got.txt").unwrap()).unwrap();
    assert!(got.contains("hello from outside") && got.contains("chargehand-secret-SETUP_TOKEN"), "{got}");
    assert!(got.contains("No such file"), "the way out is gone: {got}");
    let built = product.ok(&["env", "list"])["environments"][0]["key"].as_str().unwrap().to_owned();
    let page = product.page(&["env", "show", &built]);
    assert!(page.contains(&format!("chargehand: command 1 reached {host}: 1 request, ")), "{page}");
    // Nothing on disk has the value, but for the sealed one: layers, logs of builds, events.
    let found = std::process::Command::new("grep").args(["-rlF", CANARY]).arg(product.data()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn a_group_that_this_server_does_not_know_ends_the_task_with_the_setting_that_is_missing() {
    let environment = "version = 1\n[network]\ntasks = [\"cargo\"]\n";
    let repo = project_with_main_free(&[&question()[..], &[(".chargehand/environment.toml", environment)]].concat());
    let product = Product::new();
    let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "true"]);
    let task = product.settled(&id);
    assert_eq!(task["outcome"]["reason"], "user", "{task:#}");
    assert!(task["outcome"]["message"].as_str().unwrap().contains("[network.groups]"), "{task:#}");
}

#[test]
fn an_environment_file_that_cannot_be_read_ends_the_task_with_its_line() {
    let repo = project_with_main_free(
        &[&question()[..], &[(".chargehand/environment.toml", "version = 1\nsettup = 3\n")]].concat(),
    );
    let product = Product::new();
    let id = product.delegate(&["x", &repo_arg(&repo), "--base=main", "--", "true"]);
    let message = product.settled(&id)["outcome"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("line 2") && message.contains("setup"), "{message}");
}
