//! Counts from the journal: a provider rebuilt under a new epoch, and what a dead daemon left open.
//!
//! A rebuild goes into a hash of its own and takes the old one's place in one step, so that nobody grants from half of
//! it. Must never know: stores. Next: `seed.lua`.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{self, Reply};
use super::link::Script;
use super::send::{unavailable, unseeded};
use super::{RedisLimiter, hash, lock, provider};
use crate::clock::Timestamp;
use crate::limiter::{Error, Seed};
use crate::model::call::LimitKey;

static SEED: Script = Script::new("seed", concat!(include_str!("common.lua"), include_str!("seed.lua")));
/// Journal entries in one script call.
const ENTRIES_MAX: usize = 500;

impl RedisLimiter {
    /// Are a provider's limits in their place under the current epoch?
    pub async fn is_seeded(&self, now: Timestamp, name: &str) -> Result<bool, Error> {
        match self.seed_verb(now, name, &[hash(name)], b"ask", vec![]).await {
            Ok(()) => Ok(true),
            Err(Error::Unseeded { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Rebuilds a provider's limits under the current epoch: `entries` are all calls of the journal that may still
    /// count; those of other providers are passed over. Of several daemons that rebuild under one epoch the first
    /// wins, and all are right: under the fence of the epoch they read the same journal. Does nothing when the provider
    /// is seeded already.
    pub async fn rebuild(&self, now: Timestamp, name: &str, entries: &[Seed]) -> Result<(), Error> {
        let number = self.next_number();
        let aside = Bytes::from(format!("tg:{{{name}}}:s:{}:{number}", self.daemon()));
        let keys = [hash(name), aside];
        let mut entries: Vec<&Seed> = entries.iter().filter(|e| belongs(e, name)).collect();
        entries.sort_by_key(|e| e.anchored_at);
        let mut staged = 0;
        for part in entries.chunks(ENTRIES_MAX) {
            staged += self.seed_part(now, name, &keys, b"stage", part).await?;
        }
        self.seed_verb(now, name, &keys, b"commit", vec![Bytes::from(staged.to_string())]).await
    }

    /// Adds entries to what is counted under this epoch. Whoever calls it answers for that nothing is counted twice.
    pub async fn merge(&self, now: Timestamp, name: &str, entries: &[Seed]) -> Result<(), Error> {
        let mut entries: Vec<&Seed> = entries.iter().filter(|e| belongs(e, name)).collect();
        entries.sort_by_key(|e| e.anchored_at);
        for part in entries.chunks(ENTRIES_MAX) {
            self.seed_part(now, name, &[hash(name)], b"merge", part).await?;
        }
        Ok(())
    }

    /// A daemon is dead, and by this time its last call has ended: what it held in flight counts from then and need not
    /// wait for [`super::Settings::in_flight_max`]. Whoever buries it first is believed. One that was not dead after all is
    /// granted nothing more under this number.
    pub async fn bury(&self, now: Timestamp, name: &str, daemon: u32, ended_at: Timestamp) -> Result<(), Error> {
        let age = lock(&self.lines).age(self.steady(now), ended_at);
        let args = vec![Bytes::from(daemon.to_string()), Bytes::from(age.to_string())];
        self.seed_verb(now, name, &[hash(name)], b"bury", args).await
    }

    /// In so many script calls.
    async fn seed_part(
        &self,
        now: Timestamp,
        name: &str,
        keys: &[Bytes],
        verb: &'static [u8],
        part: &[&Seed],
    ) -> Result<usize, Error> {
        let mut calls: BTreeMap<&LimitKey, (u32, BytesMut)> = BTreeMap::new();
        let now_here = self.steady(now);
        {
            let lines = lock(&self.lines);
            for entry in part {
                for (key, permits) in entry.permit.spends.iter().filter(|(k, _)| provider(&k.0) == name) {
                    let (count, list) = calls.entry(key).or_default();
                    *count += 1;
                    list.put_f64_le(lines.age_of_grant(now_here, entry.permit.granted_at));
                    list.put_f64_le(lines.age(now_here, entry.anchored_at));
                    list.put_f64_le(f64::from(*permits));
                }
            }
        }
        let calls: Vec<_> = calls.into_iter().collect();
        let frames = calls.chunks(frame::LIMITS_MAX);
        let count = frames.len();
        for some in frames {
            let mut all = BytesMut::new();
            for (_, (count, list)) in some {
                all.put_u32_le(*count);
                all.put_slice(list);
            }
            let mut args = vec![all.freeze()];
            args.extend(some.iter().map(|(key, _)| frame::field(key)));
            self.seed_verb(now, name, keys, verb, args).await?;
        }
        Ok(count)
    }

    async fn seed_verb(
        &self,
        now: Timestamp,
        name: &str,
        keys: &[Bytes],
        verb: &'static [u8],
        more: Vec<Bytes>,
    ) -> Result<(), Error> {
        let head = self.head(now, 0);
        let mut args = vec![head.pack(), Bytes::from_static(verb)];
        args.extend(more);
        let bytes = self.call(&SEED, keys, args).await?;
        match frame::reply(&bytes).map_err(unavailable)? {
            Reply::Done(server, _) => {
                lock(&self.lines).hear(server, self.steady(now));
                Ok(())
            }
            Reply::Unseeded(found) => Err(unseeded(name, head.epoch, found)),
            Reply::Forgotten | Reply::Stale(_) | Reply::Buried => {
                let reason = "what was put aside for a rebuild is gone; rebuild again".to_owned();
                Err(Error::Unavailable { reason })
            }
        }
    }
}

fn belongs(entry: &Seed, name: &str) -> bool {
    entry.permit.spends.iter().any(|(key, _)| provider(&key.0) == name)
}
