//! Identities. A job's public id is a UUIDv7 that carries the row number, so finding a job needs no index.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::clock::Timestamp;

/// A UUIDv7 (RFC 9562) made of the creation time in microseconds and a sequence number that the store assigns.
///
/// Layout: 48 bits of Unix milliseconds, version 7, 10 of 12 bits of `rand_a` for the microseconds within the
/// millisecond (method 3 of section 6.2), variant, 62 bits of sequence number. Both parts can be read back, and a
/// store checks both: a made-up id finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub created_at: Timestamp,
    pub seq: i64,
}

pub type JobId = Id;
pub type RunId = Id;

/// Number of a call. Strictly increasing within one store; also the fencing token of the lease under which its jobs
/// are `calling`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct CallId(pub i64);

/// Number of a flow within one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct FlowId(pub i64);

/// One opening of a store that several daemons share; a restarted daemon is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DaemonId(pub Uuid);

impl Id {
    const SEQ_BITS: u32 = 62;

    pub fn new(created_at: Timestamp, seq: i64) -> Self {
        debug_assert!((0..1 << Self::SEQ_BITS).contains(&seq));
        Id { created_at, seq }
    }

    pub fn uuid(self) -> Uuid {
        let us = u64::try_from(self.created_at.0.max(0)).unwrap_or(0);
        let (ms, sub) = (us / 1_000, us % 1_000);
        let high = (ms & 0xffff_ffff_ffff) << 16 | 0x7000 | sub;
        let low = 1 << 63 | (self.seq as u64 & ((1 << Self::SEQ_BITS) - 1));
        Uuid::from_u64_pair(high, low)
    }

    /// `None` for a UUID that Tidegate cannot have made.
    pub fn from_uuid(uuid: Uuid) -> Option<Self> {
        let (high, low) = uuid.as_u64_pair();
        let sub = high & 0xfff;
        if high & 0xf000 != 0x7000 || low >> Self::SEQ_BITS != 0b10 || sub > 999 {
            return None;
        }
        let us = (high >> 16) * 1_000 + sub;
        Some(Id { created_at: Timestamp(i64::try_from(us).ok()?), seq: (low & ((1 << Self::SEQ_BITS) - 1)) as i64 })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid().hyphenated().fmt(f)
    }
}

/// What is wrong with the text of an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected an id like 019aa8c2-7d31-7123-8000-00000000002a, got {0:?}")]
pub struct BadId(String);

impl FromStr for Id {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        let shown = || BadId(s.chars().take(64).collect());
        Uuid::try_parse(s).ok().and_then(Id::from_uuid).ok_or_else(shown)
    }
}

impl fmt::Display for DaemonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_survives_its_text_form(us in 0..(1i64 << 57), seq in 0..(1i64 << 62)) {
            let id = Id::new(Timestamp(us % (((1i64 << 48) - 1) * 1_000)), seq);
            prop_assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
            prop_assert_eq!(id.uuid().get_version_num(), 7);
        }

        #[test]
        fn any_text_is_an_id_or_a_clear_refusal(s in ".*") {
            if let Err(e) = s.parse::<Id>() {
                prop_assert!(e.to_string().starts_with("expected an id like"));
            }
        }
    }

    #[test]
    fn ids_sort_by_time() {
        let a = Id::new(Timestamp::from_secs(1_000), 9);
        let b = Id::new(Timestamp::from_secs(1_001), 1);
        assert!(a.to_string() < b.to_string());
    }
}
