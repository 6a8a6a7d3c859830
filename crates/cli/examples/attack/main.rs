//! The attack suite's driver: programs that do their worst in real boxes, and an agent that obeys
//! an attacker through the product's own server.
//!
//! `attack --chargehand PROGRAM --box-attack PROGRAM --folder FOLDER [--only PART…]` prints one JSON
//! line for each attack ([`row`]). An attack that can't run here is *skipped*, by name; one whose
//! control (the same thing where it is allowed) fails is *broken*, which is a failure of the suite
//! and never counts as blocked. `cargo xtask attack` builds everything, runs this as root and as an
//! ordinary user, and counts. Absent: attacks on git on the host, which are tests of `forge`.
#![allow(clippy::disallowed_methods, reason = "an attack suite starts programs and reads its arguments")]

mod boxes;
mod canary;
mod egress;
mod files;
mod inside;
mod limits;
mod row;
mod search;
mod siblings;
mod world;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use row::Rows;

/// What was asked for.
#[derive(Debug, Default)]
pub struct Arguments {
    /// The product.
    pub chargehand: PathBuf,
    /// The program that does its worst inside a box.
    pub box_attack: PathBuf,
    /// Where to work; not on an overlay.
    pub folder: PathBuf,
    /// Parts to run; all if there are none.
    pub only: Vec<String>,
}

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == inside::WORD) {
        return inside::main(words.get(1..).unwrap_or_default());
    }
    match parse(words).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: Vec<OsString>) -> anyhow::Result<Arguments> {
    let mut arguments = Arguments::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{} needs a value", word.display()))?;
        match word.to_str() {
            Some("--chargehand") => arguments.chargehand = value.into(),
            Some("--box-attack") => arguments.box_attack = value.into(),
            Some("--folder") => arguments.folder = value.into(),
            Some("--only") => arguments.only.push(value.to_string_lossy().into_owned()),
            _ => bail!("attack does not take {}", word.display()),
        }
    }
    for path in [&arguments.chargehand, &arguments.box_attack, &arguments.folder] {
        if !path.is_absolute() {
            bail!("--chargehand, --box-attack and --folder are needed, as absolute paths");
        }
    }
    Ok(arguments)
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut rows = Rows::default();
    let wanted = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|name| name == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if wanted("box") {
        runtime.block_on(boxes::attack(arguments, &mut rows)).context("the attacks in boxes")?;
    }
    if wanted("egress") {
        runtime.block_on(egress::attack(arguments, &mut rows)).context("the attacks on the way out")?;
    }
    if wanted("canary") {
        canary::attack(arguments, &mut rows).context("the canaries")?;
    }
    Ok(())
}
