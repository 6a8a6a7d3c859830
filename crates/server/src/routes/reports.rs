//! Reports on one task: the diff, the evidence, the why, and the blobs that they name.
//!
//! Absent: how a report is put together; that is `crate::story`.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use domain::event::Envelope;
use domain::id::{Digest, TaskId};

use super::{Always, OfTask};
use crate::api::{DiffBody, DiffQuery, EvidenceBody, Problem, ProblemType, WhyBody};
use crate::app::App;
use crate::error::{Failure, Outcome};
use crate::extract::{Query, Target, accepts, param};
use crate::story::{Story, names_blob};

/// Events read at once.
const PAGE: u32 = 200;
const X_DIFF: &str = "text/x-diff";

/// What the proposed change changes
///
/// `text/x-diff` gives the patch alone. Before there is a change it is `not-found` with reason
/// `no_change`. With `from` and `to`, what happened between two turns of the newest attempt, as far
/// as files were kept.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/diff",
    tag = "reports",
    params(("id" = String, Path, description = "The task's id, or an unambiguous beginning of it"), DiffQuery),
    responses(
        (status = 200, description = "The change", content((DiffBody = "application/json"), (String = "text/x-diff"))),
        OfTask,
        Always,
    )
)]
pub(crate) async fn diff(
    State(app): State<Arc<App>>,
    Target(id): Target,
    Query(query): Query<DiffQuery>,
    headers: HeaderMap,
) -> Outcome<Response> {
    let diff = match (query.from, query.to) {
        (None, None) => app.handle.diff(&id).await?,
        (Some(from), Some(to)) => {
            // Boxes are started for it; whoever stops waiting does not leave them behind.
            let handle = app.handle.clone();
            app.change(async move { handle.diff_turns(&id, from, to).await }).await?
        }
        _ => {
            let detail = "name both turns: `from` and `to`";
            return Err(Problem::new(ProblemType::MalformedRequest, detail).at("from").into());
        }
    };
    if accepts(&headers, X_DIFF) {
        return Ok(([(header::CONTENT_TYPE, "text/x-diff; charset=utf-8")], diff.patch).into_response());
    }
    Ok(Answer(DiffBody::from(diff)).into_response())
}

/// What is proved about the change
///
/// Every gate that was chosen with its newest evidence on the proposed commit, also those that
/// have none.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/evidence",
    tag = "reports",
    params(("id" = String, Path, description = "The task's id, or an unambiguous beginning of it")),
    responses((status = 200, description = "The evidence", body = EvidenceBody), OfTask, Always)
)]
pub(crate) async fn evidence(State(app): State<Arc<App>>, Target(id): Target) -> Outcome<Answer<EvidenceBody>> {
    let task = app.handle.task(&id).await?;
    let story = story(&app, &id, task.seq).await?;
    Ok(Answer(story.evidence(&task)))
}

/// Why it landed, or why it has not
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/why",
    tag = "reports",
    params(("id" = String, Path, description = "The task's id, or an unambiguous beginning of it")),
    responses((status = 200, description = "The whole account", body = WhyBody), OfTask, Always)
)]
pub(crate) async fn why(State(app): State<Arc<App>>, Target(id): Target) -> Outcome<Answer<WhyBody>> {
    let task = app.handle.task(&id).await?;
    let story = story(&app, &id, task.seq).await?;
    let why = story.why(&task);
    why.map(Answer).ok_or_else(|| Failure::new(ProblemType::Internal, "the task's log does not say who asked for it"))
}

/// What the events up to `last` tell.
async fn story(app: &App, id: &TaskId, last: u64) -> Outcome<Story> {
    let mut story = Story::default();
    each_event(app, id, |envelope| {
        let wanted = envelope.seq <= last;
        if wanted {
            story.take(envelope);
        }
        wanted
    })
    .await?;
    Ok(story)
}

/// Shows the events of a task in order, until `look` has seen enough.
async fn each_event(app: &App, id: &TaskId, mut look: impl FnMut(&Envelope) -> bool + Send) -> Outcome<()> {
    let mut after = 0;
    loop {
        let page = app.handle.store().log.read(id, after, PAGE).await?;
        let whole_page = page.len() >= PAGE as usize;
        for event in page {
            let envelope = Envelope::decode(&event.bytes)
                .map_err(|error| Failure::internal(&format!("event {} can't be read", event.seq), &error))?;
            after = event.seq;
            if !look(&envelope) {
                return Ok(());
            }
        }
        if !whole_page {
            return Ok(());
        }
    }
}

/// The digest in a path.
pub(crate) struct BlobName(Digest);

impl FromRequestParts<Arc<App>> for BlobName {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Outcome<Self> {
        let text = param(parts, app, "digest").await?;
        let digest = Digest::parse(&text);
        digest.map(Self).map_err(|_| {
            Failure::new(
                ProblemType::MalformedRequest,
                "a blob's digest is 64 lower-case hex digits, as the events give it",
            )
        })
    }
}

/// The bytes behind a digest
///
/// Only blobs that this task's own events name, such as the output of a gate. Always served as
/// plain text.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/blobs/{digest}",
    tag = "reports",
    params(
        ("id" = String, Path, description = "The task's id, or an unambiguous beginning of it"),
        ("digest" = String, Path, description = "The SHA-256 that an event names it by"),
    ),
    responses((status = 200, description = "The bytes", body = String, content_type = "text/plain"), OfTask, Always)
)]
pub(crate) async fn blob(
    State(app): State<Arc<App>>,
    Target(id): Target,
    BlobName(digest): BlobName,
) -> Outcome<Response> {
    let mut named = false;
    each_event(&app, &id, |envelope| {
        named = named || names_blob(envelope, &digest);
        !named
    })
    .await?;
    let bytes = if named { app.handle.store().blobs.get(&digest).await? } else { None };
    let Some(bytes) = bytes else {
        let detail = format!("task {id} has no blob {digest}; its events name those that it has");
        return Err(Failure::new(ProblemType::NotFound, detail));
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response())
}
