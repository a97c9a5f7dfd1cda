//! What a provider's answers say, heard by whole daemons that share PostgreSQL and Redis, judged by the provider's own log:
//! a limit that is silently halved and raised again, and a stranger who uses the account up.

use std::time::Duration;

use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::provider_service_client::ProviderServiceClient;
use tidegate::simulator::config::{HeaderStyle, Latency};
use tidegate::simulator::{Arrival, Simulator, SimulatorConfig, SimulatorHandle};

use crate::support::process::{Daemon, Place, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;

mod learned;

const DAEMONS: usize = 2;
/// So that both daemons have some.
const ACCOUNTS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(30);

/// What is declared, and how the provider speaks of it.
#[derive(Clone, Copy)]
struct Shape {
    /// The provider's own number; a window of it begins with each multiple of its length on its own line.
    max: u32,
    window_us: i64,
    declared: u32,
    /// Of each daemon.
    in_flight: usize,
    /// Beside the numbers of the declaration.
    more: &'static str,
    headers: HeaderStyle,
}

impl Shape {
    const TOLD: Shape = Shape {
        max: 40,
        window_us: 4_000_000,
        declared: 40,
        in_flight: 1,
        more: ", headers = \"x-ratelimit\"",
        headers: HeaderStyle::XRatelimit,
    };
}

struct Fleet {
    shape: Shape,
    daemons: Vec<Daemon>,
    simulator: SimulatorHandle,
    _folder: tempfile::TempDir,
    _redis: RedisServer,
    _database: Database,
}

impl Fleet {
    /// All have work for long.
    async fn start(shape: Shape) -> Fleet {
        let config = SimulatorConfig {
            headers: shape.headers,
            latency: Latency { median: Duration::from_millis(10), ..Latency::none() },
            keep_arrivals: 10_000,
            ..SimulatorConfig::default()
        };
        let limit = format!("core=fixed:{}/{}us", shape.max, shape.window_us);
        let simulator = Simulator::start(config.limit(&limit).unwrap()).await.unwrap();
        let declaration = format!(
            "[providers.crm]\nbase_url = \"{}\"\nallow_private = true\nin_flight_max = {}\n\
             limits = [{{ name = \"core\", max = {}, per = \"{}s\"{} }}]\n\n\
             [providers.crm.operations.op]\nrequest = \"PUT /x/{{key}}\"\nbody = \"{{payload}}\"\n",
            simulator.base_url(),
            shape.in_flight,
            shape.declared,
            shape.window_us / 1_000_000,
            shape.more,
        );
        let (folder, database, redis) =
            (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
        let mut daemons = Vec::new();
        for n in 0..DAEMONS {
            let name = format!("d{n}");
            let at = folder.path().join(&name);
            let place = Place::shared(&at, &name, &database.url(), &redis.url(), &declaration);
            daemons.push(place.start().await);
        }
        let fleet = Fleet { shape, daemons, simulator, _folder: folder, _redis: redis, _database: database };
        fleet.shared_out().await;
        fleet.enqueue(1_600).await;
        fleet
    }

    /// Waits until every daemon sends for some of the accounts.
    async fn shared_out(&self) {
        let shared = until(PATIENCE, || async {
            for daemon in &self.daemons {
                let status = status(daemon).await?;
                status.partitions_held.filter(|held| *held > 0)?;
            }
            Some(())
        });
        shared.await.expect("both daemons hold partitions");
    }

    async fn enqueue(&self, jobs: usize) {
        let job = |n: usize| pb::JobSpec {
            provider: "crm".into(),
            operation: "op".into(),
            account: format!("a{}", n % ACCOUNTS),
            key: format!("k{n}"),
            payload: format!(r#"{{"id":"k{n}"}}"#),
            ..Default::default()
        };
        let request = pb::EnqueueJobsRequest { jobs: (0..jobs).map(job).collect(), ..Default::default() };
        let mut client = JobServiceClient::new(self.daemons[0].channel()).max_decoding_message_size(64 << 20);
        assert_eq!(client.enqueue_jobs(request).await.unwrap().into_inner().accepted_count as usize, jobs);
    }

    /// Arrivals of the daemons, without the stranger's.
    fn arrivals(&self) -> Vec<Arrival> {
        self.simulator.arrivals().into_iter().filter(|a| a.path.starts_with("/x/")).collect()
    }

    fn window(&self) -> i64 {
        self.arrivals().last().map_or(0, |a| a.at_us.div_euclid(self.shape.window_us))
    }

    fn refused(&self) -> u64 {
        self.simulator.report().refused
    }

    /// Ours in each window from this one on.
    fn per_window(&self, from: i64, count: i64) -> Vec<usize> {
        let arrivals = self.arrivals();
        let of = |n: i64| arrivals.iter().filter(|a| a.at_us.div_euclid(self.shape.window_us) == from + n).count();
        (0..count).map(of).collect()
    }

    /// Waits until so many have arrived in a window that has begun since.
    async fn in_a_new_window(&self, arrived: usize) -> i64 {
        let before = self.window();
        let there = until(PATIENCE, || async {
            let window = self.window();
            (window > before && self.per_window(window, 1)[0] >= arrived).then_some(window)
        });
        there.await.expect("work goes on")
    }

    async fn stop(self) {
        for daemon in self.daemons {
            daemon.stop().await;
        }
    }
}

async fn status(daemon: &Daemon) -> Option<pb::ProviderStatus> {
    let request = pb::GetProviderStatusRequest { name: "crm".into() };
    let mut client = ProviderServiceClient::new(daemon.channel());
    client.get_provider_status(request).await.ok()?.into_inner().status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_silently_halved_costs_daemons_a_refusal_at_most_and_is_used_in_full_once_it_is_raised() {
    sinks_and_rises(Shape::TOLD, 20, 1).await;
}

/// Less than what is on the wire of both: each window that begins would cost a burst if all of it left at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_sinks_below_what_daemons_have_in_flight_costs_one_burst_of_refusals() {
    sinks_and_rises(Shape { in_flight: 8, ..Shape::TOLD }, 5, 2 * 8 + 1).await;
}

/// The provider's number sinks in the middle of a window and rises again a few windows later.
async fn sinks_and_rises(shape: Shape, to: u32, refused_max: u64) {
    let fleet = Fleet::start(shape).await;
    fleet.in_a_new_window(1).await;
    let before = fleet.refused();
    let halved_in = fleet.in_a_new_window(5).await;
    assert!(fleet.simulator.set_max("core", to));
    fleet.in_a_new_window(1).await;
    fleet.in_a_new_window(1).await;
    let raised_in = fleet.in_a_new_window(3).await;
    let halved = fleet.refused() - before;
    assert!(fleet.simulator.set_max("core", shape.max));
    let last = loop {
        let window = fleet.in_a_new_window(1).await;
        if window >= raised_in + 5 {
            break window;
        }
    };
    let raised = fleet.refused() - before - halved;
    let used = fleet.per_window(halved_in, last - halved_in);
    eprintln!("40 per 4 s, then {to}, raised again: {used:?} calls per window, {halved} + {raised} refusals");
    assert!(halved <= refused_max && raised <= 1, "{halved} + {raised} refusals");
    let at = |window: i64| used[(window - halved_in) as usize];
    for window in halved_in + 1..raised_in {
        // Where the window of the change was used up before it, the burst of refusals falls into the next one.
        let refused = if window == halved_in + 1 { halved as usize } else { 0 };
        let most = to as usize + refused;
        assert!((to as usize * 3 / 4..=most).contains(&at(window)), "window {window}: {used:?}");
    }
    // The reset is told in whole seconds: a call late in a window may count for the next one here.
    let full = (raised_in + 2..last).map(at).collect::<Vec<_>>();
    assert!(
        full.iter().sum::<usize>() * 100 >= full.len() * shape.max as usize * 95,
        "used again: {full:?} of {used:?}"
    );
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_daemon_was_told_stops_the_other_at_once_and_until_the_reset() {
    let window_us = 20_000_000;
    let fleet = Fleet::start(Shape { window_us, max: 600, declared: 600, ..Shape::TOLD }).await;
    // The first calls leave somewhere within a window; the next one is seen from its start.
    fleet.in_a_new_window(1).await;
    let window = fleet.in_a_new_window(4).await;
    // A stranger uses up what is left.
    let client = reqwest::Client::new();
    let url = format!("{}/stranger", fleet.simulator.base_url());
    let spend = async || client.put(&url).body("{}").send().await.unwrap().status() == 200;
    while futures_util::future::join_all((0..16).map(|_| spend())).await.into_iter().all(|taken| taken) {}
    let used_up_at = fleet.simulator.arrivals().iter().rfind(|a| a.path == "/stranger").unwrap().at_us;
    let left_us = (window + 1) * window_us - used_up_at;
    assert!((15_000_000..window_us).contains(&left_us), "{left_us} us of the window were left: run it again");
    let told = until(PATIENCE, || async {
        let mut told = Vec::new();
        for daemon in &fleet.daemons {
            let limit = status(daemon).await?.limits.into_iter().find(|l| l.name == "core")?;
            told.push(limit.told.and_then(|told| told.remaining));
        }
        (fleet.window() > window).then_some(told)
    });
    let told = told.await.expect("the next window begins");
    let late =
        fleet.arrivals().iter().filter(|a| a.at_us > used_up_at && a.at_us.div_euclid(window_us) == window).count();
    eprintln!(
        "a stranger used the account up {left_us} us before the reset: {late} calls of {DAEMONS} daemons after it"
    );
    // One on the wire of each, and the one that was told.
    assert!(late <= DAEMONS + 1, "{late} calls left after the account was used up");
    assert!(told.iter().all(Option::is_some), "both show what was told: {told:?}");
    fleet.stop().await;
}
