//! What answers say about the limits, in the styles that providers use.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::simulator::config::{HeaderStyle, LimitRule};
use crate::simulator::limit::Room;

const DAY: Duration = Duration::from_secs(86_400);

/// Would an answer carry any line at all?
pub fn speaks(style: HeaderStyle, refused: bool) -> bool {
    match style {
        HeaderStyle::None => false,
        HeaderStyle::RetryAfter | HeaderStyle::RetryAfterDate => refused,
        HeaderStyle::XRatelimit
        | HeaderStyle::RatelimitLegacy
        | HeaderStyle::Shopify
        | HeaderStyle::Hubspot
        | HeaderStyle::RatelimitDraft => true,
    }
}

/// What an answer has to tell of.
#[derive(Debug)]
pub struct Standing<'a> {
    /// The limits that counted the request.
    pub rooms: &'a [(LimitRule, Room)],
    /// Those that are spoken of; empty: all.
    pub of: &'a [String],
    /// Which one refused, and until when.
    pub refused: Option<(&'a str, Timestamp)>,
}

impl Standing<'_> {
    fn spoken_of(&self) -> Option<&(LimitRule, Room)> {
        let spoken_of = |(rule, _): &&(LimitRule, Room)| self.of.is_empty() || self.of.contains(&rule.name);
        self.rooms.iter().filter(spoken_of).min_by_key(|(_, room)| room.left)
    }

    /// The end of a refusal, if the limit that is spoken of has refused.
    fn refused_by(&self, rule: &LimitRule) -> Option<Timestamp> {
        self.refused.filter(|(by, _)| self.of.is_empty() || *by == rule.name).map(|(_, until)| until)
    }
}

/// `now` is steady, `wall` the same moment in wall time. Times are rounded up: a client that obeys is never early.
pub fn lines(
    style: HeaderStyle,
    standing: &Standing<'_>,
    now: Timestamp,
    wall: Timestamp,
) -> Vec<(HeaderName, HeaderValue)> {
    let rooms = standing.rooms;
    let in_seconds = |at: Timestamp| at.since(now).as_micros().div_ceil(1_000_000) as u64;
    let epoch = |at: Timestamp| u64::try_from((wall + at.since(now)).0).unwrap_or(0).div_ceil(1_000_000);
    let mut lines = Vec::new();
    let mut line = |name: &'static str, value: String| {
        // Names of limits may hold anything; a value that no header can carry is left out.
        if let Ok(value) = HeaderValue::from_str(&value) {
            lines.push((HeaderName::from_static(name), value));
        }
    };
    let spoken_of = standing.spoken_of();
    match (style, standing.refused.map(|(_, until)| until)) {
        (HeaderStyle::RetryAfter | HeaderStyle::RatelimitLegacy, Some(until)) => {
            line("retry-after", in_seconds(until).to_string());
        }
        (HeaderStyle::RetryAfterDate, Some(until)) => {
            let at = std::time::UNIX_EPOCH + Duration::from_secs(epoch(until));
            line("retry-after", httpdate::fmt_http_date(at));
        }
        (HeaderStyle::XRatelimit, refused) => {
            let by_it = spoken_of.and_then(|(rule, _)| standing.refused_by(rule));
            if let Some((rule, room)) = spoken_of {
                line("x-ratelimit-limit", rule.rule.max().to_string());
                line("x-ratelimit-remaining", room.left.to_string());
                line("x-ratelimit-reset", epoch(by_it.unwrap_or(room.more_at)).to_string());
            }
            if let Some(until) = refused.filter(|_| by_it.is_none()) {
                line("retry-after", in_seconds(until).to_string());
            }
        }
        (HeaderStyle::RatelimitLegacy, None) => {
            if let Some((rule, room)) = spoken_of {
                line("ratelimit-limit", rule.rule.max().to_string());
                line("ratelimit-remaining", room.left.to_string());
                line("ratelimit-reset", in_seconds(room.more_at).to_string());
            }
        }
        (HeaderStyle::Shopify, refused) => {
            if let Some((rule, room)) = spoken_of {
                let max = rule.rule.max();
                line("x-shopify-shop-api-call-limit", format!("{}/{max}", max - room.left.min(max)));
            }
            if let Some(until) = refused {
                line("retry-after", format!("{}.0", in_seconds(until).max(1)));
            }
        }
        (HeaderStyle::Hubspot, _) => {
            let per = |rule: &LimitRule| rule.rule.window().map_or(Duration::ZERO, |(_, per)| per);
            let short = rooms.iter().filter(|(rule, _)| per(rule) < DAY).min_by_key(|(_, room)| room.left);
            if let Some((rule, room)) = short {
                line("x-hubspot-ratelimit-max", rule.rule.max().to_string());
                line("x-hubspot-ratelimit-remaining", room.left.to_string());
                line("x-hubspot-ratelimit-interval-milliseconds", per(rule).as_millis().to_string());
            }
            if let Some((rule, room)) = rooms.iter().find(|(rule, _)| per(rule) == DAY) {
                line("x-hubspot-ratelimit-daily", rule.rule.max().to_string());
                line("x-hubspot-ratelimit-daily-remaining", room.left.to_string());
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
