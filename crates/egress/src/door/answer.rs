//! What the door itself answers: refusals and failures, in words that help whoever reads them in a
//! log of a build.
//!
//! Absent: anything that came from the far side.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::Body;
use crate::denial::Denial;

/// Names the reason of a refusal.
pub(super) const DENIED: HeaderName = HeaderName::from_static("x-chargehand-denied");

pub(super) fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A refusal. The connection ends with it, so that nothing that follows can be misread.
pub(super) fn denied(denial: &Denial) -> Response<Body> {
    let status = match denial {
        Denial::BadTarget { .. }
        | Denial::BadPath { .. }
        | Denial::HostMismatch
        | Denial::Ambiguous { .. }
        | Denial::NotForProxy => StatusCode::BAD_REQUEST,
        Denial::Unresolved { .. } | Denial::EncodedAnswer { .. } => StatusCode::BAD_GATEWAY,
        Denial::TooManyConnections { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    };
    let mut response = text(status, format!("chargehand: refused ({}): {denial}\n", denial.code()));
    response.headers_mut().insert(DENIED, HeaderValue::from_static(denial.code()));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A failure of something that was allowed.
pub(super) fn failed(failure: &str) -> Response<Body> {
    text(StatusCode::BAD_GATEWAY, format!("chargehand: allowed, but it failed: {failure}\n"))
}

/// A tunnel stands.
pub(super) fn connected() -> Response<Body> {
    Response::new(empty())
}
