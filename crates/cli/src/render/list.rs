//! The list of tasks: what needs a person first, then what is at work, then what ended. Pure.

use domain::task::{TaskState, TaskSummary};
use jiff::Timestamp;

use super::words;
use crate::terminal::{Line, Page, Style, fit};

/// Ended tasks that are shown when not all are asked for.
const ENDED_SHOWN: usize = 5;
/// Columns before the goal, with the spaces between them.
const GOAL_COLUMN: usize = 52;

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Wishes {
    /// The time by which ages are told.
    pub now: Timestamp,
    /// Columns of the page.
    pub columns: usize,
    /// Whether every ended task is shown.
    pub all: bool,
    /// Whether there are ended tasks beside those given.
    pub left_out: bool,
}

/// In which part of the list a task stands: 0 needs a person, 1 is at work, 2 has ended.
fn part(state: TaskState) -> usize {
    match state {
        TaskState::InputRequired | TaskState::AuthRequired => 0,
        TaskState::Submitted | TaskState::Working => 1,
        TaskState::Completed | TaskState::Failed | TaskState::Canceled | TaskState::Rejected => 2,
    }
}

/// The tasks as a table.
#[must_use]
pub fn page(tasks: &[TaskSummary], wishes: Wishes) -> Page {
    let mut page = Page::new();
    if tasks.is_empty() {
        page.push(Line::new().text("No tasks. Delegate one:"));
        page.push(Line::new().text("  ").accent("chargehand run \"what is to be different afterwards\" --repo ."));
        return page;
    }
    page.push(Line::new().dim(heading()));
    for (number, title) in ["needs you", "at work", "ended"].into_iter().enumerate() {
        let mut rows: Vec<&TaskSummary> = tasks.iter().filter(|task| part(task.state) == number).collect();
        rows.sort_by_key(|task| std::cmp::Reverse(if number == 2 { task.updated_at } else { task.submitted_at }));
        let shown = if number == 2 && !wishes.all { ENDED_SHOWN } else { usize::MAX };
        if !rows.is_empty() && number != 1 {
            page.push(Line::new().with(if number == 0 { Style::Warn } else { Style::Dim }, title));
        } else if !rows.is_empty() {
            page.push(Line::new().with(Style::Accent, title));
        }
        for task in rows.iter().take(shown) {
            page.push(row(task, wishes));
            if number == 0 {
                page.push(
                    Line::new().text("  ").dim(fit(&format!("↳ {}", task.reason), wishes.columns.saturating_sub(2))),
                );
            }
        }
        let hidden = rows.len().saturating_sub(shown);
        if number == 2 && wishes.left_out {
            page.push(Line::new().dim("  and more: chargehand list --all"));
        } else if hidden > 0 {
            page.push(Line::new().dim(format!("  and {hidden} more: chargehand list --all")));
        }
    }
    page
}

fn heading() -> String {
    format!("  {:<10}{:<18}{:<8}{:<7}{:<7}GOAL", "ID", "STATE", "AGE", "GATES", "COST")
}

fn row(task: &TaskSummary, wishes: Wishes) -> Line {
    let (style, state) = words::state(task.state, task.wait_kind, task.outcome);
    Line::new()
        .text("  ")
        .bold(task.id.short())
        .until(12)
        .with(style, fit(&state, 17))
        .until(30)
        .text(words::age(wishes.now, task.submitted_at))
        .until(38)
        .text(words::gates(task))
        .until(45)
        .text(words::cost(task))
        .until(GOAL_COLUMN)
        .text(fit(&task.goal, wishes.columns.saturating_sub(GOAL_COLUMN).max(16)))
}
