//! What a shared limiter must survive: a server that forgets, dies, comes back or is a copy; answers that get lost.
//! Never a fresh quota, nothing granted or freed twice.

use std::time::Duration;

use tidegate::clock::{Clock, Timestamp};
use tidegate::limiter::redis::{Level, Settings};
use tidegate::limiter::{Answer, Error, Limiter, RedisLimiter, Seed, Settle, Spend};
use tidegate::model::call::Permit;

use super::factory::{ask, ended, granted, trust, window, wire};
use crate::support::process::until;
use crate::support::proxy::Proxy;
use crate::support::redis::{Pair, RedisServer};

const HOUR: Duration = Duration::from_secs(3_600);

fn now() -> Timestamp {
    Clock::system().steady()
}

fn connect(url: &str) -> RedisLimiter {
    let settings = Settings { timeout: Duration::from_millis(400), ..Settings::default() };
    RedisLimiter::connect(url, Clock::system(), settings).unwrap()
}

async fn seeded(url: &str, epoch: i64) -> RedisLimiter {
    let limiter = connect(url);
    trust(&limiter, epoch).await;
    limiter.rebuild(now(), "p", &[]).await.unwrap();
    limiter
}

async fn acquire(limiter: &RedisLimiter, spends: &[Spend], max: u32) -> Result<Answer, Error> {
    limiter.acquire(now(), &[ask(spends, max)]).await.map(|mut a| a.remove(0))
}

/// The server knows the scripts.
async fn warm(limiter: &RedisLimiter) {
    let permit = granted(&acquire(limiter, &[window("warm", 1, HOUR)], 1).await.unwrap(), 1);
    limiter.settle(now(), &[ended(&permit, 1, false)]).await.unwrap();
}

/// (used, in flight)
async fn counts(limiter: &RedisLimiter, spend: &Spend) -> (u32, u32) {
    let view = limiter.peek(now(), std::slice::from_ref(spend)).await.unwrap().remove(0);
    (view.used, view.in_flight)
}

fn entry(spend: &Spend, epoch: i64, age: Duration) -> Seed {
    let granted_at = now() - age;
    let spends = [(spend.key.clone(), 1)].into();
    Seed { permit: Permit { spends, granted_at, epoch }, anchored_at: granted_at }
}

#[tokio::test]
async fn nothing_is_granted_before_the_journal_has_spoken() {
    let server = RedisServer::start().await;
    let limiter = connect(&server.url());
    let w = window("w", 3, HOUR);
    until(HOUR, async || limiter.run_id().await.ok()).await.unwrap();
    let e = acquire(&limiter, std::slice::from_ref(&w), 1).await.unwrap_err();
    assert!(matches!(e, Error::Restarted { .. }), "{e}");
    trust(&limiter, 4).await;
    let e = acquire(&limiter, std::slice::from_ref(&w), 1).await.unwrap_err();
    assert!(matches!(e, Error::Unseeded { epoch: 4, found: None, .. }), "{e}");
    let e = limiter.peek(now(), std::slice::from_ref(&w)).await.unwrap_err();
    assert!(matches!(e, Error::Unseeded { .. }), "{e}");
    let known = [entry(&w, 3, Duration::from_secs(60)), entry(&w, 3, Duration::from_secs(7_200))];
    limiter.rebuild(now(), "p", &known).await.unwrap();
    let permit = granted(&acquire(&limiter, std::slice::from_ref(&w), 9).await.unwrap(), 2);
    assert_eq!(permit.epoch, 4);
    assert_eq!(counts(&limiter, &w).await, (1, 2));
}

/// How often the server ran a script that it knew.
fn scripts_run(server: &RedisServer) -> u64 {
    let stats = server.command(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|l| l.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse().ok());
    calls.expect("a script was run")
}

#[tokio::test]
async fn settles_that_come_while_others_are_on_their_way_go_together() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.port).await;
    let limiter = seeded(&proxy.url(), 1).await;
    warm(&limiter).await;
    let limits = [window("w", 200, HOUR), wire("c", 200)];
    let permit = granted(&acquire(&limiter, &limits, 100).await.unwrap(), 100);
    proxy.delay(Duration::from_millis(20));
    let before = scripts_run(&server);
    let one = [ended(&permit, 1, true)];
    let told = futures_util::future::join_all((0..100).map(|_| limiter.settle(now(), &one))).await;
    assert!(told.iter().all(Result::is_ok), "{told:?}");
    // One alone, and the others in frames of 32.
    assert_eq!(scripts_run(&server) - before, 5);
    proxy.delay(Duration::ZERO);
    assert_eq!((counts(&limiter, &limits[0]).await, counts(&limiter, &limits[1]).await), ((100, 0), (0, 0)));
}

#[tokio::test]
async fn the_block_of_a_call_that_settles_among_others_is_there_when_its_settle_returns() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.port).await;
    let limiter = seeded(&proxy.url(), 1).await;
    warm(&limiter).await;
    let w = [window("w", 200, HOUR)];
    let permit = granted(&acquire(&limiter, &w, 100).await.unwrap(), 100);
    proxy.delay(Duration::from_millis(20));
    let until = now() + Duration::from_secs(600);
    let (one, refused) = (ended(&permit, 1, true), Settle { blocked_until: Some(until), ..ended(&permit, 1, true) });
    let (one, refused) = ([one], [refused]);
    let others = || futures_util::future::join_all((0..40).map(|_| limiter.settle(now(), &one)));
    let blocked = async {
        limiter.settle(now(), &refused).await.unwrap();
        acquire(&limiter, &w, 1).await.unwrap()
    };
    let (_, answer, _) = tokio::join!(others(), blocked, others());
    let Answer::Wait { earliest, .. } = answer else { panic!("expected the block, got {answer:?}") };
    assert!(earliest >= until, "{earliest} is before {until}");
}

#[tokio::test]
async fn a_settle_that_nobody_waits_for_any_more_is_sent_with_the_next_call() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.port).await;
    let limiter = seeded(&proxy.url(), 1).await;
    warm(&limiter).await;
    let w = [window("w", 200, HOUR)];
    let permit = granted(&acquire(&limiter, &w, 3).await.unwrap(), 3);
    proxy.delay(Duration::from_millis(50));
    let one = [ended(&permit, 1, true)];
    // The first is on its way, the others wait for it, and all are dropped.
    let all = futures_util::future::join_all((0..3).map(|_| limiter.settle(now(), &one)));
    assert!(tokio::time::timeout(Duration::from_millis(10), all).await.is_err());
    proxy.delay(Duration::ZERO);
    let settled = async || {
        acquire(&limiter, &[window("other", 99, HOUR)], 1).await.unwrap();
        (counts(&limiter, &w[0]).await == (3, 0)).then_some(())
    };
    until(Duration::from_secs(20), settled).await.expect("all three are settled, each once");
}

#[tokio::test]
async fn after_flushall_the_limits_are_not_seeded() {
    let server = RedisServer::start().await;
    let limiter = seeded(&server.url(), 1).await;
    let w = window("w", 3, HOUR);
    for _ in 0..3 {
        let permit = granted(&acquire(&limiter, std::slice::from_ref(&w), 9).await.unwrap(), 3);
        server.command(&["FLUSHALL"]);
        let e = acquire(&limiter, std::slice::from_ref(&w), 1).await.unwrap_err();
        assert!(matches!(e, Error::Unseeded { epoch: 1, found: None, .. }), "{e}");
        limiter.settle(now(), &[ended(&permit, 3, true)]).await.unwrap();
        let known = vec![entry(&w, 1, Duration::ZERO); 3];
        limiter.rebuild(now(), "p", &known).await.unwrap();
        assert_eq!(counts(&limiter, &w).await, (3, 0));
        assert!(matches!(acquire(&limiter, std::slice::from_ref(&w), 1).await.unwrap(), Answer::Wait { .. }));
        server.command(&["FLUSHALL"]);
        limiter.rebuild(now(), "p", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn flushed_scripts_are_loaded_again() {
    let server = RedisServer::start().await;
    let limiter = seeded(&server.url(), 1).await;
    let w = window("w", 9, HOUR);
    for n in 1..4 {
        server.command(&["SCRIPT", "FLUSH"]);
        granted(&acquire(&limiter, std::slice::from_ref(&w), 1).await.unwrap(), 1);
        server.command(&["SCRIPT", "FLUSH"]);
        assert_eq!(counts(&limiter, &w).await, (0, n));
    }
}

#[tokio::test]
async fn a_server_that_comes_back_is_not_trusted_until_its_run_id_was_compared() {
    let mut server = RedisServer::start().await;
    let limiter = seeded(&server.url(), 1).await;
    let w = window("w", 3, HOUR);
    let permit = granted(&acquire(&limiter, std::slice::from_ref(&w), 2).await.unwrap(), 2);
    let before = limiter.run_id().await.unwrap();
    let (seen, _) = limiter.next_connection(0).await.unwrap();

    server.kill();
    let clock = Clock::system();
    let asked_at = clock.steady();
    let e = acquire(&limiter, std::slice::from_ref(&w), 1).await.unwrap_err();
    assert!(matches!(e, Error::Unavailable { .. }), "{e}");
    assert!(clock.steady().since(asked_at) < Duration::from_secs(2));
    assert!(limiter.is_away());

    for (empty, found) in [(false, Some(1)), (true, None)] {
        server.restart(empty).await;
        let heard = limiter.next_connection(seen);
        let (_, run_id) = tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap().unwrap();
        assert_ne!(run_id, before);
        let again = async || match acquire(&limiter, std::slice::from_ref(&w), 1).await {
            Err(Error::Restarted { run_id }) => Some(run_id),
            Err(Error::Unavailable { .. }) => None,
            other => panic!("expected to be told of another process, got {other:?}"),
        };
        let told = until(Duration::from_secs(20), again).await.unwrap();
        limiter.trust(&told, 2);
        let e = acquire(&limiter, std::slice::from_ref(&w), 1).await.unwrap_err();
        assert!(matches!(e, Error::Unseeded { epoch: 2, found: f, .. } if f == found), "{e}");
        assert!(!limiter.is_away());
    }
    limiter.rebuild(now(), "p", &[entry(&w, 1, Duration::ZERO), entry(&w, 1, Duration::ZERO)]).await.unwrap();
    granted(&acquire(&limiter, std::slice::from_ref(&w), 9).await.unwrap(), 1);
    limiter.settle(now(), &[ended(&permit, 2, true), ended(&permit, 2, false)]).await.unwrap();
    assert_eq!(counts(&limiter, &w).await, (2, 1), "a permit of an old epoch changes nothing");
}

#[tokio::test]
async fn a_restart_without_loss_goes_on_where_it_was() {
    let mut server = RedisServer::start().await;
    let limiter = seeded(&server.url(), 1).await;
    let w = window("w", 3, HOUR);
    granted(&acquire(&limiter, std::slice::from_ref(&w), 2).await.unwrap(), 2);
    server.restart(false).await;
    trust(&limiter, 1).await;
    until(HOUR, async || limiter.peek(now(), std::slice::from_ref(&w)).await.ok()).await.unwrap();
    assert_eq!(counts(&limiter, &w).await, (0, 2));
}

#[tokio::test]
async fn a_replica_grants_nothing_and_is_refused_by_the_check() {
    let primary = RedisServer::start().await;
    let _seeded = seeded(&primary.url(), 1).await;
    let port = primary.port.to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]).await;
    until(HOUR, async || Some(()).filter(|()| replica.command(&["HGET", "tg:{p}", "e"]) == "1")).await.unwrap();
    let limiter = connect(&replica.url());
    trust(&limiter, 1).await;
    let w = window("w", 3, HOUR);
    let e = acquire(&limiter, std::slice::from_ref(&w), 1).await.unwrap_err();
    assert!(matches!(&e, Error::Unavailable { reason } if reason.contains("READONLY")), "{e}");
    let findings = limiter.check().await.unwrap();
    assert!(findings.iter().any(|f| f.level == Level::Refused && f.about == "role"), "{findings:?}");
}

#[tokio::test]
async fn a_primary_that_was_a_replica_for_a_while_is_not_believed() {
    let mut servers = Pair::start().await;
    let limiter = seeded(&servers.primary.url(), 1).await;
    let (w, before) = (window("w", 3, HOUR), limiter.run_id().await.unwrap());
    // Everybody has the provider, and only the primary hears of the calls.
    let there = async || (servers.of_replica(&["HGET", "tg:{p}", "e"])? == "1").then_some(());
    until(HOUR, there).await.unwrap();
    servers.keep_back(Duration::ZERO).await;
    granted(&acquire(&limiter, std::slice::from_ref(&w), 3).await.unwrap(), 3);
    servers.switch(Duration::ZERO).await;
    servers.in_step().await;
    let e = acquire(&limiter, std::slice::from_ref(&w), 1).await.unwrap_err();
    assert!(matches!(&e, Error::Unavailable { reason } if reason.contains("READONLY")), "{e}");
    // Back again, over the same connection: the calls are forgotten there too, and the epoch is as it was.
    servers.switch(Duration::ZERO).await;
    assert_eq!(servers.primary.command(&["HGET", "tg:{p}", "e"]), "1");
    let e = acquire(&limiter, std::slice::from_ref(&w), 1).await.unwrap_err();
    assert!(matches!(&e, Error::Restarted { run_id } if *run_id != before), "{e}");
}

#[tokio::test]
async fn a_raised_epoch_stops_those_who_do_not_know_it() {
    let server = RedisServer::start().await;
    let (old, new) = (seeded(&server.url(), 1).await, connect(&server.url()));
    let w = window("w", 3, HOUR);
    granted(&acquire(&old, std::slice::from_ref(&w), 1).await.unwrap(), 1);
    trust(&new, 2).await;
    new.rebuild(now(), "p", &[entry(&w, 1, Duration::ZERO)]).await.unwrap();
    for _ in 0..2 {
        let e = acquire(&old, std::slice::from_ref(&w), 1).await.unwrap_err();
        assert!(matches!(e, Error::Unseeded { epoch: 1, found: Some(2), .. }), "{e}");
        let e = old.rebuild(now(), "p", &[]).await.unwrap_err();
        assert!(matches!(e, Error::Unseeded { found: Some(2), .. }), "{e}");
    }
    old.set_epoch(2);
    // Of two that rebuild under one epoch the first wins, and what was granted since stays counted.
    granted(&acquire(&new, std::slice::from_ref(&w), 1).await.unwrap(), 1);
    old.rebuild(now(), "p", &[entry(&w, 1, Duration::ZERO)]).await.unwrap();
    assert_eq!(counts(&old, &w).await, (1, 1));
    assert_eq!(server.command(&["KEYS", "*"]), "tg:{p}", "nothing is left aside");
}

#[tokio::test]
async fn a_grant_whose_answer_was_lost_is_taken_back() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.port).await;
    let (limiter, observer) = (seeded(&proxy.url(), 1).await, seeded(&server.url(), 1).await);
    let spends = [window("w", 5, HOUR), wire("c", 5)];
    warm(&limiter).await;
    proxy.swallow(true);
    let e = acquire(&limiter, &spends, 3).await.unwrap_err();
    assert!(matches!(e, Error::Unavailable { .. }), "{e}");
    // One that nobody waits for any more is lost as well.
    let dropped = tokio::time::timeout(Duration::from_millis(50), acquire(&limiter, &spends, 1)).await;
    assert!(dropped.is_err());
    assert_eq!(counts(&observer, &spends[0]).await, (0, 4), "granted, and nobody knows");
    proxy.swallow(false);
    proxy.cut();
    let mended = async || {
        let _ = limiter.acquire(now(), &[]).await;
        Some(()).filter(|()| limiter.dropped() == 0)?;
        (counts(&observer, &spends[0]).await == (0, 0)).then_some(())
    };
    until(Duration::from_secs(20), mended).await.expect("the permits come back");
    assert_eq!(counts(&observer, &spends[1]).await, (0, 0));
    granted(&acquire(&limiter, &spends, 9).await.unwrap(), 5);
}

#[tokio::test]
async fn a_numbered_request_whose_answer_was_lost_gets_it_when_repeated() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.port).await;
    let (limiter, observer) = (seeded(&proxy.url(), 1).await, seeded(&server.url(), 1).await);
    let w = window("w", 5, HOUR);
    let mut asked = ask(std::slice::from_ref(&w), 3);
    asked.request = 11;
    warm(&limiter).await;
    proxy.swallow(true);
    limiter.acquire(now(), &[asked.clone()]).await.unwrap_err();
    proxy.swallow(false);
    proxy.cut();
    let again = async || limiter.acquire(now(), &[asked.clone()]).await.ok();
    let first = until(Duration::from_secs(20), again).await.unwrap();
    granted(&first[0], 3);
    assert_eq!(limiter.acquire(now(), &[asked.clone()]).await.unwrap(), first);
    assert_eq!(counts(&observer, &w).await, (0, 3), "granted once");
    // Numbers rise; one that the memory has passed is refused, never granted again.
    let mut later = asked.clone();
    later.request = 11 + 4_096;
    granted(&limiter.acquire(now(), &[later]).await.unwrap()[0], 2);
    let e = limiter.acquire(now(), &[asked]).await.unwrap_err();
    assert!(matches!(&e, Error::Unavailable { reason } if reason.contains("no longer known")), "{e}");
    assert_eq!(counts(&observer, &w).await, (0, 5));
}

#[tokio::test]
async fn a_settle_whose_answer_was_lost_is_counted_once() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.port).await;
    let (limiter, observer) = (seeded(&proxy.url(), 1).await, seeded(&server.url(), 1).await);
    let spends = [window("w", 5, HOUR), wire("c", 5)];
    let permit = granted(&acquire(&limiter, &spends, 3).await.unwrap(), 3);
    warm(&limiter).await;
    proxy.swallow(true);
    limiter.settle(now(), &[ended(&permit, 1, true)]).await.expect("kept, to be sent again");
    assert_eq!(counts(&observer, &spends[0]).await, (1, 2), "it was heard");
    proxy.swallow(false);
    proxy.cut();
    for _ in 0..3 {
        let _ = until(HOUR, async || limiter.peek(now(), &spends).await.ok()).await;
        let _ = limiter.acquire(now(), &[]).await;
    }
    assert_eq!((counts(&observer, &spends[0]).await, counts(&observer, &spends[1]).await), ((1, 2), (0, 2)));
    // And one that the server never heard arrives later.
    drop(server);
    limiter.settle(now(), &[ended(&permit, 1, true)]).await.expect("kept, to be sent again");
}

#[tokio::test]
async fn what_a_dead_daemon_held_counts_from_its_last_possible_moment() {
    let server = RedisServer::start().await;
    let at = |s: i64| Timestamp::from_secs(1_790_000_000 + s);
    let minute = Duration::from_secs(60);
    let daemon = async || {
        let settings = Settings { in_flight_max: Duration::from_secs(100), ..Settings::default() };
        let limiter = RedisLimiter::connect(&server.url(), Clock::system(), settings).unwrap().on_callers_time();
        trust(&limiter, 1).await;
        limiter.rebuild(at(0), "p", &[]).await.unwrap();
        limiter
    };
    let (dead, silent, alive) = (daemon().await, daemon().await, daemon().await);
    let spends = [window("w", 9, minute), wire("c", 9)];
    granted(&dead.acquire(at(0), &[ask(&spends, 2)]).await.unwrap()[0], 2);
    granted(&silent.acquire(at(0), &[ask(&spends, 3)]).await.unwrap()[0], 3);
    granted(&alive.acquire(at(0), &[ask(&spends, 1)]).await.unwrap()[0], 1);
    alive.bury(at(10), "p", dead.daemon(), at(10)).await.unwrap();
    let counts = async |s: i64| {
        let views = alive.peek(at(s), &spends).await.unwrap();
        (views[0].used, views[0].in_flight, views[1].in_flight)
    };
    assert_eq!(counts(11).await, (2, 4, 4));
    granted(&alive.acquire(at(12), &[ask(&spends, 1)]).await.unwrap()[0], 1);
    assert_eq!(counts(69).await, (2, 5, 5), "the buried daemon's calls count a minute from then");
    assert_eq!(counts(70).await, (0, 5, 5));
    assert_eq!(counts(101).await, (3, 2, 2), "the silent one's have ended 100 s after its last grant");
    granted(&alive.acquire(at(105), &[ask(&spends, 9)]).await.unwrap()[0], 4);
    assert_eq!(counts(161).await, (0, 6, 6));
}

#[tokio::test]
async fn limits_that_are_no_longer_used_leave_the_server() {
    let server = super::factory::Shared::start().await;
    let limiter = server.limiter().await;
    let second = Duration::from_secs(1);
    for i in 0..8_000i64 {
        let at = Timestamp::from_millis(1_000_000_000 + i * 10);
        let w = window(&format!("k{i}"), 5, second);
        let permit = granted(&limiter.acquire(at, &[ask(&[w], 1)]).await.unwrap()[0], 1);
        limiter.settle(at, &[ended(&permit, 1, true)]).await.unwrap();
    }
    // About 100 count, 1,000 are kept for ten seconds more, and some are not looked at yet.
    let limits = server.server.command(&["EVAL", LIMITS, "1", "tg:{p}"]);
    assert!(limits.parse::<usize>().unwrap() <= 2_500, "{limits} limits are held");
}

#[tokio::test]
async fn answers_of_daemons_that_are_gone_leave_the_server_though_no_limit_is_new() {
    let server = super::factory::Shared::start().await;
    let spends = [window("w", 1_000_000, Duration::from_secs(30 * 86_400))];
    let at = |n: i64| Timestamp::from_secs(1_790_000_000 + n);
    let gone = server.limiter().await;
    for n in 0..200 {
        granted(&gone.acquire(at(n), &[ask(&spends, 1)]).await.unwrap()[0], 1);
    }
    let answers = || server.server.command(&["EVAL", ANSWERS, "1", "tg:{p}"]).parse::<usize>().unwrap();
    assert!(answers() >= 200);
    let next = server.limiter().await;
    for n in 0..4_000 {
        granted(&next.acquire(at(2 * 86_400 + n), &[ask(&spends, 1)]).await.unwrap()[0], 1);
    }
    // Its own ring may be full; nothing of the other is left but what the sweep has not come to yet.
    assert!(answers() <= 4_050, "{} answers are held", answers());
}

/// How many answers lie in a hash.
const ANSWERS: &str = "local n = 0 for _, f in ipairs(redis.call('HKEYS', KEYS[1])) do \
                       if f:sub(1, 2) == 'a:' then n = n + 1 end end return n";

/// How many limits lie in a hash.
const LIMITS: &str = "local n = 0 for _, f in ipairs(redis.call('HKEYS', KEYS[1])) do \
                      if f:sub(1, 2) == 'h:' then n = n + 1 end end return n";

#[tokio::test]
async fn the_check_names_what_could_break_the_promise() {
    let server = RedisServer::with(&["--maxmemory-policy", "allkeys-lru"]).await;
    let limiter = connect(&server.url());
    trust(&limiter, 1).await;
    let level = async |about: &str| {
        let findings = limiter.check().await.unwrap();
        findings.into_iter().find(|f| f.about == about).unwrap().level
    };
    assert_eq!(level("maxmemory-policy").await, Level::Refused);
    assert_eq!(level("appendonly").await, Level::Warning);
    assert_eq!(level("version").await, Level::Fine);
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.command(&["CONFIG", "SET", "appendonly", "yes"]);
    assert_eq!((level("maxmemory-policy").await, level("appendonly").await), (Level::Fine, Level::Fine));
}
