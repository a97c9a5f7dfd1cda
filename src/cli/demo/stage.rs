//! The scene of the demo: a simulated provider, a daemon beside it, and updates that arrive.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::exit::Error;
use super::super::output::Output;
use crate::app::App;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, LoadOptions};
use crate::grpc::pb;
use crate::model::name::ProviderName;
use crate::simulator::{Arrival, Report, Simulator, SimulatorConfig, SimulatorHandle};

pub const BATCH_MAX: u32 = 50;
pub const SINGLE_MAX: u32 = 3_600;
pub const BATCH_SIZE: u32 = 1_000;
/// Updates of one EnqueueJobs call while they trickle in, and while the backlog is filled.
const TRICKLE: Duration = Duration::from_millis(50);
const BULK: usize = 2_000;
/// The daemon has this long to drain, in windows, before the demo gives up on it.
const DRAIN_WINDOWS_MAX: u32 = 20;
/// A line this often where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What arrives.
#[derive(Clone, Debug)]
pub struct Load {
    pub updates: u32,
    pub users: u32,
    pub window: Duration,
    pub seed: u64,
    /// Above 0: keep both lanes busy for so many windows, with a record of its own for every update.
    pub windows_saturated: u32,
}

/// An acknowledged update.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    pub user: u32,
    pub version: i64,
    /// Steady time of the acknowledgement.
    pub at: Timestamp,
}

/// What the provider saw.
#[derive(Debug)]
pub struct Seen {
    pub report: Report,
    pub arrivals: Vec<Arrival>,
}

pub struct Stage {
    simulator: SimulatorHandle,
    app: App,
    folder: tempfile::TempDir,
}

type Client = pb::job_service_client::JobServiceClient<tonic::transport::Channel>;

impl Stage {
    pub async fn set(load: &Load, clock: &Clock) -> Result<Stage, Error> {
        let seconds = load.window.as_secs();
        let mut provider = SimulatorConfig { seed: load.seed, keep_arrivals: 1_000_000, ..SimulatorConfig::default() };
        provider.records.version = "/version".to_owned();
        let provider = provider
            .limit(&format!("batch=rolling:{BATCH_MAX}/{seconds}s@POST /users/batch"))
            .and_then(|p| p.limit(&format!("single=rolling:{SINGLE_MAX}/{seconds}s@PUT /users/*")))
            .map_err(|e| Error::failed(e.to_string()))?;
        let simulator = Simulator::start_on(provider, clock.clone()).await.map_err(|e| Error::failed(e.to_string()))?;
        let folder = tempfile::tempdir().map_err(|e| Error::failed(format!("no temporary folder: {e}")))?;
        write_config(folder.path(), &simulator.base_url(), seconds)
            .map_err(|e| Error::failed(format!("cannot write the configuration: {e}")))?;
        let options = LoadOptions { file: Some(folder.path().join("tidegate.toml")), ..LoadOptions::default() };
        let loaded = config::load(&options).map_err(|problems| Error::failed(problems.to_string()))?;
        let app = App::start(loaded, options).await.map_err(|e| Error::failed(e.to_string()))?;
        Ok(Stage { simulator, app, folder })
    }

    pub fn provider_url(&self) -> String {
        self.simulator.base_url()
    }

    pub fn address(&self) -> String {
        self.app.address().map_or_else(|| "none".to_owned(), |a| format!("http://{a}"))
    }

    pub fn folder(&self) -> String {
        self.folder.path().display().to_string()
    }

    async fn client(&self) -> Result<Client, Error> {
        let client = Client::connect(self.address()).await.map_err(|e| Error::failed(format!("no connection: {e}")))?;
        Ok(client.max_decoding_message_size(16 << 20))
    }

    /// Updates of random users, evenly spread over one window; then waits until all have left.
    pub async fn arrive(&self, load: &Load, clock: &Clock, output: &Output) -> Result<Vec<Acked>, Error> {
        let mut client = self.client().await?;
        let mut rng = StdRng::seed_from_u64(load.seed);
        let mut versions = vec![0i64; load.users as usize];
        let mut acked = Vec::with_capacity(load.updates as usize);
        let live = Live::new(output, u64::from(load.updates));
        let started = clock.steady();
        while acked.len() < load.updates as usize {
            let share = clock.steady().since(started).as_secs_f64() / load.window.as_secs_f64();
            let due = ((share * f64::from(load.updates)) as usize).min(load.updates as usize) - acked.len();
            let fresh: Vec<(u32, i64)> = (0..due.min(BULK))
                .map(|_| {
                    let user = rng.random_range(0..load.users);
                    versions[user as usize] += 1;
                    (user, versions[user as usize])
                })
                .collect();
            enqueue(&mut client, &fresh, clock, &mut acked).await?;
            live.show(self, acked.len() as u64).await;
            clock.sleep_until(clock.steady() + TRICKLE).await;
        }
        self.drain(load, clock, &live, acked.len() as u64).await?;
        Ok(acked)
    }

    /// A backlog that never ends while it is watched, one record per update.
    pub async fn saturate(&self, load: &Load, clock: &Clock, output: &Output) -> Result<Vec<Acked>, Error> {
        let per_window = u64::from(BATCH_MAX * BATCH_SIZE + SINGLE_MAX);
        // One window more than is watched: the first of them leaves at once.
        let wanted = per_window * u64::from(load.windows_saturated + 2);
        let mut client = self.client().await?;
        let mut acked = Vec::new();
        let live = Live::new(output, wanted);
        let started = clock.steady();
        while (acked.len() as u64) < wanted {
            let first = acked.len() as u32;
            let fresh: Vec<(u32, i64)> = (first..first + BULK as u32).map(|user| (user, 1)).collect();
            enqueue(&mut client, &fresh, clock, &mut acked).await?;
            live.show(self, acked.len() as u64).await;
        }
        let end = started + load.window * load.windows_saturated + load.window / 10;
        while clock.steady() < end {
            live.show(self, acked.len() as u64).await;
            clock.sleep_until(clock.steady() + TRICKLE * 4).await;
        }
        Ok(acked)
    }

    async fn drain(&self, load: &Load, clock: &Clock, live: &Live<'_>, acked: u64) -> Result<(), Error> {
        let deadline = clock.steady() + load.window * DRAIN_WINDOWS_MAX;
        loop {
            live.show(self, acked).await;
            let name = ProviderName::new("crm").expect("a valid name");
            let counts = self.app.handle().provider_status(&name).await.map(|s| s.counts).unwrap_or_default();
            if counts.waiting() + counts.calling == 0 {
                return Ok(());
            }
            if clock.steady() > deadline {
                return Err(Error::failed(format!("the backlog did not drain: {} wait", counts.waiting())));
            }
            clock.sleep_until(clock.steady() + TRICKLE * 4).await;
        }
    }

    /// Stops the daemon, then the provider, and returns what the provider saw.
    pub async fn strike(self) -> Result<Seen, Error> {
        self.app.stop().await;
        let arrivals = self.simulator.arrivals();
        let report = self.simulator.stop().await;
        Ok(Seen { report, arrivals })
    }
}

async fn enqueue(
    client: &mut Client,
    fresh: &[(u32, i64)],
    clock: &Clock,
    acked: &mut Vec<Acked>,
) -> Result<(), Error> {
    if fresh.is_empty() {
        return Ok(());
    }
    let job = |&(user, version): &(u32, i64)| pb::JobSpec {
        provider: "crm".to_owned(),
        operation: "update_user".to_owned(),
        key: format!("user-{user}"),
        payload: format!(
            r#"{{"id":"user-{user}","version":{version},"name":"User {user}","email":"user{user}@example.com","time_zone":"Europe/Paris"}}"#
        ),
        ..pb::JobSpec::default()
    };
    let request = pb::EnqueueJobsRequest { jobs: fresh.iter().map(job).collect(), ..Default::default() };
    let answer = client.enqueue_jobs(request).await.map_err(Error::from)?.into_inner();
    let at = clock.steady();
    if answer.accepted_count as usize != fresh.len() {
        return Err(Error::failed(format!(
            "{} of {} updates were refused",
            fresh.len() - answer.accepted_count as usize,
            fresh.len()
        )));
    }
    acked.extend(fresh.iter().map(|&(user, version)| Acked { user, version, at }));
    Ok(())
}

fn write_config(folder: &Path, base_url: &str, seconds: u64) -> std::io::Result<()> {
    let store = folder.join("tidegate.db");
    let socket = folder.join("tidegate.sock");
    let daemon = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nsocket = {socket:?}\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n[store]\npath = {store:?}\n"
    );
    let provider = format!(
        r#"# {BATCH_MAX} batch calls of up to {BATCH_SIZE} records, and {SINGLE_MAX} single calls, in any {seconds} s.
[providers.crm]
base_url = "{base_url}"
allow_private = true

[providers.crm.operations.update_user]
request = "PUT /users/{{key}}"
body = "{{payload}}"
coalesce = "replace"
repeat = "always"
limits = ["{SINGLE_MAX}/{seconds}s"]

[providers.crm.operations.update_user.batch]
request = "POST /users/batch"
body = {{ users = "{{payloads}}" }}
size = {BATCH_SIZE}
limits = ["{BATCH_MAX}/{seconds}s"]
result = {{ each = "$.results[*]", key = "/id", failed_if = "/error" }}
"#
    );
    std::fs::create_dir_all(folder.join("providers.d"))?;
    std::fs::write(folder.join("tidegate.toml"), daemon)?;
    std::fs::write(folder.join("providers.d/crm.toml"), provider)
}

/// Progress: a bar on a terminal, a line every 5 s elsewhere. Both on stderr.
struct Live<'a> {
    output: &'a Output,
    bar: Option<ProgressBar>,
    clock: Clock,
    next_line: std::sync::Mutex<Timestamp>,
}

impl<'a> Live<'a> {
    fn new(output: &'a Output, updates: u64) -> Self {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} delivered · {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = output.live.then(|| ProgressBar::new(updates).with_style(style));
        let clock = Clock::system();
        let next_line = std::sync::Mutex::new(clock.steady());
        Live { output, bar, clock, next_line }
    }

    async fn show(&self, stage: &Stage, acked: u64) {
        let now = self.clock.steady();
        {
            let mut next = self.next_line.lock().expect("no panic while held");
            if self.bar.is_none() && now < *next {
                return;
            }
            *next = now + LINE_EVERY;
        }
        let seen = stage.simulator.report();
        let calls = |name: &str| seen.limit(name).map_or(0, |l| l.arrivals);
        let text = format!(
            "{acked} accepted · {} batch + {} single calls · {} refused",
            calls("batch"),
            calls("single"),
            seen.refused
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(seen.records.taken);
                bar.set_message(text);
            }
            None => self.output.say(&format!("{} records delivered · {text}", seen.records.taken)),
        }
    }
}
