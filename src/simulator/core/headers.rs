//! What answers say about the limits, in the styles that providers use.

use http::{HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::simulator::config::{HeaderStyle, LimitRule};
use crate::simulator::limit::Room;

/// Would an answer carry any line at all?
pub fn speaks(style: HeaderStyle, refused: bool) -> bool {
    match style {
        HeaderStyle::None => false,
        HeaderStyle::RetryAfter | HeaderStyle::RetryAfterDate => refused,
        HeaderStyle::XRatelimit | HeaderStyle::RatelimitDraft => true,
    }
}

/// `now` is steady, `wall` the same moment in wall time. Times are rounded up: a client that obeys is never early.
pub fn lines(
    style: HeaderStyle,
    rooms: &[(LimitRule, Room)],
    refused_until: Option<Timestamp>,
    now: Timestamp,
    wall: Timestamp,
) -> Vec<(HeaderName, HeaderValue)> {
    let in_seconds = |at: Timestamp| at.since(now).as_micros().div_ceil(1_000_000) as u64;
    let epoch = |at: Timestamp| u64::try_from((wall + at.since(now)).0).unwrap_or(0).div_ceil(1_000_000);
    let tightest = || rooms.iter().min_by_key(|(_, room)| room.left);
    let mut lines = Vec::new();
    let mut line = |name: &'static str, value: String| {
        // Names of limits may hold anything; a value that no header can carry is left out.
        if let Ok(value) = HeaderValue::from_str(&value) {
            lines.push((HeaderName::from_static(name), value));
        }
    };
    match (style, refused_until) {
        (HeaderStyle::RetryAfter, Some(until)) => line("retry-after", in_seconds(until).to_string()),
        (HeaderStyle::RetryAfterDate, Some(until)) => {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(epoch(until));
            line("retry-after", httpdate::fmt_http_date(at));
        }
        (HeaderStyle::XRatelimit, _) => {
            if let Some((rule, room)) = tightest() {
                line("x-ratelimit-limit", rule.rule.max().to_string());
                line("x-ratelimit-remaining", room.left.to_string());
                line("x-ratelimit-reset", epoch(refused_until.unwrap_or(room.more_at)).to_string());
            }
        }
        (HeaderStyle::RatelimitDraft, _) if !rooms.is_empty() => {
            let policy = |(rule, _): &(LimitRule, Room)| match rule.rule.window() {
                Some((max, per)) => format!("{:?};q={max};w={}", rule.name, per.as_secs().max(1)),
                None => format!("{:?};q={}", rule.name, rule.rule.max()),
            };
            let left = |(rule, room): &(LimitRule, Room)| {
                format!("{:?};r={};t={}", rule.name, room.left, in_seconds(room.more_at))
            };
            line("ratelimit-policy", rooms.iter().map(policy).collect::<Vec<_>>().join(", "));
            line("ratelimit", rooms.iter().map(left).collect::<Vec<_>>().join(", "));
        }
        _ => {}
    }
    lines
}
