//! What a person can do now about a task: commands to type, and what each does. Pure.

use domain::task::{TaskState, TaskSummary, WaitKind};

use crate::terminal::{Line, Page};

/// A command, and what it is good for.
type Step = (String, &'static str);

/// The commands that make sense now, best first.
#[must_use]
pub fn steps(task: &TaskSummary) -> Vec<Step> {
    let id = task.id.short();
    let step = |command: &str, what| (format!("chargehand {command}").replace("ID", id), what);
    match (task.state, task.wait_kind) {
        (TaskState::Submitted | TaskState::Working, _) => vec![
            step("logs ID -f", "watch it work"),
            step("wait ID", "come back when it needs you or has ended"),
            step("cancel ID", "call it off"),
        ],
        (TaskState::InputRequired, Some(WaitKind::Question)) => {
            vec![step("answer ID \"…\"", "answer the agent's question"), step("logs ID", "see how it came to that")]
        }
        (TaskState::InputRequired, Some(WaitKind::Review)) => review(task, step),
        (TaskState::InputRequired | TaskState::AuthRequired, _) => {
            vec![step("show ID", "see what it waits for"), step("cancel ID", "call it off")]
        }
        (TaskState::Completed, _) => vec![step("why ID", "who asked, what was proved, who approved")],
        (TaskState::Failed, _) if task.gates_failed > 0 => {
            vec![step("evidence ID", "the gates and their output"), step("logs ID", "everything that happened")]
        }
        (TaskState::Failed | TaskState::Canceled | TaskState::Rejected, _) => {
            vec![step("logs ID", "everything that happened"), step("why ID", "what was decided, and by whom")]
        }
    }
}

fn review(task: &TaskSummary, step: impl Fn(&str, &'static str) -> Step) -> Vec<Step> {
    let mut look = vec![step("diff ID", "what was changed")];
    if task.gates_passed + task.gates_failed > 0 {
        look.push(step("evidence ID", "what was proved"));
    }
    let mut refuse = vec![step("say ID \"…\"", "ask for something else"), step("reject ID -m \"…\"", "refuse it")];
    // A program takes no messages.
    if task.agent_kind == "command" {
        refuse.remove(0);
    }
    let mut steps = Vec::new();
    if is_checked_out(&task.reason) {
        steps.push(step("land ID --update-worktree", "land, and move the clean work tree along"));
        steps.push(step("land ID", "land, after you checked out another branch there"));
        steps.extend(refuse);
    } else if task.approved {
        steps.push(step("land ID", "move the branch"));
        steps.extend(look);
        steps.extend(refuse);
    } else {
        steps.extend(look);
        steps.push(step("approve ID --land", "approve it and land it"));
        steps.extend(refuse);
    }
    steps
}

/// Whether a landing did not happen because a work tree has the branch checked out. Only the
/// forge's sentence says so.
fn is_checked_out(reason: &str) -> bool {
    reason.starts_with("not landed") && reason.contains("checked out")
}

/// The steps as lines.
#[must_use]
pub fn page(task: &TaskSummary) -> Page {
    let steps = steps(task);
    let column = steps.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0) + 4;
    let mut page = Page::new();
    for (command, what) in steps {
        page.push(Line::new().text("  ").accent(command).until(column).dim(what));
    }
    page
}
