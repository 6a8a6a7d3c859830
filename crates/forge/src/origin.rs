//! Where a project comes from: a path on this machine or a URL.
//!
//! Only the text is judged here. Absent: disk and network; see `hub`.

use std::fmt;
use std::path::{Path, PathBuf};

/// URL schemes that git may be asked to use. `ext::` and other helpers run programs by name.
const SCHEMES: &[&str] = &["https", "http", "ssh", "git"];

/// Where a project's repository is.
#[derive(Clone, PartialEq, Eq)]
pub enum Origin {
    /// A folder in or at a repository on this machine; absolute.
    Local(PathBuf),
    /// Anything that git fetches over a network. May contain a password: shown without it.
    Remote(String),
}

/// Why text names no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOrigin {
    /// Nothing was given.
    #[error("no repository was named: give a folder or a git URL")]
    Empty,
    /// A relative path means something else to each program that reads it.
    #[error("`{text}` is a relative path: make it absolute")]
    Relative {
        /// What was given.
        text: String,
    },
    /// Not one of the protocols that are allowed.
    #[error("`{scheme}` URLs are not fetched: use https, ssh, git or a path")]
    Scheme {
        /// The scheme or helper.
        scheme: String,
    },
    /// Control characters, a leading dash, or bad percent signs.
    #[error("`{text}` is not a git URL")]
    Malformed {
        /// What was given, made printable.
        text: String,
    },
}

impl Origin {
    /// Reads an origin as a person writes it: an absolute path, `file://…`, a URL, or
    /// `user@host:path`.
    ///
    /// # Errors
    /// [`BadOrigin`] says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, BadOrigin> {
        let malformed = || BadOrigin::Malformed { text: text.escape_debug().take(120).collect() };
        if text.trim().is_empty() {
            return Err(BadOrigin::Empty);
        }
        if text.starts_with('/') {
            return if text.contains('\0') { Err(malformed()) } else { Ok(Self::Local(PathBuf::from(text))) };
        }
        if text.starts_with('-') || text.chars().any(char::is_control) {
            return Err(malformed());
        }
        if let Some(rest) = text.strip_prefix("file://") {
            let path = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
            let path = percent_decoded(path).filter(|path| path.starts_with('/') && !path.contains('\0'));
            return path.map(|path| Self::Local(PathBuf::from(path))).ok_or_else(malformed);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            if !SCHEMES.contains(&scheme) {
                return Err(BadOrigin::Scheme { scheme: scheme.to_owned() });
            }
            // A host that begins with a dash would be an option to ssh.
            let authority = rest.split('/').next().unwrap_or_default();
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            return if host.is_empty() || host.starts_with('-') || authority.starts_with('-') {
                Err(malformed())
            } else {
                Ok(Self::Remote(text.to_owned()))
            };
        }
        if let Some((helper, _)) = text.split_once("::") {
            return Err(BadOrigin::Scheme { scheme: format!("{helper}::") });
        }
        match text.split_once(':') {
            Some((host, path)) if !host.is_empty() && !host.contains('/') && !path.is_empty() => {
                let bare = host.rsplit_once('@').map_or(host, |(_, host)| host);
                if bare.is_empty() || bare.starts_with('-') {
                    Err(malformed())
                } else {
                    Ok(Self::Remote(text.to_owned()))
                }
            }
            _ => Err(BadOrigin::Relative { text: text.to_owned() }),
        }
    }

    /// The folder, where the origin is on this machine.
    #[must_use]
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Remote(_) => None,
        }
    }

    /// Whether the URL holds a password or a token.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        self.secret().is_some()
    }

    /// The password in the URL, if there is one.
    pub(crate) fn secret(&self) -> Option<&str> {
        let Self::Remote(url) = self else { return None };
        let (_, rest) = url.split_once("://")?;
        let authority = rest.split('/').next()?;
        let (user, _) = authority.rsplit_once('@')?;
        // A lone user name of an http URL is as often a token as a name.
        let secret = user.split_once(':').map_or(user, |(_, password)| password);
        (!secret.is_empty() && (user.contains(':') || url.starts_with("http"))).then_some(secret)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.secret()) {
            (Self::Local(path), _) => path.display().fmt(f),
            (Self::Remote(url), Some(secret)) => f.write_str(&url.replacen(secret, "***", 1)),
            (Self::Remote(url), None) => f.write_str(url),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(text: &str) -> Option<String> {
        Origin::parse(text).ok()?.local_path().map(|path| path.display().to_string())
    }

    #[test]
    fn paths_and_file_urls_are_local() {
        assert_eq!(local("/a/b c"), Some("/a/b c".into()));
        assert_eq!(local("file:///a/b%20c"), Some("/a/b c".into()));
        assert_eq!(local("file://localhost/a"), Some("/a".into()));
        assert_eq!(local("/a:b"), Some("/a:b".into()));
    }

    #[test]
    fn what_git_fetches_over_a_network_is_remote() {
        for good in ["https://h/x.git", "ssh://git@h:22/x", "git@h:a/b.git", "h:x", "git://h/x", "http://[::1]:80/x"] {
            assert_eq!(Origin::parse(good), Ok(Origin::Remote(good.into())), "{good}");
        }
    }

    #[test]
    fn text_that_would_run_a_program_or_be_an_option_is_refused() {
        for bad in [
            "",
            " ",
            "-u/bin/sh",
            "--upload-pack=x",
            "ext::sh -c id",
            "fd::3",
            "ssh://-oProxyCommand=x/y",
            "ssh://u@-o/y",
            "-oProxy:x",
            "u@-o:x",
            "a/b",
            ".",
            "https://h/\nx",
            "file://host/x",
            "ftp://h/x",
            "file:///%zz",
            "file:///a%00b",
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let origin = Origin::parse("https://me:hunter2@h/x.git").unwrap();
        assert_eq!(format!("{origin} {origin:?}"), "https://me:***@h/x.git Origin(https://me:***@h/x.git)");
        let origin = Origin::parse("https://ghp_token@h/x.git").unwrap();
        assert_eq!(origin.to_string(), "https://***@h/x.git");
        assert_eq!(Origin::parse("ssh://git@h/x").unwrap().to_string(), "ssh://git@h/x");
    }
}
