//! The shell around the wires: one POST, its bytes into the decoder, limits on time and size.
//!
//! The HTTP client is made once per provider. For an `http://` URL it skips loading the system's
//! TLS roots. Redirects are not followed and the environment's proxies are not read: a key goes
//! where it was told to go. Absent: retries.

use std::collections::VecDeque;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, timeout_at};

use crate::error::{ErrorAnswer, ErrorKind, MAX_EXCERPT_BYTES, ModelError, classify};
use crate::finish::Draft;
use crate::provider::{EventStream, StreamEvent};
use crate::sse::{SseEvent, SseParser};
use crate::transcript::Wire;
use crate::usage::{Price, Usage};

/// Limits of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection stands.
    pub connect_ms: u64,
    /// From the request to the first byte of the answer's body. A local model reads its whole
    /// prompt in this time.
    pub first_byte_ms: u64,
    /// Between two pieces of the body.
    pub idle_ms: u64,
    /// From the request to the end of the answer, so that a drip ends too.
    pub total_ms: u64,
    /// All bytes of the body.
    pub body_bytes: usize,
    /// One line, and one event, of the body.
    pub event_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_ms: 10_000,
            first_byte_ms: 120_000,
            idle_ms: 60_000,
            total_ms: 1_800_000,
            body_bytes: 64 << 20,
            event_bytes: 8 << 20,
        }
    }
}

/// Reads a wire's events. Pure: the tests feed it bytes.
pub(crate) trait Decoder: Send + 'static {
    /// Takes one event and appends what it means to `out`. The answer is whole when that holds
    /// [`StreamEvent::Finished`]; nothing is given to the decoder after it, or after an error.
    fn event(&mut self, event: &SseEvent, out: &mut Vec<StreamEvent>) -> Result<(), ModelError>;

    /// The body ended between two events and the answer is not whole yet. A wire whose answers end
    /// with the body closes the answer here; for every other wire the stream broke off.
    fn end(&mut self, _out: &mut Vec<StreamEvent>) -> Result<(), ModelError> {
        Ok(())
    }
}

/// Where a provider is and how it is reached.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) wire: Wire,
    /// Where calls are posted, unless the wire names another place for each model.
    pub(crate) url: reqwest::Url,
    pub(crate) headers: HeaderMap,
    pub(crate) limits: Limits,
    pub(crate) proxy: Option<String>,
}

/// One provider's HTTP.
#[derive(Debug)]
pub(crate) struct Http {
    endpoint: Endpoint,
    client: reqwest::Client,
}

/// A header whose value is a key: never printed.
pub(crate) fn secret_header(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: &str,
) -> Result<(), reqwest::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(value)?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

impl Http {
    pub(crate) fn new(endpoint: Endpoint) -> Result<Arc<Self>, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_millis(endpoint.limits.connect_ms))
            .user_agent(concat!("chargehand/", env!("CARGO_PKG_VERSION")))
            .no_proxy();
        if let Some(proxy) = &endpoint.proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy)?);
        } else if endpoint.url.scheme() == "http" {
            builder = builder.tls_certs_only([]);
        }
        Ok(Arc::new(Self { client: builder.build()?, endpoint }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.endpoint.name
    }

    /// A draft of the answer to a call of `model`.
    pub(crate) fn draft(&self, model: &str, price: Option<Price>) -> Draft {
        Draft {
            provider: self.endpoint.name.clone(),
            wire: self.endpoint.wire,
            model: model.to_owned(),
            answered_by: String::new(),
            price,
            request_id: None,
            usage: Usage::default(),
        }
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> ModelError {
        ModelError::new(kind, &self.endpoint.name, message)
    }

    pub(crate) fn url(&self) -> &reqwest::Url {
        &self.endpoint.url
    }

    /// Posts `body` to the endpoint's URL and streams what the decoder makes of the answer. `decoder` is made once the
    /// answer's headers are there; it gets the provider's id of the call.
    pub(crate) fn stream<D: Decoder>(
        self: &Arc<Self>,
        body: Result<Vec<u8>, serde_json::Error>,
        decoder: impl FnOnce(Option<String>) -> D + Send + 'static,
    ) -> EventStream {
        self.stream_from(self.endpoint.url.clone(), body, decoder)
    }

    /// As [`Self::stream`], with a URL of this call's own.
    pub(crate) fn stream_from<D: Decoder>(
        self: &Arc<Self>,
        url: reqwest::Url,
        body: Result<Vec<u8>, serde_json::Error>,
        decoder: impl FnOnce(Option<String>) -> D + Send + 'static,
    ) -> EventStream {
        let http = Arc::clone(self);
        let opened = async move {
            let body = body.map_err(|why| {
                http.error(ErrorKind::BadRequest, format!("the request cannot be written as JSON: {why}"))
            })?;
            Call::open(http, url, body, decoder).await
        };
        let events = stream::once(opened).flat_map(|opened| match opened {
            Ok(call) => stream::unfold(Some(call), Call::step).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        });
        events.boxed()
    }
}

/// A call whose answer has begun.
struct Call<D> {
    http: Arc<Http>,
    response: reqwest::Response,
    decoder: D,
    parser: SseParser,
    ready: VecDeque<StreamEvent>,
    fault: Option<ModelError>,
    received_bytes: usize,
    /// When the next piece must be there.
    due: Instant,
    due_ms: u64,
    end: Instant,
}

impl<D: Decoder> Call<D> {
    async fn open(
        http: Arc<Http>,
        url: reqwest::Url,
        body: Vec<u8>,
        decoder: impl FnOnce(Option<String>) -> D,
    ) -> Result<Self, ModelError> {
        let limits = http.endpoint.limits;
        let now = Instant::now();
        let (due, end) =
            (now + Duration::from_millis(limits.first_byte_ms), now + Duration::from_millis(limits.total_ms));
        let request = http.client.post(url).headers(http.endpoint.headers.clone()).body(body).send();
        let response = match timeout_at(due.min(end), request).await {
            Err(_) => return Err(http.silence(limits.first_byte_ms, "the server did not answer")),
            Ok(Err(why)) => {
                let host = http.endpoint.url.host_str().unwrap_or_default();
                let what =
                    if why.is_connect() { "cannot be reached" } else { "broke the connection before its answer" };
                return Err(
                    http.error(ErrorKind::Unreachable, format!("{host} {what}: {}", causes(&why.without_url())))
                );
            }
            Ok(Ok(response)) => response,
        };
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let content_type = header("content-type").unwrap_or_default();
        if !response.status().is_success()
            || content_type.starts_with("application/json")
            || content_type.starts_with("text/html")
        {
            return Err(http.refused(response, due.min(end)).await);
        }
        let id = header("request-id").or_else(|| header("x-request-id"));
        let parser = SseParser::new(limits.event_bytes);
        Ok(Self {
            http,
            response,
            decoder: decoder(id),
            parser,
            ready: VecDeque::new(),
            fault: None,
            received_bytes: 0,
            due,
            due_ms: limits.first_byte_ms,
            end,
        })
    }

    async fn step(call: Option<Self>) -> Option<(Result<StreamEvent, ModelError>, Option<Self>)> {
        let mut call = call?;
        loop {
            if let Some(event) = call.ready.pop_front() {
                let rest = if matches!(event, StreamEvent::Finished(_)) { None } else { Some(call) };
                return Some((Ok(event), rest));
            }
            if let Some(error) = call.fault.take() {
                return Some((Err(error), None));
            }
            if let Err(error) = call.read().await {
                call.fault = Some(error);
            }
        }
    }

    /// Reads one piece. Events that it completes are kept even if a fault follows them.
    async fn read(&mut self) -> Result<(), ModelError> {
        let limits = self.http.endpoint.limits;
        let chunk = match timeout_at(self.due.min(self.end), self.response.chunk()).await {
            Err(_) if self.due <= self.end => return Err(self.http.silence(self.due_ms, "the server fell silent")),
            Err(_) => return Err(self.http.silence(limits.total_ms, "the answer did not end in time")),
            Ok(Err(why)) => {
                return Err(self.http.error(
                    ErrorKind::Broken,
                    format!("the connection broke during the answer: {}", causes(&why.without_url())),
                ));
            }
            Ok(Ok(None)) => {
                let mut out = Vec::new();
                let result = decode_end(&self.parser, &mut self.decoder, &mut out);
                self.ready.extend(out);
                return match self.ready.back() {
                    Some(StreamEvent::Finished(_)) => result,
                    _ => Err(result.err().unwrap_or_else(|| {
                        self.http.error(ErrorKind::Broken, "the stream ended before the answer was whole")
                    })),
                };
            }
            Ok(Ok(Some(chunk))) => chunk,
        };
        (self.due, self.due_ms) = (Instant::now() + Duration::from_millis(limits.idle_ms), limits.idle_ms);
        self.received_bytes = self.received_bytes.saturating_add(chunk.len());
        if self.received_bytes > limits.body_bytes {
            return Err(self
                .http
                .error(ErrorKind::TooLarge, format!("the answer has more than {} bytes", limits.body_bytes)));
        }
        let mut out = Vec::new();
        let result = decode_chunk(&mut self.parser, &mut self.decoder, &chunk, &mut out);
        self.ready.extend(out);
        result.map_err(|fault| match fault {
            ChunkFault::Model(error) => error,
            ChunkFault::Sse(fault @ crate::sse::SseFault::TooLong { .. }) => {
                self.http.error(ErrorKind::TooLarge, fault.to_string())
            }
            ChunkFault::Sse(fault) => self.http.error(ErrorKind::Broken, fault.to_string()).with_excerpt(&chunk),
        })
    }
}

/// Why a chunk could not be decoded.
#[derive(Debug)]
pub(crate) enum ChunkFault {
    Sse(crate::sse::SseFault),
    Model(ModelError),
}

/// Gives a chunk to the parser and its events to the decoder, up to the end of the answer.
pub(crate) fn decode_chunk(
    parser: &mut SseParser,
    decoder: &mut dyn Decoder,
    chunk: &[u8],
    out: &mut Vec<StreamEvent>,
) -> Result<(), ChunkFault> {
    let mut events = Vec::new();
    let parsed = parser.push(chunk, &mut events);
    for event in &events {
        decoder.event(event, out).map_err(ChunkFault::Model)?;
        if matches!(out.last(), Some(StreamEvent::Finished(_))) {
            return Ok(());
        }
    }
    parsed.map_err(ChunkFault::Sse)
}

/// Tells the decoder that the body ended. Half an event means that it was cut.
pub(crate) fn decode_end(
    parser: &SseParser,
    decoder: &mut dyn Decoder,
    out: &mut Vec<StreamEvent>,
) -> Result<(), ModelError> {
    if parser.is_between_events() { decoder.end(out) } else { Ok(()) }
}

impl Http {
    fn silence(&self, idle_ms: u64, what: &str) -> ModelError {
        self.error(ErrorKind::Silent { idle_ms }, format!("{what} within {idle_ms} ms"))
    }

    /// What an answer that is no stream means. Reads no more of it than an error needs.
    async fn refused(&self, mut response: reqwest::Response, until: Instant) -> ModelError {
        let mut body = Vec::new();
        while body.len() < 8 * MAX_EXCERPT_BYTES {
            match timeout_at(until, response.chunk()).await {
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
                _ => break,
            }
        }
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let error = classify(&ErrorAnswer {
            provider: &self.endpoint.name,
            wire: self.endpoint.wire,
            status: status.as_u16(),
            retry_after_ms: header("retry-after-ms"),
            retry_after: header("retry-after"),
            date: header("date"),
            body: &body,
        });
        if status.is_success() {
            let message = format!(
                "{} answers, but not with an event stream; is the URL right?",
                self.endpoint.url.host_str().unwrap_or_default()
            );
            return ModelError { kind: ErrorKind::BadRequest, message, ..error };
        }
        if status.is_redirection() {
            let message =
                format!("the server redirects ({status}), which is not followed with a key; give the final URL");
            return ModelError { kind: ErrorKind::BadRequest, message, ..error };
        }
        error
    }
}

/// An error and what caused it, in one line.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}
