//! Which rule allows a tunnel or a request, or the nearest reason why none does. Pure.
//!
//! Entries add up: what any of them allows is allowed. Ceilings multiply: each has to allow it too.
//! If any entry for a host has to look inside, the host gets no blind tunnel.
//! Absent: addresses (they are checked after resolution) and the commands of a push (they are in
//! the body).

use hyper::Method;

use crate::denial::Denial;
use crate::git::GitRequest;
use crate::list::{AllowList, BoundSecret, Rule, Scheme};
use crate::path::CleanPath;
use crate::target::Target;

/// How a tunnel is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tunnel {
    /// Bytes pass unread after the TLS hello.
    Blind {
        /// The entry that allows it.
        entry: String,
        /// Whether the address may be private.
        private: bool,
        /// Whether it has to be TLS that names the tunnel's host; else it may be anything.
        tls: bool,
    },
    /// TLS ends at the door and each request is decided on.
    Opened,
}

/// A request as far as it matters to the list.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What the box spoke of: `http` may be upgraded, `https` is never lowered.
    pub scheme: Scheme,
    /// Host and port; the port is that of `scheme` if none was written.
    pub target: &'a Target,
    /// The method.
    pub method: &'a Method,
    /// The path.
    pub path: &'a CleanPath,
}

/// What an allowed request may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The entry that allows it.
    pub entry: String,
    /// How the far side is spoken to.
    pub scheme: Scheme,
    /// The port there.
    pub port: u16,
    /// Whether the address may be private.
    pub private: bool,
    /// The secret that is added.
    pub secret: Option<BoundSecret>,
    /// Whether credentials of the box's own are taken off.
    pub strip: bool,
    /// Whether it may change the protocol.
    pub upgrade: bool,
    /// If it is a push: the refs that all rules agree on (each has to be the one updated).
    pub push: Vec<String>,
}

/// How near a refusal came to being a yes; the nearest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Missed {
    Host,
    Port,
    Method,
    Path,
}

impl Missed {
    fn denial(self, target: &Target, method: &Method) -> Denial {
        let host = target.host.to_string();
        match self {
            Self::Host => Denial::HostNotListed { host },
            Self::Port => Denial::PortNotListed { host, port: target.port },
            Self::Method => Denial::MethodNotAllowed { method: method.to_string() },
            Self::Path => Denial::PathNotAllowed,
        }
    }
}

impl AllowList {
    /// Decides on a CONNECT.
    ///
    /// # Errors
    /// [`Denial`] if no entry has the host and port, or a ceiling does not.
    pub fn tunnel(&self, target: &Target) -> Result<Tunnel, Denial> {
        if self.is_empty() {
            return Err(Denial::NothingAllowed);
        }
        let mut opened = false;
        let mut private = true;
        let mut tls = false;
        let mut entry = None;
        for rules in std::iter::once(&self.rules).chain(&self.ceilings) {
            let mut missed = Missed::Host;
            let mut of_list: Option<&Rule> = None;
            let mut private_here = false;
            let mut any_protocol = false;
            for rule in rules {
                if !names(rule, target) {
                    continue;
                }
                missed = Missed::Port;
                if rule.scheme != Scheme::Http && rule.ports.contains(&target.port) {
                    opened |= rule.looks_inside();
                    any_protocol |= rule.scheme == Scheme::Tcp;
                    private_here |= rule.private;
                    of_list = of_list.or(Some(rule));
                }
            }
            let Some(rule) = of_list else { return Err(missed.denial(target, &Method::CONNECT)) };
            private &= private_here;
            tls |= !any_protocol;
            entry.get_or_insert_with(|| rule.label.clone());
        }
        if opened {
            return Ok(Tunnel::Opened);
        }
        Ok(Tunnel::Blind { entry: entry.unwrap_or_default(), private, tls })
    }

    /// Decides on a request that is seen.
    ///
    /// # Errors
    /// [`Denial`] with the nearest reason why no entry, or a ceiling, allows it.
    pub fn request(&self, asked: Asked<'_>) -> Result<Grant, Denial> {
        if self.is_empty() {
            return Err(Denial::NothingAllowed);
        }
        let (rule, scheme, port, kind) = find(&self.rules, asked, None)?;
        let mut grant = Grant {
            entry: rule.label.clone(),
            scheme,
            port,
            private: rule.private,
            secret: rule.secret.clone(),
            strip: rule.strip,
            upgrade: rule.upgrade,
            push: push_ref(rule, kind),
        };
        for ceiling in &self.ceilings {
            let (rule, _, _, kind) = find(ceiling, asked, Some((scheme, port)))?;
            grant.private &= rule.private;
            grant.upgrade &= rule.upgrade;
            grant.strip |= rule.strip;
            grant.push.extend(push_ref(rule, kind));
        }
        Ok(grant)
    }
}

fn names(rule: &Rule, target: &Target) -> bool {
    rule.hosts.iter().any(|pattern| pattern.matches(&target.host))
}

fn push_ref(rule: &Rule, kind: Option<GitRequest>) -> Vec<String> {
    let pushed = rule.git.as_ref().and_then(|git| git.push.clone());
    pushed.filter(|_| kind == Some(GitRequest::Push)).into_iter().collect()
}

type Found<'a> = (&'a Rule, Scheme, u16, Option<GitRequest>);

/// The first rule that allows a request. `reach` is how the far side is reached, if that is decided.
fn find<'a>(rules: &'a [Rule], asked: Asked<'_>, reach: Option<(Scheme, u16)>) -> Result<Found<'a>, Denial> {
    let mut missed = Missed::Host;
    for rule in rules.iter().filter(|rule| names(rule, asked.target)) {
        // A ceiling has to allow what is dialled, however the box asked for it.
        let reached = match reach {
            Some((scheme, port)) => (rule.scheme == scheme && rule.ports.contains(&port)).then_some((scheme, port)),
            None => upstream(rule, asked),
        };
        let Some((scheme, port)) = reached else {
            missed = missed.max(Missed::Port);
            continue;
        };
        if rule.methods.as_ref().is_some_and(|methods| !methods.contains(asked.method)) {
            missed = missed.max(Missed::Method);
            continue;
        }
        let kind = rule.git.as_ref().map(|git| git.classify(asked.method, asked.path));
        let is_listed = rule.paths.as_ref().is_none_or(|paths| paths.iter().any(|p| p.allows(asked.path)));
        if !is_listed || kind == Some(None) {
            missed = missed.max(Missed::Path);
            continue;
        }
        return Ok((rule, scheme, port, kind.flatten()));
    }
    Err(missed.denial(asked.target, asked.method))
}

/// How a rule reaches the far side. Plain HTTP to port 80 becomes TLS to the rule's first port.
fn upstream(rule: &Rule, asked: Asked<'_>) -> Option<(Scheme, u16)> {
    let port = asked.target.port;
    match (asked.scheme, rule.scheme) {
        (_, Scheme::Tcp) | (Scheme::Https, Scheme::Http) => None,
        (Scheme::Http, Scheme::Https) if port == Scheme::Http.default_port() && !rule.ports.contains(&port) => {
            rule.ports.first().map(|port| (Scheme::Https, *port))
        }
        _ => rule.ports.contains(&port).then_some((rule.scheme, port)),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
