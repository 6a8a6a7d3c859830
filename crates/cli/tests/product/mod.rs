//! The real binary with a data folder of its own, as a person at a terminal would use it.
#![allow(dead_code, reason = "each test file uses its own verbs")]

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
pub use testkit::Repo;

/// Longest that a test waits for anything. Never a measure of speed.
const PATIENCE: Duration = Duration::from_secs(180);

pub struct Product {
    pub home: TempDir,
}

impl Product {
    pub fn new() -> Self {
        // A short path: a unix socket's name has at most 107 bytes.
        Self { home: tempfile::Builder::new().prefix("ch-").tempdir().unwrap() }
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A command that is not yet run. It sees no key and no settings of this machine.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chargehand"));
        command
            .args(args)
            .env("CHARGEHAND_DATA_DIR", self.data())
            .env("CHARGEHAND_CONFIG", self.home.path().join("none.toml"))
            .env("XDG_CONFIG_HOME", self.home.path())
            .env_remove("CHARGEHAND_MODEL")
            .env_remove("ANTHROPIC_API_KEY")
            .env_remove("OPENAI_API_KEY")
            .env_remove("OPENAI_BASE_URL")
            .stdin(Stdio::null());
        std::fs::write(self.home.path().join("none.toml"), "").unwrap();
        command
    }

    /// A command that runs beside the test, its output kept for it.
    pub fn beside(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The document that a command prints with `--json`, whatever its exit code.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[&["--json"], args].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}\n{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The document of a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> Value {
        let output = self.run(&[&["--json"], args].concat());
        assert!(
            output.status.success(),
            "{args:?}: {:?}\n{}\n{}",
            output.status.code(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// The error of a command that must fail, as shown to a person.
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?} was taken: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Delegates; gives the id.
    pub fn delegate(&self, args: &[&str]) -> String {
        self.ok(&[&["run"], args].concat())["task"]["id"].as_str().unwrap().to_owned()
    }

    pub fn show(&self, id: &str) -> Value {
        self.ok(&["show", id])
    }

    /// Waits until the task needs a person or has ended; gives it as it then stands.
    pub fn settled(&self, id: &str) -> Value {
        self.until(id, "needs a person or has ended", |task| task["wait"].is_object() || task["outcome"].is_object())
    }

    /// Asks again and again until the task is as wanted.
    pub fn until(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let task = self.json(&["show", id]);
            if wanted(&task) {
                return task;
            }
            assert!(begun.elapsed() < PATIENCE, "{id} never {what}: {task:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// The events of a task, as stored.
    pub fn events(&self, id: &str) -> Vec<Value> {
        let output = self.run(&["logs", id, "--raw"]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What a person reads.
    pub fn page(&self, args: &[&str]) -> String {
        let output = self.run(args);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data().join("server.log")).unwrap_or_default()
    }

    /// A cassette that answers with these entries; gives the model's name.
    pub fn cassette(&self, name: &str, entries: &Value) -> String {
        let path = self.home.path().join(format!("{name}.json"));
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(json!({ "cassette": 1, "entries": entries }).to_string().as_bytes()).unwrap();
        format!("replay:{}", path.display())
    }

    /// The process id of the server in the background.
    pub fn server_pid(&self) -> Option<i32> {
        let lock = std::fs::read_to_string(self.data().join("lock")).ok()?;
        lock.split_whitespace().find_map(|word| word.parse().ok())
    }

    /// Kills every box of this data folder, as a power cut would.
    pub fn kill_boxes(&self) {
        for entry in std::fs::read_dir(self.data().join("sandboxes/run")).unwrap().flatten() {
            let record = std::fs::read_to_string(entry.path().join("pid")).unwrap_or_default();
            if let Some(pid) = record.split_whitespace().next() {
                assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
            }
        }
    }

    /// Kills the server as a power cut would: no signal handler runs.
    pub fn kill_server(&self) {
        let pid = self.server_pid().expect("no server runs");
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
        let begun = Instant::now();
        while Path::new(&format!("/proc/{pid}")).exists() && begun.elapsed() < PATIENCE {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.contains(") Z ") {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        let _ = self.run(&["stop"]);
    }
}

/// A repository with these files in one commit on main, which is checked out.
pub fn project(files: &[(&str, &str)]) -> Repo {
    let repo = Repo::new();
    add(&repo, files);
    repo
}

/// The same with another branch checked out, so that main is free to land on.
pub fn project_with_main_free(files: &[(&str, &str)]) -> Repo {
    let repo = project(files);
    repo.git(&["switch", "-q", "-c", "elsewhere"]);
    repo
}

/// One more commit on the branch that is checked out.
pub fn add(repo: &Repo, files: &[(&str, &str)]) {
    for (name, content) in files {
        repo.file(name, content);
    }
    repo.commit("a commit");
}

/// One more commit on main, by somebody else, while another branch is checked out.
pub fn main_moves(repo: &Repo, files: &[(&str, &str)]) -> String {
    repo.git(&["switch", "-q", "main"]);
    add(repo, files);
    repo.git(&["switch", "-q", "elsewhere"]);
    repo.head_of("main").unwrap()
}

pub fn repo_arg(repo: &Repo) -> String {
    format!("--repo={}", repo.path().display())
}

/// The content of a file on a branch, without its last line end.
pub fn on(repo: &Repo, branch: &str, file: &str) -> String {
    String::from_utf8(repo.read_at(branch, file).expect("no such file")).unwrap().trim_end().to_owned()
}

/// A gate that passes when `answer.txt` says 42, by the shell alone, so that tests are quick.
pub const GATE: &str = "[[gate]]\nname = \"answer\"\ncommand = [\"sh\", \"check.sh\"]\n";
pub const CHECK: &str = "got=$(cat answer.txt); echo \"the answer is $got\"; test \"$got\" = 42\n";

/// A repository whose one gate fails until somebody writes 42.
pub fn question() -> [(&'static str, &'static str); 3] {
    [(".chargehand/config.toml", GATE), ("check.sh", CHECK), ("answer.txt", "41\n")]
}

/// A model's turn that writes a file and a turn that ends.
pub fn writes(content: &str) -> Value {
    json!([
        { "text": "I write the answer.", "calls": [{ "name": "write", "input": { "path": "answer.txt", "content": content } }] },
        { "text": "Done." }
    ])
}

/// Sends Ctrl-C.
pub fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

/// What a command that still runs prints, until it has printed this.
pub fn read_until(child: &mut Child, wanted: &str) -> String {
    let out = child.stdout.as_mut().unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        let mut bytes = [0; 256];
        let count = out.read(&mut bytes).unwrap();
        assert!(count > 0, "it ended without `{wanted}`: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}
