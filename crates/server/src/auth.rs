//! Who calls. Each request is some principal's, or it goes no further.
//!
//! ```text
//! unix socket   the kernel says which user the peer is: ours or root → person:<local user>
//! TCP           Authorization: Bearer <token>, compared in constant time → person:<local user>
//! /v1/health    open to all, and tells strangers only that it is alive
//! ```
//!
//! Absent: sessions, cookies and CORS. No browser page of another origin can make a request that
//! counts, because it can send neither the token nor a foreign `Host`.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use domain::id::Digest;
use domain::principal::Principal;
use store::Secret;

use crate::api::ProblemType;
use crate::error::Failure;

/// Fewest characters of a token: one that can be guessed protects nothing.
pub const MIN_TOKEN_CHARS: usize = 16;
/// The one path that needs no sign-in.
pub(crate) const HEALTH_PATH: &str = "/v1/health";

/// Whether `given` is the token. Both are hashed first, so that neither length nor content shows in
/// the time that this takes.
fn is_token(token: &Secret, given: &[u8]) -> bool {
    let (ours, theirs) = (Digest::of(token.expose().as_bytes()), Digest::of(given));
    let pairs = ours.as_str().bytes().zip(theirs.as_str().bytes());
    let difference = pairs.fold(0_u8, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    difference == 0
}

/// The other end of a connection, known when it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// On the unix socket, with the user id that the kernel gives; nothing if it gives none.
    Unix {
        /// The user id.
        uid: Option<u32>,
    },
    /// On TCP.
    Tcp,
}

/// What sign-in is checked against.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) token: Secret,
    pub(crate) person: Principal,
    /// The user whose server this is.
    pub(crate) own_uid: u32,
}

impl Door {
    /// The principal that a request is made by.
    pub(crate) fn who(&self, peer: Peer, headers: &HeaderMap) -> Result<Principal, Failure> {
        match peer {
            Peer::Unix { uid: Some(uid) } if uid == self.own_uid || uid == 0 => Ok(self.person.clone()),
            Peer::Unix { uid } => {
                let who = uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
                let detail = format!("this server belongs to user {}, and you are {who}; run your own", self.own_uid);
                Err(Failure::new(ProblemType::Forbidden, detail))
            }
            Peer::Tcp => match bearer(headers) {
                Some(given) if is_token(&self.token, given) => Ok(self.person.clone()),
                Some(_) => Err(unauthorized("the bearer token is not this server's")),
                None => Err(unauthorized("the request has no bearer token")),
            },
        }
    }

    /// Whether a TCP request was meant for this server. A page that had its own name resolved to
    /// our address (DNS rebinding) sends that name as `Host`; an IP address can't be rebound.
    fn check_host(request: &Request) -> Result<(), Failure> {
        let named = request.uri().authority().map(|authority| authority.as_str());
        let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let Some(host) = named.or(header).map(host_only) else {
            return Err(Failure::new(ProblemType::MalformedRequest, "the request has no `Host` header"));
        };
        let is_address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        if is_address || host.eq_ignore_ascii_case("localhost") {
            return Ok(());
        }
        let detail = format!(
            "this server does not answer to the name `{}`; call it by its IP address or as `localhost`",
            host.chars().take(100).collect::<String>()
        );
        Err(Failure::new(ProblemType::WrongHost, detail))
    }
}

fn unauthorized(what: &str) -> Failure {
    let detail = format!("{what}; send `Authorization: Bearer <token>`, or use the unix socket in the data folder");
    Failure::new(ProblemType::Unauthorized, detail)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// A `Host` without its port.
fn host_only(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Whoever makes this request. Its absence is a mistake of this crate, never a way in.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Principal);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| unauthorized("the request is nobody's"))
    }
}

/// Lets a request in with its [`Caller`], or turns it away.
pub(crate) async fn admit(State(door): State<std::sync::Arc<Door>>, mut request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return unauthorized("the connection's other end is not known").into_response();
    };
    if peer == Peer::Tcp
        && let Err(failure) = Door::check_host(&request)
    {
        return failure.into_response();
    }
    match door.who(peer, request.headers()) {
        Ok(person) => {
            request.extensions_mut().insert(Caller(person));
        }
        Err(_) if request.uri().path() == HEALTH_PATH => {}
        Err(failure) => return failure.into_response(),
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn door() -> Door {
        Door { token: Secret::new("0123456789abcdef"), person: Principal::person("ada"), own_uid: 1000 }
    }

    fn with_authorization(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn on_tcp_only_the_whole_token_opens_the_door() {
        let door = door();
        for bad in
            ["", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Basic 0123456789abcdef"]
        {
            let failure = door.who(Peer::Tcp, &with_authorization(bad)).unwrap_err();
            assert_eq!(failure.problem().status, 401, "{bad:?}");
        }
        assert_eq!(door.who(Peer::Tcp, &HeaderMap::new()).unwrap_err().problem().status, 401);
        for good in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef"] {
            assert_eq!(door.who(Peer::Tcp, &with_authorization(good)).unwrap(), Principal::person("ada"));
        }
    }

    #[test]
    fn on_the_unix_socket_the_owner_and_root_are_the_local_person_and_nobody_else_is() {
        let door = door();
        for uid in [1000, 0] {
            assert_eq!(door.who(Peer::Unix { uid: Some(uid) }, &HeaderMap::new()).unwrap().name, "ada");
        }
        for uid in [Some(1001), None] {
            let failure = door.who(Peer::Unix { uid }, &with_authorization("Bearer 0123456789abcdef")).unwrap_err();
            assert_eq!(failure.problem().status, 403);
        }
    }

    #[test]
    fn a_host_name_that_a_stranger_could_point_here_is_refused() {
        let request = |host: &str| Request::get("/v1/tasks").header("host", host).body(Body::empty()).unwrap();
        for good in ["127.0.0.1:8080", "127.0.0.1", "[::1]:8080", "localhost:1", "LOCALHOST"] {
            assert!(Door::check_host(&request(good)).is_ok(), "{good}");
        }
        for bad in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", ""] {
            assert_eq!(Door::check_host(&request(bad)).unwrap_err().problem().status, 421, "{bad}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert!(!format!("{:?}", door()).contains("0123456789abcdef"));
    }
}
