//! The commands: each asks the server, and prints what it said as a page or as one document.
//!
//! Absent: decisions about tasks; the server makes them all, also for this program's own user.

mod delegate;
mod doctor;
mod env;
mod follow;
mod list;
mod logs;
mod record;
mod secret;
mod serve;
mod stop;
mod tell;
mod view;

use std::io::Read as _;
use std::process::ExitCode;

use domain::task::{Task, TaskSummary};

use crate::args::Command;
use crate::client::Client;
use crate::failure::{DONE, Failure, NOT_DONE, WAITS};
use crate::render::next;
use crate::settings::{Flags, Settings};
use crate::terminal::Screen;

/// Most bytes of a text that is read from standard input.
const MAX_STDIN_BYTES: u64 = 1 << 20;

/// What every command works with.
#[derive(Debug)]
pub struct Context {
    /// The settings.
    pub settings: Settings,
    /// What of the command line they came from.
    pub flags: Flags,
    /// Where to print.
    pub screen: Screen,
}

impl Context {
    /// The server, started if none runs.
    async fn client(&self) -> Result<Client, Failure> {
        Client::connect(&self.settings, &self.flags, self.screen.json).await
    }
}

/// Runs a command.
///
/// # Errors
/// [`Failure`], in words for the user.
pub async fn run(command: Command, mut context: Context) -> Result<ExitCode, Failure> {
    let cx = &mut context;
    match command {
        Command::Run(args) => delegate::run(args, cx).await,
        Command::List(args) => list::run(&args, cx).await,
        Command::Show(args) => view::show(&args.id, cx).await,
        Command::Logs(args) => logs::run(&args, cx).await,
        Command::Diff(args) => view::diff(&args, cx).await,
        Command::Record(args) => record::run(&args, cx).await,
        Command::Fork(args) => delegate::fork(args, cx).await,
        Command::Evidence(args) => view::evidence(&args, cx).await,
        Command::Why(args) => view::why(&args.id, cx).await,
        Command::Say(args) => tell::say(args, cx).await,
        Command::Answer(args) => tell::answer(args, cx).await,
        Command::Cancel(args) => tell::cancel(args, cx).await,
        Command::Approve(args) => tell::approve(args, cx).await,
        Command::Reject(args) => tell::reject(args, cx).await,
        Command::Land(args) => tell::land(&args.id, args.update_worktree, cx).await,
        Command::Wait(args) => logs::wait(&args.id, cx).await,
        Command::Env(args) => env::run(args.command, cx).await,
        Command::Secret(args) => secret::run(args.command, cx).await,
        Command::Serve(_) => serve::run(cx).await,
        Command::Stop => stop::run(cx).await,
        Command::Doctor => doctor::run(cx).await,
        Command::Demo(args) => Ok(crate::demo::run(args, &cx.settings, cx.screen.json).await?),
        Command::Environment => Ok(environment(cx.screen.json)?),
    }
}

/// Prints the environment variables; needs no settings, so that it helps to mend them.
///
/// # Errors
/// If standard output can't be written.
pub fn environment(json: bool) -> std::io::Result<ExitCode> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    if json {
        let all: Vec<_> = crate::settings::env::ALL
            .iter()
            .map(|variable| serde_json::json!({ "name": variable.name, "what": variable.what }))
            .collect();
        writeln!(out, "{}", serde_json::json!({ "variables": all }))?;
    } else {
        out.write_all(crate::settings::env::markdown().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit code that says how a task stands.
fn exit_of(task: &Task) -> ExitCode {
    use domain::task::TaskState;
    ExitCode::from(match task.state {
        TaskState::Completed | TaskState::Submitted | TaskState::Working => DONE,
        TaskState::InputRequired | TaskState::AuthRequired => WAITS,
        TaskState::Failed | TaskState::Canceled | TaskState::Rejected => NOT_DONE,
    })
}

/// Prints what can be done about a task now.
fn say_next(task: &TaskSummary, cx: &mut Context) -> std::io::Result<()> {
    cx.screen.line(crate::terminal::Line::new())?;
    cx.screen.page(&next::page(task))
}

/// Words of the command line as one text; a lone `-` reads standard input.
fn text_of(words: &[String]) -> Result<String, Failure> {
    if words != ["-"] {
        return Ok(words.join(" "));
    }
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(MAX_STDIN_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("standard input can't be read as text: {error}")))?;
    Ok(text.trim().to_owned())
}

/// A task and one of its turns, written `ID@TURN`.
fn step_of(text: &str) -> Result<(&str, u32), Failure> {
    let wrong = || {
        Failure::usage(format!(
            "`{text}` is no step; write the task and the number of a turn, such as k3@4 (`chargehand logs` shows the turns)"
        ))
    };
    let (id, turn) = text.split_once('@').ok_or_else(wrong)?;
    Ok((checked(id)?, turn.parse().map_err(|_| wrong())?))
}

/// An id for a path of the API: anything else could name another path.
fn checked(id: &str) -> Result<&str, Failure> {
    domain::id::TaskId::parse(id).map_err(|error| Failure::usage(format!("{error}; `chargehand list` shows them")))?;
    Ok(id)
}
