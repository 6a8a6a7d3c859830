//! What a person may ask of a task: one route per command, each answered with the task after it.
//!
//! Absent: whether it may be done; `domain::command::decide` says that inside the orchestrator.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use domain::command::Command;
use domain::task::Task;

use super::{Always, OfBody, OfTask};
use crate::api::{AnswerBody, ApproveBody, CancelBody, LandBody, RejectBody, SayBody};
use crate::app::App;
use crate::auth::Caller;
use crate::error::Outcome;
use crate::extract::{Json, OptionalJson, Target};

/// Tell the agent something
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/say",
    tag = "commands",
    params(("id" = String, Path, description = "The task's id, or an unambiguous beginning of it")),
    request_body = SayBody,
    responses((status = 200, description = "The task after it", body = Task), OfTask, OfBody, Always)
)]
pub(crate) async fn say(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    Target(id): Target,
    Json(body): Json<SayBody>,
) -> Outcome<Answer<Task>> {
    Ok(Answer(app.command(id, Command::Say { text: body.text }, who).await?))
}

/// Answer the agent's question
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/answer",
    tag = "commands",
    params(("id" = String, Path, description = "The task's id, or an unambiguous beginning of it")),
    request_body = AnswerBody,
    responses((status = 200, description = "The task after it", body = Task), OfTask, OfBody, Always)
)]
pub(crate) async fn answer(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    Target(id): Target,
    Json(body): Json<AnswerBody>,
) -> Outcome<Answer<Task>> {
    Ok(Answer(app.command(id, Command::Answer { text: body.text }, who).await?))
}

/// Call a task off
///
/// Ends the task at once, unless a landing is under way: then the landing's result decides. The
/// body may be left out.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/cancel",
    tag = "commands",
    params(("id" = String, Path, description = "The task's id, or an unambiguous beginning of it")),
    request_body = Option<CancelBody>,
    responses((status = 200, description = "The task after it", body = Task), OfTask, OfBody, Always)
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    Target(id): Target,
    OptionalJson(body): OptionalJson<CancelBody>,
) -> Outcome<Answer<Task>> {
    let reason = body.reason.unwrap_or_default();
    Ok(Answer(app.command(id, Command::Cancel { reason }, who).await?))
}

/// Approve the proposed change
///
/// Name the commit that was looked at in `head`; if another is proposed meanwhile, the approval is
/// refused with reason `stale`. The body may be left out.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/approve",
    tag = "commands",
    params(("id" = String, Path, description = "The task's id, or an unambiguous beginning of it")),
    request_body = Option<ApproveBody>,
    responses((status = 200, description = "The task after it", body = Task), OfTask, OfBody, Always)
)]
pub(crate) async fn approve(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    Target(id): Target,
    OptionalJson(body): OptionalJson<ApproveBody>,
) -> Outcome<Answer<Task>> {
    let command = Command::Approve { head: body.head, comment: body.comment.unwrap_or_default() };
    Ok(Answer(app.command(id, command, who).await?))
}

/// Refuse the proposed change and end the task
///
/// The body may be left out.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/reject",
    tag = "commands",
    params(("id" = String, Path, description = "The task's id, or an unambiguous beginning of it")),
    request_body = Option<RejectBody>,
    responses((status = 200, description = "The task after it", body = Task), OfTask, OfBody, Always)
)]
pub(crate) async fn reject(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    Target(id): Target,
    OptionalJson(body): OptionalJson<RejectBody>,
) -> Outcome<Answer<Task>> {
    Ok(Answer(app.command(id, Command::Reject { message: body.message }, who).await?))
}

/// Land the approved change
///
/// Stores the wish and answers; watch the events for the landing itself. The body may be left out.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/land",
    tag = "commands",
    params(("id" = String, Path, description = "The task's id, or an unambiguous beginning of it")),
    request_body = Option<LandBody>,
    responses((status = 200, description = "The task after it", body = Task), OfTask, OfBody, Always)
)]
pub(crate) async fn land(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    Target(id): Target,
    OptionalJson(body): OptionalJson<LandBody>,
) -> Outcome<Answer<Task>> {
    let command = Command::Land { update_worktree: body.update_worktree };
    Ok(Answer(app.command(id, command, who).await?))
}
