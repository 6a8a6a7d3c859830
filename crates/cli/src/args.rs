//! The command line as written.
//!
//! Absent: what it means together with environment and file; that is `settings` and `commands`.
//! No option is read from the environment here, so that precedence is decided in one place.

mod env;
mod secret;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::demo::DemoArgs;
use crate::failure::EXIT_CODES;
use crate::settings::Flags;

pub use env::{EnvArgs, EnvCommand, EnvRepoArgs, EnvShowArgs};
pub use secret::{ScopeArgs, SecretArgs, SecretCommand, SecretRmArgs, SecretSetArgs};

/// Delegate a task on a git repository to an agent that works alone in a sandbox; come back to a
/// change that the platform has proved, and land it.
#[derive(Debug, Parser)]
#[command(name = "chargehand", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "To look around: chargehand demo. What this machine can do: chargehand doctor.\nIDs can be shortened."
)]
#[command(after_long_help = EXIT_CODES)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Print one JSON document on standard output; errors too, with an `error` field
    #[arg(long, global = true)]
    pub json: bool,
    /// The data folder [default: ~/.local/share/chargehand]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The settings file [default: ~/.config/chargehand/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Cli {
    /// What of it settings are made from.
    #[must_use]
    pub fn flags(&self) -> Flags {
        let listen = match &self.command {
            Command::Serve(args) => args.listen,
            _ => None,
        };
        // The demo makes its own folder, and has to run where there is no home either.
        let of_demo = matches!(self.command, Command::Demo(_)).then(|| PathBuf::from("/"));
        let data_dir = self.global.data_dir.clone().or(of_demo);
        Flags { data_dir, config: self.global.config.clone(), listen }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Delegate a task; returns at once with its id
    Run(RunArgs),
    /// List tasks, what needs you first
    List(ListArgs),
    /// Show one task: where it stands and what to do now
    Show(Id),
    /// Read what happened as a conversation; -f watches it happen
    Logs(LogsArgs),
    /// Show the proposed change, or with ID@A..B what happened between two turns
    Diff(DiffArgs),
    /// Write a task's conversation as a cassette that `--model replay:FILE` plays
    Record(RecordArgs),
    /// Go back to a step: a new task that begins with another's files and conversation
    Fork(ForkArgs),
    /// Show what was proved about the change, gate by gate
    Evidence(EvidenceArgs),
    /// Tell why it landed, or why it has not
    Why(Id),
    /// Tell the agent something
    Say(TextArgs),
    /// Answer the agent's question
    Answer(TextArgs),
    /// Call a task off
    Cancel(CancelArgs),
    /// Approve the proposed change
    Approve(ApproveArgs),
    /// Refuse the proposed change and end the task
    Reject(RejectArgs),
    /// Land the approved change, and wait for what comes of it
    Land(LandArgs),
    /// Wait until a task needs you or has ended; the exit code tells which
    Wait(Id),
    /// Keep credentials that boxes use and never see
    Secret(SecretArgs),
    /// What boxes start from: build, list, show, check and remove environments
    Env(EnvArgs),
    /// Run the server in the foreground
    Serve(ServeArgs),
    /// End the server in the background; tasks go on at its next start
    Stop,
    /// Say what this machine can and cannot do, and how to fix each thing
    Doctor,
    /// See the whole path on a built-in sample, without a key
    Demo(DemoArgs),
    /// Print every environment variable that is read, as Markdown
    Environment,
}

/// A task.
#[derive(Debug, Args)]
pub struct Id {
    /// The task's id, or its beginning
    pub id: String,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What is to be different afterwards; `-` reads it from standard input
    pub goal: Vec<String>,
    /// The repository: a folder or a URL
    #[arg(long, default_value = ".")]
    pub repo: PathBuf,
    /// The branch to start from and to land on [default: the one that is checked out]
    #[arg(long, value_name = "BRANCH")]
    pub base: Option<String>,
    /// Who does it: native (a model in a loop) or command (a program that edits the tree)
    #[arg(long)]
    pub agent: Option<String>,
    /// The model, as provider/model [default: the configured one]
    #[arg(long)]
    pub model: Option<String>,
    /// The agreement, as a TOML or JSON file
    #[arg(long, value_name = "FILE")]
    pub contract: Option<PathBuf>,
    /// Most money for model calls, in dollars
    #[arg(long, value_name = "DOLLARS")]
    pub budget_usd: Option<f64>,
    /// Most model calls
    #[arg(long)]
    pub turns: Option<u32>,
    /// One more gate, such as 'test=make test'; several times for several gates
    #[arg(long = "gate", value_name = "NAME=COMMAND")]
    pub gates: Vec<String>,
    /// Makes it safe to repeat: the same key and request give the same task
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Watch it until it needs you or has ended
    #[arg(long, short)]
    pub follow: bool,
    /// For the command agent: program and arguments, after `--`
    #[arg(last = true, value_name = "PROGRAM")]
    pub argv: Vec<String>,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Also every task that has ended
    #[arg(long)]
    pub all: bool,
    /// Only tasks in these states, separated by commas: submitted, working, input_required,
    /// auth_required, completed, failed, canceled, rejected
    #[arg(long)]
    pub state: Option<String>,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The task's id, or its beginning
    pub id: String,
    /// Watch it until it needs you or has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Print the stored events, one JSON document a line
    #[arg(long)]
    pub raw: bool,
    /// Fold nothing
    #[arg(long)]
    pub full: bool,
}

/// Arguments of `record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// The task's id, or its beginning
    pub id: String,
    /// A new file; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `fork`.
#[derive(Debug, Args)]
pub struct ForkArgs {
    /// The task and the turn after which to begin, such as k3@4; @0 is the beginning
    #[arg(value_name = "ID@TURN")]
    pub step: String,
    /// What the agent is told before it goes on
    #[arg(short = 'm', long = "message")]
    pub message: Option<String>,
    /// Makes it safe to repeat: the same key and request give the same task
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Watch it until it needs you or has ended
    #[arg(long, short)]
    pub follow: bool,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The task's id, or its beginning; with @A..B what happened from turn A to turn B
    #[arg(value_name = "ID[@A..B]")]
    pub id: String,
    /// Only the files, with how much changed in each
    #[arg(long)]
    pub stat: bool,
}

/// Arguments of `evidence`.
#[derive(Debug, Args)]
pub struct EvidenceArgs {
    /// The task's id, or its beginning
    pub id: String,
    /// Print the whole output of this gate
    #[arg(long, value_name = "GATE")]
    pub output: Option<String>,
}

/// Arguments of `say` and `answer`.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// The task's id, or its beginning
    pub id: String,
    /// What to say; `-` reads it from standard input
    #[arg(required = true)]
    pub text: Vec<String>,
}

/// Arguments of `cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The task's id, or its beginning
    pub id: String,
    /// Why
    #[arg(short = 'm', long = "message")]
    pub reason: Option<String>,
}

/// Arguments of `approve`.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The task's id, or its beginning
    pub id: String,
    /// A remark
    #[arg(short = 'm', long = "message")]
    pub comment: Option<String>,
    /// The commit that you looked at, or its beginning; refused if another is proposed by now
    #[arg(long, value_name = "SHA")]
    pub commit: Option<String>,
    /// Land it at once
    #[arg(long)]
    pub land: bool,
    /// With --land: let a clean work tree that has the branch checked out move along
    #[arg(long, requires = "land")]
    pub update_worktree: bool,
}

/// Arguments of `reject`.
#[derive(Debug, Args)]
pub struct RejectArgs {
    /// The task's id, or its beginning
    pub id: String,
    /// Why
    #[arg(short = 'm', long = "message", required = true)]
    pub message: String,
}

/// Arguments of `land`.
#[derive(Debug, Args)]
pub struct LandArgs {
    /// The task's id, or its beginning
    pub id: String,
    /// Let a clean work tree that has the branch checked out move along
    #[arg(long)]
    pub update_worktree: bool,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Also listen here by TCP, for example 127.0.0.1:7878; callers need the token
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Leave the terminal; used when another command starts the server
    #[arg(long, hide = true)]
    pub detached: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_belongs_to_the_agents_program() {
        let Command::Run(run) =
            parse("chargehand run tidy up --agent command --json -- cargo fix --json").unwrap().command
        else {
            panic!("not run");
        };
        assert_eq!(run.goal, ["tidy", "up"]);
        assert_eq!(run.argv, ["cargo", "fix", "--json"]);
    }

    #[test]
    fn common_options_go_anywhere() {
        for line in ["chargehand --json --data-dir /d list", "chargehand list --json --data-dir /d"] {
            let cli = parse(line).unwrap();
            assert!(cli.global.json);
            assert_eq!(cli.flags().data_dir.unwrap(), PathBuf::from("/d"));
        }
    }

    #[test]
    fn what_is_missing_or_makes_no_sense_is_refused() {
        for line in [
            "chargehand",
            "chargehand show",
            "chargehand say k3",
            "chargehand reject k3",
            "chargehand approve k3 --update-worktree",
            "chargehand serve --listen 8080",
            "chargehand run x --turns many",
            "chargehand frobnicate",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
