//! Reading requests: bodies, parameters, ids and headers, each with an error that names what is
//! wrong.
//!
//! Absent: meaning. A contract that reads well may still be refused by the orchestrator.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use domain::id::TaskId;
use serde::de::DeserializeOwned;

use crate::api::{IDEMPOTENCY_KEY, MAX_KEY_CHARS, Problem, ProblemType};
use crate::app::App;
use crate::error::{Failure, Outcome};

/// Most bytes of a request's body.
pub(crate) const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A body that must be there.
pub(crate) struct Json<T>(pub(crate) T);

/// A body that may be left out, for what is meant by default.
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;
    async fn from_request(request: Request, state: &S) -> Outcome<Self> {
        let headers = request.headers().clone();
        let bytes = body(request, state).await?;
        parse(&headers, &bytes).map(Json)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Failure;
    async fn from_request(request: Request, state: &S) -> Outcome<Self> {
        let headers = request.headers().clone();
        let bytes = body(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        parse::<Option<T>>(&headers, &bytes).map(|body| Self(body.unwrap_or_default()))
    }
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Outcome<Bytes> {
    Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail =
                format!("a body may have {MAX_BODY_BYTES} bytes; put long texts into a file of the repository");
            Failure::new(ProblemType::TooLarge, detail)
        } else {
            Failure::new(
                ProblemType::MalformedRequest,
                format!("the body did not arrive whole: {}", rejection.body_text()),
            )
        }
    })
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Outcome<T> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let detail = format!("the body's type is `{essence}`; send JSON, with `Content-Type: application/json`");
        return Err(Failure::new(ProblemType::UnsupportedMediaType, detail));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => {
                let problem = Problem::new(ProblemType::InvalidBody, format!("at `{field}`: {inner}"));
                Failure::from(problem.at(field))
            }
            _ => malformed(&inner),
        }
    })?;
    reader.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Failure {
    Failure::new(ProblemType::MalformedRequest, format!("the body is not JSON: {error}"))
}

/// Parameters after the `?`.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Outcome<Self> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection| Failure::new(ProblemType::MalformedRequest, rejection.body_text()))
    }
}

/// The task that `{id}` means: its whole id, or the beginning of one that fits no other.
pub(crate) struct Target(pub(crate) TaskId);

impl FromRequestParts<Arc<App>> for Target {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Outcome<Self> {
        let prefix = param(parts, app, "id").await?;
        Ok(Self(app.handle.store().index.resolve(&prefix).await?))
    }
}

/// A part of the path by its name.
pub(crate) async fn param(parts: &mut Parts, app: &Arc<App>, name: &str) -> Outcome<String> {
    let params = RawPathParams::from_request_parts(parts, app).await;
    let params = params.map_err(|rejection| Failure::new(ProblemType::MalformedRequest, rejection.body_text()))?;
    let found = params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(|| Failure::new(ProblemType::MalformedRequest, format!("the path has no `{name}`")))
}

/// The key that makes a request safe to repeat, if there is one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Outcome<Option<String>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| {
        let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
        !key.is_empty() && key.len() <= MAX_KEY_CHARS && visible
    });
    match key {
        Some(key) => Ok(Some(key.to_owned())),
        None => {
            let detail = format!("an idempotency key is 1 to {MAX_KEY_CHARS} visible ASCII characters without spaces");
            Err(Problem::new(ProblemType::MalformedRequest, detail).at(IDEMPOTENCY_KEY).into())
        }
    }
}

/// Whether the caller asks for this media type by name.
pub(crate) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case(media_type));
        named && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// A limit from a query, within what is allowed.
pub(crate) fn limit(given: Option<u32>, default: u32, most: u32) -> Outcome<u32> {
    match given {
        None => Ok(default),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(limit) => {
            let detail = format!("`limit` is {limit} and must be 1 to {most}");
            Err(Problem::new(ProblemType::MalformedRequest, detail).at("limit").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CreateTask;

    fn json(text: &str) -> Outcome<CreateTask> {
        parse(
            &HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap())]),
            text.as_bytes(),
        )
    }

    #[test]
    fn an_unknown_field_deep_in_the_contract_is_named_with_its_path() {
        let failure = json(r#"{"goal":"g","repo":"/r","contract":{"budget":{"truns":3}}}"#).unwrap_err();
        assert_eq!(failure.problem().status, 422);
        assert_eq!(failure.problem().field.as_deref(), Some("contract.budget.truns"));
        assert!(failure.problem().detail.contains("unknown field `truns`"), "{}", failure.problem().detail);
    }

    #[test]
    fn text_that_is_no_json_is_a_malformed_request_and_not_a_wrong_field() {
        for bad in ["", "{", "goal=x", r#"{"goal":"g","repo":"/r"} trailing"#] {
            assert_eq!(json(bad).unwrap_err().problem().status, 400, "{bad:?}");
        }
    }

    #[test]
    fn a_form_is_refused_because_a_web_page_can_send_one_without_asking() {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "text/plain".parse().unwrap())]);
        let failure = parse::<CreateTask>(&headers, br#"{"goal":"g","repo":"/r"}"#).unwrap_err();
        assert_eq!(failure.problem().status, 415);
    }

    #[test]
    fn an_idempotency_key_with_spaces_or_without_end_is_refused() {
        let key = |value: &str| {
            idempotency_key(&HeaderMap::from_iter([(
                axum::http::HeaderName::from_static(IDEMPOTENCY_KEY),
                value.parse().unwrap(),
            )]))
        };
        assert_eq!(key("a-b_c:1").unwrap().as_deref(), Some("a-b_c:1"));
        for bad in ["", "a b", &"x".repeat(256)] {
            assert_eq!(key(bad).unwrap_err().problem().field.as_deref(), Some(IDEMPOTENCY_KEY));
        }
        assert!(idempotency_key(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn a_media_type_counts_only_if_it_is_named_and_wanted() {
        let accept = |value: &str| HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())]);
        assert!(accepts(&accept("application/json;q=0.5, text/event-stream"), "text/event-stream"));
        assert!(!accepts(&accept("*/*"), "text/event-stream"));
        assert!(!accepts(&accept("text/event-stream;q=0"), "text/event-stream"));
    }
}
