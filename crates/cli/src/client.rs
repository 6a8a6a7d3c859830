//! A typed client of the server on this machine, over its unix socket. Starts the server when none
//! runs.
//!
//! Absent: TCP and tokens; a program elsewhere talks to the API itself.

mod launch;
mod sse;

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use server::api::{Health, Problem};

use crate::failure::Failure;
use crate::settings::{Flags, Settings};
use crate::terminal;

pub use launch::{end_server, server_pid};
pub use sse::{Message, Parser};

/// How often a server that breaks connections off is looked at again, and after which pause.
const ENDING_LOOKS: u32 = 5;
const ENDING_PAUSE: Duration = Duration::from_millis(50);
/// How long the server may take to say that it is there.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take over an ordinary request.
const REQUEST_LIMIT: Duration = Duration::from_secs(120);
/// The host part of URLs; the socket decides who is spoken to.
const BASE: &str = "http://localhost";

/// A connection to the server of one data folder.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
}

/// Why no answer came.
#[derive(Debug)]
pub enum CallError {
    /// Nobody listens on the socket.
    NoServer,
    /// The connection broke or the answer took too long.
    Broken(String),
    /// The server refuses.
    Refused(Box<Problem>),
    /// The server says something that this version does not understand.
    Unreadable(String),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NoServer => Self::new(
                "no-server",
                "No server is running",
                "Start it with `chargehand serve`, or let any command start it.",
            ),
            CallError::Broken(why) => Self::new(
                "connection",
                "The server does not answer",
                format!(
                    "{why}\nIts log is server.log in the data folder. `chargehand stop` ends it; the next command starts it again, and nothing is lost."
                ),
            ),
            CallError::Refused(problem) => Self::from(*problem),
            CallError::Unreadable(why) => Self::new(
                "unreadable",
                "The server's answer can't be read",
                format!("{why}\nThe server may be of another version: `chargehand stop`, then try again."),
            ),
        }
    }
}

type Answer<T> = Result<T, CallError>;

impl Client {
    /// A client of a data folder's server, whether one runs or not.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .unix_socket(settings.socket_path())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Nothing here speaks TLS, and loading the system's certificates takes time.
            .tls_certs_only([])
            .build()
            .map_err(|error| Failure::new("client", "No connection can be made", error.to_string()))?;
        Ok(Self { http })
    }

    /// A client of a server that runs; starts one if none does.
    ///
    /// # Errors
    /// If the server can't be started, with the end of its log.
    pub async fn connect(settings: &Settings, flags: &Flags, quiet: bool) -> Result<Self, Failure> {
        let client = Self::new(settings)?;
        let health = match client.settled_health().await {
            Ok(health) => health,
            Err(CallError::NoServer) => launch::start(&client, settings, flags, quiet).await?,
            Err(error) => return Err(error.into()),
        };
        let own = env!("CARGO_PKG_VERSION");
        if health.version != own {
            terminal::remark(&format!(
                "note: the server is version {}, this command is {own}. `chargehand stop` ends the old server; the next command starts the new one.",
                health.version
            ));
        }
        Ok(client)
    }

    /// How the server is. One that ends at this very moment breaks the connection off first, and is
    /// no server a moment later.
    async fn settled_health(&self) -> Answer<Health> {
        for _ in 0..ENDING_LOOKS {
            match self.health().await {
                Err(CallError::Broken(_)) => tokio::time::sleep(ENDING_PAUSE).await,
                settled => return settled,
            }
        }
        self.health().await
    }

    /// How the server is.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn health(&self) -> Answer<Health> {
        let response = send(self.request(Method::GET, "/v1/health").timeout(HEALTH_LIMIT)).await?;
        read(response).await
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Answer<T> {
        let response = send(self.request(Method::GET, path).query(query).timeout(REQUEST_LIMIT)).await?;
        read(response).await
    }

    /// Reads bytes as they are.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn bytes(&self, path: &str) -> Answer<Vec<u8>> {
        let response = send(self.request(Method::GET, path).timeout(REQUEST_LIMIT)).await?;
        response.bytes().await.map(|bytes| bytes.to_vec()).map_err(|error| CallError::Broken(chain(&error)))
    }

    /// Asks for something; `key` makes it safe to repeat.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize, key: Option<&str>) -> Answer<T> {
        let mut request = self.request(Method::POST, path).json(body).timeout(REQUEST_LIMIT);
        if let Some(key) = key {
            request = request.header(server::api::IDEMPOTENCY_KEY, key);
        }
        read(send(request).await?).await
    }

    /// Stores something at a place of its own.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Answer<T> {
        read(send(self.request(Method::PUT, path).json(body).timeout(REQUEST_LIMIT)).await?).await
    }

    /// Removes something.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn delete(&self, path: &str, query: &impl Serialize) -> Answer<()> {
        send(self.request(Method::DELETE, path).query(query).timeout(REQUEST_LIMIT)).await.map(|_| ())
    }

    /// Opens the stream of a task's events after one of them.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn stream(&self, task: &str, after: u64) -> Answer<Response> {
        let request = self
            .request(Method::GET, &format!("/v1/tasks/{task}/events"))
            .header("accept", "text/event-stream")
            .header("last-event-id", after.to_string());
        send(request).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{BASE}{path}"))
    }
}

async fn send(request: RequestBuilder) -> Answer<Response> {
    let response = request.send().await.map_err(|error| {
        let nobody = error.is_connect() && refused(&error);
        if nobody { CallError::NoServer } else { CallError::Broken(chain(&error)) }
    })?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(CallError::Refused(Box::new(problem))),
        Err(_) => Err(CallError::Unreadable(format!(
            "{status}: {}",
            String::from_utf8_lossy(body.get(..200).unwrap_or(&body))
        ))),
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Answer<T> {
    let body = response.bytes().await.map_err(|error| CallError::Broken(chain(&error)))?;
    serde_json::from_slice(&body).map_err(|error| CallError::Unreadable(error.to_string()))
}

/// Whether the socket's file or folder is missing, or it is there and nobody listens.
fn refused(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind;
            return matches!(io.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::ConnectionRefused);
        }
        source = cause.source();
    }
    false
}

/// The last cause of an error, which says most: "connection refused" and not "request failed".
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// An error with its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
