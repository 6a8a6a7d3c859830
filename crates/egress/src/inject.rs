//! The one place where a secret's value meets a request.
//!
//! The value goes to its one header, in place of whatever the box put there. A placeholder is
//! accepted only in headers of a request that is bound to that very secret; anywhere else it shows
//! that something in the box sends credentials where they don't belong, and the request is refused.
//! Absent: bodies; a placeholder in a body is text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

use crate::denial::Denial;
use crate::headers;
use crate::list::{BoundSecret, SecretAs, is_secret_name};
use crate::path::CleanPath;
use crate::secret::{PLACEHOLDER_PREFIX, Secret};

/// Refuses placeholders that are not of this request's own secret. `path` may be none at all.
pub(crate) fn check_placeholders(
    headers: &HeaderMap,
    path: Option<&CleanPath>,
    bound: Option<&BoundSecret>,
) -> Result<(), Denial> {
    let in_path = path.is_some_and(|path| {
        let query = path.query().unwrap_or_default();
        path.readings().iter().any(|reading| reading.contains(PLACEHOLDER_PREFIX)) || query.contains(PLACEHOLDER_PREFIX)
    });
    if in_path {
        return Err(Denial::PlaceholderElsewhere);
    }
    for value in headers.values() {
        for name in placeholders(value) {
            if bound.is_none_or(|bound| bound.name != name) {
                return Err(Denial::PlaceholderElsewhere);
            }
        }
    }
    Ok(())
}

/// The names of all secrets whose placeholder is in a header, also inside of basic credentials.
fn placeholders(value: &HeaderValue) -> Vec<String> {
    let plain = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let encoded = plain.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let decoded = encoded.and_then(|(_, credentials)| STANDARD.decode(credentials.trim()).ok());
    let decoded = decoded.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    [plain, decoded]
        .iter()
        .flat_map(|text| text.split(PLACEHOLDER_PREFIX).skip(1))
        .map(|rest| rest.chars().take_while(|c| is_secret_name(&c.to_string())).collect())
        .collect()
}

/// Puts the value into its header and takes away all other credentials.
///
/// # Errors
/// [`Denial::SecretUnavailable`] for a value that no header can hold.
pub(crate) fn inject(headers: &mut HeaderMap, bound: &BoundSecret, secret: &Secret) -> Result<(), Denial> {
    headers::strip_credentials(headers);
    let with_placeholder: Vec<HeaderName> =
        headers.iter().filter(|(_, value)| !placeholders(value).is_empty()).map(|(name, _)| name.clone()).collect();
    for name in with_placeholder {
        headers.remove(name);
    }
    let unfit = || Denial::SecretUnavailable {
        name: bound.name.clone(),
        detail: "its value has characters that no header can hold (perhaps a line break at its end)".to_owned(),
    };
    let value = secret.expose();
    let (name, text) = match &bound.placed {
        SecretAs::Bearer => (header::AUTHORIZATION, format!("Bearer {value}")),
        SecretAs::Basic(user) => {
            (header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{user}:{value}"))))
        }
        SecretAs::Header(name) => (HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?, value.to_owned()),
    };
    if value.chars().any(char::is_control) {
        return Err(unfit());
    }
    let mut value = HeaderValue::from_str(&text).map_err(|_| unfit())?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(placed: SecretAs) -> BoundSecret {
        BoundSecret { name: "TOKEN".into(), placed }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_value_replaces_all_that_the_box_sent() {
        let mut sent = headers(&[
            ("authorization", "Bearer mine"),
            ("cookie", "a=b"),
            ("x-debug", "chargehand-secret-TOKEN"),
            ("accept", "*/*"),
        ]);
        inject(&mut sent, &bound(SecretAs::Bearer), &Secret::new("value")).unwrap();
        assert_eq!(sent, headers(&[("accept", "*/*"), ("authorization", "Bearer value")]));
        inject(&mut sent, &bound(SecretAs::Basic("me".into())), &Secret::new("value")).unwrap();
        assert_eq!(sent[header::AUTHORIZATION], "Basic bWU6dmFsdWU=");
        assert!(sent[header::AUTHORIZATION].is_sensitive());
        inject(&mut sent, &bound(SecretAs::Header("X-Key".into())), &Secret::new("value")).unwrap();
        assert_eq!(sent, headers(&[("accept", "*/*"), ("x-key", "value")]));
    }

    #[test]
    fn a_value_that_would_forge_headers_is_refused() {
        for value in ["a\r\nX: y", "a\n", "a\0", "a\u{7f}"] {
            let refused = inject(&mut HeaderMap::new(), &bound(SecretAs::Bearer), &Secret::new(value));
            assert!(matches!(refused, Err(Denial::SecretUnavailable { .. })), "{value:?}");
        }
    }

    #[test]
    fn a_placeholder_is_accepted_only_where_its_secret_is_bound() {
        let own = bound(SecretAs::Bearer);
        let basic = format!("Basic {}", STANDARD.encode("me:chargehand-secret-TOKEN"));
        for value in ["Bearer chargehand-secret-TOKEN", &basic] {
            let sent = headers(&[("authorization", value)]);
            assert_eq!(check_placeholders(&sent, None, Some(&own)), Ok(()));
            assert_eq!(check_placeholders(&sent, None, None), Err(Denial::PlaceholderElsewhere));
        }
        let other = headers(&[("x-any", "a chargehand-secret-OTHER")]);
        assert_eq!(check_placeholders(&other, None, Some(&own)), Err(Denial::PlaceholderElsewhere));
        for (path, query) in [
            ("/chargehand-secret-TOKEN", None),
            ("/%63hargehand-secret-TOKEN", None),
            ("/", Some("a=chargehand-secret-TOKEN")),
        ] {
            let path = CleanPath::parse(path, query).unwrap();
            assert_eq!(
                check_placeholders(&HeaderMap::new(), Some(&path), Some(&own)),
                Err(Denial::PlaceholderElsewhere)
            );
        }
    }
}
