//! What every handler has at hand, and how requests pass on their way to one.
//!
//! ```text
//! request → security headers → sign-in → time limit → body limit → handler
//! ```
//!
//! Absent: sockets (`listen`), and anything that changes a task other than through the handle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use domain::command::Command;
use domain::id::TaskId;
use domain::principal::Principal;
use domain::task::Task;
use orchestrator::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::SecretKeeper;
use crate::api::ProblemType;
use crate::auth::{Door, admit};
use crate::error::{Failure, Outcome};
use crate::extract::MAX_BODY_BYTES;
use crate::routes;

/// Longest time until a response begins.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// What handlers have at hand.
pub(crate) struct App {
    /// The only way to change a task.
    pub(crate) handle: Handle,
    /// The secrets.
    pub(crate) secrets: SecretKeeper,
    /// The program's version.
    pub(crate) version: String,
    /// When the server began to listen.
    pub(crate) started: Instant,
    /// Ends streams.
    pub(crate) shutdown: CancellationToken,
    /// The OpenAPI file.
    pub(crate) openapi_json: Bytes,
    /// Changes under way.
    pub(crate) changes: TaskTracker,
}

impl App {
    /// Carries out a change to its end, also when whoever asked for it hangs up.
    pub(crate) async fn change<T, E>(&self, change: impl Future<Output = Result<T, E>> + Send + 'static) -> Outcome<T>
    where
        T: Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        match to_its_end(&self.changes, change).await {
            Ok(done) => done.map_err(Into::into),
            Err(broken) => Err(Failure::internal("the change broke off", &broken)),
        }
    }

    /// Carries out what a person asks of a task.
    pub(crate) async fn command(&self, task: TaskId, command: Command, who: Principal) -> Outcome<Task> {
        let handle = self.handle.clone();
        self.change(async move { handle.command(&task, &command, &who).await }).await
    }
}

/// Runs a change as a task of its own kind: dropping the returned future leaves it running, since
/// a change that is dropped halfway may be stored without the engine's hearing of it.
async fn to_its_end<T: Send + 'static>(
    changes: &TaskTracker,
    change: impl Future<Output = T> + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    changes.spawn(change).await
}

/// The whole service, without sockets. Each request must carry the connection's [`crate::auth::Peer`].
pub(crate) fn service(app: App, door: Door) -> Router {
    let (router, _) = routes::all().split_for_parts();
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(time_limit))
        .layer(from_fn_with_state(Arc::new(door), admit))
        .layer(from_fn(headers))
        .with_state(Arc::new(app))
}

async fn no_route(uri: Uri) -> Failure {
    let detail = format!("there is nothing at `{}`; /v1/openapi.json lists all paths", uri.path());
    Failure::new(ProblemType::NoSuchRoute, detail)
}

async fn no_method(method: Method, uri: Uri) -> Failure {
    let detail = format!("`{}` can't be called with {method}; the `Allow` header lists what it takes", uri.path());
    Failure::new(ProblemType::MethodNotAllowed, detail)
}

/// Ends a request that takes too long to be answered. The streams are answered at once and live on.
async fn time_limit(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match tokio::time::timeout(TIME_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let detail = format!(
                "`{path}` was not answered within {} s and may or may not have been carried out; \
                 look before you repeat it, or repeat it with its idempotency key",
                TIME_LIMIT.as_secs()
            );
            Failure::new(ProblemType::Unavailable, detail).into_response()
        }
    }
}

/// Headers for a browser that was led here: it may show nothing, run nothing and keep nothing.
async fn headers(request: Request, next: Next) -> Response {
    const ALWAYS: [(HeaderName, &str); 6] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    for (name, value) in ALWAYS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_change_goes_to_its_end_although_whoever_asked_for_it_hung_up() {
        let changes = TaskTracker::new();
        let (go_on, told) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let asked = to_its_end(&changes, async move {
            told.await.unwrap();
            done.send("stored").unwrap();
        });
        assert!(asked.now_or_never().is_none());
        go_on.send(()).unwrap();
        assert_eq!(is_done.await.unwrap(), "stored");
        changes.close();
        changes.wait().await;
    }
}
