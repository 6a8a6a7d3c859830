//! `cargo xtask bench engine`: what a user waits for, what a commit costs, what an idle server holds.
//!
//! All in one run, through the real binary and one server: scripted three-turn tasks one after the
//! other ([`super::scripted`]), timed out of their event logs ([`super::timeline`]); the server's
//! memory before and after them ([`super::server`]); appended events per second at
//! `synchronous=FULL` beside the machine's own fdatasync, from the store's example `append_bench`;
//! and what starting a program costs at all, because git and sandboxes are programs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::report::{Measured, Report};
use super::scripted::Script;
use super::server::Server;
use crate::proc::{self, Workspace};

const DEFAULT_RUNS: usize = 30;
/// How often the spawn floor is measured.
const SPAWNS: usize = 200;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    json: bool,
    runs: usize,
    release: bool,
}

impl Options {
    /// From the words after `bench engine`.
    pub fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self { json: false, runs: DEFAULT_RUNS, release: true };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--json" => options.json = true,
                "--runs" => {
                    let given = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                    options.runs = given.context("--runs needs a number from 1")?;
                }
                "--profile" => {
                    options.release = match words.next() {
                        Some(&"release") => true,
                        Some(&"dev") => false,
                        _ => bail!("--profile needs `release` or `dev`"),
                    };
                }
                other => bail!("bench engine does not take `{other}`; see `cargo xtask help`"),
            }
        }
        Ok(options)
    }

    fn profile(&self) -> &'static str {
        if self.release { "release" } else { "dev" }
    }
}

/// Builds, measures and prints. Fails, and reports nothing, if any task did not work.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    let built = build(&workspace, options)?;
    let measured = measure(&built, options)?;
    let report = Report::of(&measured)?;
    print!("{}", report.rows());
    if options.json {
        println!("{}", serde_json::to_string(&report).context("cannot write the report")?);
    }
    Ok(())
}

struct Built {
    chargehand: PathBuf,
    append_bench: PathBuf,
}

fn build(workspace: &Workspace, options: &Options) -> anyhow::Result<Built> {
    for what in [&["--package", "cli", "--bins"][..], &["--package", "store", "--example", "append_bench"]] {
        let mut command = proc::cargo();
        command.args(["build", "--profile", options.profile()]).args(what);
        if !proc::passed_through(&mut command)? {
            bail!("`{}` failed", proc::shown(&command));
        }
    }
    let folder = workspace.target_directory.join(if options.release { "release" } else { "debug" });
    Ok(Built { chargehand: folder.join("chargehand"), append_bench: folder.join(Path::new("examples/append_bench")) })
}

fn measure(built: &Built, options: &Options) -> anyhow::Result<Measured> {
    let spawns_ms = spawn_floor()?;
    eprintln!("bench: idle server");
    let server = Server::start(&built.chargehand)?;
    // Nothing of ours works while the server settles: what is busy then is somebody else's.
    let before = ticks()?;
    let idle = server.settled_memory()?;
    let others_cpu_percent = before.busy_percent_until(ticks()?);
    eprintln!("bench: {} scripted tasks", options.runs);
    let script = Script::write(&server)?;
    let tasks = (0..options.runs).map(|_| script.run()).collect::<anyhow::Result<_>>()?;
    let after_tasks = server.settled_memory()?;
    let ready_ms = server.ready_ms;
    server.stop()?;
    eprintln!("bench: appends");
    let append = last_json(&proc::captured(&mut proc::built(&built.append_bench))?)?;
    Ok(Measured {
        profile: options.profile(),
        others_cpu_percent,
        ready_ms,
        idle,
        after_tasks,
        spawns_ms,
        tasks,
        append,
    })
}

/// What starting and ending the smallest program takes, in milliseconds, again and again.
fn spawn_floor() -> anyhow::Result<Vec<f64>> {
    let once = |_| {
        let began = Instant::now();
        let mut command = proc::built(Path::new("/bin/true"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().context("cannot start /bin/true")?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    };
    (0..SPAWNS).map(once).collect()
}

/// The processors' time since the machine started, in the kernel's ticks.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl Ticks {
    #[expect(clippy::cast_precision_loss, reason = "a share of some hundred ticks")]
    fn busy_percent_until(self, later: Self) -> f64 {
        let all = later.all.saturating_sub(self.all).max(1);
        100.0 * later.busy.saturating_sub(self.busy) as f64 / all as f64
    }
}

fn ticks() -> anyhow::Result<Ticks> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    parse_ticks(&text).context("/proc/stat has no line for all processors")
}

/// `cpu` user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user and nice.
fn parse_ticks(text: &str) -> Option<Ticks> {
    let fields = text.lines().find_map(|line| line.strip_prefix("cpu "))?.split_whitespace().take(8);
    let fields: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    let all = fields.iter().sum();
    let idle: u64 = fields.get(3..5)?.iter().sum();
    Some(Ticks { busy: all - idle, all })
}

/// The last line of some output, as JSON.
pub fn last_json<T: for<'a> Deserialize<'a>>(printed: &str) -> anyhow::Result<T> {
    let line = printed.lines().rev().find(|line| !line.trim().is_empty()).context("nothing was printed")?;
    serde_json::from_str(line).with_context(|| format!("the last line is not the expected JSON: {line}"))
}

#[cfg(test)]
mod tests {
    use super::super::report::AppendBench;
    use super::*;

    fn options(words: &[&str]) -> Options {
        Options::parse(words).unwrap()
    }

    #[test]
    fn options_have_sensible_defaults_and_bad_ones_are_refused() {
        assert_eq!(options(&[]), Options { json: false, runs: 30, release: true });
        assert_eq!(
            options(&["--json", "--runs", "3", "--profile", "dev"]),
            Options { json: true, runs: 3, release: false }
        );
        for bad in [&["--runs"][..], &["--runs", "0"], &["--profile", "fast"], &["--jsn"]] {
            assert!(Options::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn output_without_the_expected_json_is_an_error_that_shows_the_line() {
        let error = last_json::<AppendBench>("events: many\n").unwrap_err().to_string();
        assert!(error.contains("events: many"), "{error}");
        assert!(last_json::<AppendBench>("\n").is_err());
    }

    #[test]
    fn a_page_for_people_may_stand_before_the_json() {
        let found: Vec<u8> = last_json("a page\n[1,2]\n\n").unwrap();
        assert_eq!(found, [1, 2]);
    }

    #[test]
    fn what_others_use_of_the_processors_is_a_share_of_their_time() {
        let before = parse_ticks("cpu  100 10 50 1000 40 0 0 0 7 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n").unwrap();
        let after = parse_ticks("cpu  120 20 60 1040 60 0 0 0 9 0\n").unwrap();
        assert!((before.busy_percent_until(after) - 40.0).abs() < 1e-9);
        assert!(parse_ticks("intr 1 2 3\n").is_none() && parse_ticks("cpu  1 2 3\n").is_none());
        assert!(ticks().unwrap().all > 0);
    }

    #[test]
    fn the_spawn_floor_can_be_measured() {
        let floor = spawn_floor().unwrap();
        assert!(floor.len() == SPAWNS && floor.iter().all(|ms| *ms > 0.0));
    }
}
