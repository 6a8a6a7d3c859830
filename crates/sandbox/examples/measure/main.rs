//! What boxes cost on this machine, beside floors and a peer of the same run.
//!
//! `measure [--folder FOLDER] [--quick] [--bwrap PROGRAM] [--only PART…]` works in `FOLDER` (default:
//! the system's temporary one; its filesystem must not be an overlay), says on standard error what it is doing, and prints one JSON document: the rows of
//! [`report`], each with a value or with the reason why there is none. This program is launcher and
//! hand as well, and the peer's starter ([`peer`]). Nothing is left behind; what an earlier run that
//! was killed left in the same folder goes too. Needs git on the `PATH`. Absent: any judgement of
//! the figures, and how they look to people (`cargo xtask bench sandbox`).
#![allow(clippy::disallowed_methods, reason = "a measurement reads its arguments and the clock, and starts programs")]

mod floors;
mod many;
mod peer;
mod report;
mod single;
mod sizes;
mod status;
mod world;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use sandbox::local::{LAUNCHER_WORD, launcher_main};

use report::{Figures, Outcome};
use world::World;

/// How often things are done.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    /// What takes milliseconds.
    cheap: usize,
    /// What takes tens of milliseconds.
    dear: usize,
    /// What takes a second.
    rare: usize,
}

const FULL: Rounds = Rounds { cheap: 100, dear: 30, rare: 5 };
const QUICK: Rounds = Rounds { cheap: 15, dear: 5, rare: 1 };

/// The parts of the measurement, in this order.
const PARTS: [&str; 7] = ["start", "exec", "snapshot", "fork", "git", "size", "rest"];

#[derive(Debug)]
struct Arguments {
    folder: PathBuf,
    quick: bool,
    bwrap: Option<PathBuf>,
    /// Parts to measure; all if there are none.
    only: Vec<OsString>,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    match words.peek().and_then(|word| word.to_str()) {
        Some(LAUNCHER_WORD) => std::process::exit(launcher_main()),
        Some(peer::WORD) => return ended(peer::main(&words.skip(1).collect::<Vec<OsString>>())),
        _ => {}
    }
    ended(parse(words).and_then(|arguments| measure(&arguments)))
}

fn ended(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = OsString>) -> Outcome<Arguments> {
    let mut arguments = Arguments { folder: std::env::temp_dir(), quick: false, bwrap: None, only: Vec::new() };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{} needs a value", word.display()));
        match word.to_str() {
            Some("--quick") => arguments.quick = true,
            Some("--folder") => arguments.folder = value()?.into(),
            Some("--bwrap") => arguments.bwrap = Some(value()?.into()),
            Some("--only") => arguments.only.push(value()?),
            _ => return Err(format!("measure does not take {}", word.display()).into()),
        }
    }
    Ok(arguments)
}

fn measure(arguments: &Arguments) -> Outcome {
    let rounds = if arguments.quick { QUICK } else { FULL };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut figures = Figures::default();
    runtime.block_on(async {
        let world = World::open(&arguments.folder).await?;
        let worked = parts(&world, arguments, rounds, &mut figures).await;
        let cleared = world.close().await;
        figures.close_all(&worked);
        cleared
    })?;
    println!("{}", figures.document());
    Ok(())
}

async fn parts(world: &World, arguments: &Arguments, rounds: Rounds, figures: &mut Figures) -> Outcome {
    world.check().await?;
    let small = world.layer("small", world::Tree { files: 200, bytes: 800 }).await?;
    for part in PARTS {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|wanted| wanted == part) {
            figures.close(part, Err("not asked for".into()));
            continue;
        }
        let ended = match part {
            "start" => single::starts(world, &small, rounds, arguments.bwrap.as_deref(), figures).await,
            "exec" => single::requests(world, &small, rounds, figures).await,
            "snapshot" => single::snapshots(world, &small, rounds, figures).await,
            "fork" => many::forks(world, &small, rounds, figures).await,
            "git" => status::first_and_second(world, rounds, figures).await,
            "size" => sizes::starts(world, rounds, arguments.quick, figures).await,
            _ => many::at_rest(world, &small, arguments.quick, figures).await,
        };
        figures.close(part, ended);
        // What a part that broke off left must not be measured in the next one.
        world.clear().await?;
    }
    Ok(())
}
