//! `env`: what boxes start from, built, listed, shown, checked, removed.
//!
//! Absent: building, which the server does; and how a recipe reads, which `sandbox` knows.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use sandbox::environment::{Chosen, Sources, choose, devcontainer, file};
use server::api::{
    BuildBegun, CollectBody, Collected, EnvironmentInfo, EnvironmentList, EnvironmentStatus, LogBody, LogQuery,
    RecipeBody, RecipeQuery,
};

use super::Context;
use super::delegate::repository;
use crate::args::{EnvCommand, EnvRepoArgs, EnvShowArgs};
use crate::client::Client;
use crate::clock;
use crate::failure::{Failure, NOT_DONE};
use crate::render::environments as pages;
use crate::terminal::{Line, Piece, Style};

/// Between two looks at a log that is being written.
const LOOK: Duration = Duration::from_millis(150);

pub(super) async fn run(command: EnvCommand, cx: &mut Context) -> Result<ExitCode, Failure> {
    match command {
        EnvCommand::Build(args) => build(&args, cx).await,
        EnvCommand::List => list(cx).await,
        EnvCommand::Show(args) => show(&args, cx).await,
        EnvCommand::Check(args) => check(&args.repo, cx),
        EnvCommand::Gc(args) => gc(args.all, cx).await,
    }
}

fn query(args: &EnvRepoArgs) -> Result<RecipeQuery, Failure> {
    Ok(RecipeQuery { repo: repository(&args.repo)?, base: args.base.clone() })
}

async fn build(args: &EnvRepoArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let query = query(args)?;
    let client = cx.client().await?;
    let begun: BuildBegun = client.post("/v1/environments", &query, None).await?;
    follow(&client, begun.key.as_str(), cx).await?;
    let info: EnvironmentInfo = client.get(&format!("/v1/environments/{}", begun.key), &()).await?;
    if cx.screen.json {
        cx.screen.document(&info)?;
    } else {
        cx.screen.page(&pages::ended(&info))?;
    }
    Ok(if info.status == EnvironmentStatus::Failed { ExitCode::from(NOT_DONE) } else { ExitCode::SUCCESS })
}

/// Prints a build's log as it is written, to its end.
async fn follow(client: &Client, key: &str, cx: &mut Context) -> Result<(), Failure> {
    let mut offset = 0;
    loop {
        let part: LogBody = client.get(&format!("/v1/environments/{key}/log"), &LogQuery { offset }).await?;
        if !cx.screen.json && !part.text.is_empty() {
            let text = part.text.clone();
            cx.screen.pieces(&[Piece::Stream { indent: 2, wrap: false, style: Style::Dim, text }])?;
        }
        if part.complete {
            return Ok(());
        }
        if part.next_offset == offset {
            tokio::time::sleep(LOOK).await;
        }
        offset = part.next_offset;
    }
}

async fn list(cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let list: EnvironmentList = client.get("/v1/environments", &()).await?;
    if cx.screen.json {
        cx.screen.document(&list)?;
    } else {
        cx.screen.page(&pages::list(&list, clock::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &EnvShowArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let Some(key) = &args.key else {
        let recipe: RecipeBody = client.get("/v1/recipe", &query(&args.of)?).await?;
        if cx.screen.json {
            cx.screen.document(&recipe)?;
        } else {
            cx.screen.page(&pages::recipe(&recipe))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !key.bytes().all(|byte| byte.is_ascii_hexdigit()) || key.is_empty() {
        return Err(Failure::usage(format!("`{key}` is no key of an environment; `chargehand env list` shows them")));
    }
    let info: EnvironmentInfo = client.get(&format!("/v1/environments/{key}"), &()).await?;
    if cx.screen.json {
        cx.screen.document(&info)?;
        return Ok(ExitCode::SUCCESS);
    }
    follow(&client, info.key.as_str(), cx).await?;
    // It may have been under way when it was asked for.
    let info: EnvironmentInfo = client.get(&format!("/v1/environments/{}", info.key), &()).await?;
    cx.screen.page(&pages::ended(&info))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the files of a work tree as the server would read them at a commit.
fn check(repo: &Path, cx: &mut Context) -> Result<ExitCode, Failure> {
    let read = |path: &str| std::fs::read(repo.join(path)).ok();
    let environment_toml = read(file::ENVIRONMENT_FILE);
    let container = devcontainer::DEVCONTAINER_FILES.iter().find_map(|path| Some((*path, read(path)?)));
    let chosen = choose(Sources {
        environment_toml: environment_toml.as_deref(),
        devcontainer_json: container.as_ref().map(|(path, bytes)| (*path, bytes.as_slice())),
        ..Sources::default()
    });
    let chosen: Chosen =
        chosen.map_err(|error| Failure::new("environment", "The environment file is wrong", error.to_string()))?;
    let wrong = |why: String| Failure::new("environment", "The environment file is wrong", why);
    let network = &cx.settings.outside.network;
    for listed in [&chosen.recipe.task_network, &chosen.recipe.setup_network] {
        orchestrator::check_network(listed, network).map_err(wrong)?;
    }
    let origin = match (&environment_toml, &container) {
        (Some(_), _) => file::ENVIRONMENT_FILE,
        (None, Some((path, _))) => path,
        (None, None) => "",
    };
    if cx.screen.json {
        cx.screen.document(&serde_json::json!({ "file": origin, "toml": chosen.to_toml(), "ok": true }))?;
    } else if origin.is_empty() {
        let text = format!(
            "no {} and no devcontainer.json here: boxes start with the host's programs",
            file::ENVIRONMENT_FILE
        );
        cx.screen.line(Line::new().text(text))?;
    } else {
        cx.screen.line(Line::new().with(Style::Good, "✓ ").text(origin).text(" reads as"))?;
        cx.screen.page(&pages::toml(&chosen.to_toml()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn gc(all: bool, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let collected: Collected = client.post("/v1/environments/collect", &CollectBody { all }, None).await?;
    if cx.screen.json {
        cx.screen.document(&collected)?;
    } else {
        cx.screen.page(&pages::collected(&collected))?;
    }
    Ok(ExitCode::SUCCESS)
}
