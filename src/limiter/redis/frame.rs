//! What goes to the scripts and what comes back: packed numbers, little-endian, doubles for all that may be large.
//!
//! A frame is one script call: requests or settles of one provider, the limits they spend once each. The formats stand
//! in the scripts' headers (`common.lua`, `acquire.lua`, `settle.lua`). Must never know: connections. Next: `desk.rs`.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::FAR;
use super::link::LinkError;
use crate::clock::Timestamp;
use crate::limit::{bucket, calendar, paced, set, window};
use crate::model::call::LimitKey;
use crate::model::flow::Class;
use crate::model::provider::{Limit, LimitKind};

/// The `e`, `d` and ring fields beside them, and Lua's stack, bound the limits of one frame.
pub(super) const LIMITS_MAX: usize = 1_000;

/// The first argument of every script.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Of a test: the server's time. `None`: it looks at its clock.
    pub at: Option<Timestamp>,
    pub epoch: i64,
    pub daemon: u32,
    pub hold: Duration,
    pub number: u64,
    /// Tell the first answer to this frame, and if there is none see to it that there never is.
    pub recall: bool,
}

impl Head {
    pub(super) fn pack(self) -> Bytes {
        let mut out = BytesMut::with_capacity(48);
        out.put_f64_le(self.at.map_or(0.0, |t| t.0 as f64));
        out.put_f64_le(self.epoch as f64);
        out.put_f64_le(f64::from(self.daemon));
        out.put_f64_le(self.hold.as_micros() as f64);
        out.put_f64_le(self.number as f64);
        out.put_f64_le(f64::from(u8::from(self.recall)));
        out.freeze()
    }
}

/// A declaration as the scripts read it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Declaration {
    bytes: [u8; SIZE],
    /// Server times from and until which it is right.
    valid: (i64, i64),
}

const SIZE: usize = 57;

impl Declaration {
    /// Of a limit that nobody here knows.
    pub(super) const UNKNOWN: Declaration = Declaration { bytes: [0; SIZE], valid: (i64::MIN, i64::MAX) };

    /// `now` is the server's time as far as known: the edges of a calendar are those around it.
    pub(super) fn new(limit: &Limit, now: i64) -> Declaration {
        let kept = |class| match limit.kind {
            LimitKind::Paced { .. } => 0,
            _ => set::kept_back(limit.reserve, class),
        };
        let mut valid = (i64::MIN, i64::MAX);
        let hold = |us: i64| (us as f64).min(FAR / 2.0);
        let (kind, numbers): (u8, [f64; 5]) = match &limit.kind {
            &LimitKind::Window { max, per, anchor } => {
                let rule = window::Rule::new(max, per, anchor);
                (1, [f64::from(rule.max), hold(rule.hold_us), f64::from(u8::from(rule.by_send)), 0.0, 0.0])
            }
            &LimitKind::Bucket { capacity, refill, per, jitter } => {
                let rule = bucket::Rule::new(capacity, refill, per, jitter);
                (2, [f64::from(rule.capacity), f64::from(rule.refill), rule.per_us as f64, 0.0, 0.0])
            }
            &LimitKind::Concurrency { max } => (3, [f64::from(max), 0.0, 0.0, 0.0, 0.0]),
            LimitKind::Calendar { max, period, zone } => {
                let bounds = |at| calendar::bounds(*period, zone, at);
                let (start, end) = bounds(Timestamp(now));
                let before = bounds(Timestamp(start.0.saturating_sub(1))).0;
                let after = bounds(end).1;
                let edge = |t: Timestamp| (t.0 as f64).min(FAR);
                valid = (start.0, end.0);
                (4, [f64::from(*max), edge(before), edge(start), edge(end), edge(after)])
            }
            &LimitKind::Paced { max, per, jitter } => {
                (5, [hold(paced::interval_us(max, per, jitter)), 0.0, 0.0, 0.0, 0.0])
            }
        };
        let mut bytes = [0; SIZE];
        let mut out = &mut bytes[..];
        out.put_u8(kind);
        out.put_u32_le(limit.cost.max(1));
        Class::ALL.iter().for_each(|&class| out.put_u32_le(kept(class)));
        numbers.iter().for_each(|&n| out.put_f64_le(n));
        Declaration { bytes, valid }
    }

    pub(super) fn is_right_at(&self, now: i64) -> bool {
        self.valid.0 <= now && now < self.valid.1
    }
}

/// The limits of a frame: each once, by position from 1.
#[derive(Debug, Default)]
pub(super) struct Limits {
    positions: HashMap<LimitKey, u16>,
    fields: Vec<Bytes>,
    declarations: BytesMut,
}

impl Limits {
    pub(super) fn position(&mut self, key: &LimitKey, declaration: impl FnOnce() -> Declaration) -> u16 {
        if let Some(&at) = self.positions.get(key) {
            return at;
        }
        self.fields.push(field(key));
        self.declarations.put_slice(&declaration().bytes);
        let at = self.fields.len() as u16;
        self.positions.insert(key.clone(), at);
        at
    }

    /// The arguments of a script after its head.
    pub(super) fn arguments(self, head: Head, list: BytesMut) -> Vec<Bytes> {
        let mut args = Vec::with_capacity(3 + self.fields.len());
        args.extend([head.pack(), self.declarations.freeze(), list.freeze()]);
        args.extend(self.fields);
        args
    }
}

/// Where a limit lies in its provider's hash.
pub(super) fn field(key: &LimitKey) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + key.0.len());
    out.put_slice(b"h:");
    out.put_slice(key.0.as_bytes());
    out.freeze()
}

/// What a script answered.
#[derive(Debug, PartialEq)]
pub(super) enum Reply<'a> {
    /// Server time, and what the verb says.
    Done(i64, Reader<'a>),
    /// The epoch that was found, if any.
    Unseeded(Option<i64>),
    /// The frame is older than the memory for answers, or was taken back: nothing is known of it, nothing happened now.
    Forgotten,
    /// The server's time is another than the edges of a calendar that came along.
    Stale(i64),
    /// Others took this process for dead.
    Buried,
}

pub(super) fn reply(bytes: &[u8]) -> Result<Reply<'_>, LinkError> {
    let mut reader = Reader(bytes);
    let kind = reader.u8()?;
    Ok(match kind {
        b'O' => Reply::Done(reader.f64()? as i64, reader),
        b'U' => {
            let found = reader.f64()?;
            Reply::Unseeded((found >= 0.0).then_some(found as i64))
        }
        b'T' => Reply::Stale(reader.f64()? as i64),
        b'F' | b'V' => Reply::Forgotten,
        b'B' => Reply::Buried,
        other => return Err(strange(&format!("an answer of kind {other}"))),
    })
}

/// What one request got. Server times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Got {
    Granted {
        count: u32,
        at: i64,
    },
    Wait {
        earliest: f64,
        soft: bool,
        binder: usize,
    },
    /// A numbered request that is older than the memory for answers.
    Forgotten,
}

pub(super) fn got(reader: &mut Reader<'_>) -> Result<Got, LinkError> {
    Ok(match reader.u8()? {
        b'G' => Got::Granted { count: reader.u32()?, at: reader.f64()? as i64 },
        b'W' => {
            let (earliest, soft, binder) = (reader.f64()?, reader.u8()? == 1, reader.u16()?);
            Got::Wait { earliest, soft, binder: usize::from(binder) }
        }
        b'F' => Got::Forgotten,
        other => return Err(strange(&format!("a decision of kind {other}"))),
    })
}

pub(super) fn strange(what: &str) -> LinkError {
    LinkError::Refused(format!("the script answered with {what}, which this version does not know"))
}

/// Reads packed numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, n: usize) -> Result<&'a [u8], LinkError> {
        let Some((head, rest)) = self.0.split_at_checked(n) else {
            return Err(strange("too few bytes"));
        };
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LinkError> {
        self.bytes(N)?.try_into().map_err(|_| strange("too few bytes"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, LinkError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, LinkError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, LinkError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn f64(&mut self) -> Result<f64, LinkError> {
        self.array().map(f64::from_le_bytes)
    }
}
