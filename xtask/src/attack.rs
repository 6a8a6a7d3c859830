//! `cargo xtask attack`: every attack that is known to us, against what is built here.
//!
//! Boxes and the server are attacked by `cli`'s example `attack` ([`driver`]), as this user and, if
//! that is root, once more as an ordinary one; git on the host and the way out's parsers by tests
//! of their rooms, run by name ([`named`]). An attack that can't run here is skipped, by name; one
//! whose control fails makes the suite itself fail. Absent: the attacks.

mod driver;
mod named;
mod report;

use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::proc::Workspace;
use report::Report;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    json: bool,
    release: bool,
    only: Vec<String>,
    folder: Option<std::path::PathBuf>,
}

impl Options {
    /// From the words after `attack`.
    pub fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self { json: false, release: false, only: Vec::new(), folder: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--json" => options.json = true,
                "--only" => options.only.push((*words.next().context("--only needs the name of a part")?).to_owned()),
                "--folder" => options.folder = Some(words.next().context("--folder needs a folder")?.into()),
                "--profile" => {
                    options.release = match words.next() {
                        Some(&"release") => true,
                        Some(&"dev") => false,
                        _ => bail!("--profile needs `release` or `dev`"),
                    };
                }
                other => bail!("attack does not take `{other}`; see `cargo xtask help`"),
            }
        }
        if let Some(unknown) = options.only.iter().find(|part| !PARTS.contains(&part.as_str())) {
            bail!("there is no part `{unknown}`; there are {}", PARTS.join(", "));
        }
        Ok(options)
    }

    fn profile(&self) -> &'static str {
        if self.release { "release" } else { "dev" }
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == part)
    }
}

/// The parts of the suite: those of the driver, then the tests by name.
const PARTS: [&str; 4] = ["box", "egress", "canary", "tests"];

/// Builds, attacks, prints; fails if an attack worked or a control did not.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    let mut report = Report::default();
    if PARTS.iter().any(|part| *part != "tests" && options.wants(part)) {
        driver::attack(&workspace, options, &mut report)?;
    }
    if options.wants("tests") {
        named::attack(&mut report)?;
    }
    print!("{}", report.page());
    if options.json {
        println!("{}", serde_json::to_string(&report.document()).context("cannot write the report")?);
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_sensible_defaults_and_bad_ones_are_refused() {
        let plain = Options::parse(&[]).unwrap();
        assert!(!plain.json && !plain.release && plain.wants("box") && plain.wants("tests"));
        let some = Options::parse(&["--json", "--only", "box", "--profile", "release"]).unwrap();
        assert!(some.json && some.release && some.wants("box") && !some.wants("tests"));
        for bad in [&["--only"][..], &["--only", "nothing"], &["--profile", "fast"], &["--quick"]] {
            assert!(Options::parse(bad).is_err(), "{bad:?}");
        }
    }
}
