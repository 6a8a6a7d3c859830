//! Values that must not be in a snapshot, and every form in which they are looked for.
//!
//! A value of a secret never goes into a box, so nothing should ever be found; looking is the proof.
//! Absent: packed forms. Whoever compresses a secret hides it from this.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shorter values are found everywhere by chance.
pub const MIN_VALUE_BYTES: usize = 8;

/// A value that must not be in a snapshot.
#[derive(Clone, PartialEq, Eq)]
pub struct Forbidden {
    /// The secret's name, for the message.
    pub name: String,
    /// Its value; looked for if it has at least [`MIN_VALUE_BYTES`].
    pub value: Vec<u8>,
}

impl std::fmt::Debug for Forbidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forbidden").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All forms of all values, each with the number of its value: as it is, in base64 wherever it
/// begins in the encoded text, in hex, URL-encoded.
pub fn forms(values: &[Forbidden]) -> Vec<(usize, Vec<u8>)> {
    let mut all = Vec::new();
    for (number, forbidden) in values.iter().enumerate().filter(|(_, f)| f.value.len() >= MIN_VALUE_BYTES) {
        let value = &forbidden.value;
        let mut forms = vec![value.clone()];
        for shift in 0..3 {
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                forms.push(encoded(engine, value, shift));
            }
        }
        forms.push(super::unpack::hex(value).into_bytes());
        forms.push(super::unpack::hex(value).to_ascii_uppercase().into_bytes());
        let percent =
            |upper: bool| -> Vec<u8> { value.iter().flat_map(|byte| percent_encoded(*byte, upper)).collect() };
        forms.extend([percent(true), percent(false)]);
        forms.sort();
        forms.dedup();
        all.extend(forms.into_iter().map(|form| (number, form)));
    }
    all
}

/// Whether a path shows one of the forms.
pub(crate) fn shows(path: &Path, forms: &[(usize, Vec<u8>)]) -> bool {
    let path = path.as_os_str().as_encoded_bytes();
    forms.iter().any(|(_, form)| path.windows(form.len()).any(|window| window == form))
}

/// The characters of base64 that depend on the value alone when `shift` bytes are before it.
fn encoded(engine: &base64::engine::GeneralPurpose, value: &[u8], shift: usize) -> Vec<u8> {
    let text = engine.encode([vec![0; shift], value.to_vec()].concat());
    // The first characters also hold bits of what is before, the last one may of what is behind.
    let first = (shift * 8).div_ceil(6);
    let last = (shift + value.len()) * 8 / 6;
    text.as_bytes().get(first..last).unwrap_or_default().to_vec()
}

fn percent_encoded(byte: u8, upper: bool) -> Vec<u8> {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        vec![byte]
    } else if upper {
        format!("%{byte:02X}").into_bytes()
    } else {
        format!("%{byte:02x}").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_value_is_found_in_base64_wherever_it_begins_and_whatever_is_around_it() {
        let value = b"s3cr3t/+value!";
        let all = forms(&[Forbidden { name: "X".into(), value: value.to_vec() }]);
        for before in 0..7 {
            for behind in 0..7 {
                let text = [vec![b'a'; before], value.to_vec(), vec![b'z'; behind]].concat();
                let hidden = STANDARD.encode(&text);
                let found = all.iter().any(|(_, form)| hidden.as_bytes().windows(form.len()).any(|w| w == form));
                assert!(found, "{before} before, {behind} behind: {hidden}");
            }
        }
        let url = "s3cr3t%2F%2Bvalue%21";
        assert!(all.iter().any(|(_, form)| form == url.as_bytes()));
        assert!(forms(&[Forbidden { name: "X".into(), value: b"short".to_vec() }]).is_empty());
    }
}
