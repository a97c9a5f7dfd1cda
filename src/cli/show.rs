//! How things look to people: tables without frames, short times, words for enum values.
//!
//! Must never know: where the data came from. Next: any command group.

use comfy_table::{ContentArrangement, Table, presets};

use crate::clock::{Clock, Timestamp};
use crate::grpc::pb;

/// A table that never wraps: ids stay whole, and a line stays a line for grep.
#[derive(Debug)]
pub struct Rows {
    table: Table,
}

impl Rows {
    pub fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header.iter().copied());
        Rows { table }
    }

    pub fn add(&mut self, cells: impl IntoIterator<Item = String>) {
        // One line per row: a value with a line break would look like a row of its own.
        self.table.add_row(cells.into_iter().map(|cell| one_line(&cell)));
    }

    /// Without the blanks that the preset leaves at the ends of lines.
    pub fn text(&self) -> String {
        let drawn = self.table.to_string();
        let lines: Vec<&str> = drawn.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
        lines.join("\n")
    }
}

/// Control characters are shown, not obeyed: a name from elsewhere must not move the cursor.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Facts about one thing, one per line, the names aligned.
pub fn facts(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let shown = pairs.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:width$}  {}", one_line(value))).collect::<Vec<_>>().join("\n")
}

/// The word of an enum value: `JOB_STATE_DEAD` is `dead`.
pub fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase().replace('_', "-")
}

/// `25 % page 1 of 4`, as a worker says.
pub fn progress(progress: &pb::JobProgress) -> String {
    format!("{:.0} % {}", progress.fraction * 100.0, progress.text).trim_end().to_owned()
}

pub fn job_state(value: i32) -> String {
    pb::JobState::try_from(value).map_or_else(|_| value.to_string(), |v| word(v.as_str_name(), "JOB_STATE_"))
}

pub fn run_state(value: i32) -> String {
    pb::RunState::try_from(value).map_or_else(|_| value.to_string(), |v| word(v.as_str_name(), "RUN_STATE_"))
}

pub fn priority(value: i32) -> String {
    pb::PriorityClass::try_from(value).map_or_else(|_| value.to_string(), |v| word(v.as_str_name(), "PRIORITY_CLASS_"))
}

pub fn lane(value: i32) -> String {
    pb::Lane::try_from(value).map_or_else(|_| value.to_string(), |v| word(v.as_str_name(), "LANE_"))
}

/// `1204` as `1,204`.
pub fn count(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or("")).collect();
    format!("{}{}", if n < 0 { "-" } else { "" }, groups.join(","))
}

/// Turns points in time into words, all against the same now.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    now: Timestamp,
    exact: bool,
}

impl Times {
    /// `exact`: RFC 3339 in place of "3m ago".
    pub fn new(exact: bool) -> Self {
        Times { now: Clock::system().now(), exact }
    }

    pub fn show(&self, time: Option<&prost_types::Timestamp>) -> String {
        let Some(time) = time else { return String::new() };
        let at = Timestamp(time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos) / 1_000));
        match (self.exact, at > self.now) {
            (true, _) => at.to_string(),
            (false, true) => format!("in {}", short(at.since(self.now).as_secs_f64())),
            (false, false) => format!("{} ago", short(self.now.since(at).as_secs_f64())),
        }
    }
}

/// Local time of the day, with the date when it is not today's.
pub fn clock_time(time: &prost_types::Timestamp) -> String {
    let zone = jiff::tz::TimeZone::system();
    let today = jiff::Timestamp::from_microsecond(Clock::system().now().0).map(|t| t.to_zoned(zone.clone()).date());
    match jiff::Timestamp::new(time.seconds, time.nanos).map(|t| t.to_zoned(zone)) {
        Ok(there) if today.is_ok_and(|d| d == there.date()) => there.strftime("%H:%M:%S").to_string(),
        Ok(there) => there.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => "never".to_owned(),
    }
}

/// Seconds in the unit that fits: `4s`, `12m`, `3h`, `5d`.
pub fn short(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "0s".to_owned(),
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7_200.0 => format!("{:.0}m", s / 60.0),
        s if s < 172_800.0 => format!("{:.0}h", s / 3_600.0),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_lines_and_shows_control_characters() {
        let mut rows = Rows::new(&["ID", "KEY"]);
        rows.add(["019aa8c2-7d31-7123-8000-00000000002a".to_owned(), "a\x1b[2J\nb".to_owned()]);
        let text = rows.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains('\x1b') && text.contains("019aa8c2-7d31-7123-8000-00000000002a"), "{text}");
        assert!(text.lines().all(|line| line.trim_end() == line && !line.starts_with(' ')), "{text:?}");
    }

    #[test]
    fn numbers_and_times_are_short() {
        assert_eq!(count(1_204_000), "1,204,000");
        assert_eq!(count(-12), "-12");
        assert_eq!(short(0.2), "0s");
        assert_eq!(short(90.0), "90s");
        assert_eq!(short(600.0), "10m");
        assert_eq!(short(86_400.0 * 5.0), "5d");
        assert_eq!(job_state(4), "dead");
        assert_eq!(run_state(pb::RunState::SealedPaused as i32), "sealed-paused");
    }
}
