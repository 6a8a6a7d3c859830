//! JSON that is kept as the bytes that came: [`RawJson`], and an object whose keys keep their order.
//!
//! Providers bind signatures to their blocks, so a block must go back as it came. A
//! `serde_json::Value` would sort keys and rewrite numbers; nothing here goes through one.
//! [`RawJson`] is stored as a JSON *string*, not as embedded JSON: that survives tagged enums,
//! `serde(flatten)`, a `Value`, and a database that normalises JSON.

use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One JSON value as text, never rewritten. Cheap to clone; equal when the bytes are equal.
///
/// Serialises as a JSON string that holds the text. Use [`RawJson::as_value`] to embed it.
#[derive(Clone)]
pub struct RawJson(Arc<RawValue>);

impl RawJson {
    /// Takes one JSON value as text; whitespace around it is dropped.
    ///
    /// # Errors
    /// If the text is not exactly one JSON value.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text.trim().to_owned()).map(|raw| Self(Arc::from(raw)))
    }

    /// The JSON of anything serialisable, as `serde_json` writes it.
    ///
    /// # Errors
    /// If `value` cannot be written as JSON (a map whose keys are not strings, for example).
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(|raw| Self(Arc::from(raw)))
    }

    /// The object without members.
    #[must_use]
    pub fn empty_object() -> Self {
        // `{}` always parses; the fallback only spares a panic.
        Self::parse("{}").unwrap_or_else(|_| Self(Arc::from(RawValue::NULL.to_owned())))
    }

    /// The text as it came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The value to embed in other JSON, byte for byte.
    #[must_use]
    pub fn as_value(&self) -> &RawValue {
        &self.0
    }

    /// Whether the value is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.as_str().starts_with('{')
    }
}

impl From<Box<RawValue>> for RawJson {
    fn from(raw: Box<RawValue>) -> Self {
        Self(Arc::from(raw))
    }
}
impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
impl Eq for RawJson {}
impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|why| D::Error::custom(format!("stored JSON text is not JSON: {why}")))
    }
}

/// An object whose members keep their order and their bytes.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// The member `name` as text, if it is a string.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// Replaces the member in its place, or adds it at the end.
    pub(crate) fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Sets the member to a string.
    pub(crate) fn set_text(&mut self, name: &str, text: &str) -> Result<(), serde_json::Error> {
        self.set(name, serde_json::value::to_raw_value(text)?);
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_str(), &**value))
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    fields.set(&key, value);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_json_survives_a_value_that_sorts_keys_and_rewrites_numbers() {
        let raw = RawJson::parse(r#" {"z":1.0e2, "a":[ 1,2 ]} "#).unwrap();
        let through_value: serde_json::Value = serde_json::to_value(&raw).unwrap();
        let back: RawJson = serde_json::from_str(&through_value.to_string()).unwrap();
        assert_eq!(back.as_str(), r#"{"z":1.0e2, "a":[ 1,2 ]}"#);
    }

    #[test]
    fn an_empty_object_is_an_object() {
        assert_eq!(RawJson::empty_object().as_str(), "{}");
    }

    #[test]
    fn fields_keep_order_and_bytes_when_one_is_replaced() {
        let mut fields: Fields = serde_json::from_str(r#"{"type":"x","z":1.50,"a":{"b" : 2}}"#).unwrap();
        fields.set_text("z", "é\"").unwrap();
        assert_eq!(serde_json::to_string(&fields).unwrap(), r#"{"type":"x","z":"é\"","a":{"b" : 2}}"#);
    }

    #[test]
    fn half_a_value_is_refused() {
        assert!(RawJson::parse(r#"{"a":"#).is_err());
        assert!(RawJson::parse("{} {}").is_err());
    }
}
