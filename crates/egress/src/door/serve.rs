//! One connection of the box, from its first byte to its end.
//!
//! hyper reads the requests and hands each to `connect` or `forward`; when an answer turned the
//! connection into something else (a tunnel, a websocket), that follows here, in the same task.
//! Absent: decisions.

use std::convert::Infallible;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::body::Body;
use super::tunnel::{self, Next};
use super::upstream::{Route, Upstream};
use super::{Inner, answer, connect, forward, framing};
use crate::audit::OpenRecord;
use crate::denial::Denial;
use crate::meter::{Activity, Meter, Metered};
use crate::target::Target;

/// Most headers of a request.
const MAX_HEADERS: usize = 128;

/// The box's side of a connection.
pub(super) type Client = Metered<UnixStream>;

/// What the requests of one connection share.
pub(super) struct Session {
    pub inner: Arc<Inner>,
    pub activity: Arc<Activity>,
    /// The tunnel's target, when the requests come out of an opened one.
    pub over: Option<Target>,
    next: Mutex<Option<Next>>,
    /// A connection to the far side that may be used again.
    kept: Mutex<Option<Upstream>>,
}

impl Session {
    fn new(inner: Arc<Inner>, activity: Arc<Activity>, over: Option<Target>) -> Arc<Self> {
        Arc::new(Self { inner, activity, over, next: Mutex::new(None), kept: Mutex::new(None) })
    }

    /// The record of a request that can't be read.
    fn unread(&self) -> OpenRecord {
        let scheme = if self.over.is_some() { "https" } else { "http" };
        let mut record = OpenRecord::new(&self.inner.book, "", scheme);
        if let Some(target) = &self.over {
            record.to(&target.host.to_string(), target.port);
        }
        record
    }

    /// What the connection turns into after this answer.
    pub(super) fn follow_with(&self, next: Next) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, upstream: Upstream) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
    }

    /// The kept connection, if it leads there.
    pub(super) fn kept(&self, route: &Route) -> Option<Upstream> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|upstream| upstream.route == *route)
    }
}

/// Serves a connection.
pub(super) async fn connection(stream: UnixStream, inner: Arc<Inner>, turns: Arc<Semaphore>) {
    let activity = Arc::new(Activity::new());
    let mut client = Metered::new(stream, Arc::new(Meter::inward(&activity)));
    let Ok(Ok(_turn)) = timeout(inner.limits.queue, turns.acquire_owned()).await else {
        let denial = Denial::TooManyConnections { limit: inner.limits.connections };
        OpenRecord::new(&inner.book, "", "").denied(&denial);
        inner.denials.turn().await;
        refuse(&mut client, "503 Service Unavailable", &denial).await;
        return;
    };
    let idle = inner.limits.idle;
    tokio::select! {
        () = activity.ceases(idle) => {}
        () = serve(client, inner, Arc::clone(&activity)) => {}
    }
}

/// A refusal outside of hyper.
async fn refuse<S: AsyncWrite + Unpin>(client: &mut S, status: &str, denial: &Denial) {
    let text = format!("chargehand: refused ({}): {denial}\n", denial.code());
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\nx-chargehand-denied: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        denial.code(),
        text.len()
    );
    // The box may be gone; there is nobody to tell then.
    let _ = client.write_all((head + &text).as_bytes()).await;
    let _ = client.shutdown().await;
}

async fn serve(client: Client, inner: Arc<Inner>, activity: Arc<Activity>) {
    let session = Session::new(inner, activity, None);
    match requests(client, &session).await {
        Some(Next::Open(opened)) => {
            if let Some((stream, target)) = tunnel::open(opened, &session).await {
                let inside = Session::new(Arc::clone(&session.inner), Arc::clone(&session.activity), Some(target));
                if let Some(Next::Switched(switched)) = requests(stream, &inside).await {
                    tunnel::switched(switched).await;
                }
            }
        }
        Some(Next::Blind(blind)) => tunnel::blind(blind, &session).await,
        Some(Next::Switched(switched)) => tunnel::switched(switched).await,
        None => {}
    }
}

/// Serves requests until the connection ends or turns into something else.
async fn requests<S>(mut stream: S, session: &Arc<Session>) -> Option<Next>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &session.inner.limits;
    let head = timeout(limits.head, framing::first_head(&mut stream, limits.head_bytes)).await.ok()?.ok()?;
    if let Some(detail) = framing::ambiguity(&head) {
        let denial = Denial::Ambiguous { detail: detail.to_owned() };
        session.unread().denied(&denial);
        session.inner.denials.turn().await;
        refuse(&mut stream, "400 Bad Request", &denial).await;
        return None;
    }
    let (reader, writer) = tokio::io::split(stream);
    let stream = tokio::io::join(Cursor::new(head).chain(reader), writer);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes.max(8192))
        .max_headers(MAX_HEADERS)
        .half_close(true);
    let service = service_fn(|request| {
        let session = Arc::clone(session);
        async move { Ok::<_, Infallible>(answer_to(request, &session).await) }
    });
    let served = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    if let Err(error) = served
        && error.is_parse()
    {
        let detail = "it is not HTTP/1, or its head is too large".to_owned();
        session.unread().denied(&Denial::Ambiguous { detail });
        session.inner.denials.turn().await;
    }
    session.next.lock().unwrap_or_else(PoisonError::into_inner).take()
}

async fn answer_to(request: Request<Incoming>, session: &Arc<Session>) -> Response<Body> {
    session.inner.requests.turn().await;
    let answer = if request.method() == Method::CONNECT && session.over.is_none() {
        connect::answer_to(request, session).await
    } else {
        forward::answer_to(request, session).await.unwrap_or_else(|denial| answer::denied(&denial))
    };
    if answer.headers().contains_key(answer::DENIED) {
        session.inner.denials.turn().await;
    }
    answer
}
