//! Operating a cluster on real servers: what the daemons say about each other and about what is away, what they refuse
//! to start with, and a rolling restart.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tidegate::app::App;
use tidegate::config::{self, LoadOptions};
use tidegate::grpc::pb;
use tidegate::grpc::pb::admin_service_client::AdminServiceClient;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::provider_service_client::ProviderServiceClient;
use tidegate::simulator::{Latency, Simulator, SimulatorConfig};
use tonic::transport::Channel;

use crate::support::process::until;
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::servers::Database;

mod outage;
mod refused;
mod rolling;
mod stage;
mod takeover;
mod tls;

const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");
const PATIENCE: Duration = Duration::from_secs(40);
/// Longer than a restart budget lasts when an actor gives up at once.
const OUTAGE: Duration = Duration::from_secs(12);

/// A daemon in this process, one of many.
struct Member {
    name: &'static str,
    app: App,
    channel: Channel,
    http: reqwest::Client,
}

/// With one call an hour, so that jobs have something to wait for.
fn text(name: &str, database: &str, redis: &str, base_url: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nsocket = \"none\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [store]\nkind = \"postgres\"\nurl = \"{database}\"\n[limiter]\nkind = \"redis\"\nurl = \"{redis}\"\n\
         [cluster]\nname = \"{name}\"\n\
         [providers.crm]\nbase_url = \"{base_url}\"\nallow_private = true\n\
         [providers.crm.operations.sync]\nrequest = \"PUT /users/{{job_id}}\"\nbody = \"{{payload}}\"\n\
         limits = [{{ name = \"hourly\", max = 1, per = \"1h\" }}]\n"
    )
}

impl Member {
    async fn start(folder: &Path, name: &'static str, database: &str, redis: &str, base_url: &str) -> Member {
        Member::with(folder, name, &text(name, database, redis, base_url)).await
    }

    async fn with(folder: &Path, name: &'static str, text: &str) -> Member {
        tidegate::app::install_crypto();
        let file = folder.join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        let options = LoadOptions { file: Some(file), ..LoadOptions::default() };
        let app = App::start(config::load(&options).unwrap(), options).await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", app.address().unwrap())).unwrap().connect_lazy();
        Member { name, app, channel, http: reqwest::Client::new() }
    }

    async fn daemon(&self) -> pb::Daemon {
        let mut admin = AdminServiceClient::new(self.channel.clone());
        admin.get_daemon(pb::GetDaemonRequest {}).await.unwrap().into_inner().daemon.unwrap()
    }

    async fn page(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.app.http_address().unwrap());
        let answer = self.http.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Until `/readyz` says this in the first place and that somewhere.
    async fn readyz(&self, status: u16, says: &str) -> String {
        let seen = until(PATIENCE, || async {
            let (code, text) = self.page("/readyz").await;
            (code == status && text.contains(says)).then_some(text)
        });
        let Some(text) = seen.await else {
            panic!("{}: expected {status} {says:?}, got {:?}", self.name, self.page("/readyz").await)
        };
        text
    }

    async fn status(&self) -> pb::ProviderStatus {
        let mut client = ProviderServiceClient::new(self.channel.clone());
        let request = pb::GetProviderStatusRequest { name: "crm".to_owned() };
        client.get_provider_status(request).await.unwrap().into_inner().status.unwrap()
    }

    async fn enqueue(&self, account: &str) -> String {
        let job = pb::JobSpec {
            provider: "crm".to_owned(),
            operation: "sync".to_owned(),
            account: account.to_owned(),
            payload: "{}".to_owned(),
            ..pb::JobSpec::default()
        };
        let request = pb::EnqueueJobRequest { job: Some(job), ..pb::EnqueueJobRequest::default() };
        JobServiceClient::new(self.channel.clone()).enqueue_job(request).await.unwrap().into_inner().job_id
    }

    async fn explain(&self, job: &str) -> pb::ExplainJobResponse {
        let request = pb::ExplainJobRequest { job_id: job.to_owned() };
        JobServiceClient::new(self.channel.clone()).explain_job(request).await.unwrap().into_inner()
    }

    async fn metric(&self, line: &str) -> bool {
        self.page("/metrics").await.1.lines().any(|l| l == line)
    }

    /// The command line, asking this daemon.
    fn ask(&self, args: &[&str]) -> String {
        let address = self.app.address().unwrap().to_string();
        let out = tidegate(&[&["--addr", &address], args].concat());
        assert!(out.status.success(), "{args:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }
}

/// A daemon that starts although it must not would run for ever.
fn tidegate(args: &[&str]) -> Output {
    Command::new("timeout").args(["60", TIDEGATE]).args(args).env_remove("TIDEGATE_ADDR").output().unwrap()
}

/// The database behind a proxy.
fn through(url: &str, proxy: &Proxy) -> String {
    let (head, database) = url.rsplit_once('/').unwrap();
    format!("{}:{}/{database}", head.rsplit_once(':').unwrap().0, proxy.port)
}

fn port(url: &str) -> u16 {
    url.rsplit_once('/').unwrap().0.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// Partitions of the living, when each holds half of all and none is held twice.
fn shared_evenly(daemon: &pb::Daemon) -> bool {
    let Some(cluster) = &daemon.cluster else { return false };
    let alive: Vec<_> = cluster.daemons.iter().filter(|d| d.alive).collect();
    let numbers = |d: &&pb::ClusterDaemon| d.partitions.iter().flat_map(|h| &h.partitions).map(|p| p.number).collect();
    let each: Vec<Vec<i32>> = alive.iter().map(numbers).collect();
    let mut all = each.concat();
    all.sort_unstable();
    alive.len() == 2 && each.iter().all(|e| e.len() == 32) && all == (0..64).collect::<Vec<i32>>()
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_show_each_other_and_say_what_is_away() {
    let (folder, database, redis) = (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let (sql, limits) = (Proxy::to(port(&database.url())).await, Proxy::to(redis.port).await);
    let provider = SimulatorConfig { latency: Latency::none(), keep_arrivals: 100, ..SimulatorConfig::default() };
    let provider = Simulator::start(provider).await.unwrap();
    let (url, base_url) = (through(&database.url(), &sql), provider.base_url());
    let d1 = Member::start(folder.path(), "d1", &url, &limits.url(), &base_url).await;
    let d2 = Member::start(folder.path(), "d2", &url, &limits.url(), &base_url).await;

    // Each sees both.
    for member in [&d1, &d2] {
        let even = until(PATIENCE, || async { shared_evenly(&member.daemon().await).then_some(()) }).await;
        assert!(even.is_some(), "{}: {:?}", member.name, member.daemon().await.cluster);
    }
    let cluster = d1.daemon().await.cluster.unwrap();
    let me = cluster.daemons.iter().find(|d| d.id == cluster.daemon_id).unwrap();
    assert_eq!((me.name.as_str(), cluster.partition_count, cluster.limiter_fault.as_str()), ("d1", 64, ""));
    assert!(me.partitions[0].partitions.iter().all(|p| p.fence > 0), "a lease has a fence");
    let shown = d1.ask(&["workers"]);
    assert!(shown.contains("d1 (this one)") && shown.matches("crm 32/64").count() == 2, "{shown}");
    let first = &me.partitions[0].partitions[0];
    let wide = d1.ask(&["workers", "-o", "wide"]);
    assert!(wide.contains(&format!("crm {}:{}", first.number, first.fence)) && wide.contains(&me.id), "{wide}");
    assert_eq!(d1.readyz(200, "ready").await, "ready\n");
    assert!(d1.metric("tidegate_partitions_held{provider=\"crm\"} 32.0").await, "{}", d1.page("/metrics").await.1);
    assert!(d1.metric("tidegate_cluster_daemons 2.0").await && d1.metric("tidegate_limiter_away 0.0").await);

    // A job waits at one daemon, and the other names it.
    d1.enqueue("first").await;
    let spent = until(PATIENCE, || async { (provider.arrivals().len() == 1).then_some(()) }).await;
    assert!(spent.is_some(), "the one call of the hour leaves");
    let job = d1.enqueue("second").await;
    let said = [d1.explain(&job).await, d2.explain(&job).await];
    let kinds: Vec<_> = said.iter().map(|s| s.waiting_on.as_ref().unwrap().kind()).collect();
    let owner = kinds.iter().position(|k| *k != pb::waiting_on::Kind::OtherDaemon).expect("one of the two serves it");
    let (owner, other, told) = if owner == 0 { (&d1, &d2, &said[1]) } else { (&d2, &d1, &said[0]) };
    assert_eq!(told.sentence, format!("its account is served by daemon {}", owner.name));
    assert_eq!(told.waiting_on.as_ref().unwrap().daemon, owner.name);

    // Redis away: accepted, held, and said everywhere.
    limits.refuse(true);
    let text = other.readyz(200, "held: Redis does not answer").await;
    assert!(text.starts_with("ready\n"), "{text}");
    assert_eq!(owner.status().await.fault, "held: Redis does not answer");
    assert!(owner.ask(&["providers", "status", "crm"]).contains("held: Redis does not answer"));
    let held = owner.explain(&job).await;
    assert_eq!(held.sentence, "held: Redis does not answer");
    assert_eq!(held.waiting_on.unwrap().kind(), pb::waiting_on::Kind::Limiter);
    assert!(owner.metric("tidegate_limiter_away 1.0").await);
    other.enqueue("third").await;
    limits.refuse(false);
    let calm = until(PATIENCE, || async { (other.page("/readyz").await.1 == "ready\n").then_some(()) }).await;
    assert!(calm.is_some(), "{:?}", other.page("/readyz").await);

    // PostgreSQL away: nothing can be kept, so not ready; nobody gives up, and who asks is told.
    sql.refuse(true);
    d1.readyz(503, "the store does not answer").await;
    let shown = d1.ask(&["workers"]);
    assert!(shown.contains("not ready") && shown.contains("does not answer:"), "{shown}");
    let failed = async {
        tokio::select! { why = d1.app.handle().supervisor().failed() => Some(why), () = tokio::time::sleep(OUTAGE) => None }
    };
    assert_eq!(failed.await, None, "a database that is away must not end a daemon");
    sql.refuse(false);
    for member in [&d1, &d2] {
        let back = until(PATIENCE, || async { (member.page("/readyz").await.1 == "ready\n").then_some(()) }).await;
        assert!(back.is_some(), "{}: {:?}", member.name, member.page("/readyz").await);
        let even = until(PATIENCE, || async { shared_evenly(&member.daemon().await).then_some(()) }).await;
        assert!(even.is_some(), "{}: {:?}", member.name, member.daemon().await.cluster);
    }
    assert_eq!(provider.arrivals().len(), 1, "no window of an hour saw more than its limit");

    // Who leaves has no share any more, at once.
    let began = std::time::Instant::now();
    d1.app.stop().await;
    let all = until(PATIENCE, || async { (d2.status().await.partitions_held == Some(64)).then_some(()) }).await;
    assert!(all.is_some() && began.elapsed() < Duration::from_secs(6), "without waiting for the lease of 8 s");
    let shown = d2.ask(&["workers"]);
    assert!(shown.contains("crm 64/64") && shown.contains("and 1 that ended within a day"), "{shown}");
    d2.app.stop().await;
}
