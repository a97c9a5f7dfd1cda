//! Decisions over Redis: three limits of 10,000 accounts each time, beside what the server itself can do in this run.
//!
//! `cargo bench --bench limiter_redis` starts a redis-server of its own and prints `name value unit` lines. Three
//! patterns: batches of 32 requests (one gate's turn), 64 callers at once with one request each, and one caller.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::{Clock, Timestamp};
use tidegate::limiter::redis::Settings;
use tidegate::limiter::{Acquire, Answer, Limiter, RedisLimiter, Settle, Spend};
use tidegate::model::call::LimitKey;
use tidegate::model::flow::Class;
use tidegate::model::name::LimitName;
use tidegate::model::provider::{Anchor, Limit, LimitKind, Reserve, Scope};

const ACCOUNTS: usize = 10_000;
const IN_FLIGHT: usize = 64;
const BATCH: usize = 32;

fn limit(name: &str, kind: LimitKind) -> Arc<Limit> {
    let (name, reserve) = (LimitName::new(name).expect("a word"), Reserve { urgent: 1, normal: 1 });
    Arc::new(Limit {
        name,
        kind,
        scope: Scope::Account,
        methods: Vec::new(),
        cost: 1,
        reserve,
        not_counted: Vec::new(),
        learned: false,
        cost_from: None,
        headers: None,
    })
}

fn requests() -> Vec<Acquire> {
    let window = |max, secs| LimitKind::Window { max, per: Duration::from_secs(secs), anchor: Anchor::Answer };
    let limits = [
        limit("core", window(5_000, 3_600)),
        limit("writes", window(80, 60)),
        limit("wire", LimitKind::Concurrency { max: 100 }),
    ];
    let spends = |account: usize| -> Arc<[Spend]> {
        let key = |l: &Arc<Limit>| LimitKey(Arc::from(format!("github/{}:3600s@account-{account}", l.name)));
        limits.iter().map(|l| Spend::new(key(l), l.clone())).collect()
    };
    let request = |account| Acquire { spends: spends(account), min: 1, max: 1, class: Class::Normal, request: 0 };
    (0..ACCOUNTS).map(|i| request(i * 7_919 % ACCOUNTS)).collect()
}

struct Server(Child, u16);

impl Server {
    fn start() -> Server {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let program = std::env::var("TIDEGATE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1"]);
        Server(command.stdout(Stdio::null()).spawn().expect("redis-server is installed"), port)
    }

    /// What redis-benchmark says for these words.
    fn benchmark(&self, what: &str, words: &[&str], pipeline: usize, clients: usize, n: usize) {
        let mut command = Command::new("redis-benchmark");
        command.args(["-p", &self.1.to_string(), "-n", &n.to_string(), "-c", &clients.to_string(), "-P"]);
        command.args([&pipeline.to_string(), "--csv", "-r", "10000"]).args(words);
        let output = command.output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        let line = output.lines().last().unwrap_or_default().replace('"', "");
        let fields: Vec<&str> = line.split(',').collect();
        // name, rps, average, min, p50, ...; the name of a script has commas of its own at the front.
        let tail = &fields[fields.len().saturating_sub(7)..];
        if let (Some(rps), Some(p50)) = (tail.first(), tail.get(3)) {
            println!("{what} {rps} 1/s (p50 {p50} ms)");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn settle(answers: &[Answer]) -> Vec<Settle> {
    let ended = |a: &Answer| match a {
        Answer::Granted { permit, count } => Some(Settle::new(permit.clone(), *count, true)),
        Answer::Wait { .. } => None,
    };
    answers.iter().filter_map(ended).collect()
}

fn report(name: &str, n: usize, took: Duration, granted: usize) {
    println!("{name} {:.0} 1/s ({:.0} % granted)", n as f64 / took.as_secs_f64(), granted as f64 * 100.0 / n as f64);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = Server::start();
    let clock = Clock::system();
    let now = || clock.steady();
    let url = format!("redis://127.0.0.1:{}", server.1);
    let limiter = Arc::new(RedisLimiter::connect(&url, clock.clone(), Settings::default()).expect("an address"));
    let run_id = loop {
        match limiter.run_id().await {
            Ok(id) => break id,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    limiter.trust(&run_id, 1);
    limiter.rebuild(now(), "github", &[]).await.expect("an empty server");
    let requests = requests();

    for (name, rounds) in [("limiter_redis.cold_batches_of_32", 1), ("limiter_redis.batches_of_32", 6)] {
        let (mut granted, mut n, mut settled) = (0, 0, Vec::new());
        let (mut acquire, mut back) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            let start = now();
            // Two turns under way at once, as the gates of two providers would.
            for pair in requests.chunks(2 * BATCH) {
                let (one, two) = pair.split_at(BATCH.min(pair.len()));
                let at = now();
                let (a, b) = tokio::join!(limiter.acquire(at, one), limiter.acquire(at, two));
                for answers in [a.expect("the server is there"), b.expect("the server is there")] {
                    n += answers.len();
                    let ends = settle(&answers);
                    granted += ends.len();
                    settled.extend(ends);
                }
            }
            acquire += now().since(start);
            let start = now();
            for part in settled.chunks(2 * BATCH) {
                limiter.settle(now(), part).await.expect("the server is there");
            }
            back += now().since(start);
            settled.clear();
        }
        report(name, n, acquire, granted);
        report(&format!("{name}.settle"), granted, back, granted);
    }

    let start = now();
    let mut callers = tokio::task::JoinSet::new();
    let shared = Arc::new(requests.clone());
    for caller in 0..IN_FLIGHT {
        let (limiter, requests, clock) = (limiter.clone(), shared.clone(), clock.clone());
        callers.spawn(async move {
            let (mut granted, mut n, mut ends) = (0, 0, Vec::new());
            for request in requests.iter().skip(caller).step_by(IN_FLIGHT).cycle().take(600) {
                let answers = limiter.acquire(clock.steady(), std::slice::from_ref(request)).await.expect("there");
                n += 1;
                let end = settle(&answers);
                granted += end.len();
                ends.extend(end);
            }
            (n, granted, ends)
        });
    }
    let (mut n, mut granted, mut ends) = (0, 0, Vec::new());
    while let Some(Ok(done)) = callers.join_next().await {
        n += done.0;
        granted += done.1;
        ends.extend(done.2);
    }
    report("limiter_redis.64_in_flight", n, now().since(start), granted);
    for part in ends.chunks(BATCH) {
        limiter.settle(now(), part).await.expect("the server is there");
    }

    let mut took: Vec<Duration> = Vec::new();
    let mut views: Vec<Duration> = Vec::new();
    for request in requests.iter().take(3_000) {
        let start: Timestamp = now();
        let answers = limiter.acquire(start, std::slice::from_ref(request)).await.expect("the server is there");
        took.push(now().since(start));
        limiter.settle(now(), &settle(&answers)).await.expect("the server is there");
        let start = now();
        limiter.peek(start, &request.spends).await.expect("the server is there");
        views.push(now().since(start));
    }
    for (name, mut all) in [("one_at_a_time", took), ("peek_one_at_a_time", views)] {
        all.sort_unstable();
        let at = |q: f64| all[(q * all.len() as f64) as usize].as_secs_f64() * 1e3;
        println!("limiter_redis.{name}.p50 {:.3} ms", at(0.5));
        println!("limiter_redis.{name}.p99 {:.3} ms", at(0.99));
    }

    // The ceilings, after, so that the server is warm. The script does as little as a limit can: one read, one write.
    let script = "redis.call('SET', KEYS[1], redis.call('INCR', KEYS[2])) return 1";
    let words = ["EVAL", script, "2", "a:__rand_int__", "b:__rand_int__"];
    server.benchmark("ceiling.eval_two_commands.64_clients", &words, 1, IN_FLIGHT, 100_000);
    server.benchmark("ceiling.eval_two_commands.pipelined_16", &words, 16, IN_FLIGHT, 200_000);
    server.benchmark("ceiling.eval_two_commands.one_client", &words, 1, 1, 10_000);
}
