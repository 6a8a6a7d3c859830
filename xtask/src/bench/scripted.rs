//! Scripted three-turn tasks through the real binary: a repository, a cassette, and the commands
//! that a person would give.
//!
//! Only the model is played; sandboxes, tools, git and the gate are real. Absent: reading the
//! times; that is `timeline`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::server::Server;
use super::timeline::{self, Timeline};
use crate::proc;

/// Longest that one task is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// What `wait` ends with when the task needs a person.
const NEEDS_PERSON: i32 = 4;
/// The repository: one gate that fails until the answer is 42.
const FILES: [(&str, &str); 3] = [
    (".chargehand/config.toml", "[[gate]]\nname = \"answer\"\ncommand = [\"sh\", \"check.sh\"]\n"),
    ("check.sh", "test \"$(cat answer.txt)\" = 42\n"),
    ("answer.txt", "41\n"),
];
/// Three turns: look, write, end.
const CASSETTE: &str = r#"{ "cassette": 1, "entries": [
  { "text": "I look first.", "calls": [{ "name": "shell", "input": { "command": "cat answer.txt" } }] },
  { "text": "I write the answer.", "calls": [{ "name": "write", "input": { "path": "answer.txt", "content": "42\n" } }] },
  { "text": "Done." } ] }
"#;

/// One task, from both sides.
pub struct Ran {
    /// From the start of `chargehand run` to its end, as its caller sees it.
    pub run_returns_ms: f64,
    /// What the event log says.
    pub timeline: Timeline,
}

/// Everything that the tasks have in common.
pub struct Script<'a> {
    server: &'a Server,
    repo: String,
    model: String,
}

#[derive(Deserialize)]
struct Submitted {
    task: Task,
}

#[derive(Deserialize)]
struct Task {
    id: String,
}

impl<'a> Script<'a> {
    /// Writes the repository and the cassette into the server's scratch folder.
    pub fn write(server: &'a Server) -> anyhow::Result<Self> {
        let (repo, cassette) = (server.scratch().join("repo"), server.scratch().join("script.json"));
        repository(&repo)?;
        std::fs::write(&cassette, CASSETTE).context("cannot write the cassette")?;
        Ok(Self {
            server,
            repo: format!("--repo={}", repo.display()),
            model: format!("--model=replay:{}", cassette.display()),
        })
    }

    /// Delegates one task, lets it come to its review, refuses it and waits until nothing is left
    /// of it, so that the next one has the machine for itself.
    pub fn run(&self) -> anyhow::Result<Ran> {
        let mut run = self.server.client();
        run.args(["--json", "run", "make the answer right", &self.repo, "--base=main", &self.model]);
        let began = Instant::now();
        let answer = printed(run)?;
        let run_returns_ms = began.elapsed().as_secs_f64() * 1000.0;
        let submitted: Submitted =
            serde_json::from_str(&answer).with_context(|| format!("`run` printed no task: {answer}"))?;
        let id = submitted.task.id;
        let timeline = self
            .followed(&id)
            .with_context(|| format!("task {id}; the server's log ends so:\n{}", self.server.said()))?;
        Ok(Ran { run_returns_ms, timeline })
    }

    fn followed(&self, id: &str) -> anyhow::Result<Timeline> {
        let left = self.waited(id)?;
        // Looked at before the task is refused: one that went wrong is told as it stands.
        timeline::of_log(&self.log(id)?)?;
        if left != Some(NEEDS_PERSON) {
            bail!("`wait` ended with {left:?} instead of {NEEDS_PERSON}, although the task waits for its review");
        }
        printed(self.client(&["reject", id, "-m", "measured"]))?;
        let asked = Instant::now();
        loop {
            let log = self.log(id)?;
            if timeline::is_cleared(&log)? {
                return timeline::of_log(&log);
            }
            if asked.elapsed() > PATIENCE {
                bail!("its sandbox was not removed within {} s", PATIENCE.as_secs());
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// The exit code of `wait`.
    fn waited(&self, id: &str) -> anyhow::Result<Option<i32>> {
        let mut command = self.client(&["wait", id]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot start `chargehand wait`")?;
        let asked = Instant::now();
        loop {
            if let Some(status) = child.try_wait().context("cannot look after `chargehand wait`")? {
                return Ok(status.code());
            }
            if asked.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                bail!("it did not come to its review within {} s", PATIENCE.as_secs());
            }
            sleep(Duration::from_millis(5));
        }
    }

    fn log(&self, id: &str) -> anyhow::Result<String> {
        printed(self.client(&["logs", id, "--raw"]))
    }

    fn client(&self, words: &[&str]) -> Command {
        let mut command = self.server.client();
        command.args(words);
        command
    }
}

/// What a command prints. With `--json` its errors are printed there too.
fn printed(mut command: Command) -> anyhow::Result<String> {
    let shown = proc::shown(&command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{shown}`"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("`{shown}` failed ({}):\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(text)
}

/// One commit on `main`, which is not checked out, so that nothing is in a change's way.
fn repository(folder: &Path) -> anyhow::Result<()> {
    for (name, content) in FILES {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    for words in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "--all"],
        &["commit", "--quiet", "--no-gpg-sign", "--message=the question"],
        &["switch", "--quiet", "--create", "elsewhere"],
    ] {
        proc::captured(git(folder).args(words))?;
    }
    Ok(())
}

/// git without anybody's settings.
fn git(folder: &Path) -> Command {
    let mut command = proc::git(folder);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Bench").env(format!("GIT_{who}_EMAIL"), "bench@chargehand.invalid");
    }
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_has_its_question_on_main_and_another_branch_checked_out() {
        let scratch = tempfile::tempdir().unwrap();
        let repo = scratch.path().join("repo");
        repository(&repo).unwrap();
        let said = |words: &[&str]| proc::captured(git(&repo).args(words)).unwrap();
        assert_eq!(said(&["branch", "--show-current"]).trim(), "elsewhere");
        assert_eq!(said(&["show", "main:answer.txt"]).trim(), "41");
        assert_eq!(said(&["status", "--porcelain"]), "");
    }

    #[test]
    fn the_script_has_as_many_turns_as_the_log_is_checked_for() {
        let script: serde_json::Value = serde_json::from_str(CASSETTE).unwrap();
        assert_eq!(script["entries"].as_array().unwrap().len(), timeline::TURNS);
    }

    #[test]
    fn a_command_that_fails_is_an_error_with_all_that_it_said() {
        let mut git = git(Path::new("/"));
        git.arg("frobnicate");
        let error = printed(git).unwrap_err().to_string();
        assert!(error.contains("frobnicate") && error.contains("is not a git command"), "{error}");
    }
}
