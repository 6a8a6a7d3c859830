//! Which headers belong to one hop, which to the door, and which carry credentials.
//!
//! Absent: what is put into them; that is `inject`.

use hyper::HeaderMap;
use hyper::header::{self, HeaderName};

/// Headers that describe one connection and are never passed on, in either direction.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
];

/// Also not passed on; nothing should depend on them.
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers in which a box could carry credentials of its own.
const CREDENTIALS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    header::COOKIE,
    HeaderName::from_static("private-token"),
    HeaderName::from_static("x-api-key"),
];

/// Whether the door itself decides on a header, so that no secret can be placed there.
pub(crate) fn is_ours(name: &HeaderName) -> bool {
    let framing = [header::HOST, header::CONTENT_LENGTH, header::EXPECT, header::RANGE, header::ACCEPT_ENCODING];
    HOP_BY_HOP.contains(name) || framing.contains(name) || *name == PROXY_CONNECTION
}

/// Takes away what belongs to the hop, with all that `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        // A box can't have the framing taken away by naming it here.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP).chain([&PROXY_CONNECTION]) {
        headers.remove(name);
    }
}

/// Takes away credentials that the box brought along.
pub(crate) fn strip_credentials(headers: &mut HeaderMap) {
    for name in &CREDENTIALS {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn what_connection_names_goes_too_but_not_the_framing() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("X-Hop, close"));
        headers.append(header::CONNECTION, HeaderValue::from_static("content-length"));
        headers.append("x-hop", HeaderValue::from_static("1"));
        headers.append("proxy-connection", HeaderValue::from_static("keep-alive"));
        headers.append(header::PROXY_AUTHORIZATION, HeaderValue::from_static("Basic x"));
        headers.append(header::CONTENT_LENGTH, HeaderValue::from_static("3"));
        headers.append(header::ACCEPT, HeaderValue::from_static("*/*"));
        strip_hop_by_hop(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["content-length", "accept"]);
    }
}
