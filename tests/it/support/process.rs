//! The daemon and the simulated provider as real processes of their own, so that killing the one leaves the other.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tidegate::clock::{Clock, Timestamp};
use tidegate::grpc::pb;
use tidegate::grpc::pb::admin_service_client::AdminServiceClient;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::provider_service_client::ProviderServiceClient;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tonic::transport::{Channel, Endpoint};

/// The binary under test.
const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");
/// A daemon that has not answered by then never will.
const START_MAX: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Asks until the answer is `Some`, with growing pauses, for `patience` at most.
pub async fn until<T, F: Future<Output = Option<T>>>(patience: Duration, mut ask: impl FnMut() -> F) -> Option<T> {
    let (clock, mut pause) = (Clock::system(), PAUSE_MIN);
    let deadline = clock.steady() + patience;
    loop {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if clock.steady() >= deadline {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("loopback has free ports").port()
}

/// `tidegate simulate`.
pub struct Provider {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub base_url: String,
}

impl Provider {
    /// Starts it with these flags; it logs its arrivals to `log`.
    pub async fn start(flags: &[&str], log: &Path) -> Provider {
        let mut command = Command::new(TIDEGATE);
        command.args(["simulate", "--listen", "127.0.0.1:0", "-o", "jsonl", "--log"]).arg(log).args(flags);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().expect("the binary was built");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut base_url = String::new();
        stdout.read_line(&mut base_url).await.unwrap();
        assert!(base_url.starts_with("http://"), "expected the base URL as first line, got {base_url:?}");
        Provider { child, stdout, base_url: base_url.trim().to_owned() }
    }

    pub fn port(&self) -> u16 {
        self.base_url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("the base URL has a port")
    }

    /// Ends it politely: the log is whole, and its own report comes back.
    pub async fn stop(mut self) -> tidegate::simulator::Report {
        signal(&self.child, "TERM").await;
        let mut report = String::new();
        self.stdout.read_to_string(&mut report).await.unwrap();
        self.child.wait().await.unwrap();
        serde_json::from_str(&report).unwrap_or_else(|e| panic!("expected a report, got {report:?}: {e}"))
    }
}

async fn signal(child: &Child, name: &str) {
    if let Some(pid) = child.id() {
        Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().await.expect("kill is there");
    }
}

/// `tidegate serve` on one configuration file.
pub struct Daemon {
    child: Child,
    channel: Channel,
    /// From the start of the process to its first answer.
    pub ready_after: Duration,
}

/// Where and how a daemon runs; it may be started many times.
#[derive(Clone, Debug)]
pub struct Place {
    pub folder: PathBuf,
    pub config: PathBuf,
    pub port: u16,
    /// Environment of the daemon, beside our own.
    pub env: Vec<(String, String)>,
}

impl Place {
    /// Writes the configuration: a store in `data`, a free loopback port, and the provider's declaration.
    pub fn new(folder: &Path, data: &Path, provider: &str) -> Place {
        let (config, port) = (folder.join("tidegate.toml"), free_port());
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\nsocket = \"none\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
             [store]\npath = {:?}\n\n{provider}",
            data.join("tidegate.db")
        );
        std::fs::write(&config, text).unwrap();
        Place { folder: folder.to_owned(), config, port, env: Vec::new() }
    }

    /// One of many: a database and a Redis that others use too. Each has a folder of its own.
    pub fn shared(folder: &Path, name: &str, database: &str, redis: &str, provider: &str) -> Place {
        let (config, port) = (folder.join("tidegate.toml"), free_port());
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\nsocket = \"none\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
             [store]\nkind = \"postgres\"\nurl = \"{database}\"\n\n[limiter]\nkind = \"redis\"\nurl = \"{redis}\"\n\n\
             [cluster]\nname = \"{name}\"\n\n{provider}"
        );
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(&config, text).unwrap();
        Place { folder: folder.to_owned(), config, port, env: Vec::new() }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    /// Starts a daemon and waits for its first answer.
    pub async fn start(&self) -> Daemon {
        let clock = Clock::system();
        let began_at = clock.steady();
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(TIDEGATE);
        command.args(["serve", "--config"]).arg(&self.config).kill_on_drop(true);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().expect("the binary was built");
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap();
        let endpoint = endpoint.connect_timeout(Duration::from_secs(1));
        let exited = std::cell::Cell::new(None);
        let child_ref = std::cell::RefCell::new(&mut child);
        let channel = until(START_MAX, || async {
            if let Ok(Some(status)) = child_ref.borrow_mut().try_wait() {
                exited.set(Some(status));
                return Some(None);
            }
            let channel = endpoint.connect().await.ok()?;
            AdminServiceClient::new(channel.clone()).get_daemon(pb::GetDaemonRequest {}).await.ok()?;
            Some(Some(channel))
        })
        .await
        .flatten();
        let Some(channel) = channel else {
            panic!("the daemon does not answer ({:?}):\n{}", exited.get(), self.log_tail());
        };
        Daemon { child, channel, ready_after: clock.steady().since(began_at) }
    }

    /// The last lines that the daemon wrote.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Daemon {
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Memory that it holds now.
    pub fn resident_bytes(&self) -> u64 {
        let status = self.child.id().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().map_or(0, |kib: u64| kib << 10)
    }

    /// SIGKILL. Returns a time just before it.
    pub async fn kill(mut self, clock: &Clock) -> Timestamp {
        let at = clock.steady();
        self.child.kill().await.expect("the daemon was running");
        at
    }

    /// SIGSTOP: the process stands still, and the world goes on.
    pub async fn freeze(&self) {
        signal(&self.child, "STOP").await;
    }

    /// SIGCONT.
    pub async fn thaw(&self) {
        signal(&self.child, "CONT").await;
    }

    /// SIGTERM and the end of the process; true when it said that all went well.
    pub async fn stop(mut self) -> bool {
        signal(&self.child, "TERM").await;
        self.child.wait().await.is_ok_and(|status| status.success())
    }

    /// Waits until nothing waits and nothing is on the wire; what is left when patience is over.
    pub async fn drained(&self, provider: &str, patience: Duration) -> Result<pb::JobCounts, Option<pb::JobCounts>> {
        let left = std::cell::RefCell::new(None);
        let counts = until(patience, || async {
            let counts = self.counts(provider).await?;
            *left.borrow_mut() = Some(counts);
            (counts.waiting == 0 && counts.calling == 0).then_some(counts)
        })
        .await;
        counts.ok_or_else(|| left.into_inner())
    }

    pub async fn counts(&self, provider: &str) -> Option<pb::JobCounts> {
        let request = pb::GetProviderStatusRequest { name: provider.to_owned() };
        let mut client = ProviderServiceClient::new(self.channel());
        client.get_provider_status(request).await.ok()?.into_inner().status?.counts
    }

    /// Every job that the daemon has.
    pub async fn all_jobs(&self) -> Vec<pb::Job> {
        let mut client = JobServiceClient::new(self.channel()).max_decoding_message_size(64 << 20);
        let (mut jobs, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = pb::ListJobsRequest { page_size: 1_000, page_token, ..pb::ListJobsRequest::default() };
            let page = client.list_jobs(request).await.unwrap().into_inner();
            jobs.extend(page.jobs);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return jobs;
            }
        }
    }
}
