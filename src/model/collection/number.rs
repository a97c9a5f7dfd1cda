//! Decimal numbers in millionths, exact: sums of money must not depend on the order in which records came.
//!
//! Must never know: what is summed.

use serde_json::Value;

pub const MILLION: i64 = 1_000_000;
const DIGITS: usize = 6;

/// A JSON number, or a text that is a decimal number, in millionths; more digits are rounded to the nearest. `None`:
/// it is no number, or beyond +-9 trillion.
pub fn read(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => decimal(&number.to_string()),
        Value::String(text) => decimal(text.trim()),
        _ => None,
    }
}

fn decimal(text: &str) -> Option<i64> {
    if text.contains(['e', 'E']) {
        let n: f64 = text.parse().ok()?;
        let n = (n * MILLION as f64).round();
        return (n.abs() < 9e18).then_some(n as i64);
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !all_digits(whole) || !all_digits(part) {
        return None;
    }
    let mut n: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    for at in 0..DIGITS {
        let digit = part.as_bytes().get(at).map_or(0, |b| i64::from(b - b'0'));
        n = n.checked_mul(10)?.checked_add(digit)?;
    }
    let up = part.as_bytes().get(DIGITS).is_some_and(|b| *b >= b'5');
    n = n.checked_add(i64::from(up))?;
    Some(if negative { -n } else { n })
}

/// `12.5` for 12,500,000 millionths.
pub fn show(millionths: i128) -> String {
    let (sign, n) = if millionths < 0 { ("-", millionths.unsigned_abs()) } else { ("", millionths.unsigned_abs()) };
    let (whole, part) = (n / MILLION as u128, n % MILLION as u128);
    let part = format!("{part:06}");
    let part = part.trim_end_matches('0');
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decimals_are_exact_and_strangers_are_none() {
        let cases = [
            (json!(12.5), Some(12_500_000)),
            (json!("0.1"), Some(100_000)),
            (json!(-3), Some(-3_000_000)),
            (json!("-0.0000005"), Some(-1)),
            (json!(1e3), Some(1_000_000_000)),
            (json!(""), None),
            (json!("12a"), None),
            (json!("."), None),
            (json!(null), None),
            (json!(10_000_000_000_000_i64), None),
        ];
        for (value, expected) in cases {
            assert_eq!(read(&value), expected, "{value}");
        }
        assert_eq!([show(12_500_000), show(-1), show(0), show(7_000_000)], ["12.5", "-0.000001", "0", "7"]);
    }
}
