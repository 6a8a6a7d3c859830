//! What is proved about a change, gate by gate. Pure.

use domain::evidence::{Evidence, GateSpec};
use server::api::{EvidenceBody, GateStanding, GateStatus};

use super::words::{command_line, count, duration, plural};
use crate::terminal::{Line, Page, Style, fit};

/// Lines of a failed gate's output that are shown.
const TAIL_LINES: usize = 12;

/// The whole report.
#[must_use]
pub fn page(body: &EvidenceBody, columns: usize) -> Page {
    let mut page = Page::new();
    let ended = body.state.is_terminal();
    match &body.commit {
        Some(commit) => page.push(Line::new().text("Proposed commit ").bold(commit.short())),
        None if ended => page.push(Line::new().text("The task ended without a commit.")),
        None => page.push(Line::new().text("No commit is proposed yet.")),
    }
    if body.gates.is_empty() {
        page.push(
            Line::new()
                .with(Style::Warn, "No gate was found in the base commit or the contract, so nothing is proved."),
        );
        page.push(
            Line::new()
                .dim("Name one: .chargehand/config.toml in the repository, or --gate 'test=make test' with `run`."),
        );
    }
    for standing in &body.gates {
        page.blank();
        page.append(gate(body, standing, columns));
    }
    if let Some(judgement) = &body.judgement {
        page.blank();
        page.push(if judgement.passed {
            Line::new().with(Style::Good, "✓ every required gate passed on this commit")
        } else {
            Line::new().with(Style::Bad, format!("✗ failed: {}", judgement.failed.join(", ")))
        });
    }
    if !body.earlier.is_empty() {
        page.blank();
        page.push(
            Line::new().dim(format!("Earlier, on other commits or before ({}):", plural(body.earlier.len(), "run"))),
        );
        for record in &body.earlier {
            let evidence = &record.evidence;
            page.push(
                Line::new()
                    .text("  ")
                    .with(mark_style(evidence.passed), mark(evidence.passed))
                    .text(format!(" {}", evidence.gate.name))
                    .dim(format!(
                        "  {} on {}, {}, event {}",
                        evidence.end,
                        evidence.commit.short(),
                        duration(evidence.duration_ms),
                        record.seq
                    )),
            );
        }
    }
    page
}

const fn mark(passed: bool) -> &'static str {
    if passed { "✓" } else { "✗" }
}

const fn mark_style(passed: bool) -> Style {
    if passed { Style::Good } else { Style::Bad }
}

fn gate(body: &EvidenceBody, standing: &GateStanding, columns: usize) -> Page {
    let mut page = Page::new();
    let (style, sign) = match standing.status {
        GateStatus::Passed => (Style::Good, "✓"),
        GateStatus::Failed => (Style::Bad, "✗"),
        GateStatus::Missing => (Style::Dim, "·"),
    };
    let optional = if standing.gate.required { "" } else { "  (not required)" };
    page.push(Line::new().with(style, sign).text(" ").bold(standing.gate.name.as_str()).dim(optional));
    page.push(field("command", fit(&command_line(&standing.gate.command), columns.saturating_sub(13))));
    page.push(field("from", source(&standing.gate)));
    match &standing.record {
        None if body.state.is_terminal() => page.push(field("result", "not run")),
        None => page.push(field("result", "not run on this commit yet")),
        Some(record) => {
            page.append(result(&record.evidence));
            page.push(field("evidence", record.digest.as_str()));
            if !record.evidence.passed {
                page.append(tail(body.task.short(), &record.evidence));
            }
        }
    }
    page
}

fn source(gate: &GateSpec) -> String {
    if gate.source.is_empty() { "the contract".to_owned() } else { gate.source.clone() }
}

fn field(name: &str, value: impl Into<String>) -> Line {
    Line::new().text("  ").dim(name).until(12).text(value)
}

fn result(evidence: &Evidence) -> Page {
    let mut page = Page::new();
    let word = if evidence.passed { "passed" } else { "failed" };
    page.push(field("result", format!("{word}: {} in {}", evidence.end, duration(evidence.duration_ms))));
    page.push(field("commit", evidence.commit.as_str()));
    page.push(field("output", format!("{} bytes, sha256 {}", count(evidence.output_bytes), evidence.output_digest)));
    page
}

fn tail(task: &str, evidence: &Evidence) -> Page {
    let mut page = Page::new();
    let clean = crate::terminal::clean::clean_text(&evidence.output_tail);
    let lines: Vec<&str> = clean.lines().collect();
    let skip = lines.len().saturating_sub(TAIL_LINES);
    for line in lines.iter().skip(skip) {
        page.push(Line::new().dim("  │ ").text(*line));
    }
    page.push(
        Line::new().dim(format!("  └ the whole output: chargehand evidence {task} --output {}", evidence.gate.name)),
    );
    page
}
