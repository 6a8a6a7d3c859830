//! Typed ids, all from one list.
//!
//! An id is 60 random bits in Crockford's base32: twelve characters whose *first* characters are
//! already random, so that a short prefix names a task.
//! Randomness comes in as an argument; nothing here draws it. What is absent: any order. The
//! store orders tasks by the row of their first event.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Lower-case Crockford base32 (no i, l, o, u).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of a whole id.
pub const ID_CHARS: usize = 12;

/// Writes the low 60 bits of `bits` as twelve base32 characters.
fn encode(bits: u64) -> String {
    (0..ID_CHARS)
        .rev()
        .map(|place| {
            let digit = (bits >> (place * 5)) & 31;
            char::from(ALPHABET.get(digit as usize).copied().unwrap_or(b'0'))
        })
        .collect()
}

/// What is wrong with text that should have been an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: ids are 1 to 64 of the characters a-z, 0-9, `-`, `_` and `.`")]
pub struct BadId {
    /// What was given.
    pub text: String,
}

fn check(text: &str) -> Result<(), BadId> {
    let fine = !text.is_empty()
        && text.len() <= 64
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
    if fine { Ok(()) } else { Err(BadId { text: text.chars().take(80).collect() }) }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// An id from random bits; the low 60 are used.
            #[must_use]
            pub fn from_random(bits: u64) -> Self { Self(encode(bits)) }

            /// An id from text that came from outside.
            ///
            /// # Errors
            /// [`BadId`] if the text is empty, too long or has other characters than ids have.
            pub fn parse(text: &str) -> Result<Self, BadId> { check(text)?; Ok(Self(text.to_owned())) }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }

            /// The first eight characters: what people see in lists and may type back.
            #[must_use]
            pub fn short(&self) -> &str { self.0.get(..8).unwrap_or(&self.0) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> { check(&text)?; Ok(Self(text)) }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String { id.0 }
        }
    )*};
}

ids! {
    /// One task.
    TaskId,
    /// One sandbox. Derived from what it is for, so that a retry finds the earlier one.
    SandboxId,
    /// One recorded effect: an intent and its result.
    EffectId,
}

/// A git commit: forty (SHA-1) or sixty-four (SHA-256) lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct CommitSha(String);

impl CommitSha {
    /// A full commit id from text.
    ///
    /// # Errors
    /// [`BadSha`] if it is not 40 or 64 lower-case hex digits.
    pub fn parse(text: &str) -> Result<Self, BadSha> {
        let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex && (text.len() == 40 || text.len() == 64) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadSha { text: text.chars().take(80).collect() })
        }
    }
    /// All the digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The first ten digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }
}

/// What is wrong with text that should have been a full commit id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a full commit id (40 or 64 hex digits)")]
pub struct BadSha {
    /// What was given.
    pub text: String,
}

impl fmt::Display for CommitSha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl TryFrom<String> for CommitSha {
    type Error = BadSha;
    fn try_from(text: String) -> Result<Self, BadSha> {
        Self::parse(&text)
    }
}
impl From<CommitSha> for String {
    fn from(sha: CommitSha) -> String {
        sha.0
    }
}

/// A SHA-256 over bytes, as 64 lower-case hex digits. Names blobs, chained events and evidence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct Digest(String);

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_parts(&[bytes])
    }
    /// The digest of several byte strings, one after the other without separators.
    #[must_use]
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        use sha2::Digest as _;
        use std::fmt::Write as _;
        let mut hasher = sha2::Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        let mut text = String::with_capacity(64);
        for byte in hasher.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }
    /// A digest from text.
    ///
    /// # Errors
    /// [`BadSha`] if it is not 64 lower-case hex digits.
    pub fn parse(text: &str) -> Result<Self, BadSha> {
        let sha = CommitSha::parse(text)?;
        if sha.0.len() == 64 { Ok(Self(sha.0)) } else { Err(BadSha { text: text.to_owned() }) }
    }
    /// All the digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl TryFrom<String> for Digest {
    type Error = BadSha;
    fn try_from(text: String) -> Result<Self, BadSha> {
        Self::parse(&text)
    }
}
impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_twelve_characters_and_differs_in_its_first_ones() {
        let a = TaskId::from_random(0x0fff_ffff_ffff_ffff);
        let b = TaskId::from_random(1);
        assert_eq!(a.as_str(), "zzzzzzzzzzzz");
        assert_eq!(b.as_str(), "000000000001");
        assert_eq!(a.short().len(), 8);
    }

    #[test]
    fn text_that_could_leave_a_folder_is_no_id() {
        for bad in ["", "..", ".x", "a/b", "A", "a b", "é"] {
            assert!(TaskId::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_commit_is_all_of_its_digits() {
        assert!(CommitSha::parse("abc").is_err());
        assert!(CommitSha::parse(&"a".repeat(40)).is_ok());
        assert!(CommitSha::parse(&"A".repeat(40)).is_err());
    }
}
