//! Times as headers write them: from now or on the calendar, in seconds, milliseconds or words.
//!
//! Must never know: which header it was. Next: `super`, which bounds them.

use http::HeaderMap;

use crate::clock::Timestamp;
use crate::model::limit_headers::TimeUnit;
use crate::model::verdict::read_http_date;

const MS: i64 = 1_000;
const SECOND: i64 = 1_000_000;
/// Numbers above are epoch milliseconds, where no unit is declared.
const EPOCH_MS_FROM: i128 = 1_000_000_000_000;
/// Numbers above are epoch seconds.
const EPOCH_FROM: i128 = 1_000_000_000;
/// Clocks no further apart than this agree: `Date` has whole seconds, and ours is finer.
const CLOCKS_AGREE: i64 = 2 * SECOND;

/// The moment of an answer on the provider's own clock, so that the clocks of two machines need not agree: its `Date`
/// where that is far from `received_at`.
pub fn moment(headers: &HeaderMap, received_at: Timestamp) -> Timestamp {
    let date = headers.get(http::header::DATE).and_then(|v| v.to_str().ok()).and_then(read_http_date);
    date.filter(|d| d.0.abs_diff(received_at.0) > CLOCKS_AGREE as u64).unwrap_or(received_at)
}

/// Microseconds from `moment`; negative: it is over.
pub fn read(text: &str, unit: TimeUnit, moment: Timestamp) -> Option<i64> {
    let after = |at: Timestamp| at.0.checked_sub(moment.0);
    match unit {
        TimeUnit::Seconds => number(text, SECOND),
        TimeUnit::Milliseconds => number(text, MS),
        TimeUnit::EpochSeconds => number(text, SECOND).map(Timestamp).and_then(after),
        TimeUnit::EpochMilliseconds => number(text, MS).map(Timestamp).and_then(after),
        TimeUnit::Iso => iso(text).and_then(after),
        TimeUnit::HttpDate => read_http_date(text).and_then(after),
        TimeUnit::Text => words(text),
        TimeUnit::Any => {
            let unit = match whole(text) {
                Some(n) if n > EPOCH_MS_FROM => TimeUnit::EpochMilliseconds,
                Some(n) if n > EPOCH_FROM => TimeUnit::EpochSeconds,
                Some(_) => TimeUnit::Seconds,
                None => {
                    let times = || iso(text).or_else(|| read_http_date(text));
                    return words(text).or_else(|| times().and_then(after));
                }
            };
            read(text, unit, moment)
        }
    }
}

/// The digits before the point.
fn whole(text: &str) -> Option<i128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.len() <= 30 && s.bytes().all(|b| b.is_ascii_digit());
    (digits(whole) && digits(part)).then(|| whole.parse().ok()).flatten()
}

/// A number of units, perhaps with decimals, in microseconds, rounded up.
fn number(text: &str, unit_us: i64) -> Option<i64> {
    let whole = whole(text)?;
    let part = text.split_once('.').map_or("", |(_, part)| part);
    let six: String = part.chars().chain("000000".chars()).take(6).collect();
    let millionths: i64 = six.parse().ok()?;
    let up = i64::from(part.bytes().skip(6).any(|b| b != b'0'));
    let part_us = (millionths.checked_add(up)?).checked_mul(unit_us)?.div_ceil_to(SECOND);
    i64::try_from(whole).ok()?.checked_mul(unit_us)?.checked_add(part_us)
}

trait DivCeil {
    fn div_ceil_to(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    /// Of numbers that are not negative.
    fn div_ceil_to(self, by: i64) -> i64 {
        self / by + i64::from(self % by != 0)
    }
}

fn iso(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|t| Timestamp(t.as_microsecond()))
}

/// `6m0s`, `20ms`, `1h2m3.5s`.
fn words(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut sum = 0i64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, more) = rest.split_at(end);
        let end = more.find(|c: char| c.is_ascii_digit()).unwrap_or(more.len());
        let (unit, more) = more.split_at(end);
        let unit_us = match unit.trim() {
            "us" | "µs" => 1,
            "ms" => MS,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            "d" => 86_400 * SECOND,
            _ => return None,
        };
        sum = sum.checked_add(number(amount, unit_us)?)?;
        rest = more;
    }
    (!text.is_empty()).then_some(sum)
}
