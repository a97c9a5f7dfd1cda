//! `RateLimit` and `RateLimit-Policy`, structured fields (RFC 9651) of draft-ietf-httpapi-ratelimit-headers.
//!
//! Several lines of a field are one list. A policy speaks of the limit that has its name and its window; where the
//! provider calls it something else, of the one that has its window; a list of one speaks of whoever asks. Drafts up to
//! 07 had a dictionary, `limit=100, remaining=50, reset=30`, which is read as well. Must never know: what follows from
//! it. Next: `super`.

use http::HeaderMap;
use sfv::{BareItem, Dictionary, List, ListEntry, Parameters, Parser};

use super::{Heard, Page};
use crate::model::provider::{Limit, LimitKind};

/// Bytes of one field, all lines together; a longer one is ignored.
const FIELD_BYTES_MAX: usize = 16 * 1_024;

/// One member of either field.
#[derive(Debug)]
struct Member {
    name: String,
    params: Parameters,
}

impl Member {
    /// A count or a time: a whole number that is not negative. `Err`: it is there and cannot be meant.
    fn number(&self, key: &str) -> Result<Option<u64>, ()> {
        match self.params.get(key) {
            None => Ok(None),
            Some(BareItem::Integer(n)) => u64::try_from(i64::from(*n)).map(Some).map_err(drop),
            // An integer of the draft; some send decimals.
            Some(BareItem::Decimal(d)) => {
                u64::try_from(i64::from(d.as_integer_scaled_1000())).map(|n| Some(n.div_ceil(1_000))).map_err(drop)
            }
            Some(_) => Err(()),
        }
    }

    /// Counts requests, which is the default, and not bytes or connections.
    fn counts_requests(&self) -> bool {
        match self.params.get("qu") {
            None => true,
            Some(BareItem::String(unit)) => unit.as_str() == "requests",
            Some(BareItem::Token(unit)) => unit.as_str() == "requests",
            Some(_) => false,
        }
    }
}

pub(super) fn read(page: &Page<'_>, limit: &Limit) -> Heard {
    let mut heard = Heard::default();
    let field = |name: &str, ignored: &mut u32| match joined(page.headers, name) {
        Ok(text) => text,
        Err(()) => {
            *ignored += 1;
            None
        }
    };
    let policies = field("ratelimit-policy", &mut heard.ignored);
    let policies = policies.map(|text| members(&text)).unwrap_or(Some(Vec::new()));
    let policies = policies.unwrap_or_else(|| {
        heard.ignored += 1;
        Vec::new()
    });
    let Some(text) = field("ratelimit", &mut heard.ignored) else { return heard };
    let Some(stands) = members(&text) else {
        match old(&text) {
            Some((max, left, reset)) => fill(page, &mut heard, [max, left, reset]),
            None => heard.ignored += 1,
        }
        return heard;
    };
    let stands: Vec<Member> = stands.into_iter().filter(Member::counts_requests).collect();
    let policy_of = |name: &str| policies.iter().find(|p| p.name == name).filter(|p| p.counts_requests());
    let fit = |stand: &Member| -> u8 {
        let policy = policies.iter().find(|p| p.name == stand.name);
        if policy.is_some_and(|p| !p.counts_requests()) {
            return 0;
        }
        let window = policy.and_then(|p| p.number("w").ok().flatten());
        let same_name = stand.name == limit.name.as_str();
        match (same_name, window.map(|w| Some(w) == seconds(limit))) {
            (true, Some(true)) => 4,
            (true, None) => 3,
            (false, Some(true)) => 2,
            // A policy of the same name over another window is another limit.
            _ if stands.len() == 1 && !(same_name && window.is_some()) => 1,
            _ => 0,
        }
    };
    // Of several that fit alike, the one with least left: it binds.
    let best = stands.iter().map(&fit).max().filter(|fit| *fit > 0);
    let fits = stands.iter().filter(|stand| Some(fit(stand)) == best);
    if let Some(stand) = fits.min_by_key(|stand| stand.number("r").ok().flatten().unwrap_or(u64::MAX)) {
        let max = policy_of(&stand.name).map_or(Ok(None), |p| p.number("q"));
        fill(page, &mut heard, [max, stand.number("r"), stand.number("t")]);
    }
    heard
}

/// Maximum, left, seconds to the reset.
fn fill(page: &Page<'_>, heard: &mut Heard, numbers: [Result<Option<u64>, ()>; 3]) {
    let mut number = |n: Result<Option<u64>, ()>| {
        heard.ignored += u32::from(n.is_err());
        n.ok().flatten()
    };
    let [max, left, reset] = numbers.map(&mut number);
    let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    (heard.max, heard.left) = (max.map(count), left.map(count));
    if let Some(seconds) = reset {
        let us = i64::try_from(seconds).ok().and_then(|s| s.checked_mul(1_000_000));
        heard.reset_in = page.wait(us);
        heard.ignored += u32::from(heard.reset_in.is_none());
    }
}

/// The window of a limit in seconds, if it has one.
fn seconds(limit: &Limit) -> Option<u64> {
    match &limit.kind {
        LimitKind::Window { per, .. } | LimitKind::Paced { per, .. } => Some(per.as_secs().max(1)),
        LimitKind::Calendar { .. } => Some(super::natural(limit).as_secs() / 86_400 * 86_400).filter(|s| *s > 0),
        LimitKind::Bucket { .. } | LimitKind::Concurrency { .. } => None,
    }
}

/// All lines of a field as one list. `Err`: it is no text, or too long.
fn joined(headers: &HeaderMap, name: &str) -> Result<Option<String>, ()> {
    let mut text = String::new();
    let mut any = false;
    for value in headers.get_all(name) {
        let line = value.to_str().map_err(drop)?;
        if text.len() + line.len() > FIELD_BYTES_MAX {
            return Err(());
        }
        if any {
            text.push_str(", ");
        }
        text.push_str(line);
        any = true;
    }
    Ok(any.then_some(text))
}

/// `"name";key=value, ...`; names that are tokens were allowed once. `None`: not such a list.
fn members(text: &str) -> Option<Vec<Member>> {
    let list: List = Parser::new(text).parse().ok()?;
    let member = |entry: ListEntry| {
        let ListEntry::Item(item) = entry else { return None };
        let name = match &item.bare_item {
            BareItem::String(name) => name.as_str().to_owned(),
            BareItem::Token(name) => name.as_str().to_owned(),
            _ => return None,
        };
        Some(Member { name, params: item.params })
    };
    list.into_iter().map(member).collect()
}

type Number = Result<Option<u64>, ()>;

/// `limit=100, remaining=50, reset=30`.
fn old(text: &str) -> Option<(Number, Number, Number)> {
    let dictionary: Dictionary = Parser::new(text).parse().ok()?;
    let number = |key: &str| match dictionary.get(key) {
        None => Ok(None),
        Some(ListEntry::Item(item)) => match &item.bare_item {
            BareItem::Integer(n) => u64::try_from(i64::from(*n)).map(Some).map_err(drop),
            _ => Err(()),
        },
        Some(ListEntry::InnerList(_)) => Err(()),
    };
    dictionary.contains_key("remaining").then(|| (number("limit"), number("remaining"), number("reset")))
}
