//! A quota per hour, day or month of a time zone.
//!
//! The provider's clock decides when a period ends, and calls near the edge may arrive on either side. So a period is
//! counted from `CLOCK_ERROR` before its start to `CLOCK_ERROR` after its end, and a call in flight is charged to every
//! period it touches. Around an edge both periods must have room; the cost is a pause of seconds per period. `now` is
//! the steady line, which follows the wall clock up to the steps that somebody makes to it.
//! Must never know: windows. Next: `limit/state.rs`.

use std::time::Duration;

use jiff::ToSpan;
use jiff::tz::TimeZone;

use super::Denied;
use crate::clock::Timestamp;
use crate::model::provider::CalendarPeriod;

/// The most by which our clock and the provider's may differ.
pub const CLOCK_ERROR: Duration = Duration::from_secs(1);

/// A period whose extended span holds the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub start: Timestamp,
    pub end: Timestamp,
    /// Answered calls charged to it.
    pub used: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    in_flight: u32,
    /// One, or two around an edge.
    slots: Vec<Slot>,
    /// Until then `slots` is right.
    valid_until: Timestamp,
}

impl Calendar {
    /// As counted elsewhere. `slots` are right until `valid_until`.
    pub fn counted(in_flight: u32, slots: Vec<Slot>, valid_until: Timestamp) -> Self {
        Calendar { in_flight, slots, valid_until }
    }

    /// Brings the slots up to `now`. The other methods expect that this was called with the same `now`.
    pub fn roll(&mut self, period: CalendarPeriod, zone: &TimeZone, now: Timestamp) {
        if now < self.valid_until {
            return;
        }
        let mut slots = Vec::with_capacity(2);
        let mut at = now - CLOCK_ERROR;
        loop {
            let (start, end) = bounds(period, zone, at);
            let used = self.slots.iter().find(|s| s.start == start).map_or(0, |s| s.used);
            slots.push(Slot { start, end, used });
            if end > now + CLOCK_ERROR {
                break;
            }
            at = end;
        }
        let first_gone = slots.iter().map(|s| s.end + CLOCK_ERROR).min();
        let next_comes = slots.iter().map(|s| s.end - CLOCK_ERROR).filter(|&t| t > now).min();
        self.valid_until = first_gone.into_iter().chain(next_comes).min().unwrap_or(Timestamp::NEVER);
        self.slots = slots;
    }

    pub fn used(&self) -> u32 {
        self.slots.iter().map(|s| s.used).max().unwrap_or(0)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub fn free(&self, max: u32) -> u32 {
        max.saturating_sub(self.used()).saturating_sub(self.in_flight)
    }

    /// When `need` permits can be had while `kept` stay free. Call only when they cannot be had now.
    pub fn earliest(&self, max: u32, kept: u32, need: u32) -> Denied {
        let cap = u64::from(max.saturating_sub(kept));
        if u64::from(need) > cap {
            return Denied::HOPELESS;
        }
        let wanted = u64::from(self.in_flight) + u64::from(need);
        if wanted > cap {
            return Denied { earliest: Timestamp::NEVER, soft: true };
        }
        let full = |s: &&Slot| u64::from(s.used) + wanted > cap;
        let end = self.slots.iter().filter(full).map(|s| s.end + CLOCK_ERROR).max();
        Denied { earliest: end.unwrap_or(self.valid_until), soft: false }
    }

    pub fn grant(&mut self, n: u32) {
        self.in_flight = self.in_flight.saturating_add(n);
    }

    /// The end of `held` permits, of which `spent` were used after all.
    pub fn settle(&mut self, held: u32, spent: u32) {
        self.in_flight = self.in_flight.saturating_sub(held);
        for s in &mut self.slots {
            s.used = s.used.saturating_add(spent);
        }
    }

    /// A call known from the journal, on the wire between the two times.
    pub fn seed(&mut self, granted_at: Timestamp, anchored_at: Timestamp, n: u32) {
        for s in &mut self.slots {
            if anchored_at >= s.start - CLOCK_ERROR && granted_at < s.end + CLOCK_ERROR {
                s.used = s.used.saturating_add(n);
            }
        }
    }

    pub fn is_idle(&self, now: Timestamp) -> bool {
        self.in_flight == 0 && self.slots.iter().all(|s| s.used == 0 || s.end + CLOCK_ERROR <= now)
    }
}

/// Start and end of the period that holds `at`.
pub fn bounds(period: CalendarPeriod, zone: &TimeZone, at: Timestamp) -> (Timestamp, Timestamp) {
    // Outside of the years that a calendar knows there is one period without an end.
    civil_bounds(period, zone, at).unwrap_or((Timestamp::ZERO, Timestamp::NEVER))
}

fn civil_bounds(period: CalendarPeriod, zone: &TimeZone, at: Timestamp) -> Result<(Timestamp, Timestamp), jiff::Error> {
    let instant = jiff::Timestamp::from_microsecond(at.0)?;
    let ours = |z: jiff::Zoned| Timestamp(z.timestamp().as_microsecond());
    if period == CalendarPeriod::Hour {
        const HOUR_US: i64 = 3_600_000_000;
        let offset_us = i64::from(zone.to_offset(instant).seconds()) * 1_000_000;
        let start = (at.0 + offset_us).div_euclid(HOUR_US) * HOUR_US - offset_us;
        return Ok((Timestamp(start), Timestamp(start + HOUR_US)));
    }
    let local = instant.to_zoned(zone.clone());
    let (first, next) = match period {
        CalendarPeriod::Month => (local.first_of_month()?, local.first_of_month()?.checked_add(1.month())?),
        CalendarPeriod::Hour | CalendarPeriod::Day => (local.clone(), local.tomorrow()?),
    };
    Ok((ours(first.start_of_day()?), ours(next.start_of_day()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn a_day_ends_at_midnight_of_its_zone_also_when_the_clocks_change() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let day = |t| bounds(CalendarPeriod::Day, &berlin, at(t));
        assert_eq!(day("2026-11-22T12:00:00Z"), (at("2026-11-21T23:00:00Z"), at("2026-11-22T23:00:00Z")));
        assert_eq!(day("2026-10-25T12:00:00Z"), (at("2026-10-24T22:00:00Z"), at("2026-10-25T23:00:00Z")));
        let month = bounds(CalendarPeriod::Month, &berlin, at("2026-12-31T23:30:00Z"));
        assert_eq!(month, (at("2026-12-31T23:00:00Z"), at("2027-01-31T23:00:00Z")));
        let kolkata = TimeZone::get("Asia/Kolkata").unwrap();
        let hour = bounds(CalendarPeriod::Hour, &kolkata, at("2026-11-22T12:40:00Z"));
        assert_eq!(hour, (at("2026-11-22T12:30:00Z"), at("2026-11-22T13:30:00Z")));
    }

    #[test]
    fn a_call_in_flight_over_the_edge_is_charged_to_both_periods() {
        let (period, zone) = (CalendarPeriod::Hour, TimeZone::UTC);
        let mut c = Calendar::default();
        c.roll(period, &zone, at("2026-11-22T12:59:50Z"));
        c.grant(3);
        c.settle(1, 1);
        assert_eq!(c.free(10), 7);
        c.roll(period, &zone, at("2026-11-22T13:00:30Z"));
        assert_eq!(c.free(10), 8, "the answered call stays behind, the two in flight come along");
        c.settle(2, 2);
        assert_eq!((c.used(), c.in_flight()), (2, 0));
    }

    #[test]
    fn around_an_edge_both_periods_must_have_room() {
        let (period, zone) = (CalendarPeriod::Hour, TimeZone::UTC);
        let mut c = Calendar::default();
        c.roll(period, &zone, at("2026-11-22T12:30:00Z"));
        c.grant(10);
        c.settle(10, 10);
        let denied = c.earliest(10, 0, 1);
        assert_eq!(denied.earliest, at("2026-11-22T13:00:01Z"));
        c.roll(period, &zone, at("2026-11-22T13:00:00.5Z"));
        assert_eq!(c.free(10), 0, "the provider's clock may be half a second behind");
        c.roll(period, &zone, denied.earliest);
        assert_eq!(c.free(10), 10);
    }
}
