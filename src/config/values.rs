//! The kinds of values: texts, numbers, times, sizes, choices. Each says what it expected, with an example.
//!
//! Must never know: keys and tables. Next: `limits.rs` for rates.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::Problem;
use super::reader::{Unfit, nearest};
use super::tree::{Node, Value};

/// Longest time that can be written. Longer ones are slips.
pub const TIME_MAX: Duration = Duration::from_secs(366 * 86_400);

fn got(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        Value::Integer(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Boolean(b) => b.to_string(),
        Value::Time(t) => t.clone(),
        other => other.kind().to_owned(),
    }
}

/// `expected ..., got ...`.
pub fn expected(what: impl std::fmt::Display, node: &Node) -> Unfit {
    Problem::new(format!("expected {what}, got {}", got(node))).at(&node.at)
}

pub fn text(node: &Node) -> Result<&str, Unfit> {
    match &node.value {
        Value::Text(text) => Ok(text),
        _ => Err(expected("a text in quotes", node)),
    }
}

pub fn filled(node: &Node) -> Result<&str, Unfit> {
    text(node).and_then(|t| if t.is_empty() { Err(expected("a text that is not empty", node)) } else { Ok(t) })
}

pub fn boolean(node: &Node) -> Result<bool, Unfit> {
    match node.value {
        Value::Boolean(b) => Ok(b),
        _ => Err(expected("true or false", node)),
    }
}

pub fn list(node: &Node) -> Result<&[Node], Unfit> {
    match &node.value {
        Value::List(items) => Ok(items),
        _ => Err(expected("a list in brackets", node)),
    }
}

/// A whole number within bounds.
pub fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Result<T, Unfit>
where
    T: Copy + std::fmt::Display + PartialOrd + TryFrom<i128>,
{
    move |node| {
        let (low, high) = (*range.start(), *range.end());
        let number = if let Value::Integer(n) = node.value { T::try_from(n).ok() } else { None };
        number
            .filter(|n| range.contains(n))
            .ok_or_else(|| expected(format_args!("a whole number from {low} to {high}"), node))
    }
}

/// A share from 0 to 1.
pub fn share(node: &Node) -> Result<f64, Unfit> {
    let number = match node.value {
        Value::Float(n) => Some(n),
        Value::Integer(n @ 0..=1) => Some(n as f64),
        _ => None,
    };
    number.filter(|n| *n > 0.0 && *n <= 1.0).ok_or_else(|| expected("a share above 0 and up to 1, as 0.5", node))
}

/// A time such as `30s`, within bounds.
pub fn time(range: RangeInclusive<Duration>) -> impl Fn(&Node) -> Result<Duration, Unfit> {
    move |node| {
        let (low, high) = (show_time(*range.start()), show_time(*range.end()));
        let what = format!("a time from {low} to {high}, as \"30s\", \"5m\", \"1h30m\" or \"500ms\"");
        let read = if let Value::Text(text) = &node.value { read_time(text) } else { None };
        let unfit = || {
            let unfit = expected(what, node);
            match &node.value {
                Value::Integer(n) => unfit.help(format!("a number needs its unit: \"{n}s\"")),
                Value::Text(t) => match nearest_unit(t) {
                    Some(meant) => unfit.help(format!("did you mean \"{meant}\"?")),
                    None => unfit,
                },
                _ => unfit,
            }
        };
        read.filter(|t| range.contains(t)).ok_or_else(unfit)
    }
}

/// Reads `1h30m`: numbers with units ms, s, m, h, d, at least one. `None` when it is none, or above [`TIME_MAX`].
pub fn read_time(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (unit, after) = rest.split_at(letters);
        total = total.checked_add(unit_time(unit)?.checked_mul(u32::try_from(number).ok()?)?)?;
        rest = after;
    }
    Some(total).filter(|t| *t <= TIME_MAX)
}

/// The length of a unit.
pub fn unit_time(unit: &str) -> Option<Duration> {
    Some(match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3_600),
        "d" => Duration::from_secs(86_400),
        _ => return None,
    })
}

/// The short form of a unit written out.
pub fn short_unit(unit: &str) -> Option<&'static str> {
    Some(match unit.trim().to_ascii_lowercase().trim_end_matches('s') {
        "ec" | "sec" | "second" => "s",
        "min" | "minute" => "m",
        "hr" | "hour" => "h",
        "day" => "d",
        "milli" | "msec" | "millisecond" => "ms",
        _ => return None,
    })
}

fn nearest_unit(text: &str) -> Option<String> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
    short_unit(&text[at..]).map(|unit| format!("{}{unit}", &text[..at]))
}

/// `90s` as `1m30s`, for people.
pub fn show_time(time: Duration) -> String {
    let mut ms = time.as_millis();
    let mut out = String::new();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if ms >= length {
            out.push_str(&format!("{}{unit}", ms / length));
            ms %= length;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

/// A size in bytes: a number, or a text such as `64KiB`.
pub fn size(range: RangeInclusive<usize>) -> impl Fn(&Node) -> Result<usize, Unfit> {
    move |node| {
        let read = match &node.value {
            Value::Integer(n) => usize::try_from(*n).ok(),
            Value::Text(text) => read_size(text),
            _ => None,
        };
        let (low, high) = (show_size(*range.start()), show_size(*range.end()));
        let what = format!("a size from {low} to {high}, as 4096, \"64KiB\" or \"1MiB\"");
        read.filter(|n| range.contains(n)).ok_or_else(|| expected(what, node))
    }
}

fn read_size(text: &str) -> Option<usize> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[at..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        _ => return None,
    };
    text[..at].parse::<usize>().ok()?.checked_mul(factor)
}

fn show_size(bytes: usize) -> String {
    match bytes {
        n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{}MiB", n >> 20),
        n if n >= 1 << 10 && n % (1 << 10) == 0 => format!("{}KiB", n >> 10),
        n => format!("{n}"),
    }
}

/// One of a few words.
pub fn choice<T: Clone>(choices: &[(&'static str, T)]) -> impl Fn(&Node) -> Result<T, Unfit> {
    move |node| {
        let words = || choices.iter().map(|(word, _)| *word);
        let quoted = || words().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", ");
        let given = text(node).map_err(|_| expected(format_args!("one of {}", quoted()), node))?;
        match choices.iter().find(|(word, _)| *word == given) {
            Some((_, value)) => Ok(value.clone()),
            None => {
                let unfit = expected(format_args!("one of {}", quoted()), node);
                Err(match nearest(given, words()) {
                    Some(near) => unfit.help(format!("did you mean {near:?}?")),
                    None => unfit,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        let cases = [("30s", 30_000), ("1h30m", 5_400_000), ("500ms", 500), ("2d", 172_800_000), ("0s", 0)];
        for (text, ms) in cases {
            assert_eq!(read_time(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "10", "10 s", "1.5s", "-1s", "10sec", "99999999999999999999s", "400d", "1h1"] {
            assert_eq!(read_time(text), None, "{text}");
        }
        assert_eq!(nearest_unit("10sec").as_deref(), Some("10s"));
        assert_eq!(nearest_unit("2 hours").as_deref(), Some("2h"));
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        let cases = [("4096", 4096), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("2MB", 2_000_000), ("7B", 7)];
        for (text, bytes) in cases {
            assert_eq!(read_size(text), Some(bytes), "{text}");
        }
        for text in ["", "KiB", "1.5MiB", "-1", "1 mib", "99999999999999999999GiB"] {
            assert_eq!(read_size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_shown_time_reads_back(ms in 0u64..31_000_000_000) {
            let time = Duration::from_millis(ms);
            prop_assert_eq!(read_time(&show_time(time)), Some(time));
        }

        #[test]
        fn any_text_is_a_value_or_none(text in ".{0,20}") {
            let _ = (read_time(&text), read_size(&text), nearest_unit(&text));
        }
    }
}
