//! Why something may not leave a box: one typed reason for each, in words for the person.
//!
//! The reason goes to the box (so that an agent can say what it lacks) and into the record. Absent:
//! anything secret, and anything that the far side said.

use serde::{Deserialize, Serialize};

/// The reason of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Denial {
    /// The list is empty, missing or broken.
    #[error("nothing may leave this box: its allow-list is empty")]
    NothingAllowed,
    /// No entry names the host.
    #[error("the host {host} is not on the allow-list; add an entry for it if the task needs it")]
    HostNotListed {
        /// The canonical host.
        host: String,
    },
    /// The host is listed, but not with this port.
    #[error("port {port} of {host} is not on the allow-list; add it to `ports` of the entry")]
    PortNotListed {
        /// The canonical host.
        host: String,
        /// The port asked for.
        port: u16,
    },
    /// The host is listed, but not with this method.
    #[error("{method} is not allowed there; the entry's `methods` say what is")]
    MethodNotAllowed {
        /// The method asked for.
        method: String,
    },
    /// The host is listed, but not with this path.
    #[error("this path is not allowed there; the entry's `paths` say which are")]
    PathNotAllowed,
    /// The target can't be read in exactly one way.
    #[error("the target is refused: {detail}")]
    BadTarget {
        /// What is wrong with it.
        detail: String,
    },
    /// The path can't be read in exactly one way.
    #[error("the path is refused: {detail}")]
    BadPath {
        /// What is wrong with it.
        detail: String,
    },
    /// The `Host` header names another target than the request line.
    #[error("the Host header and the request's target differ")]
    HostMismatch,
    /// The server name inside TLS is another than that of the tunnel.
    #[error("the TLS server name and the tunnel's target differ")]
    SniMismatch,
    /// A tunnel to a name whose TLS hello names no server.
    #[error("the TLS hello names no server, so it can't be compared with the tunnel's target")]
    SniMissing,
    /// What comes through a tunnel should be TLS and is not.
    #[error("only TLS may pass through this tunnel; for plain HTTP ask the proxy with an http:// address")]
    NotTls,
    /// The host's name leads to an address that is not public.
    #[error(
        "{host} leads to {address}, which is not a public address; a company's own host has to be among `private_hosts` of the server's settings"
    )]
    PrivateAddress {
        /// The canonical host.
        host: String,
        /// The address that was refused.
        address: String,
    },
    /// An address that no entry can allow: metadata, link-local, multicast, or this server's own.
    #[error("{host} leads to {address}, which no entry can allow")]
    ForbiddenAddress {
        /// The canonical host.
        host: String,
        /// The address that was refused.
        address: String,
    },
    /// The name has no address.
    #[error("the name {host} could not be resolved")]
    Unresolved {
        /// The canonical host.
        host: String,
    },
    /// A placeholder of a secret went where the secret is not bound.
    #[error("the placeholder of a secret was sent to a place that the secret is not bound to")]
    PlaceholderElsewhere,
    /// The entry's secret is not there, or not fit to be sent.
    #[error("the secret {name} can't be used: {detail}")]
    SecretUnavailable {
        /// Its name.
        name: String,
        /// Why, without its value.
        detail: String,
    },
    /// A protocol change that the entry does not allow.
    #[error("protocol upgrades, such as websockets, are not allowed there")]
    Upgrade,
    /// A message whose length can be read in two ways.
    #[error("the request's framing is ambiguous: {detail}")]
    Ambiguous {
        /// What is ambiguous.
        detail: String,
    },
    /// A request that is no proxy request.
    #[error("this is a proxy: the request needs an absolute address or CONNECT")]
    NotForProxy,
    /// The box has used up its bytes.
    #[error("this box has used up the {cap_bytes} bytes that it may move")]
    ByteCap {
        /// The cap.
        cap_bytes: u64,
    },
    /// Too many connections at once.
    #[error("this box has {limit} connections open, as many as it may")]
    TooManyConnections {
        /// The limit.
        limit: usize,
    },
    /// A push to a ref that is not the task's.
    #[error("a push may only update {allowed}, not {refname}")]
    PushRef {
        /// The ref that was to be updated.
        refname: String,
        /// The ref that may be.
        allowed: String,
    },
    /// A push that says more than ref updates, or can't be read.
    #[error("the push is refused: {detail}")]
    PushUnreadable {
        /// What is wrong with it.
        detail: String,
    },
    /// TLS would have to be ended here, and there is no authority for it.
    #[error("requests to this host must be seen, and this box has no authority for it; use an http:// address")]
    NoAuthority,
    /// An answer that can't be searched for the secret that was sent.
    #[error("the answer is encoded ({encoding}) although that was declined, so it can't be searched for the secret")]
    EncodedAnswer {
        /// Its `Content-Encoding`.
        encoding: String,
    },
}

impl Denial {
    /// The reason's name, as in the record.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NothingAllowed => "nothing_allowed",
            Self::HostNotListed { .. } => "host_not_listed",
            Self::PortNotListed { .. } => "port_not_listed",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::PathNotAllowed => "path_not_allowed",
            Self::BadTarget { .. } => "bad_target",
            Self::BadPath { .. } => "bad_path",
            Self::HostMismatch => "host_mismatch",
            Self::SniMismatch => "sni_mismatch",
            Self::SniMissing => "sni_missing",
            Self::NotTls => "not_tls",
            Self::PrivateAddress { .. } => "private_address",
            Self::ForbiddenAddress { .. } => "forbidden_address",
            Self::Unresolved { .. } => "unresolved",
            Self::PlaceholderElsewhere => "placeholder_elsewhere",
            Self::SecretUnavailable { .. } => "secret_unavailable",
            Self::Upgrade => "upgrade",
            Self::Ambiguous { .. } => "ambiguous",
            Self::NotForProxy => "not_for_proxy",
            Self::ByteCap { .. } => "byte_cap",
            Self::TooManyConnections { .. } => "too_many_connections",
            Self::PushRef { .. } => "push_ref",
            Self::PushUnreadable { .. } => "push_unreadable",
            Self::NoAuthority => "no_authority",
            Self::EncodedAnswer { .. } => "encoded_answer",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_reason_in_the_record() {
        for denial in [
            Denial::NothingAllowed,
            Denial::PathNotAllowed,
            Denial::HostNotListed { host: "a".into() },
            Denial::PushRef { refname: "a".into(), allowed: "b".into() },
            Denial::EncodedAnswer { encoding: "gzip".into() },
        ] {
            let json = serde_json::to_value(&denial).unwrap();
            assert_eq!(json["reason"], denial.code());
        }
    }
}
