//! A daemon process of its own for a measurement: started on a temporary folder, watched, ended.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tonic::transport::Channel;

use super::super::exit::Error;
use super::servers::Servers;
use crate::clock::Clock;
use crate::grpc::pb::job_service_client::JobServiceClient;
use crate::grpc::pb::provider_service_client::ProviderServiceClient;
use crate::grpc::pb::{GetProviderStatusRequest, ProviderStatus};

/// A start or an end that takes longer is a failure.
const START_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub struct Daemon {
    child: Child,
    pub channel: Channel,
    port: u16,
    /// Removed when the measurement is over.
    _folder: tempfile::TempDir,
    pub clock: Clock,
}

pub type Jobs = JobServiceClient<Channel>;

impl Daemon {
    /// Starts a daemon on SQLite with these provider declarations (TOML) and waits until it answers.
    pub async fn start(providers: &str) -> Result<Daemon, Error> {
        Daemon::start_on(None, providers).await
    }

    /// The same on servers that may be shared, or on SQLite without any. Collections may be declared too.
    pub async fn start_on(servers: Option<&Servers>, declared: &str) -> Result<Daemon, Error> {
        let folder = tempfile::tempdir().map_err(|e| Error::failed(format!("no temporary folder: {e}")))?;
        let failed = |e: std::io::Error| Error::failed(format!("cannot start a daemon: {e}"));
        let path = |name: &str| folder.path().join(name);
        let port = free_port().map_err(failed)?;
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\nsocket = {:?}\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n{}\n\n[log]\nlevel = \"warn\"\n\n{declared}",
            path("tidegate.sock"),
            match servers {
                None => format!("[store]\npath = {:?}", path("tidegate.db")),
                Some(servers) => servers.config(),
            },
        );
        std::fs::write(path("tidegate.toml"), config).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(path("tidegate.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let clock = Clock::system();
        let deadline = clock.steady() + START_MAX;
        let channel = loop {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Error::failed(format!("the daemon ended at once: {status}")));
            }
            let endpoint = Channel::from_shared(format!("http://127.0.0.1:{port}")).expect("a valid URL");
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(e) if clock.steady() > deadline => return Err(Error::failed(format!("no daemon: {e}"))),
                Err(_) => clock.sleep_until(clock.steady() + LOOK_AGAIN).await,
            }
        };
        Ok(Daemon { child, channel, port, _folder: folder, clock })
    }

    pub fn jobs(&self) -> Jobs {
        Jobs::new(self.channel.clone()).max_decoding_message_size(16 << 20)
    }

    /// A connection of its own.
    pub async fn another_channel(&self) -> Result<Channel, Error> {
        let endpoint = Channel::from_shared(format!("http://127.0.0.1:{}", self.port)).expect("a valid URL");
        endpoint.connect().await.map_err(|e| Error::failed(format!("no daemon: {e}")))
    }

    pub async fn status(&self, provider: &str) -> Result<ProviderStatus, Error> {
        let mut client = ProviderServiceClient::new(self.channel.clone());
        let request = GetProviderStatusRequest { name: provider.to_owned() };
        let answer = client.get_provider_status(request).await.map_err(Error::from)?;
        answer.into_inner().status.ok_or_else(|| Error::failed("a status without a status"))
    }

    /// Resident memory, MB.
    pub fn memory_mb(&self) -> f64 {
        let text = self.proc_file("status");
        let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1_024.0
    }

    /// CPU time used so far, user and system.
    pub fn cpu(&self) -> Duration {
        let text = self.proc_file("stat");
        // Fields 14 and 15, counted behind the closing parenthesis of the name; in ticks of 10 ms on Linux.
        let behind = text.rsplit(')').next().unwrap_or_default().to_owned();
        let ticks: u64 = behind.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    fn proc_file(&self, name: &str) -> String {
        let pid = self.child.id().unwrap_or_default();
        std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default()
    }

    pub async fn stop(mut self) {
        // A measurement is over: nothing in it is worth a drain.
        let _ = self.child.kill().await;
    }
}

pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A provider without limits, for `jobs` on either lane.
pub fn unlimited(base_url: &str) -> String {
    format!(
        r#"[providers.bench]
base_url = "{base_url}"
allow_private = true
in_flight_max = 64

[providers.bench.operations.post]
request = "POST /post"
body = "{{payload}}"
repeat = "always"

[providers.bench.operations.coalesce]
request = "PUT /put/{{key}}"
body = "{{payload}}"
coalesce = "replace"

[providers.bench.operations.many]
repeat = "always"

[providers.bench.operations.many.batch]
request = "POST /batch"
body = {{ records = "{{payloads}}" }}
size = 1000
"#
    )
}

/// The same operations, every call paid for at limits that are counted and never bind.
pub fn metered(base_url: &str) -> String {
    metered_with(base_url, 64)
}

/// With room for so many calls on the wire.
pub fn metered_with(base_url: &str, in_flight_max: u32) -> String {
    let limits = "limits = [\"100000000/h\"]\n";
    unlimited(base_url).replace("in_flight_max = 64\n", &format!("in_flight_max = {in_flight_max}\n{limits}"))
}

/// One call an hour for each account.
pub fn rare(base_url: &str) -> String {
    let limits = "limits = [{ name = \"own\", max = 1, per = \"1h\", scope = \"account\" }]";
    let operation = "request = \"POST /post\"\nbody = \"{payload}\"\nrepeat = \"always\"";
    format!("{}\n[providers.bench.operations.rare]\n{operation}\n{limits}\n", unlimited(base_url))
}

/// A payload of 200 bytes.
pub fn payload(n: u64) -> String {
    let head = format!(r#"{{"id":"{n:012}","text":""#);
    let fill = 200usize.saturating_sub(head.len() + 2);
    format!("{head}{}\"}}", "x".repeat(fill))
}
