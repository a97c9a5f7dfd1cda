//! The shared limiter on real servers and real time: many daemons within one limit, and a cluster of three.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::limiter::redis::Settings;
use tidegate::limiter::{Answer, Limiter, RedisLimiter, Said, Settle};

use super::factory::{ask, ended, granted, trust, window, wire};
use super::guarantee::most_in_any_window;
use super::world::Dice;
use crate::support::process::until;
use crate::support::redis::RedisServer;

/// Three daemons with steady lines hours apart, four callers each, and every answer late by another time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_daemons_stay_within_one_limit_together_and_use_it() {
    let server = RedisServer::start().await;
    let (clock, per) = (Clock::system(), Duration::from_millis(500));
    let spends = [window("w", 20, per), wire("c", 15)];
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let end = clock.steady() + Duration::from_secs(4);
    let mut callers = tokio::task::JoinSet::new();
    for daemon in 0..3u64 {
        let own = Clock::system();
        let shifted = own.steady() + Duration::from_secs(daemon * 5_000);
        own.resume_steady(Some(("another boot", 0)), shifted);
        let limiter = Arc::new(RedisLimiter::connect(&server.url(), own.clone(), Settings::default()).unwrap());
        trust(&limiter, 1).await;
        limiter.rebuild(own.steady(), "p", &[]).await.unwrap();
        for caller in 0..4 {
            let (limiter, own, clock) = (limiter.clone(), own.clone(), clock.clone());
            let (spends, arrivals) = (spends.clone(), arrivals.clone());
            callers.spawn(async move {
                let mut dice = Dice(daemon * 100 + caller);
                while clock.steady() < end {
                    match limiter.acquire(own.steady(), &[ask(&spends, 2)]).await.unwrap().remove(0) {
                        Answer::Wait { earliest, soft, .. } => {
                            let wait = if soft { own.steady() + Duration::from_millis(2) } else { earliest };
                            own.sleep_until(wait.min(own.steady() + per)).await;
                        }
                        Answer::Granted { count, permit } => {
                            let way = |dice: &mut Dice| Duration::from_micros((dice.exponential(0.004) * 1e6) as u64);
                            tokio::time::sleep(way(&mut dice)).await;
                            let now = clock.steady().0;
                            arrivals.lock().unwrap().extend((0..count).map(|_| now));
                            tokio::time::sleep(way(&mut dice)).await;
                            limiter.settle(own.steady(), &[ended(&permit, count, true)]).await.unwrap();
                        }
                    }
                }
            });
        }
    }
    callers.join_all().await;
    let mut arrivals = arrivals.lock().unwrap().clone();
    arrivals.sort_unstable();
    assert!(most_in_any_window(&arrivals, per.as_micros() as i64) <= 20);
    // Eight windows less a round trip each; a busy machine is slower, but never by half.
    assert!(arrivals.len() >= 80, "only {} calls in eight windows of 20", arrivals.len());
}

#[tokio::test]
async fn a_provider_lies_in_one_slot_of_a_cluster() {
    let flags = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(RedisServer::with(&flags).await);
    }
    let cuts = [0, 5_461, 10_923, 16_384];
    for (i, server) in servers.iter().enumerate() {
        let (first, last) = (cuts[i].to_string(), (cuts[i + 1] - 1).to_string());
        assert_eq!(server.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]), "OK");
        assert_eq!(server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(i + 1).to_string()]), "OK");
        let port = servers[0].port.to_string();
        assert_eq!(server.command(&["CLUSTER", "MEET", "127.0.0.1", &port]), "OK");
    }
    let is_whole = |s: &RedisServer| {
        let info = s.command(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
    };
    until(Duration::from_secs(30), async || servers.iter().all(is_whole).then_some(())).await.expect("a cluster");

    let url = servers[0].url().replace("redis://", "redis-cluster://");
    let clock = Clock::system();
    let limiter = RedisLimiter::connect(&url, clock.clone(), Settings::default()).unwrap();
    trust(&limiter, 1).await;
    let identity = limiter.run_id().await.unwrap();
    let (processes, histories) = identity.split_once('/').unwrap();
    let counts = [processes, histories].map(|ids| ids.split(',').count());
    assert_eq!(counts, [3, 3], "all three processes are known, each with its history");
    let names = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"];
    let mut asked = Vec::new();
    for name in names {
        limiter.rebuild(clock.steady(), name, &[]).await.unwrap();
        let mut spends = vec![window("w", 5, Duration::from_secs(60)), wire("c", 5)];
        for spend in &mut spends {
            spend.key.0 = Arc::from(spend.key.0.replace("p/", &format!("{name}/")));
        }
        asked.push(ask(&spends, 9));
    }
    let answers = limiter.acquire(clock.steady(), &asked).await.unwrap();
    let settles: Vec<_> = answers.iter().map(|a| ended(&granted(a, 5), 5, true)).collect();
    limiter.settle(clock.steady(), &settles).await.unwrap();
    for (name, request) in names.iter().zip(&asked) {
        let view = limiter.peek(clock.steady(), &request.spends).await.unwrap().remove(0);
        assert_eq!((view.used, view.in_flight), (5, 0), "{name}");
    }
    let used = servers.iter().filter(|s| s.command(&["DBSIZE"]) != "0").count();
    assert!(used >= 2, "seven providers all lie on one of three servers");
    let findings = limiter.check().await.unwrap();
    assert_eq!(findings.iter().filter(|f| f.about == "version").count(), 3);
}

/// A refusal that one daemon hears holds the others back too, and of all of them one call goes first.
#[tokio::test]
async fn after_a_refusal_one_call_of_all_daemons_goes_first() {
    let server = RedisServer::start().await;
    let daemon = async || {
        let limiter = RedisLimiter::connect(&server.url(), Clock::system(), Settings::default()).unwrap();
        trust(&limiter, 1).await;
        limiter
    };
    let (a, b) = (daemon().await, daemon().await);
    let clock = Clock::system();
    let now = || clock.steady();
    a.rebuild(now(), "p", &[]).await.unwrap();
    let core = [window("core", 100, Duration::from_secs(60))];
    let ours = granted(&a.acquire(now(), &[ask(&core, 3)]).await.unwrap()[0], 3);
    let theirs = granted(&b.acquire(now(), &[ask(&core, 3)]).await.unwrap()[0], 3);
    let until = now() + Duration::from_millis(400);
    let refused = |permit, count| Settle { blocked_until: Some(until), good: false, ..ended(permit, count, true) };
    a.settle(now(), &[refused(&ours, 1)]).await.unwrap();
    // Those that were on the wire with it are refused as well, and one is let through: it is older than the refusal.
    b.settle(now(), &[refused(&theirs, 2), ended(&theirs, 1, true)]).await.unwrap();
    a.settle(now(), &[refused(&ours, 2)]).await.unwrap();
    let waits = |answer: &Answer| matches!(answer, Answer::Wait { .. });
    assert!(waits(&b.acquire(now(), &[ask(&core, 3)]).await.unwrap()[0]), "not now");
    clock.sleep_until(until + Duration::from_millis(50)).await;
    let first = granted(&b.acquire(now(), &[ask(&core, 9)]).await.unwrap()[0], 1);
    let answer = a.acquire(now(), &[ask(&core, 9)]).await.unwrap().remove(0);
    assert!(matches!(answer, Answer::Wait { soft: true, .. }), "one goes first, whoever asks: {answer:?}");
    assert!(a.peek(now(), &core).await.unwrap()[0].is_probing);
    b.settle(now(), &[ended(&first, 1, true)]).await.unwrap();
    let two = granted(&a.acquire(now(), &[ask(&core, 9)]).await.unwrap()[0], 2);
    assert!(waits(&b.acquire(now(), &[ask(&core, 9)]).await.unwrap()[0]));
    a.settle(now(), &[ended(&two, 2, true)]).await.unwrap();
    granted(&b.acquire(now(), &[ask(&core, 9)]).await.unwrap()[0], 4);
}

/// What one daemon hears counts for the other: "nothing left, again in a minute" lets nobody send but what was on the wire.
#[tokio::test]
async fn what_one_daemon_was_told_binds_the_other() {
    let server = RedisServer::start().await;
    let daemon = async || {
        let limiter = RedisLimiter::connect(&server.url(), Clock::system(), Settings::default()).unwrap();
        trust(&limiter, 1).await;
        limiter
    };
    let (a, b) = (daemon().await, daemon().await);
    let now = || Clock::system().steady();
    a.rebuild(now(), "p", &[]).await.unwrap();
    let core = [window("core", 100, Duration::from_secs(60))];
    let mine = granted(&a.acquire(now(), &[ask(&core, 1)]).await.unwrap()[0], 1);
    // On the wire when the answer is made.
    let theirs = granted(&b.acquire(now(), &[ask(&core, 3)]).await.unwrap()[0], 3);
    let said = |left| vec![Said { key: core[0].key.clone(), left, until: now() + Duration::from_secs(60) }];
    a.settle(now(), &[Settle { said: said(0), ..ended(&mine, 1, true) }]).await.unwrap();
    let answer = b.acquire(now(), &[ask(&core, 1)]).await.unwrap().remove(0);
    let Answer::Wait { earliest, .. } = answer else { panic!("nothing is left, and yet: {answer:?}") };
    let wait = earliest.since(now());
    assert!((Duration::from_secs(55)..=Duration::from_secs(61)).contains(&wait), "until the reset, not {wait:?}");
    // Answers to what was on the wire change nothing, whatever they say of the time before.
    b.settle(now(), &[Settle { said: said(2), ..ended(&theirs, 3, true) }]).await.unwrap();
    for limiter in [&a, &b] {
        let answer = limiter.acquire(now(), &[ask(&core, 1)]).await.unwrap().remove(0);
        assert!(matches!(answer, Answer::Wait { .. }), "{answer:?}");
        let view = limiter.peek(now(), &core).await.unwrap().remove(0);
        assert_eq!((view.free, view.said.map(|s| s.left)), (0, Some(0)));
    }
}
