//! One task on a page: what was asked, where it stands, what is proved, what to do now. Pure.

use domain::task::{AgentEnd, AgentSpec, Task, TaskSummary};
use jiff::Timestamp;

use super::next;
use super::story::effects;
use super::words::{self, age, command_line, count, duration, money, owner, plural, who};
use crate::terminal::{Line, Page, Style};

/// The page.
#[must_use]
pub fn page(task: &Task, now: Timestamp, columns: usize) -> Page {
    let summary = TaskSummary::from(task);
    let (style, state) = words::state(task.state, summary.wait_kind, summary.outcome);
    let mut page = Page::new();
    page.push(Line::new().bold(task.id.as_str()).text("  ").with(style, state));
    page.prose(2, Style::Plain, &task.spec.goal, columns);
    if !summary.reason.is_empty() {
        page.blank();
        page.prose(2, style, &summary.reason, columns);
    }
    if let Some(wait) = &task.wait {
        page.push(Line::new().dim(format!(
            "  for {} since {}; ends by itself in {}",
            owner(wait),
            age(now, wait.since),
            age(wait.expires_at, now)
        )));
    }
    page.blank();
    asked(task, now, &mut page);
    work(task, now, &summary.reason, &mut page);
    proof(task, &mut page);
    change(task, &mut page);
    for note in &task.notes {
        page.push(field("note").with(Style::Warn, note.as_str()));
    }
    page.blank();
    page.append(next::page(&summary));
    page
}

fn field(name: &str) -> Line {
    Line::new().text("  ").dim(name).until(13)
}

fn asked(task: &Task, now: Timestamp, page: &mut Page) {
    let repo = &task.spec.repo;
    page.push(field("repository").text(format!(
        "{}, branch {} at {}",
        repo.origin,
        repo.base_branch,
        repo.base.short()
    )));
    page.push(field("asked").text(format!("by {}, {} ago", who(&task.requester), age(now, task.submitted_at))));
    page.push(field("agent").text(words::agent(&task.spec.agent)));
}

fn work(task: &Task, now: Timestamp, reason: &str, page: &mut Page) {
    if let Some(attempt) = &task.attempt {
        let rounds = if attempt.round > 0 {
            format!(", {} of feedback", plural(attempt.round as usize, "round"))
        } else {
            String::new()
        };
        let turns = plural(attempt.turns as usize, "turn");
        let end = match &attempt.end {
            None => String::new(),
            Some(AgentEnd::Finished { .. }) if matches!(task.spec.agent, AgentSpec::Command { .. }) => {
                ", the program has ended".to_owned()
            }
            Some(AgentEnd::Finished { .. }) => ", the agent says that it is done".to_owned(),
            // The words stand above, as the reason.
            Some(AgentEnd::Stopped { message, .. }) if reason.contains(message.as_str()) => ", stopped".to_owned(),
            Some(AgentEnd::Stopped { message, .. }) => format!(", stopped: {message}"),
            Some(AgentEnd::Lost { message }) if reason.contains(message.as_str()) => ", lost".to_owned(),
            Some(AgentEnd::Lost { message }) => format!(", lost: {message}"),
        };
        page.push(field("attempt").text(format!("{}, {turns}{rounds}{end}", attempt.number)));
    }
    for open in task.open_effects.values() {
        let seconds = now.duration_since(open.since).as_millis().max(0);
        page.push(
            field("now")
                .with(Style::Accent, effects::in_words(&open.effect))
                .dim(format!(" for {}", duration(u64::try_from(seconds).unwrap_or(0)))),
        );
    }
    let budget = &task.spec.contract.budget;
    let of = |limit: Option<String>| limit.map_or(String::new(), |limit| format!(" of {limit}"));
    let unpriced = if task.unpriced_calls > 0 {
        format!(" and {} without a known price", plural(task.unpriced_calls as usize, "call"))
    } else {
        String::new()
    };
    page.push(field("used").text(format!(
        "{}{}{unpriced}, {}{} tokens",
        money(task.cost_micro_usd),
        of(budget.money_micro_usd.map(money)),
        count(task.usage.total()),
        of(budget.tokens.map(count)),
    )));
    if let Some(deadline) = task.spec.contract.deadline {
        page.push(field("deadline").text(deadline.to_string()));
    }
}

fn proof(task: &Task, page: &mut Page) {
    let Some(gates) = &task.gates else { return };
    if gates.is_empty() {
        page.push(field("gates").with(Style::Warn, "none were found, so nothing will be proved"));
    }
    for gate in gates {
        let evidence = task.proposed().and_then(|commit| task.evidence_for(gate, commit));
        let (style, mark, how) = match evidence {
            Some(evidence) if evidence.passed => {
                (Style::Good, "✓", format!("{} in {}", evidence.end, duration(evidence.duration_ms)))
            }
            Some(evidence) => (Style::Bad, "✗", format!("{} in {}", evidence.end, duration(evidence.duration_ms))),
            None if task.state.is_terminal() => (Style::Dim, "·", "not run".to_owned()),
            None => (Style::Dim, "·", "not run on this change yet".to_owned()),
        };
        page.push(
            field("gate")
                .with(style, mark)
                .text(format!(" {}: {}", gate.name, command_line(&gate.command)))
                .dim(format!("  {how}")),
        );
    }
}

fn change(task: &Task, page: &mut Page) {
    if let Some(change) = &task.change {
        let branch = change.branch.as_ref().map_or(String::new(), |branch| format!(", branch {branch}"));
        page.push(field("change").bold(change.head.short()).text(format!(" on {}{branch}", change.onto.short())));
        if change.commit != change.head {
            page.push(field("").dim(format!(
                "would land as {}, merged with {}",
                change.commit.short(),
                task.spec.repo.base_branch
            )));
        }
    }
    if let Some(decision) = &task.decision {
        page.push(field("policy").text(format!("{} ({}): {}", decision.tier.name(), decision.rule, decision.reason)));
    }
    for approval in &task.approvals {
        let comment = if approval.comment.is_empty() { String::new() } else { format!(": “{}”", approval.comment) };
        page.push(
            field("approved")
                .with(Style::Good, format!("{} for {}{comment}", who(&approval.by), approval.head.short())),
        );
    }
    if let Some(landed) = &task.landed {
        page.push(field("landed").with(Style::Good, format!("{} as {}", task.spec.repo.base_branch, landed.short())));
    }
}
