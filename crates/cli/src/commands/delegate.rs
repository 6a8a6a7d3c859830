//! `run`: a goal, a repository and an agreement become a task.
//!
//! Absent: looking into the repository; the server does that, and says what is wrong with it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use domain::contract::Contract;
use domain::evidence::GateSpec;
use domain::task::Task;
use server::api::{CreateTask, ForkBody, ProblemType, Submitted};

use super::logs::watch;
use super::{Context, say_next, step_of, text_of};
use crate::args::{ForkArgs, RunArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::render::words::command_line;
use crate::settings::{Settings, micro_usd};
use crate::terminal::{Line, Style};

pub(super) async fn run(args: RunArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let follow = args.follow;
    let key = args.idempotency_key.clone();
    let body = request(args, &cx.settings)?;
    let client = cx.client().await?;
    let submitted: Submitted = client.post("/v1/tasks", &body, key.as_deref()).await.map_err(|error| {
        let failure = Failure::from(error);
        explain_model(failure, &body, &cx.settings)
    })?;
    accepted(&client, &submitted, follow, cx).await
}

pub(super) async fn fork(args: ForkArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let (id, turn) = step_of(&args.step)?;
    let body = ForkBody { turn, message: args.message };
    let client = cx.client().await?;
    let path = format!("/v1/tasks/{id}/fork");
    let submitted: Submitted = client.post(&path, &body, args.idempotency_key.as_deref()).await?;
    accepted(&client, &submitted, args.follow, cx).await
}

/// Says that a task was accepted, or watches it.
async fn accepted(client: &Client, submitted: &Submitted, follow: bool, cx: &mut Context) -> Result<ExitCode, Failure> {
    if cx.screen.json && !follow {
        cx.screen.document(submitted)?;
        return Ok(ExitCode::SUCCESS);
    }
    let task = &submitted.task;
    // Who watches sees the id and the notes as the first lines of the story.
    if !cx.screen.json && !follow {
        let word = if submitted.created { "  accepted" } else { "  was accepted before, with the same key" };
        cx.screen.line(Line::new().bold(task.id.short()).with(Style::Good, word))?;
        for note in &submitted.notes {
            cx.screen.line(Line::new().with(Style::Warn, "  note: ").text(note.as_str()))?;
        }
    }
    if follow {
        let now: Task = client.get(&format!("/v1/tasks/{}", task.id), &()).await?;
        return watch(client, &now, false, false, cx).await;
    }
    say_next(task, cx)?;
    Ok(ExitCode::SUCCESS)
}

/// A server that was started without the key that this shell has says that there is no model.
fn explain_model(failure: Failure, body: &CreateTask, settings: &Settings) -> Failure {
    let ours = settings.select_model(body.model.as_deref());
    match ours {
        Ok(selected) if failure.problem.is(ProblemType::NoModel) => failure.advise(&format!(
            "This shell has what {} needs, but the server was started without it: `chargehand stop`, then this command again.",
            selected.selection
        )),
        _ => failure,
    }
}

fn request(args: RunArgs, settings: &Settings) -> Result<CreateTask, Failure> {
    let agent = match (args.agent, args.argv.is_empty()) {
        (Some(agent), _) => agent,
        (None, true) => "native".to_owned(),
        (None, false) => "command".to_owned(),
    };
    if agent == "native" && !args.argv.is_empty() {
        return Err(Failure::usage(
            "a program after `--` is for the command agent; leave out --agent native, or the program",
        ));
    }
    let mut goal = text_of(&args.goal)?;
    if goal.trim().is_empty() && agent == "command" && !args.argv.is_empty() {
        goal = format!("run {}", command_line(&args.argv));
    }
    if goal.trim().is_empty() {
        return Err(Failure::usage(
            "the goal is empty; say in a sentence what is to be different afterwards, for example:\nchargehand run \"make the parser accept trailing commas\"",
        ));
    }
    let mut contract = match &args.contract {
        Some(path) => read_contract(path, settings)?,
        None => Contract { budget: settings.budget.clone(), ..Contract::default() },
    };
    if let Some(usd) = args.budget_usd {
        contract.budget.money_micro_usd =
            Some(micro_usd(usd).map_err(|why| Failure::usage(format!("--budget-usd: {why}")))?);
    }
    if let Some(turns) = args.turns {
        contract.budget.turns = turns;
    }
    for gate in &args.gates {
        contract.gates.push(parse_gate(gate)?);
    }
    contract.check().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(CreateTask {
        goal,
        repo: repository(&args.repo)?,
        base: args.base,
        agent,
        model: args.model,
        argv: args.argv,
        contract: Some(contract),
    })
}

/// The repository as the server can find it: a URL as it is, a folder as the absolute path of the
/// work tree that it lies in.
pub(super) fn repository(given: &Path) -> Result<String, Failure> {
    let text = given.to_str().ok_or_else(|| {
        Failure::usage(format!(
            "the path {} is not UTF-8, and a task can't name it; move or link the repository",
            given.display()
        ))
    })?;
    let scp_like = text.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
    if text.contains("://") || scp_like {
        return Ok(text.to_owned());
    }
    let folder = std::fs::canonicalize(given).map_err(|error| {
        Failure::usage(format!("the repository {text} can't be found: {error}; give another folder with --repo"))
    })?;
    let root: PathBuf = folder.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(&folder).to_owned();
    root.into_os_string().into_string().map_err(|path| {
        Failure::usage(format!(
            "the path {} is not UTF-8, and a task can't name it; move or link the repository",
            path.display()
        ))
    })
}

/// A contract from a file. What it does not say of the budget comes from the settings.
fn read_contract(path: &Path, settings: &Settings) -> Result<Contract, Failure> {
    let wrong = |why: String| Failure::usage(format!("the contract {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("can't be read: {error}")))?;
    let json = path.extension().is_some_and(|ending| ending == "json") || text.trim_start().starts_with('{');
    let (mut contract, says) = if json {
        let contract: Contract = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let says: Vec<String> = value
            .get("budget")
            .and_then(|budget| budget.as_object())
            .map(|fields| fields.keys().cloned().collect())
            .unwrap_or_default();
        (contract, says)
    } else {
        let contract: Contract =
            toml::from_str(&text).map_err(|error| wrong(format!("\n{}", error.to_string().trim_end())))?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let says: Vec<String> = table
            .get("budget")
            .and_then(|budget| budget.as_table())
            .map(|fields| fields.keys().cloned().collect())
            .unwrap_or_default();
        (contract, says)
    };
    let silent = |field: &str| !says.iter().any(|said| said == field);
    let (ours, theirs) = (&settings.budget, &mut contract.budget);
    if silent("money_micro_usd") {
        theirs.money_micro_usd = ours.money_micro_usd;
    }
    if silent("tokens") {
        theirs.tokens = ours.tokens;
    }
    if silent("turns") {
        theirs.turns = ours.turns;
    }
    if silent("wall_ms") {
        theirs.wall_ms = ours.wall_ms;
    }
    Ok(contract)
}

/// A gate from `name=command`. Plain words are run as they are; anything that a shell would
/// understand is run by one.
fn parse_gate(text: &str) -> Result<GateSpec, Failure> {
    let wrong = || Failure::usage(format!("--gate '{text}': write it as NAME=COMMAND, for example 'test=cargo test'"));
    let (name, line) = text.split_once('=').ok_or_else(wrong)?;
    let line = line.trim();
    if line.is_empty() {
        return Err(wrong());
    }
    let plain = line
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | '/' | ':' | '=' | ',' | '@' | '+' | '%'));
    let command = if plain {
        line.split_whitespace().map(str::to_owned).collect()
    } else {
        vec!["sh".to_owned(), "-c".to_owned(), line.to_owned()]
    };
    let gate = GateSpec {
        name: name.trim().to_owned(),
        command,
        required: true,
        time_limit_ms: 600_000,
        source: "--gate".to_owned(),
    };
    gate.check().map_err(Failure::usage)?;
    Ok(gate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_of_plain_words_needs_no_shell_and_any_other_gets_one() {
        assert_eq!(parse_gate("test=cargo test --all").unwrap().command, ["cargo", "test", "--all"]);
        assert_eq!(parse_gate("all=make a && make b").unwrap().command, ["sh", "-c", "make a && make b"]);
        assert_eq!(parse_gate("x=A=1 ./run").unwrap().name, "x");
        for bad in ["test", "=x", "test=", "a b=x"] {
            assert!(parse_gate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_url_stays_a_url_and_a_folder_becomes_its_work_trees_root() {
        for url in ["https://example.com/x.git", "ssh://h/x", "git@example.com:x/y.git"] {
            assert_eq!(repository(Path::new(url)).unwrap(), url);
        }
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("r/.git")).unwrap();
        std::fs::create_dir_all(root.join("r/deep/er")).unwrap();
        assert_eq!(Path::new(&repository(&root.join("r/deep/er")).unwrap()), root.join("r"));
        assert!(repository(&root.join("nowhere")).unwrap_err().text().contains("--repo"));
    }
}
