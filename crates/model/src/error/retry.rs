//! When a failed call may be made again: the provider's own minimum, and ours.

use std::time::Duration;

use super::{ErrorAnswer, ErrorKind, ModelError};

/// After so many attempts [`retry_delay`] gives up.
pub const MAX_ATTEMPTS: u32 = 10;
/// After so many attempts it gives up on answers whose tool call cannot be read.
pub const MAX_BAD_CALL_ATTEMPTS: u32 = 3;

/// The provider's minimum wait by its headers.
pub(super) fn retry_after_ms(answer: &ErrorAnswer<'_>) -> Option<u64> {
    let exact = answer.retry_after_ms.and_then(|text| text.trim().parse::<f64>().ok());
    let seconds = || answer.retry_after.and_then(|text| text.trim().parse::<f64>().ok()).map(|seconds| seconds * 1e3);
    let until = || {
        let parse = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
        let (then, now) = (answer.retry_after.and_then(parse)?, answer.date.and_then(parse)?);
        Some(then.duration_since(now).as_secs_f64() * 1e3)
    };
    bounded_ms(exact.or_else(seconds).or_else(until)?)
}

/// Seconds as a provider writes them in a body.
pub(super) fn seconds_ms(text: &str) -> Option<u64> {
    bounded_ms(text.trim().parse::<f64>().ok()? * 1e3)
}

/// Never more than a day, whatever a provider says; `None` for what is no time to come.
pub(super) fn bounded_ms(ms: f64) -> Option<u64> {
    const DAY_MS: u64 = 86_400_000;
    let ms = Some(ms).filter(|ms| ms.is_finite() && *ms >= 0.0)?;
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
    use crate::error::classify;
    use crate::transcript::Wire;

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
}
