//! Figures of the embedded store, as `name value unit` lines: what a commit of each kind does per second, at growing
//! backlogs. `cargo bench --bench store -- [largest backlog]` (default 1,000,000); the folder is TMPDIR or /tmp.

use std::time::{Duration, Instant};

use tidegate::clock::Clock;
use tidegate::model::call::{Ending, Lane, Permit};
use tidegate::model::flow::Class;
use tidegate::model::id::FlowId;
use tidegate::model::job::{Coalesce, NewJob, Payload};
use tidegate::model::name::{Account, Key, OperationName, ProviderName};
use tidegate::model::shard::Hold;
use tidegate::store::sqlite::{SqliteOptions, SqliteStore};
use tidegate::store::{Batch, Begin, BegunCall, FinishCall, JobOutcome, Next, Store, Take};

const BULK: usize = 1_000;
const GROUP: usize = 64;

struct Probe {
    store: SqliteStore,
    clock: Clock,
    payload: Payload,
    next_key: u64,
}

impl Probe {
    fn job(&mut self, keyed: bool) -> NewJob {
        let provider = ProviderName::new("crm").expect("a word");
        let operation = OperationName::new(if keyed { "sync" } else { "send" }).expect("a word");
        let mut job = NewJob::new(provider, operation, self.payload.clone());
        if keyed {
            self.next_key += 1;
            // Keys come in no order, as user ids do.
            let scattered = self.next_key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            job.key = Some(Key::new(format!("user-{scattered:016x}")).expect("a key"));
            job.coalesce = Coalesce::Replace;
        }
        job
    }

    fn batch(&self) -> Batch {
        Batch { now: self.clock.now(), steady: self.clock.steady(), ..Batch::default() }
    }

    async fn commit(&self, batch: Batch) -> tidegate::store::Committed {
        self.store.commit(batch).await.expect("the probe's disk works")
    }

    /// Enqueues `count` jobs in commits of `size`; returns the time it took.
    async fn enqueue(&mut self, count: usize, size: usize, keyed: bool) -> Duration {
        let mut spent = Duration::ZERO;
        for _ in 0..count.div_ceil(size) {
            let enqueues: Vec<NewJob> = (0..size).map(|_| self.job(keyed)).collect();
            let batch = Batch { enqueues, ..self.batch() };
            let start = Instant::now();
            self.commit(batch).await;
            spent += start.elapsed();
        }
        spent
    }

    fn begin(&self, lane: Lane, count: usize) -> Begin {
        Begin {
            provider: ProviderName::new("crm").expect("a word"),
            operation: OperationName::new("send").expect("a word"),
            lane,
            account: Account::default(),
            takes: vec![Take { flow: FlowId(1), class: Class::Normal, count: count as u32, hold: Hold::ALONE }],
            bare: false,
            calls_max: if lane == Lane::Single { count as u32 } else { 1 },
            bytes_max: usize::MAX,
            permit: Permit { spends: [].into(), granted_at: self.clock.steady(), epoch: 0 },
            keyed: [].into(),
            outside: 0,
            lease_until: self.clock.steady() + Duration::from_secs(60),
        }
    }

    async fn claim(&self, lane: Lane, count: usize) -> (Vec<BegunCall>, Duration) {
        let batch = Batch { begins: vec![self.begin(lane, count)], ..self.batch() };
        let start = Instant::now();
        let mut done = self.commit(batch).await;
        (done.begins.remove(0).calls, start.elapsed())
    }

    async fn finish(&self, calls: &[BegunCall]) -> Duration {
        let end = |call: &BegunCall| FinishCall {
            call: call.id,
            ending: Ending::Answered,
            settled_at: self.clock.steady(),
            status: Some(200),
            error: None,
            outcomes: call
                .jobs
                .iter()
                .map(|job| JobOutcome { job: job.id.seq, next: Next::Delivered, error: None, result: None })
                .collect(),
            spends: None,
            seen: None,
        };
        let batch = Batch { finishes: calls.iter().map(end).collect(), ..self.batch() };
        let start = Instant::now();
        self.commit(batch).await;
        start.elapsed()
    }
}

fn rate(name: &str, jobs: usize, spent: Duration) {
    println!("{name} {:.0} jobs/s", jobs as f64 / spent.as_secs_f64());
}

fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{name}_p50 {:.3} ms", at(0.5));
    println!("{name}_p99 {:.3} ms", at(0.99));
}

fn rss_mib(name: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (field, label) in [("VmRSS:", "rss"), ("VmHWM:", "rss_peak")] {
        let kib =
            status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        println!("{name}_{label} {:.1} MiB", kib.unwrap_or(0) as f64 / 1024.0);
    }
}

/// Everything at one backlog.
async fn measure(probe: &mut Probe, name: &str) {
    let count = 20_000;
    let spent = probe.enqueue(count, BULK, false).await;
    rate(&format!("{name}.enqueue_1000_plain"), count, spent);
    let spent = probe.enqueue(count, BULK, true).await;
    rate(&format!("{name}.enqueue_1000_keyed"), count, spent);
    let times = times(probe, 200).await;
    percentiles(&format!("{name}.enqueue_64_commit"), times);

    let mut claims = Vec::new();
    let mut spent = Duration::ZERO;
    for _ in 0..10_000usize.div_ceil(GROUP) {
        spent += probe.enqueue(GROUP, GROUP, false).await;
        let (calls, took) = probe.claim(Lane::Single, GROUP).await;
        claims.push(took);
        spent += took + probe.finish(&calls).await;
    }
    rate(&format!("{name}.single_cycle_64"), claims.len() * GROUP, spent);
    percentiles(&format!("{name}.claim_64"), claims);

    let mut claims = Vec::new();
    let mut spent = Duration::ZERO;
    for _ in 0..30 {
        probe.enqueue(BULK, BULK, false).await;
        let (calls, took) = probe.claim(Lane::Batch, BULK).await;
        claims.push(took);
        spent += took + probe.finish(&calls).await;
    }
    rate(&format!("{name}.batch_cycle_1000"), claims.len() * BULK, spent);
    percentiles(&format!("{name}.claim_1000"), claims);
    rss_mib(name);
}

async fn times(probe: &mut Probe, n: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        times.push(probe.enqueue(GROUP, GROUP, false).await);
    }
    times
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let largest: usize =
        std::env::args().filter_map(|arg| arg.replace('_', "").parse().ok()).next().unwrap_or(1_000_000);
    let folder = tempfile::tempdir().expect("a folder for the probe");
    let store = SqliteStore::open(SqliteOptions::new(folder.path().join("probe.db"))).await.expect("a new database");
    let body = format!("{{\"name\":\"Ada\",\"note\":\"{}\"}}", "x".repeat(170));
    let mut probe = Probe { store, clock: Clock::system(), payload: body.into(), next_key: 0 };
    probe.enqueue(1, 1, false).await;
    rss_mib("empty");
    let mut waiting = 0;
    for backlog in [10_000, 100_000, 1_000_000, 10_000_000].into_iter().filter(|n| *n <= largest) {
        let more = backlog.saturating_sub(waiting);
        // Half of the backlog has keys.
        let plain = probe.enqueue(more / 2, BULK, false).await;
        let keyed = probe.enqueue(more / 2, BULK, true).await;
        rate(&format!("{backlog}.fill_plain"), more / 2, plain);
        rate(&format!("{backlog}.fill_keyed"), more / 2, keyed);
        waiting = backlog;
        measure(&mut probe, &backlog.to_string()).await;
    }
    probe.store.close().await;
}
