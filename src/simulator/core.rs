//! What happens to one request: counted, judged against the limits, struck by a fault or served. Pure: time goes in.
//!
//! `server` drives it over sockets, the deterministic simulation drives it directly: [`Core::arrive`] when the head was
//! read, [`Core::judge`] when the body was, [`Core::leave`] when the answer went out. Must never know: sockets, tasks.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::config::{BadConfig, LimitRule, Per, SimulatorConfig};
use super::dice::Dice;
use super::limit::{Enforcer, Room};
use super::records::{self, Carried, Reader};
use super::report::{LimitReport, RecordReport, Report, Series};
use super::watch::Watch;
use crate::clock::Timestamp;

mod change;
mod headers;
mod serve;

/// Accounts counted apart, per limit. Idle ones are forgotten first; beyond, requests get 500.
pub const ACCOUNTS_MAX: usize = 100_000;
/// Records whose newest version is remembered; later ones are counted only.
pub const RECORDS_MAX: usize = 2_000_000;

/// One simulated provider.
#[derive(Debug)]
pub struct Core {
    config: SimulatorConfig,
    dice: Dice,
    started_at: Timestamp,
    limits: Vec<LimitState>,
    seen: HashMap<Box<str>, Seen>,
    totals: Report,
    in_flight: u32,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The newest version that took effect.
    pub version: Option<i64>,
    /// How often a call that carried the record took effect.
    pub times: u32,
    /// Of a set: the record is in it.
    pub is_in: bool,
}

/// A request that has arrived and has not left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// From 1, in the order of arrival.
    pub number: u64,
    pub at: Timestamp,
    pub fate: Fate,
    pub mishap: Option<Mishap>,
    /// How long the answer takes.
    pub delay: Duration,
    /// Bit i: the i-th limit counted it.
    counted: u64,
    /// The request uses up concurrency until it leaves.
    holds: bool,
    /// It takes its records out of a set ([`super::config::Records::set`]).
    removes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Serve,
    /// By the limit of this position; let through again at the time, if nobody else comes.
    Refuse {
        limit: usize,
        retry_at: Timestamp,
    },
    /// An error by probability or outage; takes no effect.
    Error(u16),
}

/// Why no answer arrives, although the request took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    Silence,
    Reset,
}

/// What a request shows of itself to the limits.
#[derive(Clone, Copy)]
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    account: &'a str,
}

/// How a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub status: u16,
    /// One per record: refused by itself. Empty when none was.
    pub failed: Vec<bool>,
    /// One per record of a set: it was so already. Empty when none was.
    pub unchanged: Vec<bool>,
}

/// What goes back over the wire after the ticket's delay.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer { status: u16, headers: Vec<(HeaderName, HeaderValue)>, body: Bytes },
    Silence,
    Reset,
}

#[derive(Debug)]
struct LimitState {
    rule: LimitRule,
    everybody: Counted,
    accounts: HashMap<Box<str>, Counted>,
    arrivals: u64,
    refused: u64,
    /// Over accounts whose own count was forgotten.
    max: (u32, Timestamp),
    overflowed: bool,
    series: Series,
}

#[derive(Debug)]
struct Counted {
    enforcer: Enforcer,
    watch: Option<Watch>,
    in_flight: u32,
    in_flight_max: u32,
}

impl Counted {
    fn new(rule: &LimitRule, now: Timestamp) -> Self {
        Counted {
            enforcer: Enforcer::new(rule.rule, now),
            watch: rule.rule.window().map(|(_, per)| Watch::new(per)),
            in_flight: 0,
            in_flight_max: 0,
        }
    }
}

impl LimitState {
    fn new(rule: LimitRule, now: Timestamp) -> Self {
        LimitState {
            everybody: Counted::new(&rule, now),
            accounts: HashMap::new(),
            arrivals: 0,
            refused: 0,
            max: (0, Timestamp::ZERO),
            overflowed: false,
            series: Series::new(rule.rule.window().map_or(Duration::from_secs(100), |(_, per)| per)),
            rule,
        }
    }

    /// The count that a request of `account` falls under; `None` when too many accounts are busy.
    fn of(&mut self, account: &str, now: Timestamp) -> Option<&mut Counted> {
        if self.rule.per == Per::All {
            return Some(&mut self.everybody);
        }
        if !self.accounts.contains_key(account) {
            if self.accounts.len() >= ACCOUNTS_MAX {
                self.forget_idle(now);
            }
            if self.accounts.len() >= ACCOUNTS_MAX {
                return None;
            }
            self.accounts.insert(account.into(), Counted::new(&self.rule, now));
        }
        self.accounts.get_mut(account)
    }

    fn forget_idle(&mut self, now: Timestamp) {
        let (max, overflowed) = (&mut self.max, &mut self.overflowed);
        self.accounts.retain(|_, c| {
            let idle = c.enforcer.is_idle(now) && c.watch.as_ref().is_none_or(|w| w.is_idle(now));
            if idle && let Some(watch) = &c.watch {
                *max = larger(*max, watch.max());
                *overflowed |= watch.overflowed();
            }
            !idle
        });
    }

    fn report(&self) -> LimitReport {
        let counts = || self.accounts.values().chain([&self.everybody]);
        let max = counts().filter_map(|c| c.watch.as_ref()).map(Watch::max).fold(self.max, larger);
        LimitReport {
            name: self.rule.name.clone(),
            rule: self.rule.rule.to_string(),
            max: self.rule.rule.max(),
            window_us: self.rule.rule.window().map(|(_, per)| u64::try_from(per.as_micros()).unwrap_or(u64::MAX)),
            arrivals: self.arrivals,
            refused: self.refused,
            max_in_any_window: self.rule.rule.window().map(|_| max.0),
            max_at_us: max.1.0,
            is_lower_bound: self.overflowed || counts().any(|c| c.watch.as_ref().is_some_and(Watch::overflowed)),
            max_in_flight: counts().map(|c| c.in_flight_max).max().unwrap_or(0),
            accounts: self.accounts.len(),
            per_window: self.series.per_window(),
            utilisation: (self.rule.per == Per::All).then(|| self.series.utilisation(self.rule.rule.max())).flatten(),
            series: self.series.clone(),
        }
    }
}

fn larger(a: (u32, Timestamp), b: (u32, Timestamp)) -> (u32, Timestamp) {
    if b.0 > a.0 { b } else { a }
}

impl Core {
    pub fn new(config: SimulatorConfig, now: Timestamp) -> Result<Self, BadConfig> {
        config.check()?;
        let limits = config.limits.iter().map(|rule| LimitState::new(rule.clone(), now)).collect();
        let dice = Dice::new(config.seed);
        Ok(Core {
            config,
            dice,
            started_at: now,
            limits,
            seen: HashMap::new(),
            totals: Report::default(),
            in_flight: 0,
        })
    }

    pub fn config(&self) -> &SimulatorConfig {
        &self.config
    }

    /// The head of a request was read at `now`. Counting comes first and does not care how the limits decide.
    pub fn arrive(&mut self, now: Timestamp, method: &str, path: &str, account: &str) -> Ticket {
        let asked = Asked { method, path, account };
        let counted = self.count(now, asked);
        Ticket { removes: method == http::Method::DELETE.as_str(), ..self.admit(now, asked, counted) }
    }

    /// A request that no limit counts.
    pub fn arrive_free(&mut self, now: Timestamp) -> Ticket {
        self.admit(now, Asked { method: "", path: "", account: "" }, 0)
    }

    fn admit(&mut self, now: Timestamp, asked: Asked<'_>, counted: u64) -> Ticket {
        self.totals.arrivals += 1;
        self.in_flight += 1;
        self.totals.max_in_flight = self.totals.max_in_flight.max(self.in_flight);
        let fate = match self.ask_limits(now, asked, counted) {
            Ok(()) => self.strike(now),
            Err(refusal) => refusal,
        };
        let holds = self.spend(now, asked, counted, &fate);
        if let Fate::Refuse { limit, .. } = fate {
            self.totals.refused += 1;
            self.limits[limit].refused += 1;
        }
        let faults = &self.config.faults;
        let mishap = match fate {
            Fate::Serve if self.dice.falls(faults.silence_share) => Some(Mishap::Silence),
            Fate::Serve if self.dice.falls(faults.reset_share) => Some(Mishap::Reset),
            _ => None,
        };
        let mut delay = self.dice.latency(&self.config.latency);
        if self.dice.falls(faults.slow_share) {
            delay += faults.slow;
            self.totals.faults.slow += 1;
        }
        Ticket { number: self.totals.arrivals, at: now, fate, mishap, delay, counted, holds, removes: false }
    }

    fn count(&mut self, now: Timestamp, Asked { method, path, account }: Asked<'_>) -> u64 {
        let mut counted = 0;
        for (i, limit) in self.limits.iter_mut().enumerate() {
            if !limit.rule.counts(method, path) {
                continue;
            }
            limit.arrivals += 1;
            let cost = limit.rule.cost(method, path);
            (0..cost).for_each(|_| limit.series.arrived(now));
            // A request that cannot be counted is refused by `ask_limits` below.
            if let Some(c) = limit.of(account, now) {
                if let Some(watch) = &mut c.watch {
                    (0..cost).for_each(|_| watch.arrived(now));
                }
                counted |= 1 << i;
            }
        }
        counted
    }

    fn ask_limits(&mut self, now: Timestamp, asked: Asked<'_>, counted: u64) -> Result<(), Fate> {
        let mut refusal: Option<(usize, Timestamp)> = None;
        for (i, limit) in self.limits.iter_mut().enumerate().filter(|(i, _)| counted >> i & 1 == 1) {
            let cost = limit.rule.cost(asked.method, asked.path);
            let Some(c) = limit.of(asked.account, now) else { return Err(Fate::Error(500)) };
            if let Err(retry_at) = c.enforcer.ask(now, cost)
                && refusal.is_none_or(|(_, latest)| retry_at > latest)
            {
                refusal = Some((i, retry_at));
            }
        }
        refusal.map_or(Ok(()), |(limit, retry_at)| Err(Fate::Refuse { limit, retry_at }))
    }

    /// Uses up the limits: all of them when the request goes through, else those that count refusals too.
    fn spend(&mut self, now: Timestamp, asked: Asked<'_>, counted: u64, fate: &Fate) -> bool {
        let refused = matches!(fate, Fate::Refuse { .. });
        for (_, limit) in self.limits.iter_mut().enumerate().filter(|(i, _)| counted >> i & 1 == 1) {
            if refused && !limit.rule.refused_counts {
                continue;
            }
            let is_concurrency = limit.rule.rule.window().is_none();
            let cost = limit.rule.cost(asked.method, asked.path);
            if let Some(c) = limit.of(asked.account, now) {
                if !refused || !is_concurrency {
                    c.enforcer.take(now, cost);
                }
                if !refused {
                    c.in_flight += 1;
                    c.in_flight_max = c.in_flight_max.max(c.in_flight);
                }
            }
        }
        !refused
    }

    fn strike(&mut self, now: Timestamp) -> Fate {
        let faults = &self.config.faults;
        let age = now.since(self.started_at);
        let out = faults.outages.iter().any(|o| o.from <= age && age < o.to);
        if out || self.dice.falls(faults.error_share) { Fate::Error(faults.error_status) } else { Fate::Serve }
    }

    /// The body was read. Decides the status, and the fate of each record; what is served takes effect here.
    pub fn judge(&mut self, ticket: &Ticket, carried: &Carried) -> Judged {
        let judged = match ticket.fate {
            Fate::Refuse { .. } => Judged::of(self.config.refuse_status),
            Fate::Error(status) => {
                self.totals.faults.errors += 1;
                Judged::of(status)
            }
            Fate::Serve if self.is_poisoned(carried) => {
                self.totals.faults.poisoned += 1;
                Judged::of(400)
            }
            Fate::Serve => self.serve(carried, ticket.removes),
        };
        match ticket.mishap {
            Some(Mishap::Silence) => self.totals.faults.silences += 1,
            Some(Mishap::Reset) => self.totals.faults.resets += 1,
            None => *self.totals.statuses.entry(judged.status).or_default() += 1,
        }
        judged
    }

    /// The connection broke before the body was complete: nothing takes effect.
    pub fn cut(&mut self) {
        self.totals.faults.cut += 1;
    }

    /// The answer went out, or the connection is gone.
    pub fn leave(&mut self, ticket: &Ticket, account: &str) {
        self.in_flight = self.in_flight.saturating_sub(1);
        // A ticket from before a reset has a number that has not been given out again yet.
        if !ticket.holds || ticket.at < self.started_at {
            return;
        }
        for (_, limit) in self.limits.iter_mut().enumerate().filter(|(i, _)| ticket.counted >> i & 1 == 1) {
            if let Some(c) = limit.of(account, ticket.at) {
                c.enforcer.answered();
                c.in_flight = c.in_flight.saturating_sub(1);
            }
        }
    }

    /// Header lines of an answer at `now` (steady), where `wall` is the same moment in wall time.
    pub fn headers(
        &mut self,
        ticket: &Ticket,
        account: &str,
        now: Timestamp,
        wall: Timestamp,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let refused = match ticket.fate {
            // A ticket may be older than a reset to fewer limits; none is refused by what is not there.
            Fate::Refuse { limit, retry_at } => self.limits.get(limit).map(|l| (l.rule.name.clone(), retry_at)),
            _ => None,
        };
        if !headers::speaks(self.config.headers, refused.is_some()) {
            return Vec::new();
        }
        let mut rooms: Vec<(LimitRule, Room)> = Vec::new();
        for (_, limit) in self.limits.iter_mut().enumerate().filter(|(i, _)| ticket.counted >> i & 1 == 1) {
            if let Some(c) = limit.of(account, now) {
                let room = c.enforcer.room(now);
                rooms.push((limit.rule.clone(), room));
            }
        }
        let standing = headers::Standing {
            rooms: &rooms,
            of: &self.config.headers_of,
            refused: refused.as_ref().map(|(by, until)| (by.as_str(), *until)),
        };
        headers::lines(self.config.headers, &standing, now, wall)
    }

    /// Names of the limits that counted a request.
    pub fn counted_by(&self, ticket: &Ticket) -> Vec<String> {
        let counted = |(i, _): &(usize, &LimitState)| ticket.counted >> i & 1 == 1;
        self.limits.iter().enumerate().filter(counted).map(|(_, l)| l.rule.name.clone()).collect()
    }

    pub fn report(&self, now: Timestamp) -> Report {
        Report {
            uptime_us: u64::try_from(now.since(self.started_at).as_micros()).unwrap_or(u64::MAX),
            limits: self.limits.iter().map(LimitState::report).collect(),
            records: RecordReport { distinct: self.seen.len() as u64, ..self.totals.records.clone() },
            ..self.totals.clone()
        }
    }

    pub fn seen(&self, id: &str) -> Option<Seen> {
        self.seen.get(id).copied()
    }

    /// All remembered records, in no order.
    pub fn all_seen(&self) -> Vec<(String, Seen)> {
        self.seen.iter().map(|(id, seen)| (id.to_string(), *seen)).collect()
    }

    /// One request from head to answer, for drivers without sockets: the ticket has the delay after which the reply
    /// arrives; call [`Core::leave`] then.
    pub fn handle(&mut self, now: Timestamp, method: &str, path: &str, account: &str, body: &[u8]) -> (Ticket, Reply) {
        let ticket = self.arrive(now, method, path, account);
        let carried = Reader::new(&self.config.records).read(path, body);
        let judged = self.judge(&ticket, &carried);
        let headers = self.headers(&ticket, account, now, now);
        let reply = reply(&self.config, &ticket, &carried, &judged, headers);
        (ticket, reply)
    }
}

/// What goes over the wire for a judged request.
pub fn reply(
    config: &SimulatorConfig,
    ticket: &Ticket,
    carried: &Carried,
    judged: &Judged,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> Reply {
    match ticket.mishap {
        Some(Mishap::Silence) => return Reply::Silence,
        Some(Mishap::Reset) => return Reply::Reset,
        None => {}
    }
    let names = &config.records;
    let body = match (&ticket.fate, judged.status) {
        (Fate::Refuse { .. }, _) => Bytes::copy_from_slice(config.refuse_body.as_bytes()),
        (Fate::Error(_), _) => Bytes::from_static(br#"{"error":"a fault was asked for"}"#),
        (Fate::Serve, 400) => Bytes::from_static(br#"{"error":"the call carries a poison record"}"#),
        (Fate::Serve, _) if carried.batch => records::batch_answer(names, &carried.records, &judged.failed),
        (Fate::Serve, _) => match carried.records.first() {
            Some(record) => records::single_answer(names, record, !judged.failed.is_empty()),
            None => Bytes::from_static(b"{}"),
        },
    };
    Reply::Answer { status: judged.status, headers, body }
}

#[cfg(test)]
mod tests;
