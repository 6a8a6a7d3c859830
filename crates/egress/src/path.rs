//! The one reading of a request's path, and the patterns that rules are written in.
//!
//! [`CleanPath`] has two sides: what is sent on, with dot segments, repeated slashes and needless
//! escapes gone, and every way in which a server might read that. A rule allows a path only if it
//! allows all of its readings, so that a server which decodes once more than others finds nothing
//! behind the rule. Absent: meaning of the query; it is checked for its characters and sent as it is.

use crate::denial::Denial;

/// Longest path with its query, in bytes.
const MAX_PATH_BYTES: usize = 16 * 1024;
/// How often a path may have been encoded before it is refused.
const MAX_DECODINGS: usize = 4;

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("it does not begin with `/`")]
    Relative,
    /// Longer than is passed on.
    #[error("it is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// A character that addresses do not have, also when it is encoded.
    #[error("it has a character, perhaps encoded, that is refused: a backslash, a blank or a control character")]
    Character,
    /// A percent sign without two hexadecimal digits.
    #[error("it has a percent sign that begins no escape")]
    BadEscape,
    /// Encoded again and again, or dots hidden behind a parameter.
    #[error("it is encoded several times, or hides dot segments")]
    Hidden,
}

impl From<PathError> for Denial {
    fn from(error: PathError) -> Self {
        Self::BadPath { detail: error.to_string() }
    }
}

/// A path that is read in one way and sent as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanPath {
    path: String,
    query: Option<String>,
    readings: Vec<String>,
}

impl CleanPath {
    /// Reads a path with its query, as in a request line.
    ///
    /// # Errors
    /// [`PathError`] for what can't be read in one way.
    pub fn parse(path: &str, query: Option<&str>) -> Result<Self, PathError> {
        if path.len() + query.map_or(0, str::len) > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        if !path.starts_with('/') {
            return Err(PathError::Relative);
        }
        let is_sendable = |b: u8| b.is_ascii_graphic() && b != b'\\' && b != b'#';
        if !path.bytes().all(|b| is_sendable(b) && b != b'?') || !query.unwrap_or_default().bytes().all(is_sendable) {
            return Err(PathError::Character);
        }
        let sent = resolve(&unescape(path.as_bytes(), Decode::Needless)?);
        let mut readings = vec![lossy(&sent)];
        let mut deepest = sent.clone();
        for _ in 0..MAX_DECODINGS {
            let next = resolve(&unescape(&deepest, Decode::All)?);
            if next == deepest {
                let path = String::from_utf8(sent).map_err(|_| PathError::Character)?;
                return Ok(Self { path, query: query.map(str::to_owned), readings });
            }
            readings.push(lossy(&next));
            deepest = next;
        }
        Err(PathError::Hidden)
    }

    /// The path as it is sent, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query as it is sent.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Path and query as they are sent.
    #[must_use]
    pub fn sent(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// Every way in which a server might read the path; the first is [`CleanPath::path`].
    #[must_use]
    pub fn readings(&self) -> &[String] {
        &self.readings
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// How far escapes are decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decode {
    /// Only what need not have been encoded; the others stay, in upper case. Each has to be whole.
    Needless,
    /// All; what is no escape is data, as the most lenient server has it.
    All,
}

fn unescape(path: &[u8], decode: Decode) -> Result<Vec<u8>, PathError> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let pair = after.split_first_chunk::<2>().filter(|_| byte == b'%');
        let escape = pair.and_then(|(&[high, low], after)| Some((hex(high)? * 16 + hex(low)?, high, low, after)));
        let Some((value, high, low, after)) = escape else {
            if byte == b'%' && decode == Decode::Needless {
                return Err(PathError::BadEscape);
            }
            out.push(byte);
            rest = after;
            continue;
        };
        if value < 0x20 || value == 0x7f || value == b'\\' {
            return Err(PathError::Character);
        }
        if decode == Decode::All || is_unreserved(value) {
            out.push(value);
        } else {
            out.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
        }
        rest = after;
    }
    if out.split(|b| *b == b'/').any(hides_dots) {
        return Err(PathError::Hidden);
    }
    Ok(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Whether a segment is dots with a parameter behind them, which some servers cut off.
fn hides_dots(segment: &[u8]) -> bool {
    let before = segment.split(|b| *b == b';').next().unwrap_or_default();
    before.len() < segment.len() && matches!(before, b"." | b"..")
}

/// Removes dot segments and repeated slashes; never climbs above the root.
fn resolve(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_in_folder = true;
    for segment in path.split(|b| *b == b'/') {
        ends_in_folder = false;
        match segment {
            b"" | b"." => ends_in_folder = true,
            b".." => {
                kept.pop();
                ends_in_folder = true;
            }
            name => kept.push(name),
        }
    }
    let mut out = vec![b'/'];
    out.extend(kept.join(&b'/'));
    if ends_in_folder && !kept.is_empty() {
        out.push(b'/');
    }
    out
}

/// A pattern for paths: `/a/b` (that path and all below it) or a glob, in which `*` stands for
/// anything but a slash and `**` for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(String);

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PathError`] if it is not in the form that paths are compared in, for then it would never match.
    pub fn parse(pattern: &str) -> Result<Self, PathError> {
        if !pattern.starts_with('/') {
            return Err(PathError::Relative);
        }
        let is_plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#' | b'?' | b'%');
        if !pattern.bytes().all(is_plain) {
            return Err(PathError::Character);
        }
        if resolve(pattern.as_bytes()) != pattern.as_bytes() {
            return Err(PathError::Hidden);
        }
        Ok(Self(pattern.to_owned()))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every reading of the path matches.
    #[must_use]
    pub fn allows(&self, path: &CleanPath) -> bool {
        path.readings().iter().all(|reading| self.matches(reading))
    }

    fn matches(&self, path: &str) -> bool {
        if self.0.contains('*') {
            return glob(self.0.as_bytes(), path.as_bytes());
        }
        match path.strip_prefix(self.0.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || self.0.ends_with('/'),
            None => false,
        }
    }
}

/// Matches without recursion: a set of the places in the pattern where the text may stand, so that
/// the time is at most pattern × text.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let parts = glob_parts(pattern);
    let mut at = vec![false; parts.len() + 1];
    if let Some(first) = at.first_mut() {
        *first = true;
    }
    let skip_empty = |at: &mut Vec<bool>| {
        for (index, part) in parts.iter().enumerate() {
            let here = at.get(index).copied().unwrap_or(false);
            if here
                && !matches!(part, Part::Byte(_))
                && let Some(next) = at.get_mut(index + 1)
            {
                *next = true;
            }
        }
    };
    skip_empty(&mut at);
    for &byte in text {
        let mut next = vec![false; parts.len() + 1];
        for (index, part) in parts.iter().enumerate() {
            if !at.get(index).copied().unwrap_or(false) {
                continue;
            }
            let to = match part {
                Part::Byte(wanted) if *wanted == byte => index + 1,
                Part::Segment if byte != b'/' => index,
                Part::Any => index,
                Part::Byte(_) | Part::Segment => continue,
            };
            if let Some(place) = next.get_mut(to) {
                *place = true;
            }
        }
        at = next;
        skip_empty(&mut at);
    }
    at.last().copied().unwrap_or(false)
}

enum Part {
    Byte(u8),
    Segment,
    Any,
}

fn glob_parts(pattern: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    for &byte in pattern {
        let part = match (byte, parts.last()) {
            (b'*', Some(Part::Segment)) => {
                parts.pop();
                Part::Any
            }
            (b'*', Some(Part::Any)) => continue,
            (b'*', _) => Part::Segment,
            (byte, _) => Part::Byte(byte),
        };
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clean(path: &str) -> String {
        CleanPath::parse(path, None).unwrap().path().to_owned()
    }

    fn allows(pattern: &str, path: &str) -> bool {
        CleanPath::parse(path, None).is_ok_and(|path| PathPattern::parse(pattern).unwrap().allows(&path))
    }

    #[test]
    fn dots_slashes_and_needless_escapes_are_gone_before_anything_is_sent() {
        let cases = [
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("//a///b/", "/a/b/"),
            ("/./a/.", "/a/"),
            ("/a/..", "/"),
            ("/../../a", "/a"),
            ("/%41%7e", "/A~"),
            ("/@scope%2fname", "/@scope%2Fname"),
            ("/a%20b", "/a%20b"),
        ];
        for (from, to) in cases {
            assert_eq!(clean(from), to, "{from}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        for path in [
            "",
            "a",
            "/a\\b",
            "/a%5cb",
            "/a%00",
            "/a%0d%0aX: y",
            "/a b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a/..;/b",
            "/a/.;x/b",
            "/a/%2e%2e;/b",
            "/a/%252e%252e%253b/b",
            "/\u{e9}",
            "/a#b",
            "/%25%25252525252e",
            "/%252525252525252e",
        ] {
            assert!(CleanPath::parse(path, None).is_err(), "{path:?}: {:?}", CleanPath::parse(path, None));
        }
        assert!(CleanPath::parse("/a", Some("x y")).is_err());
        assert!(CleanPath::parse("/a", Some("x=%0a&y")).is_ok());
        assert_eq!(CleanPath::parse(&format!("/{}", "a".repeat(20_000)), None), Err(PathError::TooLong));
    }

    #[test]
    fn a_rule_has_to_allow_every_reading() {
        assert!(allows("/me/repo", "/me/repo"));
        assert!(allows("/me/repo", "/me/repo/info/refs"));
        assert!(allows("/me/", "/me/repo"));
        assert!(!allows("/me/repo", "/me/repository"));
        assert!(!allows("/me/repo", "/me/repo/../other"));
        assert!(!allows("/me/repo", "/me/repo%2f..%2fother"));
        assert!(!allows("/me/repo", "/me/repo/%252e%252e/other"));
        assert!(!allows("/me/repo", "/me/repo/..%2f..%2fother"));
        assert!(!allows("/me/repo", "/ME/repo"));
        assert!(allows("/me/*/refs", "/me/a/refs"));
        assert!(!allows("/me/*/refs", "/me/a/b/refs"));
        assert!(!allows("/me/*/refs", "/me/a%2fb/refs"));
        assert!(allows("/me/**/refs", "/me/a/b/refs"));
        assert!(allows("/**", "/anything/at/all"));
    }

    #[test]
    fn a_pattern_that_could_never_match_is_an_error() {
        for pattern in ["a", "/a/../b", "//a", "/a%20", "/a b", "/a?x"] {
            assert!(PathPattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_hostile_glob_takes_no_time() {
        let pattern = format!("/{}b", "*a".repeat(200));
        assert!(!allows(&pattern, &format!("/{}", "a".repeat(4000))));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_a_fixed_point(path in "/[a-c./%25eEfF;@ ]{0,30}") {
            if let Ok(clean) = CleanPath::parse(&path, None) {
                let again = CleanPath::parse(clean.path(), None).unwrap();
                prop_assert_eq!(again.path(), clean.path());
                prop_assert_eq!(&clean.readings()[0], clean.path());
                for reading in clean.readings() {
                    prop_assert!(!reading.split('/').any(|s| s == ".." || s == "."), "{}", reading);
                    prop_assert!(!reading.contains("//"));
                }
            }
        }

        #[test]
        fn no_spelling_climbs_out_of_the_allowed_folder(tail in "(\\.|/|%2e|%2f|%252e|%252f|a|;|%25){0,12}") {
            let rule = PathPattern::parse("/in").unwrap();
            if let Ok(clean) = CleanPath::parse(&format!("/in/{tail}"), None) && rule.allows(&clean) {
                for reading in clean.readings() {
                    prop_assert!(reading == "/in" || reading.starts_with("/in/"), "{}", reading);
                }
            }
        }
    }
}
