//! What a person tells a task: say, answer, cancel, approve, reject, land.
//!
//! Absent: whether it may be done; the server decides, and its refusal says what to do instead.

use std::process::ExitCode;

use domain::id::CommitSha;
use domain::task::{Task, TaskState, TaskSummary};
use serde::Serialize;
use server::api::{AnswerBody, ApproveBody, CancelBody, LandBody, RejectBody, SayBody};

use super::follow::follow;
use super::logs::{Blind, Show, standing};
use super::{Context, checked, exit_of, say_next, text_of};
use crate::args::{ApproveArgs, CancelArgs, RejectArgs, TextArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::terminal::{Line, Style};

async fn post(client: &Client, id: &str, verb: &str, body: &impl Serialize) -> Result<Task, Failure> {
    Ok(client.post(&format!("/v1/tasks/{}/{verb}", checked(id)?), body, None).await?)
}

/// Prints the task after a command, with a word for what was done.
fn done(task: &Task, word: &str, cx: &mut Context) -> Result<ExitCode, Failure> {
    if cx.screen.json {
        cx.screen.document(task)?;
        return Ok(ExitCode::SUCCESS);
    }
    let summary = TaskSummary::from(task);
    cx.screen.line(Line::new().with(Style::Good, "✓ ").text(word))?;
    cx.screen.line(standing(&summary))?;
    say_next(&summary, cx)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn say(args: TextArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let text = text_of(&args.text)?;
    let client = cx.client().await?;
    let task = post(&client, &args.id, "say", &SayBody { text }).await?;
    done(&task, "the agent is told before its next turn", cx)
}

pub(super) async fn answer(args: TextArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let text = text_of(&args.text)?;
    let client = cx.client().await?;
    let task = post(&client, &args.id, "answer", &AnswerBody { text }).await?;
    done(&task, "answered; the agent goes on", cx)
}

pub(super) async fn cancel(args: CancelArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let task = post(&client, &args.id, "cancel", &CancelBody { reason: args.reason }).await?;
    let word = if task.state.is_terminal() {
        "called off"
    } else {
        "called off, as soon as the landing that is under way has ended"
    };
    done(&task, word, cx)
}

pub(super) async fn reject(args: RejectArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let task = post(&client, &args.id, "reject", &RejectBody { message: args.message }).await?;
    done(&task, "rejected; nothing was landed", cx)
}

pub(super) async fn approve(args: ApproveArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let now: Task = client.get(&format!("/v1/tasks/{}", checked(&args.id)?), &()).await?;
    // Without a change nobody has seen anything yet, so the server is not even asked.
    let Some(head) = now.change.as_ref().map(|change| change.head.clone()) else { return Err(no_change(&now)) };
    if args.commit.as_ref().is_some_and(|given| given.len() < 7) {
        return Err(Failure::usage("--commit needs at least seven digits of the commit that you looked at"));
    }
    if let Some(given) = args.commit.as_ref().filter(|given| !head.as_str().starts_with(given.as_str())) {
        return Err(stale(given, &head));
    }
    // What this command has read is what it approves, even if the agent is faster than the answer.
    let body = ApproveBody { head: Some(head.clone()), comment: args.comment };
    let task = post(&client, &args.id, "approve", &body).await?;
    if args.land {
        return land(task.id.as_str(), args.update_worktree, cx).await;
    }
    done(&task, &format!("approved {}", head.short()), cx)
}

fn no_change(task: &Task) -> Failure {
    let detail = if task.state.is_terminal() {
        format!("the task has ended without a change ({}); `logs` shows what happened", task.state.name())
    } else {
        format!(
            "the agent has not proposed a change yet (the task is {}); `logs -f` shows when it does",
            task.state.name()
        )
    };
    Failure::new("no-change", "There is nothing to approve", detail)
}

fn stale(given: &str, head: &CommitSha) -> Failure {
    Failure::new(
        "stale",
        "Another change is proposed now",
        format!("you named {given}, but the proposed commit is {head}; look at `diff` and `evidence` again"),
    )
}

/// Asks for the landing and waits for what comes of it, showing it as it happens.
pub(super) async fn land(id: &str, update_worktree: bool, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let asked = post(&client, id, "land", &LandBody { update_worktree }).await?;
    let task = if cx.screen.json {
        follow(&client, asked.id.as_str(), asked.seq, &mut Blind).await?
    } else {
        let mut show = Show::new(&mut cx.screen, false, false);
        show.known = asked.seq;
        follow(&client, asked.id.as_str(), asked.seq, &mut show).await?
    };
    if cx.screen.json {
        cx.screen.document(&task)?;
    } else if task.state != TaskState::Completed {
        say_next(&TaskSummary::from(&task), cx)?;
    }
    Ok(exit_of(&task))
}
