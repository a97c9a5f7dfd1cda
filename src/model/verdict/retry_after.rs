//! The `Retry-After` header (RFC 9110, section 10.2.3), as providers really send it.
//!
//! Whatever it says, the wait is between [`RETRY_AFTER_MIN`] and [`RETRY_AFTER_MAX`]; what cannot be read is ignored,
//! and both are said, so that somebody counts them. Must never know: which answers may carry it (`verdict.rs`).

use std::time::Duration;

use crate::clock::Timestamp;

/// Longest wait that a provider may impose by header. Longer ones are clamped and counted.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Shortest wait after a "not now" that names a time: `0`, or a date in the past, must not become a hammer.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// What the header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// No such header.
    Nothing,
    Wait(Duration),
    /// More than [`RETRY_AFTER_MAX`], which it becomes.
    Clamped(Duration),
    /// Not readable; ignored.
    Garbage,
}

impl Asked {
    pub fn wait(self) -> Option<Duration> {
        match self {
            Asked::Wait(d) | Asked::Clamped(d) => Some(d),
            Asked::Nothing | Asked::Garbage => None,
        }
    }
}

/// Reads all lines of the header; the longest wait counts. A date is measured against the answer's own `Date`, so that
/// the clocks of two machines need not agree; without one, against `received_at`.
pub fn read(headers: &http::HeaderMap, received_at: Timestamp) -> Asked {
    let date = headers.get(http::header::DATE).and_then(|v| v.to_str().ok()).and_then(read_date);
    let now = date.unwrap_or(received_at);
    let waits = headers.get_all(http::header::RETRY_AFTER).iter().map(|value| {
        let text = value.to_str().ok()?.trim();
        read_seconds(text).or_else(|| read_date(text).map(|at| at.since(now)))
    });
    let mut asked = Asked::Nothing;
    for wait in waits {
        let this = match wait {
            None => Asked::Garbage,
            Some(d) if d > RETRY_AFTER_MAX => Asked::Clamped(RETRY_AFTER_MAX),
            Some(d) => Asked::Wait(d.max(RETRY_AFTER_MIN)),
        };
        if asked == Asked::Nothing || this.wait() > asked.wait() {
            asked = this;
        }
    }
    asked
}

/// Whole seconds as the standard has it, or decimal ones as some providers send them, rounded up.
fn read_seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    // Too many digits for a number are still a number: a very long wait.
    let seconds = whole.parse::<u64>().unwrap_or(u64::MAX);
    let up = u64::from(part.bytes().any(|b| b != b'0'));
    Some(Duration::from_secs(seconds.saturating_add(up)))
}

/// One of the three forms of an HTTP date.
pub fn read_date(text: &str) -> Option<Timestamp> {
    let at = httpdate::parse_http_date(text).ok()?;
    let since = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::ZERO + since)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECEIVED: Timestamp = Timestamp(1_763_769_600_000_000); // 2025-11-22T00:00:00Z

    fn asked(lines: &[&str], date: Option<&str>) -> Asked {
        let mut headers = http::HeaderMap::new();
        for line in lines {
            headers.append(http::header::RETRY_AFTER, line.parse().unwrap());
        }
        if let Some(date) = date {
            headers.insert(http::header::DATE, date.parse().unwrap());
        }
        read(&headers, RECEIVED)
    }

    fn secs(s: u64) -> Asked {
        Asked::Wait(Duration::from_secs(s))
    }

    #[test]
    fn both_forms_are_read_and_absurd_ones_clamped_or_ignored() {
        assert_eq!(asked(&[], None), Asked::Nothing);
        assert_eq!(asked(&["120"], None), secs(120));
        assert_eq!(asked(&["1.5"], None), secs(2));
        assert_eq!(asked(&["2.0"], None), secs(2));
        for garbage in ["-5", "abc", "", "1.", ".5", "+3", "1e3", "0x10", "12 apples", "Sat, 99 Nov 2025 00:00:00 GMT"]
        {
            assert_eq!(asked(&[garbage], None), Asked::Garbage, "{garbage:?}");
        }
        for long in ["86401", "99999999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(asked(&[long], None), Asked::Clamped(RETRY_AFTER_MAX), "{long:?}");
        }
        assert_eq!(asked(&["Thu, 01 Jan 1970 00:00:00 GMT"], None), Asked::Wait(RETRY_AFTER_MIN));
        assert_eq!(asked(&["0"], None), Asked::Wait(RETRY_AFTER_MIN));
    }

    #[test]
    fn a_date_is_measured_against_the_answers_own_clock() {
        let at = "Sat, 22 Nov 2025 01:00:30 GMT";
        assert_eq!(asked(&[at], Some("Sat, 22 Nov 2025 01:00:00 GMT")), secs(30));
        assert_eq!(asked(&[at], None), secs(3_630));
        assert_eq!(asked(&[at], Some("no date")), secs(3_630));
    }

    #[test]
    fn of_two_lines_the_longer_wait_counts() {
        assert_eq!(asked(&["5", "60"], None), secs(60));
        assert_eq!(asked(&["60", "abc"], None), secs(60));
        assert_eq!(asked(&["abc", "60"], None), secs(60));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_bounded_wait_or_nothing(line in proptest::collection::vec(any::<u8>(), 0..60), us in any::<i64>()) {
            let mut headers = http::HeaderMap::new();
            if let Ok(value) = http::HeaderValue::from_bytes(&line) {
                headers.insert(http::header::RETRY_AFTER, value.clone());
                headers.insert(http::header::DATE, value);
            }
            if let Some(wait) = read(&headers, Timestamp(us)).wait() {
                prop_assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&wait));
            }
        }

        #[test]
        fn any_number_is_a_wait(digits in "[0-9]{1,300}(\\.[0-9]{1,20})?") {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, digits.parse().unwrap());
            prop_assert!(read(&headers, RECEIVED).wait().is_some());
        }
    }
}
