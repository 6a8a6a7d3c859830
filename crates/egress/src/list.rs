//! The allow-list as people write it, and as it is meant.
//!
//! An [`AllowEntry`] is plain data for TOML and JSON; [`AllowList::new`] turns a list of them into
//! rules or says which entry is wrong. There is no default that allows anything: an empty list and
//! [`AllowList::default`] let nothing pass, and a broken list is no list. Absent: the hosts of
//! package registries; which ones they are is the business of each user's settings.

use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::git::GitRule;
use crate::path::{PathError, PathPattern};
use crate::target::{Host, TargetError};

/// How a request reaches the far side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// TLS; what the box asks for in plain HTTP is upgraded.
    #[default]
    Https,
    /// No TLS on the way to the far side.
    Http,
    /// Any protocol through a tunnel, unread: ssh, databases. Its ports have to be written.
    Tcp,
}

impl Scheme {
    /// As in an address.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }

    /// The port when none is written; 0, which is none, if there is no usual one.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
            Self::Tcp => 0,
        }
    }
}

/// Where in a request a secret goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretAs {
    /// `Authorization: Bearer VALUE`.
    #[default]
    Bearer,
    /// `Authorization: Basic` with this user and the value as password.
    Basic(String),
    /// A header of this name, the value alone in it.
    Header(String),
}

/// One entry as it is written.
///
/// Either `host` (with what may be asked of it) or `group`: `cargo`, `npm` or `pip` with the `hosts`
/// of the registry (reading only), or `git:HOST/OWNER/REPO` (reading, and with `push` updating that
/// one branch).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowEntry {
    /// A host, or `*.suffix` for all names below a suffix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// A ready-made group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The hosts of a registry group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Ports; 443 if none is written, 80 with `scheme = "http"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// How the far side is spoken to.
    #[serde(default)]
    pub scheme: Scheme,
    /// Methods; all if none is written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Path prefixes or globs; all if none is written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The name of a secret that is added to each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// How the secret is added.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub secret_as: Option<SecretAs>,
    /// Whether the host may have an address that is not public.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
    /// Whether websockets and other upgrades are allowed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upgrade: bool,
    /// The branch that a git group may push to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<String>,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("allow-list entry {number} ({name}): {problem}; nothing is allowed until it is mended")]
pub struct ListError {
    /// Which entry, from 1.
    pub number: usize,
    /// Its host or group.
    pub name: String,
    /// What is wrong.
    pub problem: EntryProblem,
}

/// The kinds of mistakes in an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// Neither or both of host and group.
    #[error("write either `host` or `group`")]
    HostOrGroup,
    /// The host can't be read.
    #[error("the host `{host}` is refused: {error}")]
    Host {
        /// As it was written.
        host: String,
        /// Why.
        error: TargetError,
    },
    /// A wildcard that is no `*.suffix`.
    #[error("a wildcard is written `*.suffix`, with at least two parts in the suffix")]
    Wildcard,
    /// A path that can't match.
    #[error("the path `{path}` is refused: {error}")]
    Path {
        /// As it was written.
        path: String,
        /// Why.
        error: PathError,
    },
    /// A method that is none.
    #[error("`{0}` is not a method of HTTP")]
    Method(String),
    /// Port 0, or none where there is no usual one.
    #[error("`ports` has to have ports from 1 to 65535; with `scheme = \"tcp\"` it has to be written")]
    Port,
    /// Something that can only be done to HTTP.
    #[error("with `scheme = \"tcp\"` nothing is read, so there can be no secret, method, path, upgrade or group")]
    Unread,
    /// No group of this name.
    #[error("no group is called `{0}`; there are cargo, npm, pip and git:HOST/OWNER/REPO")]
    Group(String),
    /// A registry group without hosts.
    #[error("a registry group needs `hosts`: those of the registry's index and of its downloads")]
    NoHosts,
    /// `hosts` without a registry group.
    #[error("`hosts` belongs to the groups cargo, npm and pip")]
    Hosts,
    /// Paths or methods with a group.
    #[error("a group has its own methods and paths")]
    GroupRules,
    /// `push` without a git group, or a branch that is none.
    #[error("`push` is the name of one branch, and belongs to a group git:HOST/OWNER/REPO")]
    Push,
    /// `as` without a secret.
    #[error("`as` says how a `secret` is added, and there is none")]
    AsWithoutSecret,
    /// The name or the place of a secret is not fit for a header.
    #[error("names of secrets have letters, digits, `-` and `_`; users and header names are those of HTTP")]
    SecretName,
    /// A secret that would cross the network in the clear.
    #[error("a secret is sent by TLS only; take `scheme = \"http\"` away, or say `private = true`")]
    SecretInClear,
    /// A secret for hosts that anyone may own.
    #[error("a secret is bound to exact hosts, not to a wildcard")]
    SecretForWildcard,
}

/// Hosts that an entry names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostPattern {
    Exact(Host),
    /// All names that end in this, which begins with a dot.
    Below(String),
}

impl HostPattern {
    fn parse(text: &str) -> Result<Self, EntryProblem> {
        let parse = |host: &str| {
            Host::parse(host).map_err(|error| EntryProblem::Host { host: text.chars().take(100).collect(), error })
        };
        let Some(suffix) = text.strip_prefix("*.") else { return parse(text).map(Self::Exact) };
        match parse(suffix)? {
            Host::Name(suffix) if suffix.contains('.') => Ok(Self::Below(format!(".{suffix}"))),
            Host::Name(_) | Host::Address(_) => Err(EntryProblem::Wildcard),
        }
    }

    pub(crate) fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(listed), host) => listed == host,
            (Self::Below(suffix), Host::Name(name)) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
            (Self::Below(_), Host::Address(_)) => false,
        }
    }
}

/// A secret and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundSecret {
    /// The secret's name.
    pub name: String,
    /// Where in the request it goes.
    pub placed: SecretAs,
}

/// What one entry means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub label: String,
    pub hosts: Vec<HostPattern>,
    pub ports: Vec<u16>,
    pub scheme: Scheme,
    /// `None`: all.
    pub methods: Option<Vec<Method>>,
    /// `None`: all.
    pub paths: Option<Vec<PathPattern>>,
    pub git: Option<GitRule>,
    pub secret: Option<BoundSecret>,
    pub private: bool,
    pub upgrade: bool,
    /// Whether the box's own credentials are taken off.
    pub strip: bool,
}

impl Rule {
    /// Whether requests have to be seen, not only their target.
    pub(crate) fn looks_inside(&self) -> bool {
        self.methods.is_some() || self.paths.is_some() || self.git.is_some() || self.secret.is_some()
    }

    fn new(entry: &AllowEntry) -> Result<Self, EntryProblem> {
        if entry.ports.contains(&0) || (entry.scheme == Scheme::Tcp && entry.ports.is_empty()) {
            return Err(EntryProblem::Port);
        }
        let mut rule = match (&entry.host, &entry.group) {
            (Some(host), None) => Self::of_host(entry, host)?,
            (None, Some(group)) => Self::of_group(entry, group)?,
            _ => return Err(EntryProblem::HostOrGroup),
        };
        rule.secret = bound_secret(entry)?;
        if rule.scheme == Scheme::Tcp && (rule.looks_inside() || rule.upgrade) {
            return Err(EntryProblem::Unread);
        }
        if rule.secret.is_some() {
            rule.strip = true;
            if rule.scheme == Scheme::Http && !rule.private {
                return Err(EntryProblem::SecretInClear);
            }
            if rule.hosts.iter().any(|host| matches!(host, HostPattern::Below(_))) {
                return Err(EntryProblem::SecretForWildcard);
            }
        }
        Ok(rule)
    }

    fn plain(entry: &AllowEntry, label: &str, hosts: Vec<HostPattern>) -> Self {
        let ports = if entry.ports.is_empty() { vec![entry.scheme.default_port()] } else { entry.ports.clone() };
        Self {
            label: label.to_owned(),
            hosts,
            ports,
            scheme: entry.scheme,
            methods: None,
            paths: None,
            git: None,
            secret: None,
            private: entry.private,
            upgrade: entry.upgrade,
            strip: false,
        }
    }

    fn of_host(entry: &AllowEntry, host: &str) -> Result<Self, EntryProblem> {
        if !entry.hosts.is_empty() {
            return Err(EntryProblem::Hosts);
        }
        if entry.push.is_some() {
            return Err(EntryProblem::Push);
        }
        let mut rule = Self::plain(entry, host, vec![HostPattern::parse(host)?]);
        rule.methods = methods(&entry.methods)?;
        rule.paths = paths(&entry.paths)?;
        Ok(rule)
    }

    fn of_group(entry: &AllowEntry, group: &str) -> Result<Self, EntryProblem> {
        if !entry.methods.is_empty() || !entry.paths.is_empty() {
            return Err(EntryProblem::GroupRules);
        }
        if let Some(repository) = group.strip_prefix("git:") {
            if !entry.hosts.is_empty() {
                return Err(EntryProblem::Hosts);
            }
            let (host, path) = repository.split_once('/').ok_or_else(|| EntryProblem::Group(group.to_owned()))?;
            let path = format!("/{path}");
            let git = GitRule::new(&path, entry.push.as_deref())?;
            let mut rule = Self::plain(entry, group, vec![HostPattern::parse(host)?]);
            if matches!(rule.hosts.as_slice(), [HostPattern::Below(_)]) {
                return Err(EntryProblem::Wildcard);
            }
            rule.git = Some(git);
            rule.strip = true;
            return Ok(rule);
        }
        if !matches!(group, "cargo" | "npm" | "pip") {
            return Err(EntryProblem::Group(group.to_owned()));
        }
        if entry.push.is_some() {
            return Err(EntryProblem::Push);
        }
        if entry.hosts.is_empty() {
            return Err(EntryProblem::NoHosts);
        }
        let hosts = entry.hosts.iter().map(|host| HostPattern::parse(host)).collect::<Result<_, _>>()?;
        let mut rule = Self::plain(entry, group, hosts);
        rule.methods = Some(vec![Method::GET, Method::HEAD]);
        rule.strip = true;
        Ok(rule)
    }
}

fn methods(written: &[String]) -> Result<Option<Vec<Method>>, EntryProblem> {
    let parse = |text: &String| match Method::from_bytes(text.to_ascii_uppercase().as_bytes()) {
        Ok(method) if method != Method::CONNECT => Ok(method),
        _ => Err(EntryProblem::Method(text.clone())),
    };
    let methods = written.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    Ok((!methods.is_empty()).then_some(methods))
}

fn paths(written: &[String]) -> Result<Option<Vec<PathPattern>>, EntryProblem> {
    let parse =
        |text: &String| PathPattern::parse(text).map_err(|error| EntryProblem::Path { path: text.clone(), error });
    let paths = written.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    Ok((!paths.is_empty()).then_some(paths))
}

/// Whether a text can be a secret's name.
pub(crate) fn is_secret_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn bound_secret(entry: &AllowEntry) -> Result<Option<BoundSecret>, EntryProblem> {
    let Some(name) = &entry.secret else {
        return if entry.secret_as.is_some() { Err(EntryProblem::AsWithoutSecret) } else { Ok(None) };
    };
    let placed = match (&entry.secret_as, &entry.group) {
        (Some(placed), _) => placed.clone(),
        (None, Some(group)) if group.starts_with("git:") => SecretAs::Basic("x-access-token".to_owned()),
        (None, _) => SecretAs::Bearer,
    };
    let fits = match &placed {
        SecretAs::Bearer => true,
        SecretAs::Basic(user) => user.bytes().all(|b| b.is_ascii_graphic() && b != b':'),
        SecretAs::Header(header) => {
            hyper::header::HeaderName::from_bytes(header.as_bytes()).is_ok_and(|name| !crate::headers::is_ours(&name))
        }
    };
    if !fits || !is_secret_name(name) {
        return Err(EntryProblem::SecretName);
    }
    Ok(Some(BoundSecret { name: name.clone(), placed }))
}

/// What may leave a box. Empty, it lets nothing pass.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "WrittenList", into = "WrittenList")]
pub struct AllowList {
    written: WrittenList,
    pub(crate) rules: Vec<Rule>,
    /// Lists that have to allow the same, each for itself.
    pub(crate) ceilings: Vec<Vec<Rule>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenList {
    #[serde(default)]
    allow: Vec<AllowEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    within: Vec<Vec<AllowEntry>>,
}

impl TryFrom<WrittenList> for AllowList {
    type Error = ListError;

    fn try_from(written: WrittenList) -> Result<Self, ListError> {
        let of_list = rules(&written.allow)?;
        let ceilings = written.within.iter().map(|entries| rules(entries)).collect::<Result<_, _>>()?;
        Ok(Self { written, rules: of_list, ceilings })
    }
}

impl From<AllowList> for WrittenList {
    fn from(list: AllowList) -> Self {
        list.written
    }
}

fn rules(entries: &[AllowEntry]) -> Result<Vec<Rule>, ListError> {
    let rule = |(index, entry): (usize, &AllowEntry)| {
        Rule::new(entry).map_err(|problem| ListError {
            number: index + 1,
            name: entry.host.clone().or_else(|| entry.group.clone()).unwrap_or_default().chars().take(100).collect(),
            problem,
        })
    };
    entries.iter().enumerate().map(rule).collect()
}

impl AllowList {
    /// A list from entries as they are written.
    ///
    /// # Errors
    /// [`ListError`] with the first entry that is wrong; then nothing is allowed at all.
    pub fn new(entries: Vec<AllowEntry>) -> Result<Self, ListError> {
        Self::try_from(WrittenList { allow: entries, within: Vec::new() })
    }

    /// The same list under a ceiling: a request has to be allowed by both. What the ceiling adds
    /// (hosts, secrets) is not added.
    #[must_use]
    pub fn within(mut self, ceiling: &Self) -> Self {
        self.written.within.push(ceiling.written.allow.clone());
        self.written.within.extend(ceiling.written.within.iter().cloned());
        self.ceilings.push(ceiling.rules.clone());
        self.ceilings.extend(ceiling.ceilings.iter().cloned());
        self
    }

    /// Whether nothing passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() || self.ceilings.iter().any(Vec::is_empty)
    }

    /// The entries as they were written, without ceilings.
    #[must_use]
    pub fn entries(&self) -> &[AllowEntry] {
        &self.written.allow
    }

    /// The names of all secrets that requests may be given.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().filter_map(|rule| rule.secret.as_ref()).map(|secret| secret.name.as_str())
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
