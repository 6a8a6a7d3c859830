//! One request that is seen: by an absolute address, or out of an opened tunnel.
//!
//! The steps are those of the crate's header, in that order, and each of them can only refuse.
//! Absent: what the decision is; that is `AllowList::request`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};

use super::answer;
use super::body::{Answer, Body, BodyError, Prefixed};
use super::serve::Session;
use super::tunnel::{Next, Switched};
use super::upstream::{Failure, Route, Upstream};
use crate::audit::OpenRecord;
use crate::decide::{Asked, Grant};
use crate::denial::Denial;
use crate::git::{Commands, read_commands};
use crate::headers;
use crate::inject::{check_placeholders, inject};
use crate::list::Scheme;
use crate::path::CleanPath;
use crate::redact::{KnownValues, Mask, Redactor};
use crate::target::{Authority, Target};

/// What was decided about a request.
struct Allowed {
    target: Target,
    path: CleanPath,
    grant: Grant,
    /// The protocol that it may switch to.
    switch: Option<HeaderValue>,
}

/// Answers a request; a denial is recorded already.
pub(super) async fn answer_to(request: Request<Incoming>, session: &Arc<Session>) -> Result<Response<Body>, Denial> {
    let scheme = if session.over.is_some() { "https" } else { request.uri().scheme_str().unwrap_or("http") };
    let mut record = OpenRecord::new(&session.inner.book, request.method().as_str(), scheme);
    match pass(request, session, &mut record).await {
        Ok(Passed::Answer(answered)) => deliver(*answered, session, record),
        Ok(Passed::Switch(switch)) => Ok(switch_over(*switch, session, record)),
        Ok(Passed::Failed(failure)) => {
            record.failed(&failure.to_string());
            Ok(answer::failed(&failure.to_string()))
        }
        Err(denial) => {
            record.denied(&denial);
            Err(denial)
        }
    }
}

enum Passed {
    Answer(Box<Answered>),
    Switch(Box<Switching>),
    Failed(Failure),
}

struct Answered {
    answer: Response<Incoming>,
    upstream: Upstream,
    /// What the answer is searched for.
    known: Option<KnownValues>,
}

struct Switching {
    client: hyper::upgrade::OnUpgrade,
    answered: Answered,
}

async fn pass(
    mut request: Request<Incoming>,
    session: &Arc<Session>,
    record: &mut OpenRecord,
) -> Result<Passed, Denial> {
    let client = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let allowed = decide(&parts, session, record)?;
    let inner = &session.inner;
    let body = body_of(body, &parts, &allowed.grant).await?;
    let mut headers = parts.headers;
    let known = prepare_headers(&mut headers, &allowed, session, record).await?;
    let route = Route {
        scheme: allowed.grant.scheme,
        target: Target { host: allowed.target.host.clone(), port: allowed.grant.port },
        private: allowed.grant.private,
    };
    let outgoing = outgoing(&parts.method, &allowed, &route, headers)?;
    let is_empty = body.is_end_stream();

    let mut unsent = Some(body);
    if is_empty
        && let Some(mut kept) = session.kept(&route)
        && kept.is_ready().await
    {
        record.dialled(kept.address, &kept.meter);
        // Nobody knows whether the far side had closed it; an empty request can be sent once more.
        if let Ok(answer) = kept.send(outgoing.clone().map(|()| answer::empty())).await {
            return Ok(passed(answer, kept, known, client, &allowed));
        }
    }
    let addresses = inner.addresses(&route.target, allowed.grant.private).await?;
    let mut upstream = match Upstream::open(inner, &session.activity, route, &addresses).await {
        Ok(upstream) => upstream,
        Err(failure) => return Ok(Passed::Failed(failure)),
    };
    record.dialled(upstream.address, &upstream.meter);
    let body = unsent.take().unwrap_or_else(answer::empty);
    match upstream.send(outgoing.map(|()| body)).await {
        Ok(answer) => Ok(passed(answer, upstream, known, client, &allowed)),
        Err(failure) => Ok(Passed::Failed(failure)),
    }
}

fn passed(
    answer: Response<Incoming>,
    upstream: Upstream,
    known: Option<KnownValues>,
    client: hyper::upgrade::OnUpgrade,
    allowed: &Allowed,
) -> Passed {
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS && allowed.switch.is_some();
    let answered = Answered { answer, upstream, known };
    if switches {
        return Passed::Switch(Box::new(Switching { client, answered }));
    }
    Passed::Answer(Box::new(answered))
}

/// Reads target and path in their one way and asks the list.
fn decide(parts: &Parts, session: &Session, record: &mut OpenRecord) -> Result<Allowed, Denial> {
    let (scheme, target) = target_of(parts, session, record)?;
    record.to(&target.host.to_string(), target.port);
    let inner = &session.inner;
    if let Some(cap_bytes) = inner.total.used_up() {
        return Err(Denial::ByteCap { cap_bytes });
    }
    let path = parts.uri.path_and_query();
    let path = CleanPath::parse(path.map_or("/", |path| path.path()), path.and_then(|path| path.query()))?;
    record.path(&path.sent());
    let grant = inner.list.request(Asked { scheme, target: &target, method: &parts.method, path: &path })?;
    record.allowed_by(&grant.entry);
    check_placeholders(&parts.headers, Some(&path), grant.secret.as_ref())?;
    let switch = parts.headers.get(header::UPGRADE).cloned();
    if switch.is_some() && !grant.upgrade {
        return Err(Denial::Upgrade);
    }
    Ok(Allowed { target, path, grant, switch })
}

/// Where the request goes; the request line, the `Host` header and the tunnel have to agree.
fn target_of(parts: &Parts, session: &Session, record: &mut OpenRecord) -> Result<(Scheme, Target), Denial> {
    let scheme = match (parts.uri.scheme_str(), &session.over) {
        (_, Some(_)) | (Some("https"), None) => Scheme::Https,
        (Some("http"), None) => Scheme::Http,
        _ => return Err(Denial::NotForProxy),
    };
    let in_line = match parts.uri.authority() {
        Some(authority) => {
            record.to(authority.as_str(), 0);
            Some(Authority::parse(authority.as_str())?.or_port(scheme.default_port()))
        }
        None => None,
    };
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let in_header = match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let text = host.to_str().map_err(|_| Denial::HostMismatch)?;
            Some(Authority::parse(text)?.or_port(scheme.default_port()))
        }
        (None, _) => None,
        (Some(_), Some(_)) => return Err(Denial::HostMismatch),
    };
    let target = match (&session.over, in_line, in_header) {
        (Some(over), line, Some(host)) if host == *over && line.as_ref().is_none_or(|line| line == over) => host,
        (None, Some(line), host) if host.as_ref().is_none_or(|host| *host == line) => line,
        _ => return Err(Denial::HostMismatch),
    };
    Ok((scheme, target))
}

/// The body as it is sent on. The beginning of a push is read first.
async fn body_of(mut body: Incoming, parts: &Parts, grant: &Grant) -> Result<Body, Denial> {
    if grant.push.is_empty() {
        return Ok(body.map_err(BodyError::from).boxed_unsync());
    }
    let refuse = |detail: &str| Denial::PushUnreadable { detail: detail.to_owned() };
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(refuse("it is compressed"));
    }
    let mut read = BytesMut::new();
    // Looked at whenever it has grown by a quarter, so that a push in single bytes costs no more.
    let mut next_look_bytes = 1;
    loop {
        let frame = body.frame().await.transpose().map_err(|_| refuse("it breaks off"))?;
        let is_end = frame.is_none();
        if let Some(Ok(data)) = frame.map(hyper::body::Frame::into_data) {
            read.extend_from_slice(&data);
        }
        if read.len() < next_look_bytes && !is_end {
            continue;
        }
        next_look_bytes = read.len() + read.len() / 4 + 1;
        let mut is_whole = true;
        for allowed in &grant.push {
            is_whole &= matches!(read_commands(&read, allowed)?, Commands::Allowed { .. });
        }
        if is_whole {
            break;
        }
        if is_end {
            return Err(refuse("it breaks off"));
        }
    }
    Ok(Prefixed { first: Some(read.freeze()), rest: body }.boxed_unsync())
}

/// Makes the box's headers those of the door; gives what the answer has to be searched for.
async fn prepare_headers(
    headers: &mut HeaderMap,
    allowed: &Allowed,
    session: &Session,
    record: &mut OpenRecord,
) -> Result<Option<KnownValues>, Denial> {
    headers::strip_hop_by_hop(headers);
    headers.remove(header::EXPECT);
    if allowed.grant.strip {
        headers::strip_credentials(headers);
    }
    if let Some(switch) = &allowed.switch {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, switch.clone());
    }
    let Some(bound) = &allowed.grant.secret else { return Ok(None) };
    let unavailable = |detail: String| Denial::SecretUnavailable { name: bound.name.clone(), detail };
    let secret = session.inner.secrets.secret(&bound.name).await.map_err(|error| unavailable(error.to_string()))?;
    let known = session.inner.compiled(&bound.name, &secret).map_err(|error| unavailable(error.to_string()))?;
    if known.occurs_in(allowed.path.sent().as_bytes()) {
        record.path("(it held the value of the secret)");
        return Err(unavailable("its value stands in the path".to_owned()));
    }
    inject(headers, bound, &secret)?;
    record.secret(&bound.name);
    // The answer is searched for the value; it can't be if it is compressed or comes in parts.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for name in [header::RANGE, header::IF_RANGE] {
        headers.remove(name);
    }
    Ok(Some(known))
}

/// The request as the far side gets it, without its body.
fn outgoing(
    method: &hyper::Method,
    allowed: &Allowed,
    route: &Route,
    mut headers: HeaderMap,
) -> Result<Request<()>, Denial> {
    let written = if route.target.port == route.scheme.default_port() {
        route.target.host.to_string()
    } else {
        route.target.to_string()
    };
    let refuse = |_| Denial::BadTarget { detail: "it can't be written as an address".to_owned() };
    headers.insert(header::HOST, HeaderValue::from_str(&written).map_err(|e| refuse(e.into()))?);
    let mut request = Request::builder()
        .method(method.clone())
        .uri(allowed.path.sent())
        .version(Version::HTTP_11)
        .body(())
        .map_err(refuse)?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The answer as the box gets it.
fn deliver(answered: Answered, session: &Arc<Session>, mut record: OpenRecord) -> Result<Response<Body>, Denial> {
    let Answered { answer, upstream, known } = answered;
    let (mut parts, incoming) = answer.into_parts();
    record.status(parts.status.as_u16());
    headers::strip_hop_by_hop(&mut parts.headers);
    // Only the door speaks for the door.
    parts.headers.remove(answer::DENIED);
    if let Some(known) = &known {
        let encoding = parts.headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity");
        if let Some(encoding) = encoding {
            let denial =
                Denial::EncodedAnswer { encoding: encoding.to_str().unwrap_or_default().chars().take(40).collect() };
            record.denied(&denial);
            return Err(denial);
        }
        redact_headers(&mut parts.headers, known);
    }
    let redactor = known.map(|known| Redactor::new(known, Mask::SameLength));
    let body =
        Answer { incoming, upstream: Some(upstream), redactor, record, session: Arc::clone(session), ended: false };
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Ok(Response::from_parts(parts, body.ready().boxed_unsync()))
}

fn redact_headers(headers: &mut HeaderMap, known: &KnownValues) {
    let named: Vec<HeaderName> =
        headers.keys().filter(|name| known.occurs_in(name.as_str().as_bytes())).cloned().collect();
    for name in named {
        headers.remove(name);
    }
    for value in headers.values_mut() {
        if known.occurs_in(value.as_bytes()) {
            let masked = Bytes::from(known.redact_bytes(value.as_bytes(), Mask::SameLength));
            *value = HeaderValue::from_maybe_shared(masked).unwrap_or_else(|_| HeaderValue::from_static("*"));
        }
    }
}

/// Hands both sides of a switched protocol to what follows.
fn switch_over(switching: Switching, session: &Session, mut record: OpenRecord) -> Response<Body> {
    let Switching { client, answered: Answered { mut answer, upstream, known } } = switching;
    record.status(answer.status().as_u16());
    let far = hyper::upgrade::on(&mut answer);
    let mut response = Response::new(answer::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    if let Some(known) = &known {
        redact_headers(response.headers_mut(), known);
    }
    let redactor = Redactor::new(known.unwrap_or_default(), Mask::SameLength);
    session.follow_with(Next::Switched(Switched { client, far, upstream, redactor, record }));
    response
}
