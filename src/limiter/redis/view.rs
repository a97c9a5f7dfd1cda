//! A limit as it lies in the hash, as a state of this crate's own arithmetic: what a view shows is computed here.
//!
//! The format is that of `common.lua` (FMT). Must never know: how declarations are packed. Next: `limit/state.rs`.

use super::frame::{self, Reader, Reply};
use super::link::{LinkError, Script};
use super::send::{forgotten, unavailable, unseeded};
use super::{RedisLimiter, hash, lines, lock};
use crate::clock::Timestamp;
use crate::limit::bucket::Bucket;
use crate::limit::calendar::{Calendar, Slot};
use crate::limit::concurrency::Concurrency;
use crate::limit::paced::Paced;
use crate::limit::state::{Kind, Known};
use crate::limit::window::{Clump, Window};
use crate::limit::{Correction, State, Thaw};
use crate::limiter::{Error, LimitView, Spend};
use crate::model::provider::{Limit, LimitKind};

/// Bytes of what the provider said, alone and with the state of a thaw behind it.
const SAID_SIZE: usize = 16;
const BOTH_SIZE: usize = SAID_SIZE + 32;

static PEEK: Script = Script::new("peek", concat!(include_str!("common.lua"), include_str!("peek.lua")));

impl RedisLimiter {
    pub(super) async fn look(&self, now: Timestamp, provider: &str, spends: &[Spend]) -> Result<Vec<LimitView>, Error> {
        let head = self.head(now, 0);
        let mut args = Vec::with_capacity(spends.len() + 1);
        args.push(head.pack());
        args.extend(spends.iter().map(|s| frame::field(&s.key)));
        let bytes = self.call(&PEEK, &[hash(provider)], args).await?;
        let read_at = self.steady(now);
        match frame::reply(&bytes).map_err(unavailable)? {
            Reply::Done(server, reader) => {
                lock(&self.lines).hear(server, read_at);
                self.views(spends, server, read_at, reader).map_err(unavailable)
            }
            Reply::Unseeded(found) => Err(unseeded(provider, head.epoch, found)),
            Reply::Forgotten | Reply::Stale(_) | Reply::Buried => Err(forgotten()),
        }
    }

    fn views(
        &self,
        spends: &[Spend],
        server: i64,
        read_at: Timestamp,
        mut reader: Reader<'_>,
    ) -> Result<Vec<LimitView>, LinkError> {
        let sized = |reader: &mut Reader<'_>| -> Result<Vec<u8>, LinkError> {
            let n = reader.u32()? as usize;
            Ok(reader.bytes(n)?.to_vec())
        };
        let mut dead = Vec::new();
        let list = sized(&mut reader)?;
        let mut list = Reader(&list);
        while !list.0.is_empty() {
            dead.push((list.f64()? as u32, list.f64()?));
        }
        let hold = self.settings.in_flight_max.as_micros() as f64;
        let here = |t: Timestamp| {
            if t == Timestamp::NEVER { t } else { lines::steady_of(t.0 as f64, server, read_at) }
        };
        let mut views = Vec::with_capacity(spends.len());
        for spend in spends {
            let (raw, closed) = (sized(&mut reader)?, sized(&mut reader)?);
            let mut state = state(&spend.limit, Timestamp(server), hold, &dead, &raw, &closed)?;
            let mut view = state.view(spend.key.clone(), &spend.limit, Timestamp(server));
            view.next_free_at = here(view.next_free_at);
            view.blocked_until = view.blocked_until.map(here);
            view.said = view.said.map(|said| Correction { until: here(said.until), ..said });
            view.returns.iter_mut().for_each(|r| r.0 = here(r.0));
            views.push(view);
        }
        Ok(views)
    }
}

/// The state under the declaration in force, at the server's `now`.
fn state(
    limit: &Limit,
    now: Timestamp,
    hold_us: f64,
    dead: &[(u32, f64)],
    raw: &[u8],
    closed: &[u8],
) -> Result<State, LinkError> {
    if raw.is_empty() {
        return Ok(State::new(limit));
    }
    let mut reader = Reader(raw);
    let (kind, by_send, daemons, known) = (reader.u8()?, reader.u8()? == 1, reader.u8()?, reader.u32()?);
    let (_idle_at, blocked) = (reader.f64()?, reader.f64()?);
    let mut numbers = [0.0; 7];
    for n in &mut numbers {
        *n = reader.f64()?;
    }
    // Calls of daemons that are silent for too long, or dead, count from when they must have ended.
    let (mut in_flight, mut ended) = (0u32, Vec::new());
    for _ in 0..daemons {
        let (daemon, count, last) = (reader.u32()?, reader.u32()?, reader.f64()?);
        let buried = dead.iter().rev().find(|d| d.0 == daemon).map_or(f64::INFINITY, |d| d.1);
        let end = (last + hold_us).min(buried);
        if end <= now.0 as f64 { ended.push((end, count)) } else { in_flight = in_flight.saturating_add(count) }
    }
    let kind = match (kind, &limit.kind) {
        (1, LimitKind::Window { .. }) => {
            let mut clumps = Vec::new();
            let mut rest = Reader(closed);
            while !rest.0.is_empty() {
                clumps.push(clump(rest.f64()?, rest.f64()?, rest.f64()?));
            }
            let [_, first, last, count, _, switched, _] = numbers;
            if count > 0.0 {
                clumps.push(clump(first, last, count));
            }
            Kind::Window(Window::counted(in_flight, clumps, by_send, at(switched)))
        }
        (2, LimitKind::Bucket { .. }) => {
            Kind::Bucket(Bucket::counted(numbers[0] as i128, at(numbers[1]), numbers[2] as u32))
        }
        (3, LimitKind::Concurrency { .. }) => {
            let mut ghosts = Vec::new();
            let mut rest = Reader(closed);
            while !rest.0.is_empty() {
                ghosts.push((at(rest.f64()?), rest.f64()? as u32));
            }
            Kind::Concurrency(Concurrency::counted(in_flight, ghosts))
        }
        (4, LimitKind::Calendar { .. }) => {
            let [start, end, used, next, next_end, next_used, valid] = numbers;
            let gone = ended.iter().fold(0u32, |sum, e| sum.saturating_add(e.1));
            let slot = |start, end, used: f64| Slot { start: at(start), end: at(end), used: used as u32 + gone };
            let mut slots = Vec::new();
            if end > 0.0 {
                slots.push(slot(start, end, used));
            }
            if next_end > 0.0 {
                slots.push(slot(next, next_end, next_used));
            }
            Kind::Calendar(Calendar::counted(in_flight, slots, at(valid)))
        }
        (5, LimitKind::Paced { .. }) => Kind::Paced(Paced::counted(at(numbers[0]))),
        // Not declared yet, or declared anew as another kind.
        _ => return with_known(State::new(limit), limit, now, known, reader),
    };
    let (said, thaw) = heard(known, reader, now)?;
    let mut state = State::counted(kind, at(blocked), said, thaw);
    ended.iter().for_each(|e| state.unheard(limit, e.1));
    let window = matches!(limit.kind, LimitKind::Window { .. }) && !by_send;
    for (end, permits) in ended.into_iter().filter(|_| window) {
        state.seed(limit, now, Known { granted_at: at(end), anchored_at: at(end), permits });
    }
    with_known(state, limit, now, known, reader)
}

/// What the provider said, and how the limit opens after a refusal: behind what the journal knows.
fn heard(known: u32, mut reader: Reader<'_>, now: Timestamp) -> Result<(Correction, Thaw), LinkError> {
    reader.bytes(24 * known as usize)?;
    let (mut said, mut thaw) = (Correction::NONE, Thaw::OFF);
    if matches!(reader.0.len(), SAID_SIZE | BOTH_SIZE) {
        said = Correction { until: at(reader.f64()?), left: reader.f64()? as u32 };
        said.pass(now);
    }
    if !reader.0.is_empty() {
        let (since, moved_at) = (at(reader.f64()?), at(reader.f64()?));
        thaw = Thaw { since, moved_at, credit: reader.f64()? as u32, good: reader.f64()? as u32 };
        thaw.pass(now);
    }
    Ok((said, thaw))
}

/// Counts what the journal knew before anybody declared the limit.
fn with_known(
    mut state: State,
    limit: &Limit,
    now: Timestamp,
    count: u32,
    mut reader: Reader<'_>,
) -> Result<State, LinkError> {
    let mut known = Vec::new();
    for _ in 0..count {
        let (granted_at, anchored_at) = (at(reader.f64()?), at(reader.f64()?));
        known.push(Known { granted_at, anchored_at, permits: reader.f64()? as u32 });
    }
    known.sort_by_key(|k| k.anchored_at);
    known.into_iter().for_each(|k| state.seed(limit, now, k));
    Ok(state)
}

fn at(us: f64) -> Timestamp {
    if us < super::FAR { Timestamp(us as i64) } else { Timestamp::NEVER }
}

fn clump(first: f64, last: f64, count: f64) -> Clump {
    Clump { first: at(first), last: at(last), count: count as u32 }
}
