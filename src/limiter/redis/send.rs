//! Frames on their way: sent once, recognised when they come twice, taken back when their answer is lost.
//!
//! The server is believed only after its run id was compared: at first, after every new connection, whenever it does not
//! know a script, for scripts do not outlive the process that was sent them (Redis 7), and after it was found to be a
//! replica. Must never know: formats of
//! settings. Next: `frame.rs`, `desk.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;

use super::desk::{Doubt, Owed};
use super::frame::{self, Got, Head, Limits, Reader, Reply};
use super::link::{LinkError, Script};
use super::{FRAME_MAX, RedisLimiter, STALE_MAX, hash, lines, lock};
use crate::clock::Timestamp;
use crate::limiter::{Acquire, Answer, Error, Settle};
use crate::model::call::{LimitKey, Permit};

static ACQUIRE: Script =
    Script::new("acquire", concat!(include_str!("common.lua"), include_str!("thaw.lua"), include_str!("acquire.lua")));
static SETTLE: Script =
    Script::new("settle", concat!(include_str!("common.lua"), include_str!("thaw.lua"), include_str!("settle.lua")));

#[derive(Debug)]
pub(super) enum Failure {
    Link(LinkError),
    Restarted(String),
}

impl From<LinkError> for Failure {
    fn from(e: LinkError) -> Self {
        Failure::Link(e)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Link(e) => unavailable(e),
            Failure::Restarted(run_id) => Error::Restarted { run_id },
        }
    }
}

pub(super) fn unavailable(e: LinkError) -> Error {
    Error::Unavailable { reason: e.to_string() }
}

/// An acquire under way: whatever ends it without an answer, a dropped future too, leaves it to be taken back.
struct UnderWay<'a> {
    limiter: &'a RedisLimiter,
    doubt: Option<Doubt>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(doubt) = self.doubt.take() {
            lock(&self.limiter.desk).doubt(doubt);
        }
    }
}

/// Settles under way: what ends without an answer is sent again.
struct Telling<'a> {
    limiter: &'a RedisLimiter,
    owed: Option<Owed>,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if let Some(owed) = self.owed.take() {
            lock(&self.limiter.desk).owe(owed);
        }
    }
}

impl RedisLimiter {
    pub(super) fn head(&self, now: Timestamp, number: u64) -> Head {
        let at = self.callers_time.then_some(now);
        let (epoch, hold) = (self.epoch.load(Ordering::SeqCst), self.settings.in_flight_max);
        Head { at, epoch, daemon: self.daemon(), hold, number, recall: false }
    }

    pub(super) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Runs a script on a server that is trusted.
    pub(super) async fn call(&self, script: &Script, keys: &[Bytes], args: Vec<Bytes>) -> Result<Bytes, Failure> {
        let Ok(_place) = self.calls.try_acquire() else {
            return Err(LinkError::NotSent("too many calls are under way".to_owned()).into());
        };
        let answer = self.call_trusted(script, keys, args).await;
        match &answer {
            Ok(_) => self.away.store(false, Ordering::Relaxed),
            Err(Failure::Link(LinkError::NotSent(_) | LinkError::Lost(_))) => self.away.store(true, Ordering::Relaxed),
            Err(_) => {}
        }
        answer
    }

    async fn call_trusted(&self, script: &Script, keys: &[Bytes], args: Vec<Bytes>) -> Result<Bytes, Failure> {
        let mut generation = self.recognise().await?;
        let answer = match self.link.run(script, false, keys, args.clone()).await {
            Err(LinkError::NoScript) => {
                self.recognised.store(0, Ordering::SeqCst);
                generation = self.recognise().await?;
                self.link.run(script, true, keys, args).await
            }
            other => other,
        };
        if matches!(&answer, Err(LinkError::Refused(reason)) if reason.contains("READONLY")) {
            // A replica now: when it may be written again it holds what its primary knew, over this very connection.
            self.recognised.store(0, Ordering::SeqCst);
        }
        let answer = answer?;
        if self.link.generation() != generation {
            // It may come from a server that nobody has looked at.
            return Err(LinkError::Lost("the connection changed meanwhile".to_owned()).into());
        }
        Ok(answer)
    }

    /// Is the process at the other end the one whose counts are trusted? Tells over which connection.
    async fn recognise(&self) -> Result<u64, Failure> {
        let generation = self.link.generation();
        if generation != 0 && self.recognised.load(Ordering::SeqCst) == generation {
            return Ok(generation);
        }
        let run_id = self.read_run_id().await?;
        let is_trusted = lock(&self.trusted).as_deref() == Some(run_id.as_str());
        if !is_trusted {
            return Err(Failure::Restarted(run_id));
        }
        self.recognised.store(generation, Ordering::SeqCst);
        Ok(generation)
    }

    /// The process, and the history of writes that its data follow: one that was a replica for a while has another.
    pub(super) async fn read_run_id(&self) -> Result<String, LinkError> {
        let (processes, histories) =
            (self.read_ids("server", "run_id:").await?, self.read_ids("replication", "master_replid:").await?);
        Ok(format!("{processes}/{histories}"))
    }

    async fn read_ids(&self, section: &str, name: &str) -> Result<String, LinkError> {
        let infos = self.link.info(section).await?;
        let id = |info: &String| info.lines().find_map(|l| l.strip_prefix(name)).map(|id| id.trim().to_owned());
        let ids: Option<Vec<String>> = infos.iter().map(id).collect();
        match ids {
            Some(ids) if !ids.is_empty() => Ok(ids.join(",")),
            _ => Err(LinkError::Refused(format!("expected `{name}` in INFO {section}, and it is not there"))),
        }
    }

    /// Requests of one provider in one frame.
    pub(super) async fn ask(&self, now: Timestamp, provider: &str, requests: &[Acquire]) -> Result<Vec<Answer>, Error> {
        if requests.iter().all(|r| r.spends.is_empty()) {
            return Ok(requests.iter().map(|r| self.without_limits(now, r)).collect());
        }
        let name: Arc<str> = Arc::from(provider);
        for _ in 0..STALE_MAX {
            let head = self.head(now, self.next_number());
            let doubt =
                Doubt { provider: name.clone(), number: head.number, epoch: head.epoch, requests: requests.to_vec() };
            let mut under_way = UnderWay { limiter: self, doubt: Some(doubt) };
            let args = self.pack(now, requests, head);
            let bytes = match self.call(&ACQUIRE, &[hash(provider)], args).await {
                Ok(bytes) => bytes,
                Err(Failure::Link(e @ LinkError::Lost(_))) => return Err(unavailable(e)),
                Err(e) => {
                    under_way.doubt = None;
                    return Err(e.into());
                }
            };
            under_way.doubt = None;
            let read_at = self.steady(now);
            match frame::reply(&bytes).map_err(unavailable)? {
                // Granted under a number that was buried meanwhile: it counts, and nobody may use it.
                Reply::Done(..) if head.daemon != self.daemon() => return Err(forgotten()),
                Reply::Done(server, reader) => return self.answers(requests, head.epoch, server, read_at, reader),
                Reply::Buried => self.rename(head.daemon, read_at),
                Reply::Unseeded(found) => return Err(unseeded(provider, head.epoch, found)),
                Reply::Forgotten => return Err(forgotten()),
                Reply::Stale(server) => lock(&self.lines).hear(server, read_at),
            }
        }
        Err(unavailable(frame::strange("another time each time")))
    }

    fn without_limits(&self, now: Timestamp, request: &Acquire) -> Answer {
        let permit = Permit { spends: Arc::from([]), granted_at: now, epoch: self.epoch.load(Ordering::SeqCst) };
        Answer::Granted { count: request.max.max(request.min.max(1)), permit }
    }

    fn pack(&self, now: Timestamp, requests: &[Acquire], head: Head) -> Vec<Bytes> {
        let server_now = lock(&self.lines).server_now(now);
        let mut desk = lock(&self.desk);
        let mut limits = Limits::default();
        let mut list = BytesMut::with_capacity(requests.len() * 32);
        for request in requests {
            list.put_u32_le(request.min);
            list.put_u32_le(request.max);
            list.put_u8(request.class as u8);
            list.put_f64_le(request.request as f64);
            list.put_u8(u8::try_from(request.spends.len()).unwrap_or(u8::MAX));
            for spend in request.spends.iter().take(usize::from(u8::MAX)) {
                let declare = || desk.declare(&spend.key, &spend.limit, server_now);
                list.put_u16_le(limits.position(&spend.key, declare));
                // Beside the declaration: two of one count may cost differently, as reads and writes do.
                list.put_u32_le(spend.limit.cost.max(1));
            }
        }
        limits.arguments(head, list)
    }

    fn answers(
        &self,
        requests: &[Acquire],
        epoch: i64,
        server: i64,
        read_at: Timestamp,
        mut reader: Reader<'_>,
    ) -> Result<Vec<Answer>, Error> {
        let mut lines = lock(&self.lines);
        lines.hear(server, read_at);
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push(match frame::got(&mut reader).map_err(unavailable)? {
                Got::Granted { count, at } => {
                    let all = || request.spends.iter().map(|s| (s.key.clone(), s.limit.cost.max(1))).collect();
                    let spends = request.spends.first().map_or_else(all, |first| first.memo.permit(all));
                    let permit = Permit { spends, granted_at: lines.granted(at, read_at), epoch };
                    Answer::Granted { count, permit }
                }
                Got::Wait { earliest, soft, binder } => {
                    let earliest = lines::steady_of(earliest, server, read_at);
                    let binder = request.spends.get(binder).map(|s| s.key.clone());
                    Answer::Wait { earliest, soft, binder: binder.unwrap_or(LimitKey(Arc::from(""))) }
                }
                Got::Forgotten => return Err(forgotten()),
            });
        }
        Ok(answers)
    }

    pub(super) fn owed(&self, provider: &str, settles: Vec<Settle>) -> Owed {
        Owed { provider: Arc::from(provider), number: self.next_number(), settles }
    }

    /// Permits that nobody will use. Sent with the next call.
    pub(super) fn give_back(&self, permits: Vec<(u32, Permit)>) {
        for (count, permit) in permits.into_iter().filter(|(_, p)| !p.spends.is_empty()) {
            let provider = permit.spends.first().map(|(key, _)| super::provider(&key.0).to_owned());
            let owed = self.owed(&provider.unwrap_or_default(), vec![Settle::new(permit, count, false)]);
            lock(&self.desk).owe(owed);
        }
    }

    /// Sends settles. What the server did not surely hear is kept and sent again; that is no error.
    pub(super) async fn tell(&self, now: Timestamp, owed: Owed) -> Result<(), Error> {
        if owed.settles.iter().all(|s| s.permit.spends.is_empty()) {
            return Ok(());
        }
        let keys = [hash(&owed.provider)];
        let mut telling = Telling { limiter: self, owed: Some(owed.clone()) };
        for _ in 0..STALE_MAX {
            let head = self.head(now, owed.number);
            let args = self.pack_settles(now, &owed.settles, head);
            let bytes = match self.call(&SETTLE, &keys, args).await {
                Ok(bytes) => bytes,
                Err(e) => {
                    tracing::debug!(provider = %owed.provider, error = ?e, "settles are kept and sent again");
                    telling.owed = None;
                    return if lock(&self.desk).owe(owed) { Ok(()) } else { Err(e.into()) };
                }
            };
            let read_at = self.steady(now);
            match frame::reply(&bytes).map_err(unavailable)? {
                // Lost counts are rebuilt from the journal, which knows of this call.
                Reply::Done(..) | Reply::Unseeded(_) | Reply::Forgotten | Reply::Buried => {
                    telling.owed = None;
                    return Ok(());
                }
                Reply::Stale(server) => lock(&self.lines).hear(server, read_at),
            }
        }
        Ok(())
    }

    fn pack_settles(&self, now: Timestamp, settles: &[Settle], head: Head) -> Vec<Bytes> {
        // A settle that waited is sent later than it was meant: "not now" until a time, not for a time.
        let now = self.steady(now);
        let lines = lock(&self.lines);
        let mut desk = lock(&self.desk);
        let server_now = lines.server_now(now);
        let mut limits = Limits::default();
        let mut list = BytesMut::with_capacity(settles.len() * 64);
        for settle in settles {
            let spends = &settle.permit.spends[..settle.permit.spends.len().min(usize::from(u8::MAX))];
            let known: Vec<_> = spends.iter().map(|(key, _)| desk.declared(key, server_now)).collect();
            let named = |at: &usize| {
                let name = known[*at].as_ref().map(|k| k.0.name.as_str());
                name.is_some() && name == settle.blocked_limit.as_deref()
            };
            let any_named = (0..spends.len()).any(|at| named(&at));
            let blocked = settle.blocked_until.map_or(0, |until| until.0.saturating_sub(now.0).max(0));
            list.put_u8(u8::from(settle.sent) + u8::from(settle.sent && settle.good));
            // What was buried is counted by whoever buried it.
            let is_ours = settle.permit.granted_at.0 >= self.renamed_at.load(Ordering::SeqCst);
            list.put_u8(u8::from(settle.permit.epoch == head.epoch && is_ours));
            list.put_f64_le(f64::from(settle.count));
            list.put_f64_le(lines.server_of(settle.permit.granted_at) as f64);
            list.put_f64_le((blocked as f64).min(super::FAR));
            list.put_u8(spends.len() as u8);
            for (at, (key, granted)) in spends.iter().enumerate() {
                let declaration = known[at].as_ref().map_or(frame::Declaration::UNKNOWN, |k| k.1);
                list.put_u16_le(limits.position(key, || declaration));
                list.put_u32_le(*granted);
                list.put_u32_le(settle.cost(key, *granted));
                let said = settle.said.iter().find(|said| said.key == *key);
                let block = blocked > 0 && (!any_named || named(&at));
                list.put_u8(u8::from(block) + 2 * u8::from(said.is_some()));
                if let Some(said) = said {
                    let holds = said.until.0.saturating_sub(now.0).max(0);
                    list.put_f64_le(f64::from(said.left));
                    list.put_f64_le((holds as f64).min(super::FAR));
                }
            }
        }
        limits.arguments(head, list)
    }

    /// Takes back acquires whose answer was lost, and sends what is owed. Beside other calls, a little each time.
    pub(super) async fn mend(&self, now: Timestamp) {
        if lock(&self.desk).is_clear() || !self.link.is_up() || self.mending.swap(true, Ordering::SeqCst) {
            return;
        }
        let _done = Flag(&self.mending);
        let (doubts, owed) = lock(&self.desk).take(FRAME_MAX);
        // In a guard each before the first wait, so that a dropped future loses none.
        let doubts: Vec<_> = doubts.into_iter().map(|d| UnderWay { limiter: self, doubt: Some(d) }).collect();
        let mut owed: Vec<_> = owed.into_iter().map(|o| Telling { limiter: self, owed: Some(o) }).collect();
        join_all(doubts.into_iter().map(|d| self.take_back(now, d))).await;
        join_all(owed.iter_mut().filter_map(|t| t.owed.take()).map(|o| self.tell(now, o))).await;
    }

    async fn take_back(&self, now: Timestamp, mut under_way: UnderWay<'_>) {
        let Some(doubt) = under_way.doubt.clone() else { return };
        let head = Head { epoch: doubt.epoch, recall: true, ..self.head(now, doubt.number) };
        let args = Limits::default().arguments(head, BytesMut::new());
        let Ok(bytes) = self.call(&ACQUIRE, &[hash(&doubt.provider)], args).await else { return };
        under_way.doubt = None;
        if let Ok(Reply::Done(server, reader)) = frame::reply(&bytes)
            && let Ok(answers) = self.answers(&doubt.requests, doubt.epoch, server, self.steady(now), reader)
        {
            let pairs = doubt.requests.iter().zip(answers);
            let back = pairs.filter_map(|(request, answer)| match answer {
                Answer::Granted { count, permit } if request.request == 0 => Some((count, permit)),
                _ => None,
            });
            self.give_back(back.collect());
        }
    }
}

struct Flag<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

pub(super) fn unseeded(provider: &str, epoch: i64, found: Option<i64>) -> Error {
    Error::Unseeded { provider: provider.to_owned(), epoch, found }
}

pub(super) fn forgotten() -> Error {
    let reason = "the answer to a repeated request is no longer known; it was not granted again".to_owned();
    Error::Unavailable { reason }
}
