//! What the headers of an answer say about a limit: how much is left, until when.
//!
//! Pure. Whatever stands there, what comes out is bounded; what cannot be read, or cannot be meant, is left out and
//! counted. Presets and units are those of reference/rate-limiting.md, section 1. Must never know: what follows from it
//! (`correction.rs`), which answers are refusals. Next: `feedback/time.rs` for units, `feedback/draft.rs` for structured
//! fields.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::calendar;
use crate::clock::Timestamp;
use crate::model::limit_headers::{HeaderNames, LimitHeaders, TimeUnit};
use crate::model::provider::{CalendarPeriod, Limit, LimitKind};

mod draft;
mod time;

/// A reset that is further away than this, or than the limit's own window where that is longer, is not believed.
pub const RESET_MAX: Duration = Duration::from_secs(24 * 3_600);
/// A reset that is longer ago than this was not meant: a unit was taken for another.
const PAST_MAX: Duration = Duration::from_secs(3_600);

/// What an answer said about one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The provider's own maximum.
    pub max: Option<u32>,
    /// Permits left.
    pub left: Option<u32>,
    /// From the answer to the reset; at most [`RESET_MAX`] or the limit's window.
    pub reset_in: Option<Duration>,
    /// How long to wait after a refusal, by a header that is not `Retry-After`.
    pub retry_in: Option<Duration>,
    /// Values that were left out.
    pub ignored: u32,
}

impl Heard {
    /// How long a number of permits left holds: to the reset, or where none was named as long as the limit's nature says.
    pub fn holds_for(&self, limit: &Limit) -> Duration {
        self.reset_in.unwrap_or_else(|| natural(limit))
    }
}

/// Reads what `headers` say about `limit`, as it declares. `received_at` is wall time.
pub fn read(limit: &Limit, headers: &HeaderMap, received_at: Timestamp) -> Heard {
    let page = Page { headers, moment: time::moment(headers, received_at), reset_max: RESET_MAX.max(natural(limit)) };
    let mut heard = by_declaration(&page, limit);
    if let LimitKind::Calendar { period, zone, .. } = &limit.kind
        && heard.left.is_some()
    {
        // Where none is named, the reset is when the period ends: a full period from now would lose most of the next one.
        let end = || calendar::bounds(*period, zone, page.moment).1;
        let reset = heard.reset_in.unwrap_or_else(|| end().since(page.moment) + calendar::CLOCK_ERROR);
        heard.reset_in = Some(reset.min(page.reset_max));
    }
    heard
}

fn by_declaration(page: &Page<'_>, limit: &Limit) -> Heard {
    let headers = page.headers;
    match limit.headers.as_deref() {
        None | Some(LimitHeaders::RetryAfter) => Heard::default(),
        Some(LimitHeaders::XRatelimit) => {
            let there = |name: &str| headers.keys().any(|k| k.as_str().starts_with(name));
            let stem = if there("x-ratelimit-") { "x-ratelimit" } else { "x-rate-limit" };
            page.three_fields(stem)
        }
        Some(LimitHeaders::RatelimitLegacy) => page.three_fields("ratelimit"),
        Some(LimitHeaders::RatelimitDraft) => draft::read(page, limit),
        Some(LimitHeaders::Named(names)) => page.named(names),
    }
}

/// The time over which a limit counts.
fn natural(limit: &Limit) -> Duration {
    match &limit.kind {
        LimitKind::Window { per, .. } => *per,
        // One permit comes back after this.
        LimitKind::Bucket { refill, per, .. } => *per / (*refill).max(1),
        LimitKind::Paced { max, per, .. } => *per / (*max).max(1),
        LimitKind::Concurrency { .. } => Duration::from_secs(1),
        LimitKind::Calendar { period, .. } => Duration::from_secs(match period {
            CalendarPeriod::Hour => 3_600,
            CalendarPeriod::Day => 25 * 3_600,
            CalendarPeriod::Month => 31 * 86_400,
        }),
    }
}

/// The headers of an answer, and what its times are measured against.
struct Page<'a> {
    headers: &'a HeaderMap,
    moment: Timestamp,
    reset_max: Duration,
}

impl Page<'_> {
    fn three_fields(&self, stem: &str) -> Heard {
        let name = |end: &str| HeaderName::try_from(format!("{stem}-{end}")).ok();
        self.named(&HeaderNames {
            limit: name("limit"),
            remaining: name("remaining"),
            reset: name("reset").map(|name| (name, TimeUnit::Any)),
            ..HeaderNames::default()
        })
    }

    fn named(&self, names: &HeaderNames) -> Heard {
        let mut heard = Heard::default();
        heard.max = self.count(names.limit.as_ref(), &mut heard.ignored);
        heard.left = self.count(names.remaining.as_ref(), &mut heard.ignored);
        let used = self.count(names.used.as_ref(), &mut heard.ignored);
        let usage = self.text(names.usage.as_ref()).and_then(|text| match pair(text) {
            Some(pair) => Some(pair),
            None => {
                heard.ignored += 1;
                None
            }
        });
        heard.max = heard.max.or(usage.map(|(_, max)| max));
        let used = used.or(usage.map(|(used, _)| used));
        heard.left = heard.left.or(used.zip(heard.max).map(|(used, max)| max.saturating_sub(used)));
        heard.reset_in = self.time(names.reset.as_ref(), &mut heard.ignored);
        heard.retry_in = self.time(names.retry.as_ref(), &mut heard.ignored);
        heard
    }

    /// The first line of a header.
    fn text(&self, name: Option<&HeaderName>) -> Option<&str> {
        // What is no text is as good as garbage, which an empty one is.
        self.headers.get(name?).map(|value| value.to_str().unwrap_or_default().trim())
    }

    fn count(&self, name: Option<&HeaderName>, ignored: &mut u32) -> Option<u32> {
        let text = self.text(name)?;
        let count = count(text);
        *ignored += u32::from(count.is_none());
        count
    }

    fn time(&self, name: Option<&(HeaderName, TimeUnit)>, ignored: &mut u32) -> Option<Duration> {
        let (name, unit) = name?;
        let text = self.text(Some(name))?;
        let wait = self.wait(time::read(text, *unit, self.moment));
        *ignored += u32::from(wait.is_none());
        wait
    }

    /// A time in microseconds from now, if it can be meant. What is just over is over now.
    fn wait(&self, us: Option<i64>) -> Option<Duration> {
        let us = us.filter(|us| *us >= -(PAST_MAX.as_micros() as i64))?;
        let wait = Duration::from_micros(us.max(0).unsigned_abs());
        (wait <= self.reset_max).then_some(wait)
    }
}

/// A whole number, or one with decimals, which are cut off; of a list, as `100, 100;w=60`, the first.
fn count(text: &str) -> Option<u32> {
    let first = text.split([',', ';']).next().unwrap_or_default().trim();
    let (whole, part) = first.split_once('.').unwrap_or((first, "0"));
    let digits = |s: &str| !s.is_empty() && s.len() <= 18 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    u32::try_from(whole.parse::<u64>().ok()?).ok()
}

/// `39/40`, `api-usage=18/5000`.
fn pair(text: &str) -> Option<(u32, u32)> {
    let bare = text.rsplit_once('=').map_or(text, |(_, value)| value);
    let (used, max) = bare.split_once('/')?;
    Some((count(used.trim())?, count(max.trim())?))
}

#[cfg(test)]
mod tests;
