//! Environments: what a repository's recipe is, what was built, and its log.
//!
//! Absent: building inside a request; a build goes on when nobody waits for it.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use orchestrator::EnvironmentRecord;

use super::{Always, OfBody, OfTask};
use crate::api::{
    BuildBegun, CollectBody, Collected, EnvironmentInfo, EnvironmentList, LogBody, LogQuery, MAX_LOG_BYTES, RecipeBody,
    RecipeQuery,
};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Failure, Outcome};
use crate::extract::{Json, OptionalJson, Query, param};

/// List environments, the latest first
#[utoipa::path(
    get,
    path = "/v1/environments",
    tag = "environments",
    responses((status = 200, description = "All of them", body = EnvironmentList), Always)
)]
pub(crate) async fn list_environments(State(app): State<Arc<App>>) -> Outcome<Answer<EnvironmentList>> {
    let listed = app.handle.environments()?;
    let damaged = listed.damaged.into_iter().map(|damaged| format!("{}: {}", damaged.file.display(), damaged.why));
    let environments = listed.records.into_iter().map(Into::into).collect();
    Ok(Answer(EnvironmentList { environments, damaged: damaged.collect() }))
}

/// Build the environment of a repository's branch as it is now
///
/// Answers as soon as the build is under way; its log and its record tell the rest.
#[utoipa::path(
    post,
    path = "/v1/environments",
    tag = "environments",
    request_body = RecipeQuery,
    responses((status = 202, description = "It is being built, or was", body = BuildBegun), OfBody, Always)
)]
pub(crate) async fn build_environment(
    State(app): State<Arc<App>>,
    Caller(_who): Caller,
    Json(body): Json<RecipeQuery>,
) -> Outcome<(StatusCode, Answer<BuildBegun>)> {
    let handle = app.handle.clone();
    let key = app.change(async move { handle.build_environment(&body.repo, body.base.as_deref()).await }).await?;
    Ok((StatusCode::ACCEPTED, Answer(BuildBegun { key })))
}

/// The recipe of a repository's branch as it is now
#[utoipa::path(
    get,
    path = "/v1/recipe",
    tag = "environments",
    params(RecipeQuery),
    responses((status = 200, description = "The recipe", body = RecipeBody), OfBody, Always)
)]
pub(crate) async fn show_recipe(
    State(app): State<Arc<App>>,
    Query(query): Query<RecipeQuery>,
) -> Outcome<Answer<RecipeBody>> {
    Ok(Answer(app.handle.recipe(&query.repo, query.base.as_deref()).await?.into()))
}

/// An environment in the path.
pub(crate) struct Named(EnvironmentRecord);

impl FromRequestParts<Arc<App>> for Named {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Outcome<Self> {
        Ok(Self(app.handle.environment(&param(parts, app, "key").await?)?))
    }
}

/// One environment
#[utoipa::path(
    get,
    path = "/v1/environments/{key}",
    tag = "environments",
    params(("key" = String, Path, description = "The environment's key, or an unambiguous beginning of it")),
    responses((status = 200, description = "The environment", body = EnvironmentInfo), OfTask, Always)
)]
pub(crate) async fn show_environment(Named(record): Named) -> Outcome<Answer<EnvironmentInfo>> {
    Ok(Answer(record.into()))
}

/// A part of a build's log
///
/// Ask again with `next_offset` until it is complete.
#[utoipa::path(
    get,
    path = "/v1/environments/{key}/log",
    tag = "environments",
    params(("key" = String, Path, description = "The environment's key, or an unambiguous beginning of it"), LogQuery),
    responses((status = 200, description = "The part", body = LogBody), OfTask, Always)
)]
pub(crate) async fn environment_log(
    State(app): State<Arc<App>>,
    Named(record): Named,
    Query(query): Query<LogQuery>,
) -> Outcome<Answer<LogBody>> {
    let part = app.handle.environment_log(&record.key, query.offset, MAX_LOG_BYTES)?;
    let text = String::from_utf8_lossy(&part.bytes).into_owned();
    Ok(Answer(LogBody { text, next_offset: part.next_offset, complete: part.complete }))
}

/// Remove environments that nobody used lately
///
/// Those that an unfinished task stands on stay. The body may be left out.
#[utoipa::path(
    post,
    path = "/v1/environments/collect",
    tag = "environments",
    request_body = Option<CollectBody>,
    responses((status = 200, description = "What was removed", body = Collected), OfBody, Always)
)]
pub(crate) async fn collect_environments(
    State(app): State<Arc<App>>,
    Caller(_who): Caller,
    OptionalJson(body): OptionalJson<CollectBody>,
) -> Outcome<Answer<Collected>> {
    let handle = app.handle.clone();
    let removed = app.change(async move { handle.collect_environments(body.all).await }).await?;
    Ok(Answer(Collected { removed: removed.records.into_iter().map(Into::into).collect() }))
}
