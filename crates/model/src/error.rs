//! What can go wrong with a model call, by what the caller may do about it.
//!
//! [`classify`] and [`retry_delay`] are pure: the shell hands them the bytes and the number of
//! the attempt. Absent: sleeping, and the decision to give up early, which belong to the caller.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::transcript::Wire;

/// The longest excerpt of a provider's answer that an error carries.
pub const MAX_EXCERPT_BYTES: usize = 2_048;
/// After so many attempts [`retry_delay`] gives up.
pub const MAX_ATTEMPTS: u32 = 10;
/// After so many attempts it gives up on answers whose tool call cannot be read.
pub const MAX_BAD_CALL_ATTEMPTS: u32 = 3;

/// A failed model call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{provider}: {message}{}{}", advice_separator(kind, message), kind.advice())]
pub struct ModelError {
    /// What the caller may do.
    pub kind: ErrorKind,
    /// The provider's name.
    pub provider: String,
    /// The HTTP status, if there was one.
    pub status: Option<u16>,
    /// What happened, for a person.
    pub message: String,
    /// The beginning of what the provider sent, at most [`MAX_EXCERPT_BYTES`]; may be empty.
    pub excerpt: String,
}

/// What the caller may do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ErrorKind {
    /// Too many requests: retry, not before `after_ms`.
    RateLimited {
        /// The provider's minimum wait.
        after_ms: Option<u64>,
    },
    /// The provider has trouble or too much to do: retry, not before `after_ms`.
    Overloaded {
        /// The provider's minimum wait.
        after_ms: Option<u64>,
    },
    /// No connection, or none that lasted until the answer began: retry.
    Unreachable,
    /// No byte for too long: retry.
    Silent {
        /// How long nothing came.
        idle_ms: u64,
    },
    /// The stream ended early or cannot be read: retry.
    Broken,
    /// A tool call in the answer cannot be read: retry a few times.
    BadCall,
    /// The answer reached `max_output_tokens` inside a tool call: raise the limit, or ask for less.
    CutCall,
    /// The key is missing, wrong or may not do this: a person must act.
    Auth,
    /// The money ran out: a person must act.
    OutOfCredit,
    /// The conversation is too long: compact it.
    ContextTooLong,
    /// The provider does not accept the request; the same request will fail again.
    BadRequest,
    /// The provider declined the content.
    Refused,
    /// The answer exceeds our limits.
    TooLarge,
    /// A cassette cannot be played or written.
    Cassette,
}

impl ErrorKind {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Overloaded { .. }
            | Self::Unreachable
            | Self::Silent { .. }
            | Self::Broken
            | Self::BadCall => true,
            Self::CutCall
            | Self::Auth
            | Self::OutOfCredit
            | Self::ContextTooLong
            | Self::BadRequest
            | Self::Refused
            | Self::TooLarge
            | Self::Cassette => false,
        }
    }

    /// What a person can do, as a sentence; empty where the message says it all.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Auth => "Check the key that is configured for this provider.",
            Self::OutOfCredit => "Add credit or raise the spending limit at the provider, then resume.",
            Self::Unreachable => "Check the URL, and that the server is running and can be reached from here.",
            Self::ContextTooLong => {
                "The conversation must be shortened, or the model changed for one with a larger window."
            }
            Self::CutCall => "Raise the limit on output tokens, or ask for smaller steps.",
            Self::RateLimited { .. }
            | Self::Overloaded { .. }
            | Self::Silent { .. }
            | Self::Broken
            | Self::BadCall
            | Self::BadRequest
            | Self::Refused
            | Self::TooLarge
            | Self::Cassette => "",
        }
    }
}

fn advice_separator(kind: &ErrorKind, message: &str) -> &'static str {
    match (kind.advice().is_empty(), message.ends_with(['.', '!', '?'])) {
        (true, _) => "",
        (false, true) => " ",
        (false, false) => ". ",
    }
}

impl ModelError {
    /// An error without an HTTP answer behind it.
    pub(crate) fn new(kind: ErrorKind, provider: &str, message: impl Into<String>) -> Self {
        Self { kind, provider: provider.to_owned(), status: None, message: message.into(), excerpt: String::new() }
    }

    pub(crate) fn with_excerpt(mut self, bytes: &[u8]) -> Self {
        self.excerpt = excerpt(bytes);
        self
    }
}

/// The beginning of `bytes` as text, cut at a character.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..MAX_EXCERPT_BYTES).unwrap_or(bytes));
    let mut end = text.len().min(MAX_EXCERPT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// An HTTP answer that is not a stream.
#[derive(Debug, Clone, Copy)]
pub struct ErrorAnswer<'a> {
    /// The provider's name, for the message.
    pub provider: &'a str,
    /// Its wire.
    pub wire: Wire,
    /// The status.
    pub status: u16,
    /// Header `retry-after-ms`.
    pub retry_after_ms: Option<&'a str>,
    /// Header `retry-after`: seconds or a date.
    pub retry_after: Option<&'a str>,
    /// Header `date`, against which a `retry-after` date is read.
    pub date: Option<&'a str>,
    /// The body, or its beginning.
    pub body: &'a [u8],
}

/// What a failed HTTP answer means. Pure.
#[must_use]
pub fn classify(answer: &ErrorAnswer<'_>) -> ModelError {
    let report = Report::read(answer.body);
    let after_ms = retry_after_ms(answer);
    let kind = report.specific(Some(answer.status)).unwrap_or_else(|| kind_of_status(answer.status, after_ms));
    ModelError {
        kind,
        provider: answer.provider.to_owned(),
        status: Some(answer.status),
        message: describe(Some(answer.status), &report, answer.body),
        excerpt: excerpt(answer.body),
    }
}

/// What an error inside a stream means: the provider said 200 and then failed. Pure.
#[must_use]
pub fn classify_in_stream(provider: &str, event: &[u8]) -> ModelError {
    let report = Report::read(event);
    // Chat gateways put the upstream's HTTP status into `code`.
    let status = report.code.parse::<u16>().ok().filter(|status| (400..600).contains(status));
    let kind = report
        .specific(status)
        .or_else(|| status.map(|status| kind_of_status(status, None)))
        .or_else(|| report.general())
        .unwrap_or(ErrorKind::Overloaded { after_ms: None });
    ModelError {
        kind,
        provider: provider.to_owned(),
        status,
        message: describe(status, &report, event),
        excerpt: excerpt(event),
    }
}

fn kind_of_status(status: u16, after_ms: Option<u64>) -> ErrorKind {
    match status {
        401 | 403 | 407 => ErrorKind::Auth,
        402 => ErrorKind::OutOfCredit,
        413 => ErrorKind::ContextTooLong,
        429 => ErrorKind::RateLimited { after_ms },
        408 | 409 | 425 | 500..=599 => ErrorKind::Overloaded { after_ms },
        _ => ErrorKind::BadRequest,
    }
}

/// The words of a provider's error, wherever it put them.
#[derive(Debug, Default)]
struct Report {
    message: String,
    kind: String,
    code: String,
}

impl Report {
    fn read(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        let inner = match value.get("error") {
            Some(Value::String(message)) => return Self { message: message.clone(), ..Self::default() },
            Some(error @ Value::Object(_)) => error,
            _ => &value,
        };
        let word = |name: &str| match inner.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let message = [word("message"), word("detail")].into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        Self { message, kind: word("type"), code: word("code") }
    }

    /// What the words say that the status does not.
    fn specific(&self, status: Option<u16>) -> Option<ErrorKind> {
        let message = self.message.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if self.is(&[
            "insufficient_quota",
            "credit_balance_exhausted",
            "billing_error",
            "billing_hard_limit_reached",
            "billing_not_active",
        ]) || says(&[
            "credit balance is too low",
            "specified api usage limits",
            "spend limit",
            "spending limit",
            "insufficient credits",
            "insufficient balance",
        ]) {
            return Some(ErrorKind::OutOfCredit);
        }
        if self.is(&["content_filter", "content_policy_violation"]) {
            return Some(ErrorKind::Refused);
        }
        // A rate limit may speak of contexts too, and waiting does help there.
        let about_length = self.is(&["context_length_exceeded", "exceed_context_size_error", "request_too_large"])
            || says(&[
                "prompt is too long",
                "maximum context length",
                "exceeds the available context size",
                "exceed context limit",
            ]);
        (about_length && status != Some(429)).then_some(ErrorKind::ContextTooLong)
    }

    /// What the error's type says, where there is no status.
    fn general(&self) -> Option<ErrorKind> {
        if self.is(&["rate_limit_error", "rate_limit_exceeded", "slow_down"]) {
            Some(ErrorKind::RateLimited { after_ms: None })
        } else if self.is(&["authentication_error", "permission_error", "invalid_api_key"]) {
            Some(ErrorKind::Auth)
        } else if self.is(&["invalid_request_error", "not_found_error", "model_not_found"]) {
            Some(ErrorKind::BadRequest)
        } else {
            None
        }
    }

    fn is(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.kind == *name || self.code == *name)
    }
}

fn describe(status: Option<u16>, report: &Report, body: &[u8]) -> String {
    let said = if report.message.is_empty() {
        let start: String =
            String::from_utf8_lossy(body.get(..300).unwrap_or(body)).split_whitespace().collect::<Vec<_>>().join(" ");
        if start.is_empty() { "no explanation".to_owned() } else { start }
    } else {
        report.message.chars().take(600).collect()
    };
    let label = [report.code.as_str(), report.kind.as_str()]
        .into_iter()
        .find(|word| !word.is_empty() && word.parse::<u16>().is_err());
    match (status, label) {
        (Some(status), Some(label)) => format!("the server answered {status} ({label}): {said}"),
        (Some(status), None) => format!("the server answered {status}: {said}"),
        (None, Some(label)) => format!("the server failed during its answer ({label}): {said}"),
        (None, None) => format!("the server failed during its answer: {said}"),
    }
}

/// The provider's minimum wait; never more than a day, whatever a header says.
fn retry_after_ms(answer: &ErrorAnswer<'_>) -> Option<u64> {
    const DAY_MS: u64 = 86_400_000;
    let exact = answer.retry_after_ms.and_then(|text| text.trim().parse::<f64>().ok());
    let seconds = || answer.retry_after.and_then(|text| text.trim().parse::<f64>().ok()).map(|seconds| seconds * 1e3);
    let until = || {
        let parse = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
        let (then, now) = (answer.retry_after.and_then(parse)?, answer.date.and_then(parse)?);
        Some(then.duration_since(now).as_secs_f64() * 1e3)
    };
    let ms = exact.or_else(seconds).or_else(until).filter(|ms| ms.is_finite() && *ms >= 0.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite, not negative, and capped right after; a float cast saturates"
    )]
    Some((ms.ceil() as u64).min(DAY_MS))
}

/// How long to wait before attempt `attempt + 1`, or `None` if it must not be made. `attempt`
/// counts from 1; `jitter_unit` is a random number from 0 to 1 that spreads the waiters over the
/// upper half of an interval that doubles from 0.5 s to 60 s. The provider's own minimum is always
/// kept and jitter is added to it. Pure.
#[must_use]
pub fn retry_delay(error: &ModelError, attempt: u32, jitter_unit: f64) -> Option<Duration> {
    const FIRST_MS: f64 = 500.0;
    const LONGEST_MS: f64 = 60_000.0;
    let attempts = if error.kind == ErrorKind::BadCall { MAX_BAD_CALL_ATTEMPTS } else { MAX_ATTEMPTS };
    if !error.kind.is_retryable() || attempt >= attempts {
        return None;
    }
    let minimum_ms = match error.kind {
        ErrorKind::RateLimited { after_ms } | ErrorKind::Overloaded { after_ms } => after_ms.unwrap_or(0),
        _ => 0,
    };
    let doublings = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX).min(30);
    let interval_ms = (FIRST_MS * 2f64.powi(doublings)).min(LONGEST_MS);
    let jitter = if jitter_unit.is_finite() { jitter_unit.clamp(0.0, 1.0) } else { 1.0 };
    let own = Duration::from_secs_f64(interval_ms * (0.5 + 0.5 * jitter) / 1e3);
    let told = Duration::from_millis(minimum_ms);
    if told > own { Some(told + Duration::from_secs_f64(interval_ms * 0.5 * jitter / 1e3)) } else { Some(own) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> ErrorAnswer<'_> {
        ErrorAnswer {
            provider: "p",
            wire: Wire::ChatCompletions,
            status,
            retry_after_ms: None,
            retry_after: None,
            date: None,
            body: body.as_bytes(),
        }
    }
    fn check(status: u16, body: &str, expect: ErrorKind) {
        let error = classify(&answer(status, body));
        assert_eq!(error.kind, expect, "{status} {body}: {error}");
        assert!(!error.to_string().is_empty());
    }

    #[test]
    fn every_status_of_the_fault_table_has_a_meaning() {
        let overloaded = ErrorKind::Overloaded { after_ms: None };
        for (status, expect) in [
            (400, ErrorKind::BadRequest),
            (401, ErrorKind::Auth),
            (402, ErrorKind::OutOfCredit),
            (403, ErrorKind::Auth),
            (404, ErrorKind::BadRequest),
            (408, overloaded),
            (413, ErrorKind::ContextTooLong),
            (422, ErrorKind::BadRequest),
            (429, ErrorKind::RateLimited { after_ms: None }),
            (500, overloaded),
            (502, overloaded),
            (503, overloaded),
            (504, overloaded),
            (529, overloaded),
        ] {
            check(status, "", expect);
            check(status, "<html>no json</html>", expect);
        }
    }

    #[test]
    fn words_of_the_body_say_what_the_status_does_not() {
        check(
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#,
            ErrorKind::OutOfCredit,
        );
        check(
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your specified API usage limits."}}"#,
            ErrorKind::OutOfCredit,
        );
        check(
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
            ErrorKind::ContextTooLong,
        );
        check(
            429,
            r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            ErrorKind::OutOfCredit,
        );
        check(
            429,
            r#"{"error":{"message":"Rate limit reached","type":"tokens","code":"rate_limit_exceeded"}}"#,
            ErrorKind::RateLimited { after_ms: None },
        );
        check(
            400,
            r#"{"error":{"message":"This model's maximum context length is 8192 tokens","code":"context_length_exceeded"}}"#,
            ErrorKind::ContextTooLong,
        );
        check(
            400,
            r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#,
            ErrorKind::ContextTooLong,
        );
        check(
            401,
            r#"{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","code":"invalid_api_key"}}"#,
            ErrorKind::Auth,
        );
        check(404, r#"{"error":"model 'x' not found, try pulling it first"}"#, ErrorKind::BadRequest);
    }

    #[test]
    fn the_message_tells_a_person_what_was_said_and_what_to_do() {
        let error = classify(&answer(401, r#"{"error":{"message":"bad key","type":"authentication_error"}}"#));
        assert_eq!(
            error.to_string(),
            "p: the server answered 401 (authentication_error): bad key. Check the key that is configured for this provider."
        );
    }

    #[test]
    fn retry_after_is_read_as_milliseconds_seconds_or_a_date() {
        let wait = |ms: Option<&str>, after: Option<&str>, date: Option<&str>| match classify(&ErrorAnswer {
            retry_after_ms: ms,
            retry_after: after,
            date,
            ..answer(429, "")
        })
        .kind
        {
            ErrorKind::RateLimited { after_ms } => after_ms,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(None, Some("7"), None), Some(7_000));
        assert_eq!(wait(Some("1500.2"), Some("7"), None), Some(1_501));
        assert_eq!(
            wait(None, Some("Sat, 21 Nov 2026 10:00:30 GMT"), Some("Sat, 21 Nov 2026 10:00:00 GMT")),
            Some(30_000)
        );
        assert_eq!(wait(None, Some("Sat, 21 Nov 2026 10:00:30 GMT"), None), None);
        assert_eq!(wait(None, Some("-3"), None), None);
        assert_eq!(wait(None, Some("soon"), None), None);
        assert_eq!(wait(None, Some("1e30"), None), Some(86_400_000));
    }

    #[test]
    fn a_failure_after_200_is_typed_by_its_words() {
        let kind = |event: &str| classify_in_stream("p", event.as_bytes()).kind;
        assert_eq!(
            kind(r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#),
            ErrorKind::Overloaded { after_ms: None }
        );
        assert_eq!(
            kind(r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"}}"#),
            ErrorKind::BadRequest
        );
        assert_eq!(kind(r#"{"error":{"code":502,"message":"upstream"}}"#), ErrorKind::Overloaded { after_ms: None });
        assert_eq!(kind(r#"{"error":{"code":"429","message":"slow"}}"#), ErrorKind::RateLimited { after_ms: None });
        assert_eq!(kind("not json"), ErrorKind::Overloaded { after_ms: None });
    }

    #[test]
    fn waits_double_up_to_a_minute_and_then_end() {
        let error = ModelError::new(ErrorKind::Broken, "p", "x");
        let ms: Vec<_> = (1..=MAX_ATTEMPTS)
            .map(|attempt| retry_delay(&error, attempt, 1.0).map(|delay| delay.as_millis()))
            .collect();
        assert_eq!(
            ms,
            [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
                .map(Some)
                .into_iter()
                .chain([None])
                .collect::<Vec<_>>()
        );
        assert_eq!(retry_delay(&error, 1, 0.0), Some(Duration::from_millis(250)));
        assert!(retry_delay(&error, 1, f64::NAN).is_some());
    }

    #[test]
    fn the_providers_minimum_is_kept_and_money_is_never_retried() {
        let limited = ModelError::new(ErrorKind::RateLimited { after_ms: Some(90_000) }, "p", "x");
        for jitter in [0.0, 0.5, 1.0] {
            assert!(retry_delay(&limited, 1, jitter).unwrap() >= Duration::from_secs(90));
        }
        for kind in [
            ErrorKind::OutOfCredit,
            ErrorKind::Auth,
            ErrorKind::ContextTooLong,
            ErrorKind::BadRequest,
            ErrorKind::CutCall,
            ErrorKind::Cassette,
        ] {
            assert_eq!(retry_delay(&ModelError::new(kind, "p", "x"), 1, 0.5), None);
        }
        assert_eq!(retry_delay(&ModelError::new(ErrorKind::BadCall, "p", "x"), MAX_BAD_CALL_ATTEMPTS, 0.5), None);
    }

    #[test]
    fn an_excerpt_is_bounded_and_cut_at_a_character() {
        let body = "é".repeat(MAX_EXCERPT_BYTES);
        let error = classify(&answer(500, &body));
        assert!(error.excerpt.len() <= MAX_EXCERPT_BYTES && error.excerpt.len() > MAX_EXCERPT_BYTES - 8);
        assert!(error.message.len() < 2_000);
    }
}
