//! All routes, each next to its description; the OpenAPI file is made from the same list.
//!
//! Absent: decisions. A handler reads the request, asks the handle or the store, and writes the
//! answer.

pub(crate) mod commands;
pub(crate) mod environments;
pub(crate) mod events;
pub(crate) mod meta;
pub(crate) mod reports;
pub(crate) mod secrets;
pub(crate) mod tasks;

use std::sync::Arc;

use domain::event::Envelope;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi, SecurityRequirement};
use utoipa::{IntoResponses, OpenApi as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{LiveItem, Problem, StreamEnd};
use crate::app::App;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Chargehand",
        version = "1.0",
        description = "Delegate tasks to coding agents, watch them, look at what was proved, and land it. \
                       Errors are problem documents (RFC 9457); decide by their `type`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Envelope, LiveItem, StreamEnd, Problem)),
    tags(
        (name = "tasks", description = "Delegate and find tasks"),
        (name = "events", description = "What happened, and what is happening"),
        (name = "commands", description = "What a person may ask of a running task"),
        (name = "reports", description = "What was changed, proved and decided"),
        (name = "secrets", description = "Credentials that the way out of a box adds; no box and no answer has a value"),
        (name = "environments", description = "What boxes start from"),
        (name = "server", description = "The server itself"),
    )
)]
struct Base;

/// Every route with its description.
pub(crate) fn all() -> OpenApiRouter<Arc<App>> {
    let mut base = Base::openapi();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The server's token. Callers on the unix socket need none."))
        .build();
    base.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(bearer));
    base.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
    OpenApiRouter::with_openapi(base)
        .routes(routes!(tasks::create_task, tasks::list_tasks))
        .routes(routes!(tasks::show_task))
        .routes(routes!(tasks::fork))
        .routes(routes!(events::read_events))
        .routes(routes!(commands::say))
        .routes(routes!(commands::answer))
        .routes(routes!(commands::cancel))
        .routes(routes!(commands::approve))
        .routes(routes!(commands::reject))
        .routes(routes!(commands::land))
        .routes(routes!(reports::diff))
        .routes(routes!(reports::evidence))
        .routes(routes!(reports::why))
        .routes(routes!(reports::blob))
        .routes(routes!(secrets::set_secret, secrets::list_secrets))
        .routes(routes!(secrets::remove_secret))
        .routes(routes!(secrets::audit_secrets))
        .routes(routes!(secrets::rotate_key))
        .routes(routes!(environments::list_environments, environments::build_environment))
        .routes(routes!(environments::show_environment))
        .routes(routes!(environments::environment_log))
        .routes(routes!(environments::collect_environments))
        .routes(routes!(environments::show_recipe))
        .routes(routes!(meta::health))
        .routes(routes!(meta::openapi_file))
}

/// The description of all routes.
pub(crate) fn openapi() -> OpenApi {
    all().into_openapi()
}

/// Problems that every route may answer with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) enum Always {
    /// `malformed-request`: a header, a parameter or the path can't be read.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(Problem),
    /// `unauthorized`: no token, or a wrong one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// `forbidden`: another user's server, or not for this kind of principal.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// `wrong-host`: the `Host` is not this server's.
    #[response(status = 421, content_type = "application/problem+json")]
    WrongHost(Problem),
    /// `internal`: the server's log has the cause.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(Problem),
    /// `unavailable`: it took too long. `no-sandbox`: this machine can't run sandboxes.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// Problems of routes that name a task.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) enum OfTask {
    /// `not-found`: no task begins with this id, or it has no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// `ambiguous-id`: several tasks begin with it; `candidates` lists them. `refused`: the task
    /// does not allow this now; `reason` says why in one word.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
}

/// Problems of routes that take a body and store something.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) enum OfBody {
    /// `too-large`: the body has more than 1 MiB.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// `unsupported-media-type`: the body is not `application/json`.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(Problem),
    /// `invalid-body`, `invalid-contract`, `repository` or `no-model`; `field` says where.
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(Problem),
    /// `disk-full`: nothing was stored and nothing was lost.
    #[response(status = 507, content_type = "application/problem+json")]
    DiskFull(Problem),
}
