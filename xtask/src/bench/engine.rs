//! `cargo xtask bench engine`: what a user waits for, what a commit costs, what an idle server holds.
//!
//! * accepted → first model request and the whole scripted task: from `chargehand demo --json`, run
//!   N times; every run is a process of its own with real tool calls, gates and git steps;
//! * appended events per second at `synchronous=FULL`, beside the machine's own fdatasync: from the
//!   store's example `append_bench`;
//! * memory of an idle server ([`super::idle`]).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::idle::{self, Idle};
use super::stats::Percentiles;
use crate::proc::{self, Workspace};

const DEFAULT_RUNS: usize = 20;
/// Aim for the first request, at the median.
const FIRST_REQUEST_AIM_MS: f64 = 50.0;
/// Aim for the idle server.
const IDLE_AIM_BYTES: u64 = 40_000_000;

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

/// The fields of `chargehand demo --json` that are measured here.
#[derive(Debug, Deserialize)]
struct DemoRun {
    outcome: String,
    turns: u32,
    accepted_to_first_request_ms: f64,
    total_ms: f64,
}

/// What the store's `append_bench` prints as its last line.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
struct AppendBench {
    /// Events made durable in a second, by concurrent writers.
    events_per_s: f64,
    /// fdatasync calls that this disk does in a second, one after the other.
    fdatasync_per_s: f64,
}

/// Everything, for machines.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    profile: &'static str,
    cores: usize,
    runs: usize,
    accepted_to_first_request_ms: Percentiles,
    task_total_ms: Percentiles,
    task_turns: u32,
    append: AppendBench,
    idle: Idle,
}

/// Builds, measures and prints.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    let built = build(&workspace, options)?;
    eprintln!("bench: {} demo runs", options.runs);
    let demos: Vec<DemoRun> = (0..options.runs)
        .map(|_| last_json(&proc::captured(proc::built(&built.chargehand).args(["demo", "--json"]))?))
        .collect::<anyhow::Result<_>>()?;
    eprintln!("bench: appends");
    let append = last_json(&proc::captured(&mut proc::built(&built.append_bench))?)?;
    eprintln!("bench: idle server");
    let idle = idle::measure(&built.chargehand)?;
    let report = report(options, &demos, append, idle)?;
    print!("{}", rows(&report));
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

/// The last line of some output, as JSON.
fn last_json<T: for<'a> Deserialize<'a>>(printed: &str) -> anyhow::Result<T> {
    let line = printed.lines().rev().find(|line| !line.trim().is_empty()).context("nothing was printed")?;
    serde_json::from_str(line).with_context(|| format!("the last line is not the expected JSON: {line}"))
}

fn report(options: &Options, demos: &[DemoRun], append: AppendBench, idle: Idle) -> anyhow::Result<Report> {
    let [first, rest @ ..] = demos else { bail!("the demo was not run") };
    if let Some(other) = rest.iter().find(|run| run.outcome != first.outcome || run.turns != first.turns) {
        bail!(
            "the demo's runs are not alike, so they can't be compared: `{}` in {} turns and `{}` in {}",
            first.outcome,
            first.turns,
            other.outcome,
            other.turns
        );
    }
    if first.outcome != "done" {
        bail!("the demo ended as `{}`; the figures of a task that did not work mean nothing", first.outcome);
    }
    let over = |field: fn(&DemoRun) -> f64| {
        Percentiles::of(&demos.iter().map(field).collect::<Vec<_>>()).context("the demo was not run")
    };
    Ok(Report {
        bench: "engine",
        profile: options.profile(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        runs: demos.len(),
        accepted_to_first_request_ms: over(|run| run.accepted_to_first_request_ms)?,
        task_total_ms: over(|run| run.total_ms)?,
        task_turns: first.turns,
        append,
        idle,
    })
}

/// The report for people.
fn rows(report: &Report) -> String {
    let first = report.accepted_to_first_request_ms;
    let task = report.task_total_ms;
    let turns = format!("scripted task, {} turns", report.task_turns);
    let idle_mb = mb(report.idle.memory.pss_bytes);
    let rss_mb = mb(report.idle.memory.rss_bytes);
    let head = format!("engine, {} build, {} cores, {} demo runs", report.profile, report.cores, report.runs);
    let lines = [
        row(
            "accepted to first model request",
            &[ms("p50", first.p50), ms("p95", first.p95)],
            &format!("aim: p50 within {FIRST_REQUEST_AIM_MS:.0} ms"),
        ),
        row(&turns, &[ms("p50", task.p50), ms("p95", task.p95)], ""),
        row(
            "appended events at FULL",
            &[format!("{:.0} /s", report.append.events_per_s)],
            &format!("floor: {:.0} fdatasync /s", report.append.fdatasync_per_s),
        ),
        row(
            "idle server, PSS",
            &[format!("{idle_mb:.1} MB"), format!("RSS {rss_mb:.1} MB")],
            &format!("aim: under {:.0} MB", mb(IDLE_AIM_BYTES)),
        ),
        row("server start to healthy", &[format!("{:.0} ms", report.idle.ready_ms)], ""),
    ];
    format!("{head}\n{}", lines.concat())
}

fn row(name: &str, values: &[String], beside: &str) -> String {
    let values: String = values.iter().map(|value| format!("{value:<16}")).collect();
    format!("  {}\n", format!("{name:<33}{values:<34}{beside}").trim_end())
}

fn ms(name: &str, value: f64) -> String {
    format!("{name} {value:.1} ms")
}

#[expect(clippy::cast_precision_loss, reason = "megabytes for people")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::super::idle::Memory;
    use super::*;

    fn demo(outcome: &str, first_ms: f64) -> DemoRun {
        let line = format!(
            "{{\"outcome\":\"{outcome}\",\"landed_sha\":\"x\",\"gates_passed\":1,\"evidence\":[],\"turns\":3,\"accepted_to_first_request_ms\":{first_ms},\"total_ms\":900}}"
        );
        last_json(&format!("a page for people\n{line}\n\n")).unwrap()
    }

    const APPEND: AppendBench = AppendBench { events_per_s: 9000.0, fdatasync_per_s: 800.0 };
    const IDLE: Idle = Idle { memory: Memory { pss_bytes: 21_000_000, rss_bytes: 30_000_000 }, ready_ms: 35.0 };

    fn options(words: &[&str]) -> Options {
        Options::parse(words).unwrap()
    }

    #[test]
    fn options_have_sensible_defaults_and_bad_ones_are_refused() {
        assert_eq!(options(&[]), Options { json: false, runs: 20, release: true });
        assert_eq!(
            options(&["--json", "--runs", "3", "--profile", "dev"]),
            Options { json: true, runs: 3, release: false }
        );
        for bad in [&["--runs"][..], &["--runs", "0"], &["--profile", "fast"], &["--jsn"]] {
            assert!(Options::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_report_has_its_rows_and_one_line_of_json() {
        let demos: Vec<DemoRun> = [12.0, 10.0, 11.0].map(|first_ms| demo("done", first_ms)).into();
        let report = report(&options(&[]), &demos, APPEND, IDLE).unwrap();
        let text = rows(&report);
        for expected in
            ["p50 11.0 ms", "p95 12.0 ms", "3 turns", "9000 /s", "800 fdatasync /s", "21.0 MB", "RSS 30.0 MB"]
        {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["accepted_to_first_request_ms"]["p50"], 11.0);
        assert_eq!(json["idle"]["pss_bytes"], 21_000_000);
        assert_eq!(json["append"]["fdatasync_per_s"], 800.0);
    }

    #[test]
    fn a_demo_that_did_not_work_gives_no_figures() {
        assert!(report(&options(&[]), &[demo("stuck", 1.0)], APPEND, IDLE).is_err());
        assert!(report(&options(&[]), &[demo("done", 1.0), demo("stuck", 1.0)], APPEND, IDLE).is_err());
        assert!(report(&options(&[]), &[], APPEND, IDLE).is_err());
    }

    #[test]
    fn output_without_the_expected_json_is_an_error_that_shows_the_line() {
        let error = last_json::<AppendBench>("events: many\n").unwrap_err().to_string();
        assert!(error.contains("events: many"), "{error}");
        assert!(last_json::<AppendBench>("\n").is_err());
    }
}
