//! A text that nobody may see by accident: wiped when it is dropped, never printed.
//!
//! Absent: `Serialize` and `Display`. Whoever needs the text says so with [`Secret::expose`].

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::binding::{AddedAs, BadSecret};

/// Fewest bytes of a stored secret: shorter ones occur in ordinary output and can't be redacted.
pub const MIN_SECRET_BYTES: usize = 8;
/// Most bytes of a stored secret.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// A secret text, of any length. Its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text. Not to be logged, printed or stored.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it can be stored and sent in this way.
    ///
    /// # Errors
    /// [`BadSecret`] if it is too short or too long, or can't stand in a header. Says nothing of the value.
    pub fn check(&self, added_as: &AddedAs) -> Result<(), BadSecret> {
        let bytes = self.0.len();
        if self.0.trim().is_empty() {
            return Err(BadSecret::EmptyValue);
        }
        if bytes < MIN_SECRET_BYTES {
            return Err(BadSecret::ShortValue { bytes, least: MIN_SECRET_BYTES });
        }
        if bytes > MAX_SECRET_BYTES {
            return Err(BadSecret::LongValue { limit: MAX_SECRET_BYTES });
        }
        let encoded = matches!(added_as, AddedAs::Basic { .. });
        // Far sides read other bytes of a header in more than one way, and an answer that echoes them
        // could not be searched for all.
        let sendable = |c: char| c == '\t' || (c.is_ascii() && !c.is_control());
        if !encoded && (!self.0.chars().all(sendable) || self.0.trim().len() != bytes) {
            return Err(BadSecret::Unsendable);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text)
    }
}

/// Takes a text and repeats nothing else: the usual message quotes a number that was found instead.
struct Text;

impl Visitor<'_> for Text {
    type Value = Secret;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }
    fn visit_string<E: Error>(self, text: String) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom("expected a text"))
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom("expected a text; put the number into quotes"))
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Secret, E> {
        Err(E::custom("expected a text; put the number into quotes"))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom("expected a text; put the number into quotes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2-hunter2")), "Secret(…)");
    }

    #[test]
    fn what_stands_where_the_text_should_be_is_not_repeated() {
        assert_eq!(serde_json::from_str::<Secret>("\"12345678\"").unwrap().expose(), "12345678");
        for bad in ["4111222233334444", "-4111222233334444", "4111.25", "[\"hunter2\"]", "{\"hunter2\":1}"] {
            let error = serde_json::from_str::<Secret>(bad).unwrap_err().to_string();
            assert!(!error.contains("4111") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_value_that_could_not_be_redacted_or_sent_is_refused_without_being_repeated() {
        let check = |text: &str| Secret::new(text).check(&AddedAs::Bearer);
        assert!(check("12345678").is_ok());
        assert_eq!(check("  \n "), Err(BadSecret::EmptyValue));
        for bad in ["1234567", "two\nlines-of-it", "trailing-space ", &"x".repeat(MAX_SECRET_BYTES + 1)] {
            let error = check(bad).unwrap_err();
            assert!(!error.to_string().contains(bad.trim()), "{error}");
        }
        assert!(Secret::new("two\nlines-of-it").check(&AddedAs::parse("basic:me").unwrap()).is_ok());
    }
}
