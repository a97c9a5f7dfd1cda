//! Three daemons on one PostgreSQL and one Redis, all of them failing in turn: nothing acknowledged is lost, no window is
//! exceeded whoever counts, order and unknown are honoured though accounts are spread, and everything drains when the
//! faults stop.
//!
//! 25 rounds by default, `TIDEGATE_TORTURE_ROUNDS` in full; `TIDEGATE_TORTURE_SEED` replays the choice of faults, and
//! `TIDEGATE_TORTURE_FAULT=RedisFailsOver` lets all rounds have the one that is named.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::simulator::dice::Dice;

use crate::support::history::Entry;
use crate::support::left_out;
use crate::support::load::Load;
use crate::support::process::{Daemon, Place};
use crate::support::proxy::Proxy;
use crate::support::redis::Pair;
use crate::support::servers::Postgres;
use crate::torture::{between, conclude, declaration, judge, number, provider};
use crate::torture_clock::{faked_clock, libfaketime, step};

const DAEMONS: usize = 3;
/// Jobs per second: more than some of the limits let through.
const LOAD: f64 = 300.0;
/// Between two faults.
const CALM_MS: (u64, u64) = (300, 1_500);
/// Longer than a daemon's lease: others take its accounts over, and it wakes up as a zombie.
const FROZEN: Duration = Duration::from_secs(11);
/// How far a replica is behind when it takes over: most of a window, so that its counts are worth nothing.
const LAG_MS: (u64, u64) = (500, 1_500);
/// Added to each way of Redis when it is slow.
const SLOW: Duration = Duration::from_millis(60);
/// Calls of a dead daemon are judged when their lease is over; then everything drains.
const DRAIN_MAX: Duration = Duration::from_secs(180);

/// Bytes a second of a throttled database.
const TRICKLE: u64 = 100_000;

/// Daemons that share their servers. `None` while one is dead.
struct Fleet {
    places: Vec<Place>,
    daemons: Vec<Option<Daemon>>,
    /// Each daemon's own way to database and Redis.
    ways: Vec<[Proxy; 2]>,
}

impl Fleet {
    async fn start(folder: &Path, database: &Proxy, database_url: &str, redis: &Proxy, declaration: &str) -> Fleet {
        let mut fleet = Fleet { places: Vec::new(), daemons: Vec::new(), ways: Vec::new() };
        for name in (1..=DAEMONS).map(|n| format!("d{n}")) {
            let ways = [Proxy::to(database.port).await, Proxy::to(redis.port).await];
            let database_url = database_url.replace(&database.port.to_string(), &ways[0].port.to_string());
            let folder = folder.join(&name);
            fleet.places.push(Place::shared(&folder, &name, &database_url, &ways[1].url(), declaration));
            fleet.ways.push(ways);
        }
        match libfaketime() {
            Some(library) => {
                fleet.places.iter_mut().for_each(|place| place.env = faked_clock(library, &clock_of(place)));
            }
            None => left_out("steps of the daemons' clocks, as libfaketime is not installed"),
        }
        for place in &fleet.places {
            fleet.daemons.push(Some(place.start().await));
        }
        fleet
    }

    fn one(&self, at: usize) -> &Daemon {
        self.daemons[at].as_ref().expect("it runs between two faults")
    }

    async fn restart(&mut self, at: usize) {
        self.daemons[at] = Some(self.places[at].start().await);
    }
}

/// The file that sets the wall clock of a daemon.
fn clock_of(place: &Place) -> PathBuf {
    place.folder.join("clock")
}

/// What goes wrong in a round.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Freeze,
    RollingRestart,
    Flush,
    RedisDies,
    RedisForgets,
    RedisIsCut,
    RedisIsSilent,
    DatabaseDropsConnections,
    DatabaseCrashes,
    DatabaseIsSilent,
    DatabaseBreaksOff,
    ProviderIsCut,
    RedisIsSlow,
    /// The primary dies, its replica takes over, and the last writes are missing there.
    RedisFailsOver,
    /// Primary and replica change places, and for a moment the daemons still speak with the old primary.
    RedisSwitches,
    ClockSteps,
    /// One daemon hears neither server for longer than its lease, while the others go on.
    IsCutOff,
    ConnectionsAreReset,
    DatabaseIsThrottled,
}

/// In the order in which a short run meets them at least once; slow ones are rare.
const FAULTS: [Fault; 25] = [
    Fault::Kill,
    Fault::Flush,
    Fault::RedisForgets,
    Fault::DatabaseDropsConnections,
    Fault::RollingRestart,
    Fault::RedisIsCut,
    Fault::ClockSteps,
    Fault::Freeze,
    Fault::DatabaseCrashes,
    Fault::RedisFailsOver,
    Fault::RedisDies,
    Fault::RedisIsSilent,
    Fault::ProviderIsCut,
    Fault::Kill,
    Fault::DatabaseIsSilent,
    Fault::Flush,
    Fault::ClockSteps,
    Fault::RedisIsSlow,
    Fault::RedisSwitches,
    Fault::RedisForgets,
    Fault::DatabaseBreaksOff,
    Fault::Kill,
    Fault::IsCutOff,
    Fault::ConnectionsAreReset,
    Fault::DatabaseIsThrottled,
];

fn faults() -> Vec<Fault> {
    let Ok(name) = std::env::var("TIDEGATE_TORTURE_FAULT") else { return FAULTS.to_vec() };
    let named = FAULTS.into_iter().filter(|fault| format!("{fault:?}") == name).take(1).collect::<Vec<_>>();
    assert!(!named.is_empty(), "TIDEGATE_TORTURE_FAULT: expected one of {FAULTS:?}, got {name}");
    named
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_repeated_or_overrun_when_daemons_and_their_servers_fail() {
    let (rounds, seed) = (number("TIDEGATE_TORTURE_ROUNDS", FAULTS.len() as u64), number("TIDEGATE_TORTURE_SEED", 1));
    let (folder, clock, mut dice) = (tempfile::tempdir().unwrap(), Clock::system(), Dice::new(seed));
    let (database, mut redis) = (Postgres::start(), Pair::start().await);
    let (proxy, to_database) = (Proxy::to(redis.primary.port).await, Proxy::to(database.port()).await);
    let provider =
        provider(folder.path(), &["--errors", "0.02", "--resets", "0.01", "--record-failures", "0.01"]).await;
    let to_provider = Proxy::to(provider.port()).await;
    let database_url = database.url().replace(&database.port().to_string(), &to_database.port.to_string());
    let declaration = declaration(&format!("http://127.0.0.1:{}", to_provider.port));
    // Each account is served by several daemons: keys keep their order and limits hold all the same.
    let declaration = declaration.replace("allow_private = true", "allow_private = true\nspread = 3");
    assert!(declaration.contains("spread = 3"));
    let mut fleet = Fleet::start(folder.path(), &to_database, &database_url, &proxy, &declaration).await;
    let (load, mut entries, faults) = (Load::with_accounts(seed, LOAD), Vec::new(), faults());
    for round in 0..rounds {
        let (victim, client) = (dice.below(DAEMONS as u64) as usize, dice.below(DAEMONS as u64) as usize);
        load.daemon(Some(fleet.one(client).channel()));
        tokio::time::sleep(between(CALM_MS, &mut dice)).await;
        let fault = faults[round as usize % faults.len()];
        eprintln!("round {round}: {fault:?} of d{}, clients at d{}", victim + 1, client + 1);
        match fault {
            Fault::Kill => {
                let dead = fleet.daemons[victim].take().expect("it runs between two faults");
                entries.push(Entry::Killed { at_us: dead.kill(&clock).await.0 });
                tokio::time::sleep(between(CALM_MS, &mut dice)).await;
                fleet.restart(victim).await;
            }
            Fault::Freeze => {
                load.daemon(Some(fleet.one((victim + 1) % DAEMONS).channel()));
                fleet.one(victim).freeze().await;
                tokio::time::sleep(FROZEN).await;
                fleet.one(victim).thaw().await;
            }
            Fault::RollingRestart => {
                for at in 0..DAEMONS {
                    load.daemon(Some(fleet.one((at + 1) % DAEMONS).channel()));
                    let old = fleet.daemons[at].take().expect("it runs between two faults");
                    assert!(old.stop().await, "d{} did not stop cleanly:\n{}", at + 1, fleet.places[at].log_tail());
                    fleet.restart(at).await;
                }
            }
            Fault::Flush => drop(redis.primary.command(&["FLUSHALL"])),
            Fault::RedisDies => redis.primary.restart(false).await,
            Fault::RedisForgets => redis.primary.restart(true).await,
            Fault::RedisFailsOver => {
                redis.fail_over(between(LAG_MS, &mut dice)).await;
                proxy.point_at(redis.primary.port);
            }
            Fault::RedisSwitches => {
                redis.switch(between(LAG_MS, &mut dice)).await;
                tokio::time::sleep(between(CALM_MS, &mut dice)).await;
                proxy.point_at(redis.primary.port);
            }
            Fault::RedisIsCut => proxy.cut(),
            Fault::RedisIsSilent => {
                proxy.swallow(true);
                tokio::time::sleep(between(CALM_MS, &mut dice)).await;
                proxy.swallow(false);
                proxy.cut();
            }
            Fault::DatabaseDropsConnections => {
                let mut conn = database.connect().await;
                let drop_all = "select pg_terminate_backend(pid) from pg_stat_activity \
                                where datname = current_database() and pid <> pg_backend_pid()";
                sqlx::query(drop_all).execute(&mut conn).await.unwrap();
            }
            Fault::DatabaseCrashes => database.crash(),
            Fault::DatabaseIsSilent => {
                to_database.silent(true);
                tokio::time::sleep(between(CALM_MS, &mut dice)).await;
                to_database.silent(false);
                to_database.cut();
            }
            Fault::DatabaseBreaksOff => {
                to_database.drop_after(20_000);
                tokio::time::sleep(between(CALM_MS, &mut dice)).await;
                to_database.drop_after(0);
            }
            Fault::ProviderIsCut => {
                to_provider.cut();
                entries.push(Entry::Cut { at_us: clock.steady().0 });
            }
            Fault::RedisIsSlow => {
                proxy.delay(SLOW);
                tokio::time::sleep(between(CALM_MS, &mut dice)).await;
                proxy.delay(Duration::ZERO);
            }
            Fault::IsCutOff => {
                load.daemon(Some(fleet.one((victim + 1) % DAEMONS).channel()));
                fleet.ways[victim].iter().for_each(|way| way.silent(true));
                tokio::time::sleep(FROZEN).await;
                for way in &fleet.ways[victim] {
                    way.silent(false);
                    way.cut();
                }
            }
            Fault::ConnectionsAreReset => {
                proxy.reset();
                to_database.reset();
            }
            Fault::DatabaseIsThrottled => {
                to_database.throttle(TRICKLE);
                tokio::time::sleep(between(CALM_MS, &mut dice)).await;
                to_database.throttle(0);
            }
            Fault::ClockSteps => {
                let seconds = if dice.falls(0.5) { 3_600 } else { -3_600 };
                step(&clock_of(&fleet.places[victim]), seconds);
            }
        }
    }
    entries.extend(load.stop().await);
    let last = fleet.daemons.remove(0).expect("it runs between two faults");
    let (findings, report) = judge(folder.path(), last, provider, entries, DRAIN_MAX).await;
    for daemon in fleet.daemons.into_iter().flatten() {
        daemon.stop().await;
    }
    assert!(findings.acked as u64 > 10 * rounds, "hardly any load: {findings}");
    assert!(findings.taken as u64 > 5 * rounds, "hardly anything was sent: {findings}");
    conclude(folder, &findings, &report, seed);
}
