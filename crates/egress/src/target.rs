//! The one reading of where a request goes. Whatever is matched, recorded, compared and dialled is
//! a [`Host`], made here and nowhere else.
//!
//! Everything that two programs could read in two ways is refused rather than repaired; repaired
//! are only letter case and one trailing dot, about which all programs agree. Absent: resolution,
//! and names in other scripts (they are written as punycode before they come here).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::denial::Denial;

/// Longest name that DNS can hold, in characters.
const MAX_NAME_CHARS: usize = 253;
/// Longest part of a name, in characters.
const MAX_LABEL_CHARS: usize = 63;

/// Why a target is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is no host.
    #[error("it names no host")]
    Empty,
    /// Longer than names can be.
    #[error("the host is longer than {MAX_NAME_CHARS} characters, or a part of it than {MAX_LABEL_CHARS}")]
    TooLong,
    /// A name and password before the host.
    #[error("it has a user name before the host (`@`)")]
    Userinfo,
    /// A percent sign: an encoded host, or the zone of an address.
    #[error("it has a percent sign: encoded hosts and address zones are refused")]
    Percent,
    /// A character that hosts do not have, NUL and blanks among them.
    #[error("it has a character that a host can't have; other scripts are written as punycode (xn--…)")]
    Character,
    /// An empty part, or one that begins or ends with a hyphen.
    #[error("a part of the host is empty, or begins or ends with a hyphen")]
    Label,
    /// A number that some programs read as an IPv4 address.
    #[error("it looks like an IPv4 address in an unusual form; write four decimal numbers")]
    OddAddress,
    /// Not an IPv6 address between the brackets.
    #[error("what stands in brackets is not an IPv6 address")]
    BadIpv6,
    /// The port is missing or no number from 1 to 65535.
    #[error("the port is missing or is not a number from 1 to 65535")]
    Port,
}

impl From<TargetError> for Denial {
    fn from(error: TargetError) -> Self {
        Self::BadTarget { detail: error.to_string() }
    }
}

/// A host in its one form: a lower-case name without a trailing dot, or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name.
    Name(String),
    /// An address that was written as one.
    Address(IpAddr),
}

impl Host {
    /// Reads a host without its port; IPv6 stands in brackets.
    ///
    /// # Errors
    /// [`TargetError`] for everything that could be read in more than one way.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        if text.contains('@') {
            return Err(TargetError::Userinfo);
        }
        if text.contains('%') {
            return Err(TargetError::Percent);
        }
        if let Some(inside) = text.strip_prefix('[') {
            let inside = inside.strip_suffix(']').ok_or(TargetError::BadIpv6)?;
            return inside.parse::<Ipv6Addr>().map(|a| Self::Address(IpAddr::V6(a))).map_err(|_| TargetError::BadIpv6);
        }
        let is_host_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if !text.bytes().all(is_host_char) {
            return Err(TargetError::Character);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() {
            return Err(TargetError::Empty);
        }
        if name.len() > MAX_NAME_CHARS || name.split('.').any(|label| label.len() > MAX_LABEL_CHARS) {
            return Err(TargetError::TooLong);
        }
        if name.split('.').any(|label| label.is_empty() || label.starts_with('-') || label.ends_with('-')) {
            return Err(TargetError::Label);
        }
        if ends_in_number(&name) {
            return strict_ipv4(text).map(|a| Self::Address(IpAddr::V4(a))).ok_or(TargetError::OddAddress);
        }
        Ok(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Whether programs that know the old forms would take the name for an IPv4 address.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    is_hex || last.bytes().all(|b| b.is_ascii_digit())
}

/// Four decimal numbers without leading zeros.
fn strict_ipv4(text: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = text.parse().ok()?;
    (address.to_string() == text).then_some(address)
}

/// A host and perhaps a port, as in a `Host` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, if one is written.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    ///
    /// # Errors
    /// [`TargetError`] as for [`Host::parse`], and for a port that is none.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.contains('@') {
            return Err(TargetError::Userinfo);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(parse_port(port)?)),
            _ => (text, None),
        };
        Ok(Self { host: Host::parse(host)?, port })
    }

    /// With a port for when none is written.
    #[must_use]
    pub fn or_port(self, default: u16) -> Target {
        Target { host: self.host, port: self.port.unwrap_or(default) }
    }
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    let is_plain = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    let port = if is_plain { text.parse::<u16>().ok() } else { None };
    port.filter(|port| *port != 0).ok_or(TargetError::Port)
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl Target {
    /// Reads the target of CONNECT, which has to have a port.
    ///
    /// # Errors
    /// [`TargetError`] as for [`Authority::parse`], and for a missing port.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let authority = Authority::parse(text)?;
        let port = authority.port.ok_or(TargetError::Port)?;
        Ok(Self { host: authority.host, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Host {
        Host::Name(text.to_owned())
    }

    #[test]
    fn case_and_one_trailing_dot_are_all_that_is_repaired() {
        assert_eq!(Host::parse("Example.COM."), Ok(name("example.com")));
        assert_eq!(Host::parse("a_b.xn--bcher-kva.example"), Ok(name("a_b.xn--bcher-kva.example")));
        assert_eq!(Target::parse("EXAMPLE.com:443"), Ok(Target { host: name("example.com"), port: 443 }));
    }

    #[test]
    fn what_two_programs_read_differently_is_refused() {
        let refused = [
            ("", TargetError::Empty),
            (".", TargetError::Empty),
            ("a..b", TargetError::Label),
            ("a.b..", TargetError::Label),
            ("-a.b", TargetError::Label),
            ("user@a.b", TargetError::Userinfo),
            ("a.b%00.c", TargetError::Percent),
            ("%61.b", TargetError::Percent),
            ("[fe80::1%25eth0]", TargetError::Percent),
            ("a\0.b", TargetError::Character),
            ("a b", TargetError::Character),
            ("a\tb", TargetError::Character),
            ("a/b", TargetError::Character),
            ("a\\b", TargetError::Character),
            ("a#b", TargetError::Character),
            ("a?b", TargetError::Character),
            ("b\u{fc}cher.example", TargetError::Character),
            ("a\u{3002}b", TargetError::Character),
            ("[::1", TargetError::BadIpv6),
            ("[1.2.3.4]", TargetError::BadIpv6),
            ("127.1", TargetError::OddAddress),
            ("2130706433", TargetError::OddAddress),
            ("0x7f000001", TargetError::OddAddress),
            ("0x7f.1", TargetError::OddAddress),
            ("0177.0.0.1", TargetError::OddAddress),
            ("127.0.0.01", TargetError::OddAddress),
            ("127.0.0.1.", TargetError::OddAddress),
            ("1.2.3.0x4", TargetError::OddAddress),
            ("1.2.3.4.5", TargetError::OddAddress),
            ("a.0x", TargetError::OddAddress),
            ("256.1.1.1", TargetError::OddAddress),
        ];
        for (text, why) in refused {
            assert_eq!(Host::parse(text), Err(why), "{text:?}");
        }
        assert_eq!(Host::parse(&"a".repeat(64)), Err(TargetError::TooLong));
        assert_eq!(Host::parse(&["a"; 128].join(".")), Err(TargetError::TooLong));
    }

    #[test]
    fn a_port_is_a_plain_number() {
        for text in ["a:", "a:0", "a:65536", "a:+1", "a: 1", "a:0x50", "a:1:2", "a", "a:443 ", "a:000443"] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Target::parse("[::1]:80").unwrap().to_string(), "[::1]:80");
        assert_eq!(Authority::parse("[::1]").unwrap().port, None);
    }

    proptest! {
        #[test]
        fn what_is_read_reads_the_same_again(text in ".{0,40}") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert_eq!(Target::parse(&target.to_string()), Ok(target));
            }
        }

        #[test]
        fn nothing_but_case_and_a_dot_is_ever_changed(text in "[a-zA-Z0-9_.\\-@%:\\[\\] \\\\/]{0,24}") {
            if let Ok(Host::Name(host)) = Host::parse(&text) {
                prop_assert_eq!(host, text.strip_suffix('.').unwrap_or(&text).to_ascii_lowercase());
            }
        }
    }
}
