//! Delegate a task, find tasks, look at one.
//!
//! Absent: work on a task.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::id::TaskId;
use domain::task::{Task, TaskState};
use orchestrator::{ForkWish, Submission};
use store::Filter;

use super::{Always, OfBody, OfTask};
use crate::api::{
    CreateTask, DEFAULT_TASKS, ForkBody, ListQuery, MAX_TASKS, Problem, ProblemType, Submitted, TaskList,
};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Failure, Outcome};
use crate::extract::{Json, Query, Target, idempotency_key, limit};

/// Delegate a task
///
/// When it is answered, the task is on disk and will be worked on.
#[utoipa::path(
    post,
    path = "/v1/tasks",
    tag = "tasks",
    params((
        "Idempotency-Key" = Option<String>, Header,
        description = "Makes the request safe to repeat: the same key and body find the same task"
    )),
    request_body = CreateTask,
    responses(
        (status = 201, description = "The task was accepted", body = Submitted),
        (status = 200, description = "The same request was accepted before; this is its task", body = Submitted),
        (status = 409, description = "`key-reused`: the key was used with another body; `task` has it",
         body = Problem, content_type = "application/problem+json"),
        OfBody,
        Always,
    )
)]
pub(crate) async fn create_task(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    headers: HeaderMap,
    Json(body): Json<CreateTask>,
) -> Outcome<Response> {
    let key = idempotency_key(&headers)?;
    check_agent(&body)?;
    let submission = Submission {
        goal: body.goal,
        repo: body.repo,
        base: body.base,
        agent: body.agent,
        model: body.model,
        argv: body.argv,
        contract: body.contract.unwrap_or_default(),
    };
    let handle = app.handle.clone();
    Ok(accepted(app.change(async move { handle.submit(submission, &who, key).await }).await?))
}

/// Go back to a step: a new task that begins there
///
/// It has the goal, the base, the contract, the files and the conversation of the other task as they
/// were after that turn, and a budget of its own. The other task goes on as it was.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/fork",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The task's id, or an unambiguous beginning of it"),
        ("Idempotency-Key" = Option<String>, Header,
         description = "Makes the request safe to repeat: the same key and body find the same task"),
    ),
    request_body = ForkBody,
    responses(
        (status = 201, description = "The task was accepted", body = Submitted),
        (status = 200, description = "The same request was accepted before; this is its task", body = Submitted),
        OfTask,
        OfBody,
        Always,
    )
)]
pub(crate) async fn fork(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    Target(id): Target,
    headers: HeaderMap,
    Json(body): Json<ForkBody>,
) -> Outcome<Response> {
    let key = idempotency_key(&headers)?;
    let handle = app.handle.clone();
    let wish = ForkWish { turn: body.turn, message: body.message };
    let forked = app.change(async move { handle.fork(&id, &wish, &who, key).await }).await?;
    Ok(accepted(forked))
}

fn accepted(submitted: orchestrator::Submitted) -> Response {
    let submitted = Submitted { task: submitted.task, created: submitted.created, notes: submitted.notes };
    let status = if submitted.created { StatusCode::CREATED } else { StatusCode::OK };
    let location = HeaderValue::from_str(&format!("/v1/tasks/{}", submitted.task.id));
    let mut response = (status, Answer(submitted)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// What belongs to the other agent is refused: a wish that is passed over is worse than an error.
fn check_agent(body: &CreateTask) -> Outcome<()> {
    let refuse = |field: &str, detail: &str| Err(Problem::new(ProblemType::InvalidBody, detail).at(field).into());
    match body.agent.as_str() {
        "command" if body.model.is_some() => {
            refuse("model", "the command agent asks no model; leave `model` out, or choose the agent `native`")
        }
        "native" if !body.argv.is_empty() => {
            refuse("argv", "the native agent runs no program; leave `argv` out, or choose the agent `command`")
        }
        _ => Ok(()),
    }
}

/// List tasks
///
/// Newest first. `next_cursor` leads to the next page.
#[utoipa::path(
    get,
    path = "/v1/tasks",
    tag = "tasks",
    params(ListQuery),
    responses((status = 200, description = "One page of tasks", body = TaskList), Always)
)]
pub(crate) async fn list_tasks(
    State(app): State<Arc<App>>,
    Query(query): Query<ListQuery>,
) -> Outcome<Answer<TaskList>> {
    let limit = limit(query.limit, DEFAULT_TASKS, MAX_TASKS)?;
    let Some(mut filter) = filter(&query)? else {
        return Ok(Answer(TaskList { tasks: Vec::new(), next_cursor: None }));
    };
    filter.limit = limit.saturating_add(1);
    let mut tasks = app.handle.store().index.list(filter).await?;
    let more = tasks.len() > limit as usize;
    tasks.truncate(limit as usize);
    let next_cursor = tasks.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Answer(TaskList { tasks, next_cursor }))
}

/// What a query asks of the list; nothing if no task can be both.
fn filter(query: &ListQuery) -> Outcome<Option<Filter>> {
    let bad =
        |field: &str, detail: String| Failure::from(Problem::new(ProblemType::MalformedRequest, detail).at(field));
    let mut states = Vec::new();
    for name in query.state.iter().flat_map(|states| states.split(',')).map(str::trim) {
        let state = TaskState::ALL.into_iter().find(|state| state.name() == name);
        states.push(state.ok_or_else(|| {
            let all: Vec<&str> = TaskState::ALL.iter().map(|state| state.name()).collect();
            bad("state", format!("there is no state `{name}`; the states are {}", all.join(", ")))
        })?);
    }
    if query.open == Some(false) {
        if states.is_empty() {
            states = TaskState::ALL.to_vec();
        }
        states.retain(|state| state.is_terminal());
        if states.is_empty() {
            return Ok(None);
        }
    }
    let before = match query.cursor.as_deref() {
        None => None,
        Some(cursor) => Some(TaskId::parse(cursor).map_err(|_| {
            bad("cursor", "this is no cursor of this server; pass `next_cursor` of the page before as it is".to_owned())
        })?),
    };
    Ok(Some(Filter { states, open_only: query.open == Some(true), limit: 0, before }))
}

/// Look at a task
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}",
    tag = "tasks",
    params(("id" = String, Path, description = "The task's id, or an unambiguous beginning of it")),
    responses((status = 200, description = "The task as it stands", body = Task), OfTask, Always)
)]
pub(crate) async fn show_task(State(app): State<Arc<App>>, Target(id): Target) -> Outcome<Answer<Task>> {
    Ok(Answer(app.handle.task(&id).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_state_is_refused_with_the_list_of_those_there_are() {
        let query = ListQuery { state: Some("working,done".to_owned()), ..ListQuery::default() };
        let failure = filter(&query).unwrap_err();
        assert_eq!(failure.problem().field.as_deref(), Some("state"));
        assert!(failure.problem().detail.contains("completed"));
    }

    #[test]
    fn closed_tasks_that_are_working_are_none_rather_than_all() {
        let query = ListQuery { state: Some("working".to_owned()), open: Some(false), ..ListQuery::default() };
        assert_eq!(filter(&query).unwrap(), None);
        let query = ListQuery { open: Some(false), ..ListQuery::default() };
        assert_eq!(filter(&query).unwrap().unwrap().states.len(), 4);
    }
}
