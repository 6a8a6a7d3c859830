//! The HTTP API, its OpenAPI file, streaming, and who may speak to it.
//!
//! ```text
//! unix socket ┐                                              ┌→ orchestrator::Handle   (everything that changes)
//! TCP         ┴→ listen → auth (who?) → routes → extract ────┤
//!                                         ↑                  └→ store                  (everything that is read)
//!                                        api (bodies, problems)
//! watch + sse: a task's stored events, then new ones as they come; no gap, nothing twice
//! story:       evidence and the why, read from the events
//! ```
//!
//! [`serve`] starts it; [`api`] is what clients share with it; [`openapi`] describes it, and the
//! checked-in `docs/openapi.json` is that description.
//!
//! What always holds:
//! - Each request has a principal: the kernel's word on the unix socket, the token on TCP.
//! - What was accepted with a 2xx is on disk.
//! - An error is a problem document that says what to do; its `type` never changes its meaning.
//! - A stream carries each stored event once and in order, also over reconnects.
//!
//! Absent on purpose: any way to change a task but the handle, any state of its own beyond open
//! connections, settings (arguments come complete), TLS, CORS and cookies.

pub mod api;
mod app;
mod auth;
mod error;
mod extract;
#[cfg(test)]
mod fixture;
mod listen;
mod routes;
mod sse;
mod story;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::principal::Principal;
use orchestrator::{Clock, Handle};
use store::Vault;

pub use store::Secret;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use auth::MIN_TOKEN_CHARS;
pub use listen::{MAX_SOCKET_PATH_BYTES, ServeError};

/// Longest wait for what is under way when the server stops.
const STOP_LIMIT: Duration = listen::GRACE.saturating_add(Duration::from_secs(1));
/// File name of the unix socket in the data folder.
pub const SOCKET_NAME: &str = "chargehand.sock";

/// The secrets that the API keeps, and the clock that says when one was changed.
#[derive(Clone)]
pub struct SecretKeeper {
    /// The secrets; values go in and never come out.
    pub vault: Arc<Vault>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for SecretKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.vault.fmt(f)
    }
}

/// How to listen, and to whom.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where the unix socket goes; usually [`SOCKET_NAME`] in the data folder.
    pub unix_socket: Option<PathBuf>,
    /// The TCP address, if any; port 0 takes any free one.
    pub tcp: Option<SocketAddr>,
    /// The token for TCP, at least [`MIN_TOKEN_CHARS`] long. Without `tcp` it is not looked at.
    pub token: Secret,
    /// Name of the person whose server this is: the operating system's user name.
    pub local_user: String,
    /// The program's version.
    pub version: String,
    /// The secrets.
    pub secrets: SecretKeeper,
}

/// A server that listens. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Bound {
    /// The unix socket, if there is one.
    pub unix_socket: Option<PathBuf>,
    /// The TCP address with its real port, if there is one.
    pub tcp: Option<SocketAddr>,
    connections: TaskTracker,
    stopping: CancellationToken,
    _stop_when_dropped: DropGuard,
}

impl Bound {
    /// Waits until the server is told to stop, through the token that [`serve`] was given, and has
    /// finished what was under way; that takes a few seconds at most.
    pub async fn stopped(self) {
        self.stopping.cancelled().await;
        if tokio::time::timeout(STOP_LIMIT, self.connections.wait()).await.is_err() {
            tracing::warn!("the server stops although requests are still under way");
        }
    }

    /// Stops it and waits.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.stopped().await;
    }
}

/// Starts to listen and returns at once. Ends when `shutdown` is cancelled: streams are closed,
/// requests under way finished.
///
/// # Errors
/// [`ServeError`] says which socket can't be had and what to do.
pub async fn serve(config: ServerConfig, handle: Handle, shutdown: CancellationToken) -> Result<Bound, ServeError> {
    let token_chars = config.token.expose().chars().count();
    if config.tcp.is_some() && token_chars < MIN_TOKEN_CHARS {
        return Err(ServeError::WeakToken { chars: token_chars, least: MIN_TOKEN_CHARS });
    }
    if config.unix_socket.is_none() && config.tcp.is_none() {
        return Err(ServeError::Nowhere);
    }
    let unix = match &config.unix_socket {
        Some(path) => Some(listen::UnixDoor::open(path).await?),
        None => None,
    };
    let tcp = match config.tcp {
        Some(addr) => Some(listen::open_tcp(addr).await?),
        None => None,
    };
    let tcp_addr = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
    let shutdown = shutdown.child_token();
    let door = auth::Door {
        token: config.token,
        person: Principal::person(config.local_user),
        own_uid: rustix::process::geteuid().as_raw(),
    };
    let connections = TaskTracker::new();
    let app = app::App {
        handle,
        secrets: config.secrets,
        version: config.version,
        started: Instant::now(),
        shutdown: shutdown.clone(),
        openapi_json: openapi_json().into(),
        changes: connections.clone(),
    };
    let host = listen::Host::new(app::service(app, door), connections.clone(), shutdown.clone());
    if let Some(door) = unix {
        host.listen(listen::Listener::Unix(door));
    }
    if let Some(listener) = tcp {
        host.listen(listen::Listener::Tcp(listener));
    }
    connections.close();
    Ok(Bound {
        unix_socket: config.unix_socket,
        tcp: tcp_addr,
        connections,
        stopping: shutdown.clone(),
        _stop_when_dropped: shutdown.drop_guard(),
    })
}

/// The description of the API.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes::openapi()
}

/// The description as the file `docs/openapi.json` has it, ending in a line break.
#[must_use]
pub fn openapi_json() -> String {
    let mut text = openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}
