//! `chargehand demo`: the whole path on a built-in sample, for somebody who has just arrived.
//!
//! A small crate with two failing tests is made in a scratch folder. The agent is the replay of a
//! conversation that is built in (`--model` asks a real one); the server, the sandbox, every tool
//! call, the gates, the policy and every git step are the product's own. The demo plays the person
//! too: it approves and lands. Absent: anything that the product does not do for a real task.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use domain::command::Command;
use domain::contract::Contract;
use domain::effect::{Effect, EffectResult};
use domain::event::{Envelope, Event};
use domain::evidence::Evidence;
use domain::id::TaskId;
use domain::principal::Principal;
use domain::task::{OutcomeReason, Task, WaitKind};
use orchestrator::{Handle, Live, Submission};
use serde::Serialize;
use server::api::LiveItem;
use tokio::sync::broadcast::error::RecvError;

use crate::compose;
use crate::failure::INTERRUPTED;
use crate::render::story::{Story, Wishes};
use crate::render::words;
use crate::settings::{ProviderSettings, Settings};
use crate::terminal::{Line, Page, Screen, Style};

/// What the demo delegates.
const GOAL: &str = "duration::parse(\"1h30m\") gives 1800 instead of 5400. Find out why and fix it.";
/// The files of the sample repository.
const SAMPLE: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../assets/sample/Cargo.toml.txt")),
    ("Cargo.lock", include_str!("../assets/sample/Cargo.lock.txt")),
    (".gitignore", include_str!("../assets/sample/gitignore.txt")),
    ("AGENTS.md", include_str!("../assets/sample/AGENTS.md")),
    (".chargehand/config.toml", include_str!("../assets/sample/.chargehand/config.toml")),
    ("src/lib.rs", include_str!("../assets/sample/src/lib.rs.txt")),
    ("tests/parse.rs", include_str!("../assets/sample/tests/parse.rs.txt")),
];
/// The conversation that is replayed.
const CASSETTE: &str = include_str!("../assets/demo.cassette.json");

/// Flags of the demo.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Ask this model instead of replaying the built-in conversation.
    #[arg(long, value_name = "PROVIDER/MODEL")]
    pub model: Option<String>,
    /// Keep the server's data of the demo too, not only the sample repository.
    #[arg(long)]
    pub keep: bool,
}

/// The last line for machines.
#[derive(Debug, Serialize)]
struct Report {
    outcome: &'static str,
    landed_sha: Option<String>,
    gates_passed: usize,
    evidence: Vec<EvidenceLine>,
    turns: u32,
    accepted_to_first_request_ms: Option<f64>,
    total_ms: f64,
}

/// One gate run of the demo.
#[derive(Debug, Serialize)]
struct EvidenceLine {
    gate: String,
    commit: String,
    passed: bool,
    duration_ms: u64,
    output_digest: String,
}

/// Runs the demo.
///
/// # Errors
/// What this machine lacks, in words.
pub async fn run(args: DemoArgs, settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let toolchains = compose::toolchains(&settings.toolchain);
    let seen = |folder: &Path| folder.join("cargo").is_file();
    let of_rustup = toolchains.list.iter().any(|found| seen(&found.from.join("bin")));
    if !of_rustup && !seen(Path::new("/usr/bin")) && !seen(Path::new("/usr/local/bin")) {
        bail!(
            "the sample of the demo is a Rust crate, and no cargo was found that a sandbox may see: install Rust with rustup, or set RUSTUP_HOME to where it is"
        );
    }
    let mut scratch = Scratch::make(args.keep)?;
    let mut stage = Stage { screen: Screen::of_stdout(settings.output, json), json };
    stage.opening(args.model.as_deref())?;
    let base = make_sample(&scratch.sample()).await?;
    stage.sample(&scratch.sample(), &base)?;
    let settings = settings_of_demo(settings, &args, &scratch)?;
    let mut running = compose::start_engine(&settings).await?;
    let handle = running.handle.clone();
    let played = tokio::select! {
        played = play(&handle, &mut stage, &scratch, &settings) => played,
        error = running.work.broke_off() => Err(error),
        _ = tokio::signal::ctrl_c() => {
            // Nothing of a demo that nobody wants to see is left.
            running.stop().await?;
            scratch.unwanted = true;
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    running.stop().await?;
    let (task, log) = played?;
    let report = report(&task, &log, begun);
    let landed = task.landed.is_some();
    if json {
        stage.screen.document(&report)?;
    } else {
        stage.closing(&task, &report, &scratch.sample())?;
    }
    Ok(if landed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The folder of one demo. The sample stays for the person to look at; the rest goes.
struct Scratch {
    root: PathBuf,
    keep: bool,
    /// Whether the sample goes too.
    unwanted: bool,
}

impl Scratch {
    fn make(keep: bool) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("chargehand-demo-").tempdir();
        let folder = folder.with_context(|| format!("can't make a folder in {}", std::env::temp_dir().display()))?;
        // The sample stays when the demo is over.
        Ok(Self { root: folder.keep(), keep, unwanted: false })
    }
    fn sample(&self) -> PathBuf {
        self.root.join("duration")
    }
    fn data(&self) -> PathBuf {
        self.root.join("data")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.unwanted && !self.keep {
            let _ = std::fs::remove_dir_all(&self.root);
        } else if !self.keep {
            let _ = std::fs::remove_dir_all(self.data());
            let _ = std::fs::remove_file(self.root.join("demo.cassette.json"));
        }
    }
}

fn settings_of_demo(settings: &Settings, args: &DemoArgs, scratch: &Scratch) -> anyhow::Result<Settings> {
    let cassette = scratch.root.join("demo.cassette.json");
    std::fs::write(&cassette, CASSETTE).context("can't write the conversation to replay")?;
    let (model, providers): (String, Vec<ProviderSettings>) = match &args.model {
        Some(model) => (model.clone(), settings.providers.clone()),
        None => (format!("replay:{}", cassette.display()), Vec::new()),
    };
    Ok(Settings { data_dir: scratch.data(), model: Some(model), providers, listen: None, ..settings.clone() })
}

/// Makes the sample repository: files, one commit, branch main.
async fn make_sample(folder: &Path) -> anyhow::Result<String> {
    for (name, content) in SAMPLE {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
        std::fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))?;
    }
    git(folder, &["init", "--quiet", "--initial-branch=main"]).await?;
    git(folder, &["add", "--all"]).await?;
    let person = ["-c", "user.name=Demo", "-c", "user.email=demo@chargehand.invalid", "-c", "commit.gpgSign=false"];
    git(folder, &[&person[..], &["commit", "--quiet", "--no-verify", "-m", "A parser for durations"]].concat()).await?;
    git(folder, &["rev-parse", "--short=10", "HEAD"]).await
}

/// Git in the sample, as the person whose repository it is.
#[expect(
    clippy::disallowed_methods,
    reason = "the demo plays the person who has a repository; forge is for the platform's git"
)]
async fn git(folder: &Path, args: &[&str]) -> anyhow::Result<String> {
    let run = tokio::process::Command::new("git").arg("-C").arg(folder).args(args).stdin(Stdio::null()).output().await;
    let output = run.context("git can't be started; install git 2.39 or newer")?;
    if !output.status.success() {
        bail!("git {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Delegates, watches, approves, lands.
async fn play(
    handle: &Handle,
    stage: &mut Stage,
    scratch: &Scratch,
    settings: &Settings,
) -> anyhow::Result<(Task, Vec<Envelope>)> {
    let person = Principal::person(settings.user.clone());
    let submission = Submission {
        goal: GOAL.to_owned(),
        repo: scratch.sample().display().to_string(),
        base: None,
        agent: "native".to_owned(),
        model: None,
        argv: Vec::new(),
        contract: Contract::default(),
    };
    stage.heading("You delegate", &format!("chargehand run {GOAL:?} --repo ."))?;
    let id = handle.submit(submission, &person, None).await?.task.id;
    let mut show =
        Show { story: Story::new(Wishes { columns: stage.screen.columns, full: false }), seq: 0, log: Vec::new() };
    let task = show.until_needed(handle, &id, stage).await?;
    if !task.wait.as_ref().is_some_and(|wait| wait.kind == WaitKind::Review) {
        return Ok((task, show.log));
    }
    stage.heading("You look at it", &format!("chargehand diff {}", id.short()))?;
    let diff = handle.diff(&id).await?;
    stage.patch(&diff.patch)?;
    stage.heading("You approve and land", &format!("chargehand approve {} --land --update-worktree", id.short()))?;
    let approve = Command::Approve { head: Some(diff.head), comment: "looked at the diff and the evidence".to_owned() };
    handle.command(&id, &approve, &person).await?;
    // The sample's main branch is checked out; a landing moves a work tree only when it is told to.
    handle.command(&id, &Command::Land { update_worktree: true }, &person).await?;
    let task = show.until_needed(handle, &id, stage).await?;
    Ok((task, show.log))
}

/// Reads the task's events as they come, and shows them.
struct Show {
    story: Story,
    seq: u64,
    log: Vec<Envelope>,
}

impl Show {
    /// Until the task waits for a person or has ended.
    async fn until_needed(&mut self, handle: &Handle, id: &TaskId, stage: &mut Stage) -> anyhow::Result<Task> {
        let mut live = handle.watch(id);
        loop {
            self.read(handle, id, stage).await?;
            let task = handle.task(id).await?;
            if task.seq == self.seq && (task.wait.is_some() || task.state.is_terminal()) {
                return Ok(task);
            }
            match live.recv().await {
                Ok(item) => self.glimpse(item, stage)?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => bail!("the engine stopped while the demo ran"),
            }
        }
    }

    async fn read(&mut self, handle: &Handle, id: &TaskId, stage: &mut Stage) -> anyhow::Result<()> {
        for stored in handle.store().log.read(id, self.seq, 1_000).await? {
            let envelope = Envelope::decode(&stored.bytes)?;
            stage.pieces(&self.story.event(&envelope))?;
            self.seq = envelope.seq;
            self.log.push(envelope);
        }
        Ok(())
    }

    fn glimpse(&mut self, item: Live, stage: &mut Stage) -> io::Result<()> {
        match LiveItem::of(item) {
            Some(item) => stage.pieces(&self.story.live(&item)),
            None => Ok(()),
        }
    }
}

fn report(task: &Task, log: &[Envelope], begun: Instant) -> Report {
    let first_request = log
        .iter()
        .find(|envelope| matches!(&envelope.event, Event::EffectStarted { effect: Effect::CallModel { .. }, .. }));
    let evidence: Vec<&Evidence> = log
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::EffectEnded { result: EffectResult::GateRan { evidence }, .. } => Some(&**evidence),
            _ => None,
        })
        .collect();
    let proposed = task.proposed();
    Report {
        outcome: task.outcome.as_ref().map_or(OutcomeReason::Stuck, |outcome| outcome.reason).name(),
        landed_sha: task.landed.as_ref().map(ToString::to_string),
        gates_passed: evidence.iter().filter(|e| e.passed && Some(&e.commit) == proposed).count(),
        evidence: evidence
            .iter()
            .map(|e| EvidenceLine {
                gate: e.gate.name.clone(),
                commit: e.commit.to_string(),
                passed: e.passed,
                duration_ms: e.duration_ms,
                output_digest: e.output_digest.to_string(),
            })
            .collect(),
        turns: task.attempt.as_ref().map_or(0, |attempt| attempt.turns),
        accepted_to_first_request_ms: first_request
            .map(|envelope| envelope.at.duration_since(task.submitted_at).as_secs_f64() * 1e3),
        total_ms: begun.elapsed().as_secs_f64() * 1e3,
    }
}

/// Where the demo is shown; silent if only a machine reads.
struct Stage {
    screen: Screen,
    json: bool,
}

impl Stage {
    fn page(&mut self, page: &Page) -> io::Result<()> {
        if self.json { Ok(()) } else { self.screen.page(page) }
    }

    fn pieces(&mut self, pieces: &[crate::terminal::Piece]) -> io::Result<()> {
        if self.json { Ok(()) } else { self.screen.pieces(pieces) }
    }

    fn opening(&mut self, model: Option<&str>) -> io::Result<()> {
        let mut page = Page::new();
        page.push(Line::new().bold("Chargehand: you delegate, an agent works, the platform proves, you decide."));
        let agent = match model {
            Some(model) => format!("The agent is {model}."),
            None => "The agent is the replay of a built-in conversation, so this needs no model and no key. All \
                     the rest is real: the sandbox, each tool call, each test run, the gates, git and the policy."
                .to_owned(),
        };
        let columns = self.screen.columns;
        page.prose(0, Style::Dim, &agent, columns);
        self.page(&page)
    }

    fn heading(&mut self, what: &str, command: &str) -> io::Result<()> {
        let mut page = Page::new();
        page.push(Line::new());
        page.push(Line::new().bold(what.to_owned()));
        page.push(Line::new().dim("  $ ").text(command.to_owned()));
        page.blank();
        self.page(&page)
    }

    fn sample(&mut self, folder: &Path, base: &str) -> io::Result<()> {
        let mut page = Page::new();
        page.push(Line::new());
        page.push(Line::new().bold("A repository"));
        page.push(Line::new().text(format!("  {}", folder.display())));
        page.push(Line::new().dim(format!("  a small crate at {base} whose tests fail: parse(\"1h30m\") is 1800")));
        self.page(&page)
    }

    fn patch(&mut self, patch: &str) -> io::Result<()> {
        let mut page = Page::new();
        for line in patch.lines().filter(|line| !line.starts_with("index ") && !line.starts_with("diff ")) {
            let style = match line.as_bytes().first() {
                Some(b'+') => Style::Good,
                Some(b'-') => Style::Bad,
                _ => Style::Dim,
            };
            page.push(Line::new().text("  ").with(style, line.to_owned()));
        }
        self.page(&page)
    }

    fn closing(&mut self, task: &Task, report: &Report, sample: &Path) -> io::Result<()> {
        let mut page = Page::new();
        page.push(Line::new());
        match (&task.landed, &task.outcome) {
            (Some(commit), _) => {
                page.push(Line::new().bold(format!("Landed {} on main", commit.short())));
                let runs = report.evidence.len();
                page.push(Line::new().dim(format!(
                        "  {} turns, {runs} gate runs ({} passed on what landed), {} in all",
                        report.turns,
                        report.gates_passed,
                        words::duration(
                            task.updated_at
                                .duration_since(task.submitted_at)
                                .as_millis()
                                .unsigned_abs()
                                .try_into()
                                .unwrap_or(u64::MAX)
                        ),
                    )));
            }
            (None, Some(outcome)) => page.push(Line::new().bold(format!("Not landed: {}", outcome.message))),
            (None, None) => {
                let why = task.wait.as_ref().map_or("", |wait| wait.reason.as_str());
                page.push(Line::new().bold(format!("Not landed: {why}")));
            }
        }
        page.blank();
        page.push(Line::new().bold("What next"));
        let mut step = |command: String, what: &str| {
            page.push(Line::new().text(format!("  {command}")));
            page.push(Line::new().dim(format!("      {what}")));
        };
        step(format!("git -C {} log --stat", sample.display()), "what landed, in the sample repository");
        step("chargehand doctor".to_owned(), "what this machine can do, and which models are configured");
        step("chargehand run \"…\" --repo .".to_owned(), "your own first task, with a model");
        step(
            "chargehand run \"…\" --repo . --agent command -- PROGRAM …".to_owned(),
            "or without one: any program that edits files",
        );
        self.page(&page)
    }
}
