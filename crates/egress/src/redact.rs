//! Takes known values out of streams, in each form that they are likely to appear in: as they are,
//! base64 (both alphabets, at any alignment), URL-encoded, hexadecimal, and escaped for JSON.
//!
//! [`KnownValues`] is compiled once and shared; a [`Redactor`] is the state of one stream. What might
//! be the beginning of a value at the end of a chunk is held back until more is known, never more
//! than the longest form. Values that overlap are taken out together. Absent: guesses about values
//! that nobody named, and forms that were compressed or encrypted.

use std::sync::Arc;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::secret::Secret;

/// Shortest value that can be taken out, in bytes.
pub const MIN_VALUE_BYTES: usize = 8;
/// Longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// Why values can't be taken out of streams.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedactError {
    /// So short that it would be found in texts that have nothing to do with it.
    #[error(
        "the value of {name} is shorter than {MIN_VALUE_BYTES} bytes: it would be found by chance and could be guessed from what is taken out; use a longer one"
    )]
    TooShort {
        /// Whose value.
        name: String,
    },
    /// So long that it is a file.
    #[error("the value of {name} is longer than {MAX_VALUE_BYTES} bytes")]
    TooLong {
        /// Whose value.
        name: String,
    },
    /// All values together are too much to search for.
    #[error("the values together are too long to be searched for: {detail}")]
    TooMuch {
        /// What the search said.
        detail: String,
    },
}

/// What is put in place of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// `[secret NAME]`: for texts that people and models read.
    Named,
    /// As many asterisks: for streams whose length was announced.
    SameLength,
}

/// Values in all their forms, ready to be searched for. Cheap to clone.
#[derive(Clone, Default)]
pub struct KnownValues(Option<Arc<Compiled>>);

struct Compiled {
    search: AhoCorasick,
    /// Sorted, for the question whether something is the beginning of a form.
    forms: Vec<Vec<u8>>,
    /// The name for each form.
    names: Vec<String>,
    longest_bytes: usize,
}

impl std::fmt::Debug for KnownValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KnownValues({} forms)", self.0.as_ref().map_or(0, |compiled| compiled.forms.len()))
    }
}

impl KnownValues {
    /// Compiles values with their names.
    ///
    /// # Errors
    /// [`RedactError`] for a value that is too short or too long.
    pub fn new(values: impl IntoIterator<Item = (String, Secret)>) -> Result<Self, RedactError> {
        let mut forms = Vec::new();
        for (name, value) in values {
            let value = value.expose().as_bytes();
            if value.len() < MIN_VALUE_BYTES {
                return Err(RedactError::TooShort { name });
            }
            if value.len() > MAX_VALUE_BYTES {
                return Err(RedactError::TooLong { name });
            }
            forms.extend(forms_of(value).into_iter().map(|form| (form, name.clone())));
        }
        if forms.is_empty() {
            return Ok(Self(None));
        }
        forms.sort();
        forms.dedup_by(|a, b| a.0 == b.0);
        let (forms, names): (Vec<_>, Vec<_>) = forms.into_iter().unzip();
        let search = AhoCorasick::new(&forms).map_err(|error| RedactError::TooMuch { detail: error.to_string() })?;
        let longest_bytes = forms.iter().map(Vec::len).max().unwrap_or_default();
        Ok(Self(Some(Arc::new(Compiled { search, forms, names, longest_bytes }))))
    }

    /// A whole text without the values.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.redact_bytes(text.as_bytes(), Mask::Named)).into_owned()
    }

    /// Whole bytes without the values.
    #[must_use]
    pub fn redact_bytes(&self, bytes: &[u8], mask: Mask) -> Vec<u8> {
        let mut redactor = Redactor::new(self.clone(), mask);
        let mut out = redactor.push(bytes);
        out.extend(redactor.finish());
        out
    }

    /// Whether any value occurs in any form.
    #[must_use]
    pub fn occurs_in(&self, bytes: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|compiled| compiled.search.is_match(bytes))
    }
}

/// Takes values out of one stream.
#[derive(Debug)]
pub struct Redactor {
    known: KnownValues,
    mask: Mask,
    /// What may be the beginning of a value.
    held: Vec<u8>,
    /// How much of `held` belongs to a value that was found and already named.
    covered: usize,
}

impl Redactor {
    /// For one stream.
    #[must_use]
    pub fn new(known: KnownValues, mask: Mask) -> Self {
        Self { known, mask, held: Vec::new(), covered: 0 }
    }

    /// Takes the next chunk and gives what is certain by now.
    #[must_use]
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        let Some(compiled) = self.known.0.clone() else { return chunk.to_vec() };
        self.held.extend_from_slice(chunk);
        let certain = compiled.certain(&self.held);
        self.give(&compiled, certain)
    }

    /// Ends the stream and gives what was held back.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        let Some(compiled) = self.known.0.clone() else { return Vec::new() };
        self.give(&compiled, self.held.len())
    }

    /// How many bytes are held back.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Gives the first `certain` bytes, masked, and keeps the rest.
    fn give(&mut self, compiled: &Compiled, certain: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(certain);
        let hide = |out: &mut Vec<u8>, from: usize, to: usize, name: Option<&str>| match self.mask {
            Mask::SameLength => out.resize(out.len() + (to - from), b'*'),
            Mask::Named => out.extend(name.map(|name| format!("[secret {name}]")).unwrap_or_default().into_bytes()),
        };
        let mut done = self.covered.min(certain);
        hide(&mut out, 0, done, None);
        let mut covered_to = self.covered;
        let mut found: Vec<(usize, usize, usize)> = compiled
            .search
            .find_overlapping_iter(&self.held)
            .map(|m| (m.start(), m.end(), m.pattern().as_usize()))
            .filter(|(start, _, _)| *start < certain)
            .collect();
        found.sort_unstable();
        for (start, end, form) in found {
            if end <= covered_to {
                continue;
            }
            let name = (start >= covered_to).then(|| compiled.names.get(form).map_or("", String::as_str));
            let from = start.max(covered_to).min(certain);
            out.extend_from_slice(self.held.get(done..from).unwrap_or_default());
            let to = end.min(certain);
            hide(&mut out, from, to, name);
            done = done.max(to);
            covered_to = end;
        }
        out.extend_from_slice(self.held.get(done..certain).unwrap_or_default());
        self.held.drain(..certain.min(self.held.len()));
        self.covered = covered_to.saturating_sub(certain);
        out
    }
}

impl Compiled {
    /// How many of these bytes can't be the beginning of a form that ends later.
    fn certain(&self, bytes: &[u8]) -> usize {
        let first = bytes.len().saturating_sub(self.longest_bytes.saturating_sub(1));
        (first..bytes.len())
            .find(|at| bytes.get(*at..).is_some_and(|tail| self.begins_longer_form(tail)))
            .unwrap_or(bytes.len())
    }

    fn begins_longer_form(&self, tail: &[u8]) -> bool {
        let at = self.forms.partition_point(|form| form.as_slice() <= tail);
        self.forms.get(at).is_some_and(|form| form.starts_with(tail))
    }
}

/// Every form that a value is searched in.
fn forms_of(value: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![value.to_vec()];
    for skipped in 0..3 {
        forms.push(base64_core(&STANDARD_NO_PAD, value, skipped));
        forms.push(base64_core(&URL_SAFE_NO_PAD, value, skipped));
    }
    let hexadecimal: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    forms.push(hexadecimal.to_ascii_uppercase().into_bytes());
    forms.push(hexadecimal.into_bytes());
    // What encoders leave as it is: RFC 3986, encodeURIComponent, HTML forms, paths, nothing.
    for kept in ["-._~", "-._~!'()*", "-._*", "-._~!$&'()*+,;=:@", ""] {
        forms.push(url_encoded(value, |byte| byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte), false));
        forms.push(url_encoded(value, |byte| byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte), true));
    }
    let plus: Vec<u8> = url_encoded(value, |byte| byte.is_ascii_alphanumeric() || b"-._* ".contains(&byte), false);
    forms.push(plus.into_iter().map(|byte| if byte == b' ' { b'+' } else { byte }).collect());
    forms.push(url_encoded(value, |_| false, false));
    forms.push(json_escaped(value));
    // A key of many lines is often printed with its lines moved.
    if value.contains(&b'\n') {
        let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        forms
            .extend(lines.filter(|line| line.len() >= 2 * MIN_VALUE_BYTES && !line.starts_with(b"---")).map(Vec::from));
    }
    forms.sort();
    forms.dedup();
    forms
}

/// The characters that stand for the value alone when `skipped` bytes stand before it in the group.
fn base64_core(engine: &base64::engine::GeneralPurpose, value: &[u8], skipped: usize) -> Vec<u8> {
    let mut padded = vec![0; skipped];
    padded.extend_from_slice(value);
    let encoded = engine.encode(&padded).into_bytes();
    let first = (skipped * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    encoded.get(first..end).unwrap_or_default().to_vec()
}

fn url_encoded(value: &[u8], keep: impl Fn(u8) -> bool, lower: bool) -> Vec<u8> {
    let encode = |byte: &u8| match (keep(*byte), lower) {
        (true, _) => vec![*byte],
        (false, true) => format!("%{byte:02x}").into_bytes(),
        (false, false) => format!("%{byte:02X}").into_bytes(),
    };
    value.iter().flat_map(encode).collect()
}

fn json_escaped(value: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b'"' => b"\\\"".to_vec(),
        b'\\' => b"\\\\".to_vec(),
        b'\n' => b"\\n".to_vec(),
        b'\r' => b"\\r".to_vec(),
        b'\t' => b"\\t".to_vec(),
        other => vec![*other],
    };
    value.iter().flat_map(escape).collect()
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
