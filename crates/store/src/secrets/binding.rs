//! What a secret is called, for whom it is, where it may go and how it is added to a request.
//!
//! Each is checked when it is made, so that whoever holds one need not look again. Absent: hosts with
//! a wildcard. A secret that may go to any host under a name goes to one that somebody else has taken.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Most characters of a name.
const MAX_NAME_CHARS: usize = 64;
/// Most characters of an environment's name, a user or a header.
const MAX_WORD_CHARS: usize = 128;
/// Most bytes of a repository's origin.
const MAX_REPO_BYTES: usize = 4096;
/// Most characters of a DNS name.
const MAX_HOST_CHARS: usize = 253;
/// Where a host listens when none is said: TLS.
const DEFAULT_PORT: u16 = 443;
/// Headers by which a request is framed or routed; a secret there would change where it goes.
const UNUSABLE_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// What is wrong with a secret that should be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// Not a name.
    #[error(
        "`{name}` is no name for a secret: begin with a capital letter, go on with capital letters, digits and `_`, 64 in all"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// Not a repository.
    #[error("`{repo}` names no repository: give an absolute path or a URL without a password")]
    Repo {
        /// What was given.
        repo: String,
    },
    /// Not an environment.
    #[error("`{name}` names no environment: use 1 to 128 of a-z, A-Z, 0-9, `-`, `_` and `.`")]
    Environment {
        /// What was given.
        name: String,
    },
    /// Nowhere to go.
    #[error("the secret is bound to no host, so it could be sent nowhere; name each host that may get it")]
    NoHost,
    /// Not a host.
    #[error("`{host}` is no host: {why}")]
    Host {
        /// What was given.
        host: String,
        /// What is wrong, and what to write.
        why: &'static str,
    },
    /// Not a way to add it.
    #[error("`{given}` is no way to add a secret: {why}")]
    AddedAs {
        /// What was given.
        given: String,
        /// What is wrong, and what to write.
        why: &'static str,
    },
    /// No value.
    #[error("the value is empty")]
    EmptyValue,
    /// Too short to be found again in output.
    #[error(
        "the value has {bytes} bytes; under {least} it could not be told from ordinary output and would not be redacted"
    )]
    ShortValue {
        /// Its length.
        bytes: usize,
        /// The least.
        least: usize,
    },
    /// Too long.
    #[error("the value is longer than the {limit} bytes that are kept")]
    LongValue {
        /// The limit.
        limit: usize,
    },
    /// It can't stand in a header.
    #[error(
        "the value has a line break or another control character in it, or spaces at an end, and can't stand in a header"
    )]
    Unsendable,
}

fn printable(text: &str) -> String {
    text.escape_debug().take(80).collect()
}

/// What a secret is called: `[A-Z][A-Z0-9_]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

impl SecretName {
    /// A name from text.
    ///
    /// # Errors
    /// [`BadSecret::Name`].
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let rest = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let fine = text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.len() <= MAX_NAME_CHARS
            && text.bytes().all(rest);
        if fine { Ok(Self(text.to_owned())) } else { Err(BadSecret::Name { name: printable(text) }) }
    }
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// For whom a secret is. Of several with one name, the most specific one counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretScope {
    /// Every box of this server.
    Server,
    /// Boxes of one repository.
    Repository {
        /// Its origin, as tasks name it.
        repo: String,
    },
    /// Boxes of one environment of a repository.
    Environment {
        /// The repository's origin, as tasks name it.
        repo: String,
        /// The environment.
        name: String,
    },
}

impl SecretScope {
    /// A scope from its parts.
    ///
    /// # Errors
    /// [`BadSecret::Repo`] or [`BadSecret::Environment`]; an environment needs a repository.
    pub fn of(repo: Option<&str>, environment: Option<&str>) -> Result<Self, BadSecret> {
        match (repo, environment) {
            (None, None) => Ok(Self::Server),
            (None, Some(_)) => Err(BadSecret::Repo { repo: String::new() }),
            (Some(repo), None) => Ok(Self::Repository { repo: checked_repo(repo)? }),
            (Some(repo), Some(name)) => {
                let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
                if name.is_empty() || name.len() > MAX_WORD_CHARS || !name.bytes().all(fine) {
                    return Err(BadSecret::Environment { name: printable(name) });
                }
                Ok(Self::Environment { repo: checked_repo(repo)?, name: name.to_owned() })
            }
        }
    }
    /// The repository, if it is for one.
    #[must_use]
    pub fn repo(&self) -> Option<&str> {
        match self {
            Self::Server => None,
            Self::Repository { repo } | Self::Environment { repo, .. } => Some(repo),
        }
    }
    /// The environment, if it is for one.
    #[must_use]
    pub fn environment(&self) -> Option<&str> {
        match self {
            Self::Server | Self::Repository { .. } => None,
            Self::Environment { name, .. } => Some(name),
        }
    }
}

fn checked_repo(repo: &str) -> Result<String, BadSecret> {
    let named = repo.starts_with('/') || repo.contains(':');
    let authority = repo.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    let user = authority.and_then(|authority| authority.rsplit_once('@')).map(|(user, _)| user);
    // A lone user name of an http URL is as often a token as a name.
    let password = user.is_some_and(|user| user.contains(':') || repo.starts_with("http"));
    let fine = named && !password && repo.len() <= MAX_REPO_BYTES && !repo.chars().any(char::is_control);
    let shown = if password { "the URL with a password in it".to_owned() } else { printable(repo) };
    if fine { Ok(repo.to_owned()) } else { Err(BadSecret::Repo { repo: shown }) }
}

impl fmt::Display for SecretScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("the whole server"),
            Self::Repository { repo } => write!(f, "repository {repo}"),
            Self::Environment { repo, name } => write!(f, "environment {name} of {repo}"),
        }
    }
}

/// A host to which a secret may go: `name`, `name:port`, an IPv4 address, or `[IPv6]`, in lower case.
/// Without a port it is 443.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHost(String);

impl SecretHost {
    /// A host from text.
    ///
    /// # Errors
    /// [`BadSecret::Host`] says what to write instead.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let bad = |why| BadSecret::Host { host: printable(text), why };
        let lower = text.trim().to_ascii_lowercase();
        if lower.contains("://") || lower.contains('/') || lower.contains('@') {
            return Err(bad("write the host alone, such as api.example.com, without a scheme, user or path"));
        }
        if lower.contains('*') {
            return Err(bad("a secret goes to hosts that are named, not to whatever fits a pattern; name each one"));
        }
        let (name, port) = split_port(&lower).ok_or_else(|| bad("the port has to be a number from 1 to 65535"))?;
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let fine = match is_v6 {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => is_name(name),
        };
        if !fine {
            return Err(bad("write a DNS name such as api.example.com, an IPv4 address, or an IPv6 address in []"));
        }
        Ok(Self(match port {
            Some(port) if port != DEFAULT_PORT => format!("{name}:{port}"),
            _ => name.to_owned(),
        }))
    }
    /// The host, with its port unless that is 443.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The host without a port, IPv6 in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        split_port(&self.0).map_or(&self.0, |(name, _)| name)
    }
    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        split_port(&self.0).and_then(|(_, port)| port).unwrap_or(DEFAULT_PORT)
    }
    /// Whether a request to this host and port may carry the secret. `host` may be in any case.
    #[must_use]
    pub fn is(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        self.port() == port && bare(self.host()) == bare(host)
    }
}

fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What looks like an address has to be one: `127.1` and `0x7f.1` mean one to some programs.
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with(|c: char| c.is_ascii_digit());
    name.len() <= MAX_HOST_CHARS && name.split('.').all(label) && (!numeric || name.parse::<Ipv4Addr>().is_ok())
}

/// Name and port; nothing if the port is none.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            let port = port.parse().ok().filter(|port| digits && *port != 0)?;
            Some((name, Some(port)))
        }
        _ => Some((text, None)),
    }
}

/// How a secret is added to a request that may carry it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AddedAs {
    /// `Authorization: Bearer <value>`.
    Bearer,
    /// `Authorization: Basic <user:value>`, encoded; what git and most registries take.
    Basic {
        /// The user.
        user: String,
    },
    /// `<name>: <value>`.
    Header {
        /// The header, in lower case.
        name: String,
    },
}

impl AddedAs {
    /// A way from its text: `bearer`, `basic:USER` or `header:NAME`.
    ///
    /// # Errors
    /// [`BadSecret::AddedAs`].
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let bad = |why| BadSecret::AddedAs { given: printable(text), why };
        match text.split_once(':') {
            None if text == "bearer" => Ok(Self::Bearer),
            Some(("basic", user)) => {
                let fine = |c: char| !c.is_control() && c != ':';
                if user.is_empty() || user.len() > MAX_WORD_CHARS || !user.chars().all(fine) {
                    return Err(bad("a user has 1 to 128 characters and no colon"));
                }
                Ok(Self::Basic { user: user.to_owned() })
            }
            Some(("header", name)) => {
                let name = name.to_ascii_lowercase();
                let fine = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                if name.is_empty() || name.len() > MAX_WORD_CHARS || !name.bytes().all(fine) {
                    return Err(bad("that is no name of a header"));
                }
                if UNUSABLE_HEADERS.contains(&name.as_str()) {
                    return Err(bad("that header decides where a request goes or how long it is"));
                }
                Ok(Self::Header { name })
            }
            _ => Err(bad("write bearer, basic:USER or header:NAME")),
        }
    }
}

impl fmt::Display for AddedAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("bearer"),
            Self::Basic { user } => write!(f, "basic:{user}"),
            Self::Header { name } => write!(f, "header:{name}"),
        }
    }
}

impl From<AddedAs> for String {
    fn from(added_as: AddedAs) -> Self {
        added_as.to_string()
    }
}

impl TryFrom<String> for AddedAs {
    type Error = BadSecret;
    fn try_from(text: String) -> Result<Self, BadSecret> {
        Self::parse(&text)
    }
}

macro_rules! texts {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl TryFrom<String> for $name {
            type Error = BadSecret;
            fn try_from(text: String) -> Result<Self, BadSecret> { Self::parse(&text) }
        }
        impl From<$name> for String {
            fn from(text: $name) -> Self { text.0 }
        }
    )*};
}

texts! { SecretName SecretHost }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_variables() {
        for good in ["A", "NPM_TOKEN", "T0", &"A".repeat(64)] {
            assert_eq!(SecretName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a", "_A", "0A", "A-B", "A B", "É", &"A".repeat(65)] {
            assert!(SecretName::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_host_is_one_host_in_one_way_of_writing() {
        let check = |text: &str, written: &str, port: u16| {
            let host = SecretHost::parse(text).unwrap();
            assert_eq!((host.as_str(), host.port()), (written, port), "{text}");
            assert!(host.is(host.host(), port) && !host.is(host.host(), port ^ 1));
            assert_eq!(SecretHost::parse(host.as_str()).unwrap(), host);
        };
        check("API.Example.com.", "api.example.com", 443);
        check("api.example.com:443", "api.example.com", 443);
        check("localhost:8080", "localhost:8080", 8080);
        check("127.0.0.1:81", "127.0.0.1:81", 81);
        check("[::1]", "[::1]", 443);
        check("[::1]:8443", "[::1]:8443", 8443);
        assert!(SecretHost::parse("api.example.com").unwrap().is("API.example.com.", 443));
        assert!(!SecretHost::parse("example.com").unwrap().is("api.example.com", 443));
        for bad in [
            "",
            ".",
            "https://h",
            "h/x",
            "me@h",
            "*.h",
            "h:0",
            "h:x",
            "h:70000",
            "h:+1",
            "a b",
            "h\n",
            "::1",
            "127.1",
            "1.2.3.999",
            "0x7f.1",
            "-h",
            "h..x",
            "[::1",
            "é.fr",
        ] {
            // A line end at the edge is the shell's; everything inside counts.
            assert!(SecretHost::parse(bad).is_err() || bad == "h\n", "{bad:?} was taken");
        }
    }

    #[test]
    fn a_way_to_add_a_secret_is_written_as_it_is_read() {
        for text in ["bearer", "basic:x-access-token", "header:x-api-key", "header:authorization"] {
            assert_eq!(AddedAs::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "Bearer", "basic", "basic:", "basic:a:b", "header:", "header:a b", "header:Host", "query:x"] {
            assert!(AddedAs::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_scope_needs_what_it_is_part_of() {
        assert!(SecretScope::of(None, Some("ci")).is_err());
        assert!(SecretScope::of(Some("relative"), None).is_err());
        assert!(SecretScope::of(Some("/r"), Some("")).is_err());
        let error = SecretScope::of(Some("https://me:hunter2@h/x"), None).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        for good in ["/r", "https://h/x.git", "git@h:a/b.git", "ssh://git@h/x"] {
            assert!(SecretScope::of(Some(good), Some("ci")).is_ok(), "{good}");
        }
    }
}
