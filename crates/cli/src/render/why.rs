//! Why a change landed, or why it has not: who asked, what was proved, what was decided by which
//! rule, who approved, what came of it. Pure. Every line names the event it was read from.

use server::api::{LandingRecord, WhyBody};

use super::words::{plural, who};
use crate::terminal::{Line, Page, Style};

/// The whole account.
#[must_use]
pub fn page(why: &WhyBody, columns: usize) -> Page {
    let mut page = Page::new();
    page.prose(0, Style::Bold, &why.summary, columns);
    for missing in &why.missing {
        page.push(Line::new().with(Style::Warn, "  missing: ").text(missing.as_str()));
    }
    page.blank();
    let mut rows = asked(why, columns);
    proved(why, &mut rows);
    decided(why, &mut rows);
    people(why, &mut rows);
    rows.extend(why.landings.iter().map(|landing| (landing.seq, landing_line(landing))));
    if let Some(record) = &why.outcome {
        let style = if why.landed.is_some() { Style::Good } else { Style::Plain };
        rows.push((
            record.seq,
            entry("ended", record.seq, record.at)
                .with(style, format!("{} ({})", record.state.name(), record.outcome.reason.name()))
                .text(format!(" by {}: {}", who(&record.by), record.outcome.message)),
        ));
    }
    rows.sort_by_key(|(seq, _)| *seq);
    page.lines.extend(rows.into_iter().map(|(_, line)| line));
    page
}

/// Lines with the number of the event that they tell of; the sort keeps those of one event in order.
type Rows = Vec<(u64, Line)>;

/// A line about one event; the number behind `#` can be looked up with `logs --raw`.
fn entry(what: &str, seq: u64, at: jiff::Timestamp) -> Line {
    Line::new()
        .dim(format!("#{seq}"))
        .until(6)
        .dim(at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
        .text("  ")
        .bold(what)
        .until(39)
}

fn asked(why: &WhyBody, columns: usize) -> Rows {
    let asked = &why.asked;
    let mut page = Page::new();
    page.push(entry("asked", asked.seq, asked.at).text(who(&asked.by)));
    page.prose(6, Style::Plain, &format!("“{}”", asked.goal), columns);
    page.push(Line::new().dim(format!(
        "      {}, branch {}, from {}",
        asked.origin,
        asked.base_branch,
        asked.base.short()
    )));
    page.lines.into_iter().map(|line| (asked.seq, line)).collect()
}

fn proved(why: &WhyBody, rows: &mut Rows) {
    for line in &why.evidence {
        let (style, mark) = if line.passed { (Style::Good, "✓ ") } else { (Style::Bad, "✗ ") };
        let earlier = if line.current { "" } else { ", an earlier commit" };
        let optional = if line.required { "" } else { ", not required" };
        rows.push((
            line.seq,
            entry("gate", line.seq, line.at).with(style, mark).text(line.gate.as_str()).text(format!(
                ": {} on {}{earlier}{optional}",
                line.end,
                line.commit.short()
            )),
        ));
        rows.push((line.seq, Line::new().dim(format!("      evidence {}", line.digest))));
    }
    for record in &why.judgements {
        let (style, text) = if record.judgement.passed {
            (Style::Good, "every required gate passed".to_owned())
        } else {
            (Style::Bad, format!("failed: {}", record.judgement.failed.join(", ")))
        };
        rows.push((
            record.seq,
            entry("judged", record.seq, record.at)
                .with(style, text)
                .text(format!(" on {}", record.judgement.commit.short())),
        ));
    }
}

fn decided(why: &WhyBody, rows: &mut Rows) {
    for record in &why.decisions {
        let decision = &record.decision;
        rows.push((
            record.seq,
            entry("policy", record.seq, record.at)
                .with(Style::Accent, decision.tier.name())
                .text(format!(" by rule {}: {}", decision.rule, decision.reason)),
        ));
        let on = plural(decision.evidence_digests.len(), "piece");
        rows.push((
            record.seq,
            Line::new().dim(format!("      policy {}, on {on} of evidence", decision.policy_digest)),
        ));
    }
    for denial in &why.denials {
        rows.push((
            denial.seq,
            entry("denied", denial.seq, denial.at).with(Style::Bad, denial.action.as_str()).text(format!(
                " to {} by rule {}: {}",
                who(&denial.by),
                denial.rule,
                denial.reason
            )),
        ));
    }
}

fn people(why: &WhyBody, rows: &mut Rows) {
    for approval in &why.approvals {
        let earlier = if approval.current { "" } else { " (an earlier change)" };
        let comment = if approval.comment.is_empty() { String::new() } else { format!(": “{}”", approval.comment) };
        rows.push((
            approval.seq,
            entry("approved", approval.seq, approval.at)
                .with(Style::Good, who(&approval.by))
                .text(format!(" for {}{earlier}{comment}", approval.head.short())),
        ));
    }
    for request in &why.land_requests {
        rows.push((
            request.seq,
            entry("land asked", request.seq, request.at).text(format!(
                "{} for {}",
                who(&request.by),
                request.head.short()
            )),
        ));
    }
}

fn landing_line(landing: &LandingRecord) -> Line {
    let line = entry("landing", landing.seq, landing.at);
    let from = format!("{} {} → {}", landing.branch, landing.expected_base.short(), landing.commit.short());
    match (&landing.error, landing.landed) {
        (_, true) => line.with(Style::Good, from),
        (Some(error), false) => line.with(Style::Bad, "not landed").text(format!(" ({from}): {error}")),
        (None, false) if landing.ended_seq.is_none() => line.with(Style::Accent, "under way").text(format!(": {from}")),
        (None, false) => line.with(Style::Bad, "not landed").text(format!(" ({from})")),
    }
}
