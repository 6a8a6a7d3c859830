//! The binary: dispatch, and errors in words.
//!
//! The two words with which the platform runs itself inside a sandbox come first, before anything
//! has started a thread. Absent: the commands themselves (`commands`), and what the product is put
//! together from (`compose`).

mod args;
mod client;
mod clock;
mod commands;
mod compose;
mod demo;
mod failure;
mod render;
mod settings;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use args::{Cli, Command};
use failure::{DONE, Failure, INTERRUPTED};
use settings::Settings;
use terminal::Screen;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    if argv.get(1).is_some_and(|word| word == sandbox::local::LAUNCHER_WORD) {
        std::process::exit(sandbox::local::launcher_main());
    }
    let wants_json = argv.iter().skip(1).take_while(|word| *word != "--").any(|word| word == "--json");
    let result = match Cli::try_parse_from(&argv) {
        Ok(cli) => begin(cli),
        Err(error) if !wants_json || matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            error.exit()
        }
        Err(error) => Err(Failure::usage(error.render().to_string())),
    };
    match result {
        Ok(code) => code,
        Err(failure) => report(&failure, wants_json),
    }
}

/// Reads the settings, starts the runtime that the command needs, and runs it.
fn begin(cli: Cli) -> Result<ExitCode, Failure> {
    if let Command::Serve(args) = &cli.command
        && args.detached
    {
        // Fails only for the leader of a process group, which has left the terminal's group already.
        let _ = rustix::process::setsid();
    }
    if matches!(cli.command, Command::Environment) {
        return Ok(commands::environment(cli.global.json)?);
    }
    let flags = cli.flags();
    let settings = Settings::load(&flags)?;
    let screen = Screen::of_stdout(settings.output, cli.global.json);
    let mut runtime = match cli.command {
        Command::Serve(_) | Command::Demo(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|error| Failure::new("runtime", "The program can't start", error.to_string()))?;
    runtime.block_on(commands::run(cli.command, commands::Context { settings, flags, screen }))
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    if failure.exit != DONE {
        if json {
            // Who interrupted it knows; a document would stand among the events that were followed.
            if failure.exit == INTERRUPTED {
                return ExitCode::from(INTERRUPTED);
            }
            use std::io::Write as _;
            let _ = writeln!(std::io::stdout().lock(), "{}", failure.document());
        } else {
            terminal::remark(&failure.text());
        }
    }
    ExitCode::from(failure.exit)
}
