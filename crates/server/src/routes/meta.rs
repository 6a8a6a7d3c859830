//! The server itself: whether it is well, and what its API is.
//!
//! Absent: metrics.

use std::sync::Arc;

use axum::Extension;
use axum::Json as Answer;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use store::Filter;

use super::Always;
use crate::api::{Health, HealthStatus, MAX_COUNTED};
use crate::app::App;
use crate::auth::Caller;
use crate::error::Outcome;

/// How the server is
///
/// Needs no sign-in; callers who are signed in are told more.
#[utoipa::path(
    get,
    path = "/v1/health",
    tag = "server",
    security(()),
    responses((status = 200, description = "It answers", body = Health), Always)
)]
pub(crate) async fn health(State(app): State<Arc<App>>, caller: Option<Extension<Caller>>) -> Outcome<Answer<Health>> {
    let filter = Filter { open_only: true, limit: MAX_COUNTED, ..Filter::default() };
    let open = match caller {
        Some(_) => app.handle.store().index.list(filter).await.map(|tasks| Some(tasks.len() as u64)),
        None => app.handle.store().index.list(Filter { limit: 1, ..filter }).await.map(|_| None),
    };
    let status = match &open {
        Ok(_) => HealthStatus::Ok,
        Err(error) => {
            tracing::error!(%error, "the list of tasks can't be read");
            HealthStatus::Degraded
        }
    };
    Ok(Answer(Health {
        version: app.version.clone(),
        status,
        tasks_open: open.ok().flatten(),
        uptime_ms: u64::try_from(app.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        pid: caller.map(|_| std::process::id()),
    }))
}

/// This description
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "server",
    responses((status = 200, description = "The OpenAPI file", body = Object, content_type = "application/json"), Always)
)]
pub(crate) async fn openapi_file(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi_json.clone()).into_response()
}
