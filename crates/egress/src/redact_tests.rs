//! No form of a value comes through, however the stream is cut.

use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;

use super::*;

const VALUE: &str = "s3cr3t/value+with=signs & \"quotes\"";

fn known(values: &[(&str, &str)]) -> KnownValues {
    KnownValues::new(values.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value)))).unwrap()
}

fn in_pieces(known: &KnownValues, mask: Mask, bytes: &[u8], size: usize) -> Vec<u8> {
    let mut redactor = Redactor::new(known.clone(), mask);
    let mut out = Vec::new();
    for piece in bytes.chunks(size) {
        out.extend(redactor.push(piece));
    }
    out.extend(redactor.finish());
    out
}

#[test]
fn a_value_is_named_and_the_rest_is_untouched() {
    let known = known(&[("TOKEN", VALUE)]);
    assert_eq!(known.redact(&format!("a {VALUE} b")), "a [secret TOKEN] b");
    assert_eq!(known.redact("nothing here"), "nothing here");
    assert_eq!(known.redact(&VALUE[..VALUE.len() - 1]), &VALUE[..VALUE.len() - 1]);
    assert_eq!(KnownValues::default().redact(VALUE), VALUE);
}

#[test]
fn each_form_is_found() {
    let known = known(&[("TOKEN", VALUE)]);
    let percent: String = VALUE.bytes().map(|b| format!("%{b:02X}")).collect();
    let hexadecimal: String = VALUE.bytes().map(|b| format!("{b:02x}")).collect();
    let forms = [
        "s3cr3t%2Fvalue%2Bwith%3Dsigns%20%26%20%22quotes%22".to_owned(),
        "s3cr3t%2fvalue%2bwith%3dsigns%20%26%20%22quotes%22".to_owned(),
        "s3cr3t%2Fvalue%2Bwith%3Dsigns+%26+%22quotes%22".to_owned(),
        percent,
        hexadecimal.to_uppercase(),
        hexadecimal,
        serde_json::to_string(VALUE).unwrap(),
    ];
    for form in forms {
        assert!(known.redact(&form).contains("[secret TOKEN]"), "{form}");
    }
    for before in ["", "u", "us", "user", "x-access-token:"] {
        for after in ["", "\n", "ab"] {
            let text = format!("{before}{VALUE}{after}");
            for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
                let out = known.redact(&encoded);
                assert!(out.contains("[secret TOKEN]") && out.len() < encoded.len(), "{encoded} -> {out}");
            }
        }
    }
}

#[test]
fn values_that_overlap_go_together() {
    let known = known(&[("A", "abcdefgh"), ("B", "efghijkl")]);
    assert_eq!(known.redact("-abcdefghijkl-"), "-[secret A]-");
    assert_eq!(known.redact_bytes(b"-abcdefghijkl-", Mask::SameLength), b"-************-");
    for size in 1..14 {
        assert_eq!(in_pieces(&known, Mask::SameLength, b"-abcdefghijkl-", size), b"-************-", "{size}");
        assert_eq!(in_pieces(&known, Mask::Named, b"-abcdefghijkl-", size), b"-[secret A]-", "{size}");
    }
}

#[test]
fn a_value_without_end_is_held_in_bounded_memory() {
    let known = known(&[("A", "aaaaaaaa")]);
    let mut redactor = Redactor::new(known, Mask::SameLength);
    let mut out = 0;
    for _ in 0..1000 {
        out += redactor.push(&[b'a'; 100]).len();
        assert!(redactor.held_bytes() < 64, "{}", redactor.held_bytes());
    }
    assert_eq!(out + redactor.finish().len(), 100_000);
}

#[test]
fn plain_text_is_not_held_back() {
    let mut redactor = Redactor::new(known(&[("A", "zzzzzzzz1")]), Mask::Named);
    assert_eq!(redactor.push(b"data: hello\n\n"), b"data: hello\n\n");
    assert_eq!(redactor.push(b"data: zzz"), b"data: ");
    assert_eq!(redactor.push(b"\n"), b"zzz\n");
}

#[test]
fn a_short_value_is_refused_with_the_reason() {
    let error = KnownValues::new([("PIN".to_owned(), Secret::new("1234567"))]).unwrap_err();
    assert!(error.to_string().contains("PIN is shorter than 8 bytes"), "{error}");
    assert!(!error.to_string().contains("1234567"));
}

#[test]
fn lines_of_a_key_are_found_alone() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n9w0BAQEFAASCBKcwggSj\n-----END KEY-----\n";
    let known = known(&[("KEY", key)]);
    assert_eq!(known.redact("  9w0BAQEFAASCBKcwggSj"), "  [secret KEY]");
    assert_eq!(known.redact("-----BEGIN KEY-----"), "-----BEGIN KEY-----");
}

proptest! {
    #[test]
    fn how_the_stream_is_cut_changes_nothing(
        text in "([ab]{0,6}|abababab|babababb){0,12}",
        size in 1usize..9,
    ) {
        let known = known(&[("A", "abababab"), ("B", "babababb")]);
        for mask in [Mask::Named, Mask::SameLength] {
            let whole = known.redact_bytes(text.as_bytes(), mask);
            prop_assert_eq!(in_pieces(&known, mask, text.as_bytes(), size), whole.clone());
            prop_assert!(!known.occurs_in(&whole), "{:?}", String::from_utf8_lossy(&whole));
        }
    }

    #[test]
    fn no_value_comes_through_in_base64(before in prop::collection::vec(any::<u8>(), 0..9), after in prop::collection::vec(any::<u8>(), 0..9)) {
        let known = known(&[("A", "correct horse")]);
        let text = STANDARD.encode([before.as_slice(), b"correct horse", after.as_slice()].concat());
        prop_assert!(known.occurs_in(text.as_bytes()));
    }
}
