//! How a provider counts, and which requests: rules and durations as texts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{BadConfig, COUNT_MAX, WINDOW_MAX};

/// One limit and the requests it counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitRule {
    pub name: String,
    pub rule: Rule,
    /// Only this method; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only this path; one that ends in `*` is a prefix. All when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default)]
    pub per: Per,
    /// Does a refused request use up the limit too? Some providers do that.
    #[serde(default)]
    pub refused_counts: bool,
    /// Requests that use up more than one unit; the first that fits says how much.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub costs: Vec<Cost>,
}

/// What some requests of a limit use up of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Units, 1 to the limit's number.
    pub cost: u32,
    /// As in [`LimitRule`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl LimitRule {
    pub fn counts(&self, method: &str, path: &str) -> bool {
        fits((&self.method, &self.path), method, path)
    }

    /// Units that a request which it counts uses up.
    pub fn cost(&self, method: &str, path: &str) -> u32 {
        self.costs.iter().find(|cost| fits((&cost.method, &cost.path), method, path)).map_or(1, |cost| cost.cost)
    }
}

fn fits(place: (&Option<String>, &Option<String>), method: &str, path: &str) -> bool {
    place.0.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(method))
        && place.1.as_deref().is_none_or(|p| match p.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == p,
        })
}

impl FromStr for LimitRule {
    type Err = BadConfig;

    /// `[NAME=]RULE[@[METHOD ]PATH][;COST@[METHOD ]PATH]...`, as `batch=rolling:50/60s@POST /users/batch` or
    /// `points=rolling:900/60s;5@POST`.
    fn from_str(text: &str) -> Result<Self, BadConfig> {
        let bad = || BadConfig::Limit(text.to_owned());
        let mut parts = text.split(';');
        let limit = parts.next().unwrap_or_default();
        let (rest, place) = limit.split_once('@').map_or((limit, None), |(r, p)| (r, Some(p)));
        let (name, rule) = rest.split_once('=').map_or((None, rest), |(n, r)| (Some(n.trim()), r));
        let (method, path) = place.map_or(Some((None, None)), read_place).ok_or_else(bad)?;
        let cost = |part: &str| {
            let (cost, place) = part.split_once('@')?;
            let (method, path) = read_place(place)?;
            Some(Cost { cost: cost.trim().parse().ok()?, method, path })
        };
        let costs = parts.map(cost).collect::<Option<Vec<Cost>>>().ok_or_else(bad)?;
        let rule: Rule = rule.trim().parse()?;
        let name = match name {
            Some("") => return Err(bad()),
            Some(n) => n.to_owned(),
            None => rest.trim().to_owned(),
        };
        Ok(LimitRule { name, rule, method, path, per: Per::All, refused_counts: false, costs })
    }
}

/// `[METHOD ]PATH` or `METHOD`.
fn read_place(text: &str) -> Option<(Option<String>, Option<String>)> {
    let text = text.trim();
    if text.starts_with('/') {
        return Some((None, Some(text.to_owned())));
    }
    match text.split_once(' ') {
        Some((m, p)) if p.trim_start().starts_with('/') => Some((Some(m.to_owned()), Some(p.trim_start().to_owned()))),
        None if !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase()) => Some((Some(text.to_owned()), None)),
        _ => None,
    }
}

/// Whom a limit counts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    #[default]
    All,
    /// One count per value of `account_header`.
    Account,
}

/// How a provider counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// At most `max` in any interval of length `per`: the exact log.
    Rolling { max: u32, per: Duration },
    /// At most `max` in each interval `[k * per, (k + 1) * per)` since the epoch.
    Fixed { max: u32, per: Duration },
    /// The previous aligned window counts by the share of it that is still covered (Cloudflare's approximation).
    TwoCounter { max: u32, per: Duration },
    /// Starts full.
    Bucket { capacity: u32, refill: u32, per: Duration },
    /// At most `max` unanswered.
    Concurrency { max: u32 },
}

impl Rule {
    /// The number and window that the sliding count is held against; `None` where no window is promised.
    pub fn window(self) -> Option<(u32, Duration)> {
        match self {
            Rule::Rolling { max, per } | Rule::Fixed { max, per } | Rule::TwoCounter { max, per } => Some((max, per)),
            Rule::Bucket { .. } | Rule::Concurrency { .. } => None,
        }
    }

    /// The same with another number.
    #[must_use]
    pub fn with_max(self, to: u32) -> Rule {
        let mut rule = self;
        match &mut rule {
            Rule::Rolling { max, .. }
            | Rule::Fixed { max, .. }
            | Rule::TwoCounter { max, .. }
            | Rule::Concurrency { max }
            | Rule::Bucket { capacity: max, .. } => *max = to,
        }
        rule
    }

    /// The largest count that may stand at one time.
    pub fn max(self) -> u32 {
        match self {
            Rule::Rolling { max, .. } | Rule::Fixed { max, .. } | Rule::TwoCounter { max, .. } => max,
            Rule::Bucket { capacity, .. } => capacity,
            Rule::Concurrency { max } => max,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Rule::Rolling { max, per } => write!(f, "rolling:{max}/{}", show_duration(per)),
            Rule::Fixed { max, per } => write!(f, "fixed:{max}/{}", show_duration(per)),
            Rule::TwoCounter { max, per } => write!(f, "two-counter:{max}/{}", show_duration(per)),
            Rule::Bucket { capacity, refill, per } => write!(f, "bucket:{capacity},{refill}/{}", show_duration(per)),
            Rule::Concurrency { max } => write!(f, "concurrency:{max}"),
        }
    }
}

impl FromStr for Rule {
    type Err = BadConfig;

    fn from_str(text: &str) -> Result<Self, BadConfig> {
        let bad = || BadConfig::Rule(text.to_owned());
        let range = || BadConfig::Range(text.to_owned());
        let count = |s: &str| match s.trim().parse::<u32>() {
            Ok(n @ 1..=COUNT_MAX) => Ok(n),
            Ok(_) => Err(range()),
            Err(_) => Err(bad()),
        };
        let rate = |s: &str| {
            let (n, per) = s.split_once('/').ok_or_else(bad)?;
            let per = parse_duration(per.trim())?;
            if per.is_zero() || per > WINDOW_MAX { Err(range()) } else { Ok((count(n)?, per)) }
        };
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        match kind.trim() {
            "rolling" => rate(rest).map(|(max, per)| Rule::Rolling { max, per }),
            "fixed" => rate(rest).map(|(max, per)| Rule::Fixed { max, per }),
            "two-counter" => rate(rest).map(|(max, per)| Rule::TwoCounter { max, per }),
            "concurrency" => count(rest).map(|max| Rule::Concurrency { max }),
            "bucket" => {
                let (capacity, refill) = rest.split_once(',').ok_or_else(bad)?;
                let (refill, per) = rate(refill)?;
                Ok(Rule::Bucket { capacity: count(capacity)?, refill, per })
            }
            _ => Err(bad()),
        }
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `20ms`, `60s`, `5m`, `1h`, `1d`; a number alone is refused, because its unit would be a guess. `0` is fine.
pub fn parse_duration(text: &str) -> Result<Duration, BadConfig> {
    let bad = || BadConfig::Duration(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let n: u64 = text[..unit_at].parse().map_err(|_| bad())?;
    let unit_us = match &text[unit_at..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(bad()),
    };
    n.checked_mul(unit_us).map(Duration::from_micros).ok_or_else(bad)
}

/// The shortest text that [`parse_duration`] reads back.
pub fn show_duration(d: Duration) -> String {
    let us = u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let units = [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)];
    match units.into_iter().find(|&(_, unit)| us != 0 && us.is_multiple_of(unit)) {
        Some((name, unit)) => format!("{}{name}", us / unit),
        None => format!("{us}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_back_from_their_text() {
        let texts = ["rolling:50/1m", "fixed:3600/1h", "two-counter:5/90s", "bucket:100,10/1s", "concurrency:8"];
        for text in texts {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_limit_on_the_command_line_names_its_requests() {
        let limit: LimitRule = "batch=rolling:50/60s@POST /users/batch".parse().unwrap();
        assert!(limit.counts("POST", "/users/batch"));
        assert!(!limit.counts("POST", "/users") && !limit.counts("PUT", "/users/batch"));
        let prefix: LimitRule = "fixed:5/1s@/users/*".parse().unwrap();
        assert!(prefix.counts("PUT", "/users/7") && !prefix.counts("PUT", "/users"));
        assert_eq!(prefix.name, "fixed:5/1s");
        let method: LimitRule = "w=concurrency:3@PUT".parse().unwrap();
        assert!(method.counts("PUT", "/anything") && !method.counts("GET", "/anything"));
    }

    #[test]
    fn a_limit_on_the_command_line_says_what_requests_cost() {
        let limit: LimitRule = "units=fixed:100/1d@/v3/*;50@DELETE /v3/items;7@PUT".parse().unwrap();
        let cost = |method: &str, path: &str| limit.cost(method, path);
        assert_eq!([cost("DELETE", "/v3/items"), cost("DELETE", "/v3/x"), cost("PUT", "/v3/items")], [50, 1, 7]);
        assert!(limit.counts("GET", "/v3/x") && !limit.counts("GET", "/v4") && limit.name == "units");
    }

    #[test]
    fn a_wrong_rule_says_what_was_expected() {
        let refused = |text: &str| text.parse::<LimitRule>().unwrap_err().to_string();
        assert!(refused("rolling:50").contains("rolling:50/60s"));
        assert!(refused("rolling:50/60").contains("a duration like"));
        assert!(refused("rolling:0/1s").contains("a count of 1 to"));
        assert!(refused("leaky:5/1s").contains("expected a rule like"));
        assert!(refused("rolling:5/1s@users").contains("[METHOD ]PATH"));
        assert!(refused("rolling:5/1s@PUT users").contains("[METHOD ]PATH"));
        assert!(refused("=rolling:5/1s").contains("NAME"));
        assert!(refused("rolling:5/1s;PUT").contains(";COST@") && refused("rolling:5/1s;2@users").contains(";COST@"));
    }
}
