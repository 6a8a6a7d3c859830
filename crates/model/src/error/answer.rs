//! What a provider's failed answer means, by its status, its headers and its words.
//!
//! Words outrank the status, because providers use 400 and 429 for everything. Absent: the failure
//! to get an answer at all, which the HTTP shell types itself.

use serde_json::Value;

use super::retry::{bounded_ms, retry_after_ms, seconds_ms};
use super::{ErrorKind, ModelError, excerpt};
use crate::transcript::Wire;

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
    let after_ms = after_ms.or(report.wait_ms);
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
        .or_else(|| status.map(|status| kind_of_status(status, report.wait_ms)))
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
    /// Google's name for the error.
    state: String,
    /// Google's reasons, and the names of the quotas that were exceeded.
    reasons: Vec<String>,
    /// The provider's minimum wait, where the body says it.
    wait_ms: Option<u64>,
}

impl Report {
    fn read(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        // Google wraps errors into a list where it would have streamed one.
        let value = value.get(0).unwrap_or(&value);
        let inner = match value.get("error") {
            Some(Value::String(message)) => return Self { message: message.clone(), ..Self::default() },
            Some(error @ Value::Object(_)) => error,
            _ => value,
        };
        let word = |name: &str| match inner.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let message = [word("message"), word("detail")].into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        let mut report =
            Self { message, kind: word("type"), code: word("code"), state: word("status"), ..Self::default() };
        for detail in inner.get("details").and_then(Value::as_array).into_iter().flatten() {
            let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
            report.reasons.extend(text(detail, "reason"));
            let violations = detail.get("violations").and_then(Value::as_array).into_iter().flatten();
            report.reasons.extend(violations.filter_map(|violation| text(violation, "quotaId")));
            let wait = text(detail, "retryDelay");
            report.wait_ms = report.wait_ms.or(wait.and_then(|wait| seconds_ms(wait.strip_suffix('s')?)));
        }
        report.wait_ms = report.wait_ms.or_else(|| spoken_ms(&report.message));
        report
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
        ]) || self.reasons.iter().any(|quota| quota.contains("PerDay"))
        {
            return Some(ErrorKind::OutOfCredit);
        }
        if self.is(&["content_filter", "content_policy_violation"]) {
            return Some(ErrorKind::Refused);
        }
        if self.reasons.iter().any(|reason| reason == "API_KEY_INVALID") || says(&["api key not valid"]) {
            return Some(ErrorKind::Auth);
        }
        // A rate limit may speak of contexts too, and waiting does help there.
        let about_length = self.is(&["context_length_exceeded", "exceed_context_size_error", "request_too_large"])
            || says(&[
                "prompt is too long",
                "maximum context length",
                "exceeds the available context size",
                "exceed context limit",
                "exceeds the context window",
                "input token count",
            ]);
        (about_length && status != Some(429)).then_some(ErrorKind::ContextTooLong)
    }

    /// What the error's type says, where there is no status.
    fn general(&self) -> Option<ErrorKind> {
        if self.is(&["rate_limit_error", "rate_limit_exceeded", "slow_down", "RESOURCE_EXHAUSTED"]) {
            Some(ErrorKind::RateLimited { after_ms: self.wait_ms })
        } else if self.is(&["authentication_error", "permission_error", "invalid_api_key", "PERMISSION_DENIED"]) {
            Some(ErrorKind::Auth)
        } else if self.is(&[
            "invalid_request_error",
            "not_found_error",
            "model_not_found",
            "invalid_prompt",
            "INVALID_ARGUMENT",
        ]) {
            Some(ErrorKind::BadRequest)
        } else {
            None
        }
    }

    fn is(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.kind == *name || self.code == *name || self.state == *name)
    }
}

/// The wait that a message names as OpenAI's do: `try again in 1m2.5s`.
fn spoken_ms(message: &str) -> Option<u64> {
    let (_, mut rest) = message.split_once("try again in ")?;
    let mut total_ms = None;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        // A full stop ends the sentence, not the number.
        let Ok(number) = number.parse::<f64>() else { return total_ms };
        let unit = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let unit_ms = match unit {
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            _ => return total_ms,
        };
        total_ms = Some(total_ms.unwrap_or(0) + bounded_ms(number * unit_ms)?);
        rest = after;
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
    let label = [report.code.as_str(), report.kind.as_str(), report.state.as_str()]
        .into_iter()
        .find(|word| !word.is_empty() && word.parse::<u16>().is_err());
    match (status, label) {
        (Some(status), Some(label)) => format!("the server answered {status} ({label}): {said}"),
        (Some(status), None) => format!("the server answered {status}: {said}"),
        (None, Some(label)) => format!("the server failed during its answer ({label}): {said}"),
        (None, None) => format!("the server failed during its answer: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::MAX_EXCERPT_BYTES;

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
    fn googles_errors_are_read_with_their_reasons_and_waits() {
        let google = |code: u16, state: &str, message: &str, details: &str| {
            format!(r#"{{"error":{{"code":{code},"message":"{message}","status":"{state}","details":[{details}]}}}}"#)
        };
        let retry = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.074s"}"#;
        let quota = |id: &str| format!(r#"{{"violations":[{{"quotaMetric":"m","quotaId":"{id}"}}]}},{retry}"#);
        let limited = ErrorKind::RateLimited { after_ms: Some(34_074) };
        check(429, &google(429, "RESOURCE_EXHAUSTED", "Quota exceeded", &quota("RequestsPerMinutePerModel")), limited);
        // Without `alt=sse` it would be a list; some gateways leave that.
        check(429, &format!("[{}]", google(429, "RESOURCE_EXHAUSTED", "Quota exceeded", retry)), limited);
        let day = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier");
        check(429, &google(429, "RESOURCE_EXHAUSTED", "Quota exceeded", &day), ErrorKind::OutOfCredit);
        let reason = r#"{"reason":"API_KEY_INVALID","domain":"googleapis.com"}"#;
        check(400, &google(400, "INVALID_ARGUMENT", "API key not valid.", reason), ErrorKind::Auth);
        let long = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).";
        check(400, &google(400, "INVALID_ARGUMENT", long, ""), ErrorKind::ContextTooLong);
        check(400, &google(400, "INVALID_ARGUMENT", "No such field", ""), ErrorKind::BadRequest);
        let overloaded = ErrorKind::Overloaded { after_ms: None };
        check(503, &google(503, "UNAVAILABLE", "The model is overloaded.", ""), overloaded);
        check(500, &google(500, "INTERNAL", "An internal error has occurred.", ""), overloaded);
    }

    #[test]
    fn a_wait_that_only_the_message_names_is_kept() {
        for (said, ms) in [
            ("try again in 1.5s.", Some(1_500)),
            ("try again in 250ms. Visit", Some(250)),
            ("try again in 1m2.5s", Some(62_500)),
            ("try again in 2h", Some(7_200_000)),
            ("try again in a while", None),
            ("try again in 5 parsecs", None),
            ("try again in 9e99s", None),
            ("try again in ", None),
        ] {
            check(
                429,
                &format!(r#"{{"error":{{"message":"Please {said}"}}}}"#),
                ErrorKind::RateLimited { after_ms: ms },
            );
        }
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
    fn an_excerpt_is_bounded_and_cut_at_a_character() {
        let body = "é".repeat(MAX_EXCERPT_BYTES);
        let error = classify(&answer(500, &body));
        assert!(error.excerpt.len() <= MAX_EXCERPT_BYTES && error.excerpt.len() > MAX_EXCERPT_BYTES - 8);
        assert!(error.message.len() < 2_000);
    }
}
