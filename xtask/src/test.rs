//! `cargo xtask test`: tidy, then every test of the workspace, then one plain line.
//!
//! Output is passed through as it comes. Tests that could not run on this machine say so with a
//! line `NOT RUN: …` on standard error; they are listed at the end and counted as skipped, so that
//! a green run on a poor machine does not look like a green run on a full one. No test at all is a
//! failure.
//!
//! The programs that tests need are looked for, and servers started, in [`prepare`].

mod summary;

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};

use crate::proc::{self, Workspace};
use crate::tidy;
use summary::Summary;

/// The oldest git that the product and its tests work with.
const MIN_GIT: (u32, u32) = (2, 39);

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    no_tidy: bool,
    /// With `--fast`: crates. Without: filters over test names.
    words: Vec<String>,
    fast: bool,
}

impl Options {
    /// From the words after `test`.
    pub fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        for word in words {
            match *word {
                "--no-tidy" => options.no_tidy = true,
                "--fast" => options.fast = true,
                other if other.starts_with('-') => bail!("test does not take `{other}`; see `cargo xtask help`"),
                other => options.words.push(other.to_owned()),
            }
        }
        if options.fast && options.words.is_empty() {
            bail!("--fast needs the names of crates, for example: cargo xtask test --fast domain gates");
        }
        Ok(options)
    }
}

/// Runs it all; success only if tidy is clean, at least one test ran and none failed.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    prepare(&workspace)?;
    let untidy = if options.no_tidy || options.fast { 0 } else { tidy::run(&workspace, false)? };
    let mut command = cargo_test(options, &workspace)?;
    let (mut summary, ended_well) = watched(&mut command)?;
    if !ended_well {
        // A build that failed or a test binary that crashed has no line of results.
        summary.at_least_one_failed();
    }
    let verdict = verdict(&summary, untidy);
    if let Err(why) = &verdict {
        eprintln!("\n{why}");
    }
    println!("\n{}", summary.render(untidy));
    Ok(if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes sure that what the tests need is there. Servers that tests share are started here, and
/// stopped by dropping what is returned.
fn prepare(workspace: &Workspace) -> anyhow::Result<()> {
    let printed = proc::captured(proc::git(&workspace.root).arg("--version"))
        .context("the tests need git on the path; install it (Debian: apt install git)")?;
    git_is_new_enough(&printed)
}

/// Judges what `git --version` printed.
fn git_is_new_enough(printed: &str) -> anyhow::Result<()> {
    let (major, minor) = MIN_GIT;
    let version = printed.trim().strip_prefix("git version ").unwrap_or_default();
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(a), Some(b)) if (a, b) >= MIN_GIT => Ok(()),
        _ => bail!("the tests need git {major}.{minor} or newer; this one says `{}`", printed.trim()),
    }
}

fn cargo_test(options: &Options, workspace: &Workspace) -> anyhow::Result<Command> {
    let mut command = proc::cargo();
    command.args(["test", "--no-fail-fast"]);
    if options.fast {
        let mut kinds = BTreeSet::new();
        for name in &options.words {
            let Some(package) = workspace.packages.iter().find(|package| package.name == *name) else {
                bail!("there is no crate `{name}` in the workspace");
            };
            command.args(["--package", name]);
            let is_lib = package.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "lib"));
            kinds.insert(if is_lib { "--lib" } else { "--bins" });
        }
        command.args(kinds);
    } else {
        command.arg("--workspace");
        if !options.words.is_empty() {
            command.arg("--").args(&options.words);
        }
    }
    if !proc::is_set("CARGO_TERM_COLOR") && io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    // A snapshot that differs is a failure here, and leaves no file behind.
    if !proc::is_set("INSTA_UPDATE") {
        command.env("INSTA_UPDATE", "no");
    }
    Ok(command)
}

/// Runs a command, passes its output on line by line and reads along.
fn watched(command: &mut Command) -> anyhow::Result<(Summary, bool)> {
    let shown = proc::shown(command);
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("cannot start `{shown}`"))?;
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        bail!("`{shown}` was started without its output");
    };
    let (of_out, of_err) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| passed_on(out, &mut io::stdout()));
        let of_err = passed_on(err, &mut io::stderr());
        (reader.join(), of_err)
    });
    let status = child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
    let Ok(of_out) = of_out else { bail!("reading the output of `{shown}` failed") };
    Ok((of_out?.plus(of_err?), status.success()))
}

fn passed_on(from: impl Read, to: &mut impl Write) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("cannot read the tests' output")? > 0 {
        to.write_all(&line).context("cannot pass on the tests' output")?;
        to.flush().context("cannot pass on the tests' output")?;
        summary.read_line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(summary)
}

/// Whether the run is a success, and if not, why.
fn verdict(summary: &Summary, untidy: usize) -> Result<(), String> {
    if untidy > 0 {
        return Err(format!("tidy has {untidy} finding{}, see above", if untidy == 1 { "" } else { "s" }));
    }
    if summary.failed() > 0 {
        return Err("not all tests passed, see above".to_owned());
    }
    if summary.passed() == 0 {
        return Err("no test ran; is the filter right?".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_filters_are_told_apart() {
        let options = Options::parse(&["--no-tidy", "fold", "replay"]).unwrap();
        assert_eq!(options, Options { no_tidy: true, words: vec!["fold".into(), "replay".into()], fast: false });
        assert!(Options::parse(&["--notidy"]).is_err());
        assert!(Options::parse(&["--fast"]).unwrap_err().to_string().contains("names of crates"));
    }

    #[test]
    fn an_old_or_strange_git_is_refused_by_name() {
        for good in
            ["git version 2.39.0", "git version 2.47.3\n", "git version 3.0.1", "git version 2.39.5 (Apple Git-154)"]
        {
            assert!(git_is_new_enough(good).is_ok(), "{good}");
        }
        for bad in ["git version 2.38.9", "git version 1.99.0", "", "hub version 2.40"] {
            assert!(git_is_new_enough(bad).unwrap_err().to_string().contains("2.39"), "{bad}");
        }
    }

    #[test]
    fn output_is_passed_on_unchanged_and_read_along() {
        let text =
            b"noise \xff\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\nno newline";
        let mut copy = Vec::new();
        let summary = passed_on(&text[..], &mut copy).unwrap();
        assert_eq!(copy, text);
        assert_eq!((summary.passed(), summary.failed()), (2, 0));
    }

    fn summary(lines: &[&str]) -> Summary {
        let mut summary = Summary::default();
        lines.iter().for_each(|line| summary.read_line(line));
        summary
    }

    #[test]
    fn a_run_without_tests_with_failures_or_untidy_is_no_success() {
        let good = summary(&["test result: ok. 2 passed; 0 failed; 0 ignored;"]);
        assert!(verdict(&good, 0).is_ok());
        assert!(verdict(&good, 1).is_err());
        assert!(verdict(&summary(&[]), 0).unwrap_err().contains("no test ran"));
        assert!(verdict(&summary(&["test result: FAILED. 2 passed; 1 failed; 0 ignored;"]), 0).is_err());
        let mut crashed = summary(&["test result: ok. 2 passed; 0 failed; 0 ignored;"]);
        crashed.at_least_one_failed();
        assert!(verdict(&crashed, 0).is_err());
    }

    #[test]
    fn the_inner_loop_builds_only_what_it_is_asked_for() {
        let workspace = Workspace::find().unwrap();
        let fast = |names: &[&str]| {
            let mut words = vec!["--fast"];
            words.extend(names);
            cargo_test(&Options::parse(&words).unwrap(), &workspace).map(|command| proc::shown(&command))
        };
        assert!(fast(&["gates"]).unwrap().ends_with("test --no-fail-fast --package gates --lib"));
        assert!(fast(&["xtask"]).unwrap().ends_with("--package xtask --bins"));
        assert!(fast(&["xtask", "gates"]).unwrap().ends_with("--package xtask --package gates --bins --lib"));
        assert!(fast(&["attic"]).unwrap_err().to_string().contains("no crate `attic`"));
    }
}
