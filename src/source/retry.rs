//! How long to wait before the next attempt.
//!
//! In: the attempt that failed, chance, and what the other side asked for. Out: a wait, never longer than
//! `retry.max`. Must not know: HTTP, tokio, the clock.

use crate::config::Retry;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use std::time::Duration;

/// The wait after attempt `attempt` (from 1): exponential with full jitter, `chance` in 0..1.
pub(super) fn backoff(retry: &Retry, attempt: u32, chance: f64) -> Duration {
    let doubled = 2u32.saturating_pow(attempt.saturating_sub(1));
    retry.base.saturating_mul(doubled).min(retry.max).mul_f64(chance)
}

/// The longest that the waits of a run may be together.
pub(super) fn patience(retry: &Retry) -> Duration {
    (1..retry.attempts).map(|attempt| backoff(retry, attempt, 1.0)).sum()
}

/// What Retry-After asks for, seconds or an HTTP date, held between max(base, 1 s) and `retry.max`.
///
/// The floor is there because servers send "0" and dates already past; the cap because they send days.
///
/// Source: RFC 9110 section 10.2.3.
pub(super) fn retry_after(retry: &Retry, header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    let asked = if header.bytes().all(|byte| byte.is_ascii_digit()) && !header.is_empty() {
        Duration::from_secs(header.parse().unwrap_or(u64::MAX))
    } else {
        let at = DateTimeParser::new().parse_timestamp(header).ok()?;
        Duration::try_from(at.duration_since(now)).unwrap_or_default()
    };
    let floor = retry.base.max(Duration::from_secs(1));
    Some(asked.max(floor).min(retry.max))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { attempts: 4, base: Duration::from_secs(1), max: Duration::from_secs(60) };

    #[test]
    fn waits_double_up_to_the_cap() {
        let most: Vec<u64> = (1..=8).map(|attempt| backoff(&RETRY, attempt, 1.0).as_secs()).collect();
        assert_eq!(most, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff(&RETRY, u32::MAX, 0.5), Duration::from_secs(30));
    }

    #[test]
    fn patience_is_the_sum_of_the_longest_waits() {
        assert_eq!(patience(&RETRY), Duration::from_secs(1 + 2 + 4));
        assert_eq!(patience(&Retry { attempts: 1, ..RETRY }), Duration::ZERO);
    }

    #[test]
    fn jitter_is_full() {
        assert_eq!(backoff(&RETRY, 3, 0.0), Duration::ZERO);
        assert_eq!(backoff(&RETRY, 3, 0.25), Duration::from_secs(1));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_between_floor_and_cap() {
        let now: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
        let asked = |header| retry_after(&RETRY, header, now).map(|wait| wait.as_secs());
        assert_eq!(asked("7"), Some(7));
        assert_eq!(asked(" 0 "), Some(1));
        assert_eq!(asked("86400"), Some(60));
        assert_eq!(asked("99999999999999999999999"), Some(60));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:30 GMT"), Some(30));
        assert_eq!(asked("Wed, 21 Oct 2015 07:00:00 GMT"), Some(1));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked(""), None);
        assert_eq!(asked("-5"), None);
    }
}
