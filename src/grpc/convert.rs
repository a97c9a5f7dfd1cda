//! Proto to model and back. The only place that does it.
//!
//! `convert/jobs` for jobs and what is told of them, `convert/providers` for providers, here what both need. Must never
//! know: policy. Next: `api/enqueue`, which judges what is made here.

use std::time::Duration;

use super::pb;
use crate::api::error::{Error, Result};
use crate::clock::Timestamp;
use crate::model::call::Lane;
use crate::model::flow::{Class, FlowCounts};
use crate::model::run::RunState;
use crate::model::state::State;

pub mod call_log;
pub mod calls;
pub mod events;
pub mod jobs;
pub mod permits;
pub mod providers;
pub mod records;
pub mod runs;
pub mod schedules;
pub mod workers;

/// Nanoseconds are cut off: the daemon counts in microseconds. Times that the daemon never has are not told.
pub fn time(at: Timestamp) -> Option<prost_types::Timestamp> {
    (at != Timestamp::NEVER).then(|| prost_types::Timestamp {
        seconds: at.0.div_euclid(1_000_000),
        nanos: (at.0.rem_euclid(1_000_000) * 1_000) as i32,
    })
}

pub fn time_from(field: &str, at: prost_types::Timestamp) -> Result<Timestamp> {
    let wrong = |_| Error::field(field, "BAD_TIME", "expected a time from the year 1 to 9999");
    let at = jiff::Timestamp::new(at.seconds, at.nanos).map_err(wrong)?;
    Ok(Timestamp(at.as_microsecond()))
}

pub fn duration(d: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(d.subsec_nanos()).unwrap_or(0),
    }
}

/// Microseconds; negative ones are kept so that policy can refuse them.
pub fn micros_from(field: &str, d: prost_types::Duration) -> Result<i64> {
    let nanos_fit =
        d.nanos.unsigned_abs() < 1_000_000_000 && (d.seconds == 0 || d.nanos == 0 || (d.seconds < 0) == (d.nanos < 0));
    let micros = d.seconds.checked_mul(1_000_000).and_then(|us| us.checked_add(i64::from(d.nanos / 1_000)));
    match micros {
        Some(us) if nanos_fit => Ok(us),
        _ => Err(Error::field(field, "BAD_DURATION", "expected a duration as google.protobuf.Duration defines it")),
    }
}

/// A length of time, not negative; `None` when it is not set.
pub fn duration_from(field: &str, d: Option<prost_types::Duration>) -> Result<Option<Duration>> {
    let Some(d) = d else { return Ok(None) };
    let us = micros_from(field, d)?;
    let wrong = |_| Error::field(field, "BAD_DURATION", format_args!("expected 0 or more, got {us} microseconds"));
    u64::try_from(us).map(|us| Some(Duration::from_micros(us))).map_err(wrong)
}

/// A known value of an enum, or which field is wrong.
pub fn known<E: TryFrom<i32>>(field: &str, number: i32) -> Result<E> {
    E::try_from(number).map_err(|_| {
        Error::field(field, "UNKNOWN_ENUM_VALUE", format_args!("expected a value of the enum, got {number}"))
    })
}

/// `None`: not said.
pub fn class_from(field: &str, number: i32) -> Result<Option<Class>> {
    Ok(match known::<pb::PriorityClass>(field, number)? {
        pb::PriorityClass::Unspecified => None,
        pb::PriorityClass::Urgent => Some(Class::Urgent),
        pb::PriorityClass::Normal => Some(Class::Normal),
        pb::PriorityClass::Bulk => Some(Class::Bulk),
    })
}

pub fn class(class: Class) -> pb::PriorityClass {
    match class {
        Class::Urgent => pb::PriorityClass::Urgent,
        Class::Normal => pb::PriorityClass::Normal,
        Class::Bulk => pb::PriorityClass::Bulk,
    }
}

/// `None`: not said.
pub fn state_from(field: &str, number: i32) -> Result<Option<State>> {
    Ok(match known::<pb::JobState>(field, number)? {
        pb::JobState::Unspecified => None,
        pb::JobState::Waiting => Some(State::Waiting),
        pb::JobState::Calling => Some(State::Calling),
        pb::JobState::Delivered => Some(State::Delivered),
        pb::JobState::Dead => Some(State::Dead),
        pb::JobState::Cancelled => Some(State::Cancelled),
        pb::JobState::Unknown => Some(State::Unknown),
    })
}

pub fn state(state: State) -> pb::JobState {
    match state {
        State::Waiting => pb::JobState::Waiting,
        State::Calling => pb::JobState::Calling,
        State::Delivered => pb::JobState::Delivered,
        State::Dead => pb::JobState::Dead,
        State::Cancelled => pb::JobState::Cancelled,
        State::Unknown => pb::JobState::Unknown,
    }
}

pub fn run_state(state: RunState) -> pb::RunState {
    match state {
        RunState::Open => pb::RunState::Open,
        RunState::Paused => pb::RunState::Paused,
        RunState::Sealed => pb::RunState::Sealed,
        RunState::SealedPaused => pb::RunState::SealedPaused,
        RunState::Cancelling => pb::RunState::Cancelling,
        RunState::Finished => pb::RunState::Finished,
        RunState::Cancelled => pb::RunState::Cancelled,
    }
}

/// `None`: not said.
pub fn lane_from(field: &str, number: i32) -> Result<Option<Lane>> {
    Ok(match known::<pb::Lane>(field, number)? {
        pb::Lane::Unspecified => None,
        pb::Lane::Single => Some(Lane::Single),
        pb::Lane::Batch => Some(Lane::Batch),
    })
}

pub fn lane(lane: Lane) -> pb::Lane {
    match lane {
        Lane::Single => pb::Lane::Single,
        Lane::Batch => pb::Lane::Batch,
    }
}

/// With bodies? `default`: what an unspecified view means.
pub fn is_full(field: &str, number: i32, default: bool) -> Result<bool> {
    Ok(match known::<pb::View>(field, number)? {
        pb::View::Unspecified => default,
        pb::View::Basic => false,
        pb::View::Full => true,
    })
}

pub fn counts(c: &FlowCounts) -> pb::JobCounts {
    pb::JobCounts {
        waiting: count(c.waiting()),
        ready: count(c.ready_all()),
        later: count(c.later),
        behind: count(c.behind),
        calling: count(c.calling),
        unknown: count(c.unknown),
        delivered: count(c.delivered),
        dead: count(c.dead),
        cancelled: count(c.cancelled),
    }
}

pub fn count(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

pub fn small(n: impl TryInto<i32>) -> i32 {
    n.try_into().unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_survives_the_wire(us in -60_000_000_000_000_000i64..250_000_000_000_000_000) {
            let at = Timestamp(us);
            prop_assert_eq!(time_from("t", time(at).unwrap()).unwrap(), at);
        }

        #[test]
        fn any_time_and_duration_is_read_or_refused(seconds: i64, nanos: i32) {
            let _ = time_from("t", prost_types::Timestamp { seconds, nanos });
            let _ = micros_from("d", prost_types::Duration { seconds, nanos });
        }
    }

    #[test]
    fn unknown_enum_numbers_are_refused_with_their_field() {
        let wrong = class_from("job.priority_class", 99).unwrap_err();
        assert_eq!(wrong.reason, "UNKNOWN_ENUM_VALUE");
        assert_eq!(wrong.more.violations[0].field, "job.priority_class");
        assert!(state_from("state", -1).is_err() && is_full("view", 3, true).is_err());
    }

    #[test]
    fn every_state_and_class_reads_back() {
        for s in State::ALL {
            assert_eq!(state_from("s", state(s) as i32).unwrap(), Some(s));
        }
        for c in Class::ALL {
            assert_eq!(class_from("c", class(c) as i32).unwrap(), Some(c));
        }
    }

    #[test]
    fn a_duration_with_mixed_signs_is_refused() {
        assert!(micros_from("d", prost_types::Duration { seconds: 1, nanos: -1 }).is_err());
        assert_eq!(micros_from("d", prost_types::Duration { seconds: -1, nanos: -500_000_000 }).unwrap(), -1_500_000);
        let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        assert_eq!(duration_from("wait", negative).unwrap_err().more.violations[0].field, "wait");
    }
}
