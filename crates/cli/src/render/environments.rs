//! Environments as pages. Pure.
//!
//! Absent: the log of a build, which is printed as it comes.

use jiff::Timestamp;
use server::api::{Collected, EnvironmentInfo, EnvironmentList, EnvironmentStatus, RecipeBody};

use super::words::{age, duration};
use crate::terminal::{Line, Page, Style};

/// Digits of a key that are shown; enough to name it.
const KEY_DIGITS: usize = 12;

fn short(key: &str) -> &str {
    key.get(..KEY_DIGITS).unwrap_or(key)
}

fn word(status: EnvironmentStatus) -> (Style, &'static str) {
    match status {
        EnvironmentStatus::Building => (Style::Accent, "building"),
        EnvironmentStatus::Ready => (Style::Good, "ready"),
        EnvironmentStatus::Stale => (Style::Warn, "stale"),
        EnvironmentStatus::Failed => (Style::Bad, "failed"),
    }
}

fn page(lines: Vec<Line>) -> Page {
    Page { lines }
}

/// The list.
#[must_use]
pub fn list(list: &EnvironmentList, now: Timestamp) -> Page {
    let mut lines = Vec::new();
    if list.environments.is_empty() {
        lines.push(
            Line::new().text("no environment was built yet; tasks build what they need, or `chargehand env build`"),
        );
    }
    let mut repo = "";
    for info in &list.environments {
        if info.repo != repo {
            repo = &info.repo;
            lines.push(Line::new().bold(repo));
        }
        let (style, word) = word(info.status);
        let took = info.setup_ms.map(|ms| format!(", setup took {}", duration(ms))).unwrap_or_default();
        let used = info.used_at.map(|at| format!(", used {} ago", age(now, at))).unwrap_or_default();
        lines.push(
            Line::new()
                .text("  ")
                .accent(short(info.key.as_str()))
                .with(style, format!("  {word:<8}"))
                .text(format!("  at {}", info.commit.short()))
                .dim(format!("  {} ago{took}{used}", age(now, info.began_at))),
        );
        if let Some(first) = info.failure.as_deref().and_then(|failure| failure.lines().next()) {
            lines.push(Line::new().with(Style::Bad, format!("    {first}")));
        }
    }
    for damaged in &list.damaged {
        lines.push(Line::new().with(Style::Warn, format!("can't be read: {damaged}")));
    }
    page(lines)
}

/// How a build ended, or that it goes on.
#[must_use]
pub fn ended(info: &EnvironmentInfo) -> Page {
    let (style, word) = word(info.status);
    let took = info.setup_ms.map(|ms| format!(", setup took {}", duration(ms))).unwrap_or_default();
    let mut lines = vec![Line::new().accent(short(info.key.as_str())).with(style, format!("  {word}")).dim(format!(
        "  {} at {}{took}",
        info.repo,
        info.commit.short()
    ))];
    lines.extend(info.notes.iter().map(|note| Line::new().with(Style::Warn, "  note: ").text(note.as_str())));
    lines.extend(
        info.failure
            .iter()
            .flat_map(|failure| failure.lines())
            .map(|line| Line::new().with(Style::Bad, format!("  {line}"))),
    );
    page(lines)
}

/// A recipe, and what was built for it.
#[must_use]
pub fn recipe(recipe: &RecipeBody) -> Page {
    let mut lines = toml(&recipe.toml).lines;
    lines.push(Line::new());
    let state = match (&recipe.built, recipe.choice.needs_build) {
        (_, false) => "nothing has to be built: boxes start with the host's programs and the checkout".to_owned(),
        (None, true) => "it was not built yet; the next task builds it, or `chargehand env build`".to_owned(),
        (Some(built), true) if built.commit == recipe.commit => format!("built: {}", short(built.key.as_str())),
        (Some(built), true) => format!(
            "built at an earlier commit ({}): {}; the next task starts from that while it is built anew",
            built.commit.short(),
            short(built.key.as_str())
        ),
    };
    lines.push(Line::new().text(state));
    if recipe.choice.network.is_empty() {
        lines.push(Line::new().dim("boxes of tasks reach nothing outside"));
    } else {
        lines.push(Line::new().text(format!("boxes of tasks reach: {}", recipe.choice.network.join(", "))));
    }
    lines.extend(recipe.notes.iter().map(|note| Line::new().with(Style::Warn, "note: ").text(note.as_str())));
    page(lines)
}

/// A recipe's text.
#[must_use]
pub fn toml(text: &str) -> Page {
    let line = |line: &str| {
        let indented = format!("  {line}");
        if line.starts_with('#') { Line::new().dim(indented) } else { Line::new().text(indented) }
    };
    page(text.lines().map(line).collect())
}

/// What was removed.
#[must_use]
pub fn collected(collected: &Collected) -> Page {
    let mut lines: Vec<Line> = collected
        .removed
        .iter()
        .map(|info| {
            Line::new().text("removed ").accent(short(info.key.as_str())).dim(format!(
                "  {} at {}",
                info.repo,
                info.commit.short()
            ))
        })
        .collect();
    if lines.is_empty() {
        lines.push(
            Line::new()
                .text("nothing to remove: what is there was used lately, or is in use (--all removes the former too)"),
        );
    }
    page(lines)
}
