//! Secrets: set, list, remove, and a new key for all.
//!
//! Absent: any way to read a value, and any log line with a body in it.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use store::secrets::{AddedAs, SecretHost, SecretName, SecretScope, SecretWish};

use super::{Always, OfBody};
use crate::api::{
    DEFAULT_AUDIT, MAX_AUDIT, Problem, SecretAuditList, SecretAuditQuery, SecretInfo, SecretList, SecretPlace,
    SecretsRotated, SetSecret,
};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Failure, Outcome};
use crate::extract::{Json, Query, limit, param};

/// Store a secret, or replace the one of this name for the same repository and environment
///
/// Its value is sealed before it is stored. Who set it, when, for which hosts is kept with it.
#[utoipa::path(
    put,
    path = "/v1/secrets",
    tag = "secrets",
    request_body = SetSecret,
    responses(
        (status = 200, description = "It is stored", body = SecretInfo),
        (status = 409, description = "`secret-key`: the key of the stored secrets is missing; `detail` says what to do",
         body = Problem, content_type = "application/problem+json"),
        OfBody,
        Always,
    )
)]
pub(crate) async fn set_secret(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    Json(body): Json<SetSecret>,
) -> Outcome<Answer<SecretInfo>> {
    let hosts: Result<Vec<SecretHost>, _> = body.hosts.iter().map(|host| SecretHost::parse(host)).collect();
    let wish = SecretWish {
        name: SecretName::parse(&body.name)?,
        scope: SecretScope::of(body.repo.as_deref(), body.environment.as_deref())?,
        hosts: hosts?,
        added_as: AddedAs::parse(&body.added_as)?,
        value: body.value,
    };
    let keeper = app.secrets.clone();
    let line = app.change(async move { keeper.vault.set(wish, &who, keeper.clock.now()).await }).await?;
    Ok(Answer(line.into()))
}

/// List secrets, without values
#[utoipa::path(
    get,
    path = "/v1/secrets",
    tag = "secrets",
    responses((status = 200, description = "All of them", body = SecretList), Always)
)]
pub(crate) async fn list_secrets(State(app): State<Arc<App>>) -> Outcome<Answer<SecretList>> {
    let lines = app.secrets.vault.list().await?;
    Ok(Answer(SecretList { secrets: lines.into_iter().map(Into::into).collect() }))
}

/// A secret's name in the path.
pub(crate) struct Named(SecretName);

impl FromRequestParts<Arc<App>> for Named {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Outcome<Self> {
        Ok(Self(SecretName::parse(&param(parts, app, "name").await?)?))
    }
}

/// Remove a secret
///
/// Requests that boxes make from now on go without it.
#[utoipa::path(
    delete,
    path = "/v1/secrets/{name}",
    tag = "secrets",
    params(("name" = String, Path, description = "What it is called"), SecretPlace),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`not-found`: there is none of this name for this repository and environment",
         body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid-body`: the name, repository or environment is none",
         body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "`disk-full`: nothing was removed",
         body = Problem, content_type = "application/problem+json"),
        Always,
    )
)]
pub(crate) async fn remove_secret(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    Named(name): Named,
    Query(place): Query<SecretPlace>,
) -> Outcome<StatusCode> {
    let scope = SecretScope::of(place.repo.as_deref(), place.environment.as_deref())?;
    let keeper = app.secrets.clone();
    app.change(async move { keeper.vault.remove(&scope, &name, &who, keeper.clock.now()).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who changed which secret, newest first
#[utoipa::path(
    get,
    path = "/v1/secrets/audit",
    tag = "secrets",
    params(SecretAuditQuery),
    responses((status = 200, description = "The last changes", body = SecretAuditList), Always)
)]
pub(crate) async fn audit_secrets(
    State(app): State<Arc<App>>,
    Query(query): Query<SecretAuditQuery>,
) -> Outcome<Answer<SecretAuditList>> {
    let most = limit(query.limit, DEFAULT_AUDIT, MAX_AUDIT)?;
    let changes = app.secrets.vault.audit(most).await?;
    Ok(Answer(SecretAuditList { changes: changes.into_iter().map(Into::into).collect() }))
}

/// Seal all secrets with a new key and forget the old one
///
/// Broken off anywhere, nothing is lost; calling it again goes on.
#[utoipa::path(
    post,
    path = "/v1/secrets/rotate-key",
    tag = "secrets",
    responses(
        (status = 200, description = "All are sealed with the new key", body = SecretsRotated),
        (status = 409, description = "`secret-key`: the old key is missing, or the new one has to come from outside",
         body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "`disk-full`: both keys are kept",
         body = Problem, content_type = "application/problem+json"),
        Always,
    )
)]
pub(crate) async fn rotate_key(State(app): State<Arc<App>>, Caller(who): Caller) -> Outcome<Answer<SecretsRotated>> {
    let keeper = app.secrets.clone();
    let rotated = app.change(async move { keeper.vault.rotate(&who, keeper.clock.now()).await }).await?;
    Ok(Answer(SecretsRotated { key: rotated.active.to_string(), resealed: rotated.resealed }))
}
