//! `secret`: credentials that boxes use and never see.
//!
//! A value comes in by standard input or a prompt that shows nothing, and goes out to the server once.
//! Absent: any command that shows one, and sealing, which the server does.

mod prompt;

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use server::api::{SecretAuditList, SecretInfo, SecretList, SecretPlace, SecretsRotated, SetSecret};
use store::Secret;
use store::secrets::{AddedAs, MAX_SECRET_BYTES, SecretHost, SecretName, SecretScope};

use super::Context;
use super::delegate::repository;
use crate::args::{ScopeArgs, SecretCommand, SecretRmArgs, SecretSetArgs};
use crate::clock;
use crate::failure::Failure;
use crate::render::secrets;
use crate::terminal::{Line, Style};

/// The reason why there is no option for a value.
const NO_VALUE_HERE: &str = "a value is not taken from the command line: it would stay in your shell's history, and every user of this machine could see it in the list of processes. Type it at the prompt, or pipe it in:
chargehand secret set NAME --host HOST < file-with-the-value
If it was a real one, take it out of the history and change it where it came from.";

pub(super) async fn run(command: SecretCommand, cx: &mut Context) -> Result<ExitCode, Failure> {
    match command {
        SecretCommand::Set(args) => set(args, cx).await,
        SecretCommand::List => list(cx).await,
        SecretCommand::Rm(args) => remove(args, cx).await,
        SecretCommand::Log => log(cx).await,
        SecretCommand::RotateKey => rotate(cx).await,
    }
}

/// What the user got wrong about a secret.
fn wrong(error: &store::secrets::BadSecret) -> Failure {
    Failure::usage(error.to_string())
}

async fn set(args: SecretSetArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    if args.value.is_some() || !args.extra.is_empty() {
        return Err(Failure::usage(NO_VALUE_HERE));
    }
    // Everything else is looked at before a value is asked for.
    SecretName::parse(&args.name).map_err(|error| wrong(&error))?;
    let added_as = AddedAs::parse(&args.added_as).map_err(|error| wrong(&error))?;
    if args.hosts.is_empty() {
        return Err(Failure::usage(
            "name each host that the secret may be sent to, for example --host api.example.com; it goes nowhere else",
        ));
    }
    for host in &args.hosts {
        SecretHost::parse(host).map_err(|error| wrong(&error))?;
    }
    let place = place_of(&args.scope)?;
    let value = value(&args.name)?;
    value.check(&added_as).map_err(|error| wrong(&error))?;
    let body = SetSecret {
        name: args.name,
        repo: place.repo,
        environment: place.environment,
        hosts: args.hosts,
        added_as: args.added_as,
        value,
    };
    let client = cx.client().await?;
    let stored: SecretInfo = client.put("/v1/secrets", &body).await?;
    if cx.screen.json {
        cx.screen.document(&stored)?;
    } else {
        cx.screen.page(&secrets::stored(&stored))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let all: SecretList = client.get("/v1/secrets", &()).await?;
    if cx.screen.json {
        cx.screen.document(&all)?;
    } else {
        cx.screen.page(&secrets::list(&all.secrets, clock::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(args: SecretRmArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    SecretName::parse(&args.name).map_err(|error| wrong(&error))?;
    let given = args.scope.server || args.scope.repo.is_some() || args.scope.environment.is_some();
    let client = cx.client().await?;
    let all: SecretList = client.get("/v1/secrets", &()).await?;
    let named: Vec<&SecretInfo> = all.secrets.iter().filter(|secret| secret.name == args.name).collect();
    let place = if given {
        // The folder of a repository that is gone still names its secrets.
        match (&args.scope.repo, place_of(&args.scope)) {
            (Some(repo), Err(_)) if std::fs::canonicalize(repo).is_err() => {
                SecretPlace { repo: Some(lexical(repo)?), environment: args.scope.environment.clone() }
            }
            (_, place) => place?,
        }
    } else {
        match named.as_slice() {
            [one] => SecretPlace { repo: one.repo.clone(), environment: one.environment.clone() },
            [] => SecretPlace::default(),
            several => return Err(ambiguous(&args.name, several)),
        }
    };
    let path = format!("/v1/secrets/{}", args.name);
    let removed = client.delete(&path, &place).await.map_err(Failure::from);
    removed.map_err(|failure| match named.as_slice() {
        [] => failure,
        found => failure.advise(&format!("There is one of this name for:{}", places(found))),
    })?;
    if cx.screen.json {
        let gone = json!({ "name": args.name, "repo": place.repo, "environment": place.environment });
        cx.screen.document(&json!({ "removed": gone }))?;
    } else {
        let whose = secrets::whose(place.repo.as_deref(), place.environment.as_deref());
        let word = format!("removed {} of {whose}", args.name);
        cx.screen.line(Line::new().with(Style::Good, "✓ ").text(word))?;
        cx.screen
            .line(Line::new().dim("  It is still valid where it came from; if it has leaked, change it there too."))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn places(secrets: &[&SecretInfo]) -> String {
    let line =
        |secret: &&SecretInfo| format!("\n  {}", secrets::flags(secret.repo.as_deref(), secret.environment.as_deref()));
    secrets.iter().map(line).collect()
}

fn ambiguous(name: &str, several: &[&SecretInfo]) -> Failure {
    Failure::usage(format!("there are {} secrets `{name}`; say which one:{}", several.len(), places(several)))
}

async fn log(cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let audit: SecretAuditList = client.get("/v1/secrets/audit", &()).await?;
    if cx.screen.json {
        cx.screen.document(&audit)?;
    } else {
        cx.screen.page(&secrets::audit(&audit.changes))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn rotate(cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let rotated: SecretsRotated = client.post("/v1/secrets/rotate-key", &(), None).await?;
    if cx.screen.json {
        cx.screen.document(&rotated)?;
    } else {
        let word = format!(
            "sealed {} anew with the key {}",
            crate::render::words::plural(usize::try_from(rotated.resealed).unwrap_or(usize::MAX), "secret"),
            rotated.key
        );
        cx.screen.line(Line::new().with(Style::Good, "✓ ").text(word))?;
        cx.screen.line(Line::new().dim("  Keep a copy of the new key apart from copies of the database."))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// For whom: the server, the repository that is named, or the one around the user.
fn place_of(scope: &ScopeArgs) -> Result<SecretPlace, Failure> {
    if scope.server {
        return Ok(SecretPlace::default());
    }
    let repo = match &scope.repo {
        Some(repo) => repository(repo)?,
        None => {
            let repo = repository(Path::new("."))?;
            let root = Path::new(&repo);
            if !root.join(".git").exists() && !root.join("HEAD").exists() {
                return Err(Failure::usage(
                    "this folder is in no repository: say for which one the secret is with --repo, or --server for every task on this server",
                ));
            }
            repo
        }
    };
    // Made only to be checked: the server makes its own.
    SecretScope::of(Some(&repo), scope.environment.as_deref()).map_err(|error| wrong(&error))?;
    Ok(SecretPlace { repo: Some(repo), environment: scope.environment.clone() })
}

fn lexical(path: &Path) -> Result<String, Failure> {
    let absolute: Option<PathBuf> = std::path::absolute(path).ok();
    let text = absolute.and_then(|path| path.into_os_string().into_string().ok());
    text.ok_or_else(|| Failure::usage(format!("the path {} can't be read", path.display())))
}

/// The value: typed unseen at a terminal, else all of standard input without its last line end.
fn value(name: &str) -> Result<Secret, Failure> {
    if std::io::stdin().is_terminal() {
        return prompt::ask(&format!("value of {name} (it is not shown): "));
    }
    let mut text = zeroize::Zeroizing::new(String::with_capacity(MAX_SECRET_BYTES + 3));
    std::io::stdin()
        .lock()
        .take(MAX_SECRET_BYTES as u64 + 3)
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("standard input can't be read as text: {error}")))?;
    let value = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if value.trim().is_empty() {
        return Err(Failure::usage(format!(
            "the value is empty: pipe it in (chargehand secret set {name} --host HOST < file), or run this at a terminal to be asked for it"
        )));
    }
    Ok(Secret::new(value))
}
