//! Secrets on a page: what there is, for whom, and where each may go. Pure.
//!
//! Absent: values. None of the types here has one.

use jiff::Timestamp;
use server::api::{SecretAuditLine, SecretInfo};

use super::words;
use crate::terminal::{Line, Page, Style};

/// For whom a secret is, in words.
#[must_use]
pub fn whose(repo: Option<&str>, environment: Option<&str>) -> String {
    match (repo, environment) {
        (None, _) => "every task on this server".to_owned(),
        (Some(repo), None) => repo.to_owned(),
        (Some(repo), Some(environment)) => format!("{environment} of {repo}"),
    }
}

/// The options that say for whom a secret is.
#[must_use]
pub fn flags(repo: Option<&str>, environment: Option<&str>) -> String {
    match (repo, environment) {
        (None, _) => "--server".to_owned(),
        (Some(repo), None) => format!("--repo {repo}"),
        (Some(repo), Some(environment)) => format!("--repo {repo} --environment {environment}"),
    }
}

/// What was stored.
#[must_use]
pub fn stored(secret: &SecretInfo) -> Page {
    let mut page = Page::new();
    let whose = whose(secret.repo.as_deref(), secret.environment.as_deref());
    page.push(Line::new().with(Style::Good, "✓ ").bold(secret.name.as_str()).text(format!(" is kept for {whose}")));
    page.push(Line::new().dim(format!(
        "  goes to {} as {}, and nowhere else",
        secret.hosts.join(", "),
        secret.added_as
    )));
    page
}

/// All secrets, in parts by whom they are for.
#[must_use]
pub fn list(secrets: &[SecretInfo], now: Timestamp) -> Page {
    let mut page = Page::new();
    if secrets.is_empty() {
        page.push(Line::new().text("No secrets. Keep one for the repository that you are in:"));
        page.push(Line::new().text("  ").accent("chargehand secret set NAME --host api.example.com"));
        return page;
    }
    let mut part = None;
    for secret in secrets {
        let whose = whose(secret.repo.as_deref(), secret.environment.as_deref());
        if part.as_ref() != Some(&whose) {
            page.push(Line::new().with(Style::Accent, whose.as_str()));
            part = Some(whose);
        }
        page.push(
            Line::new()
                .text("  ")
                .bold(secret.name.as_str())
                .until(26)
                .text(" ")
                .text(secret.hosts.join(", "))
                .dim(format!("  {}  set {} ago", secret.added_as, words::age(now, secret.updated_at))),
        );
    }
    page
}

/// Who changed what.
#[must_use]
pub fn audit(changes: &[SecretAuditLine]) -> Page {
    let mut page = Page::new();
    if changes.is_empty() {
        page.push(Line::new().text("No secret was ever set here."));
    }
    for change in changes {
        let whose = whose(change.repo.as_deref(), change.environment.as_deref());
        page.push(
            Line::new()
                .dim(change.at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
                .text(format!("  {} {} ", change.actor, change.action))
                .bold(change.name.as_str())
                .text(format!(" for {whose}"))
                .dim(format!("  {}", change.hosts.join(", "))),
        );
    }
    page
}
