//! `doctor`: what this machine can and cannot do, and how to fix each thing.
//!
//! Everything is found out by trying, here, in this process; nothing is changed but that the data
//! folder is made. Keys are never shown. Absent: the checks themselves (`checks`).

mod checks;

use std::process::ExitCode;

use serde::Serialize;

use super::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::terminal::{Line, Page, Style};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mark {
    /// As it should be.
    Ok,
    /// It works, with less.
    Warn,
    /// Something can't be done.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// Which part of the report it belongs to.
    part: &'static str,
    /// What was looked at.
    what: String,
    /// How it came out.
    mark: Mark,
    /// What was found.
    found: String,
    /// What to do about it; empty if nothing.
    fix: String,
}

impl Check {
    fn new(part: &'static str, what: impl Into<String>, mark: Mark, found: impl Into<String>) -> Self {
        Self { part, what: what.into(), mark, found: found.into(), fix: String::new() }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }
}

pub(super) async fn run(cx: &mut Context) -> Result<ExitCode, Failure> {
    let mut found = checks::machine(&cx.settings).await;
    found.extend(checks::folder(&cx.settings));
    found.extend(checks::models(&cx.settings).await);
    found.extend(checks::server(&cx.settings).await);
    let worst = found.iter().map(|check| check.mark).max().unwrap_or(Mark::Ok);
    if cx.screen.json {
        cx.screen.document(&serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "worst": worst,
            "checks": found,
        }))?;
    } else {
        cx.screen.page(&page(&found, worst, cx.screen.columns))?;
    }
    Ok(ExitCode::from(if worst == Mark::Problem { FAILED } else { DONE }))
}

fn page(checks: &[Check], worst: Mark, columns: usize) -> Page {
    let mut page = Page::new();
    let mut part = "";
    for check in checks {
        if check.part != part {
            part = check.part;
            page.blank();
            page.push(Line::new().bold(part));
        }
        let (style, mark) = match check.mark {
            Mark::Ok => (Style::Good, "✓"),
            Mark::Warn => (Style::Warn, "!"),
            Mark::Problem => (Style::Bad, "✗"),
        };
        page.push(
            Line::new()
                .text("  ")
                .with(style, mark)
                .text(format!(" {}", check.what))
                .until(24)
                .text(" ")
                .text(check.found.as_str()),
        );
        if !check.fix.is_empty() {
            page.prose(8, Style::Dim, &format!("→ {}", check.fix), columns);
        }
    }
    page.blank();
    page.push(match worst {
        Mark::Ok => Line::new().with(Style::Good, "Everything works here."),
        Mark::Warn => Line::new().with(Style::Warn, "It works here; what is marked ! could be better."),
        Mark::Problem => {
            Line::new().with(Style::Bad, "Something does not work here yet; what is marked ✗ comes first.")
        }
    });
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_stands_with_its_fix() {
        let checks = [
            Check::new("This machine", "git", Mark::Ok, "2.47"),
            Check::new(
                "This machine",
                "sandbox",
                Mark::Problem,
                "user namespaces are switched off: kernel.unprivileged_userns_clone = 0",
            )
            .fix("sudo sysctl kernel.unprivileged_userns_clone=1"),
            Check::new("Models", "anthropic", Mark::Warn, "no key"),
        ];
        insta::assert_snapshot!(page(&checks, Mark::Problem, 80).draw(false));
    }
}
