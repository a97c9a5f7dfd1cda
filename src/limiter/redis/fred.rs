//! [`Link`] by the crate `fred`. It never sends a command twice and never keeps one for a better day: whoever asked hears
//! at once, or after the timeout, that the answer is lost. Must never know: limits. Next: `link.rs`.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::prelude::*;

use fred::types::config::{Server, UnresponsiveConfig};
use fred::types::{ClusterHash, ClusterStateChange, CustomCommand};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{broadcast, watch};

use super::link::{Link, LinkError, Script};

/// Commands that wait to be written, at most.
const QUEUE_MAX: usize = 10_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 2_000;
const SCHEMES: [&str; 4] = ["redis", "rediss", "redis-cluster", "rediss-cluster"];

pub struct FredLink {
    client: Client,
    options: Options,
    news: Mutex<News>,
    /// Wakes who waits for news.
    stir: watch::Sender<()>,
    /// Why the latest attempt to connect failed; `None` while connected.
    trouble: Arc<Mutex<Option<String>>>,
}

/// What fred tells of its connections. It tells before it sends the first command over a new one, so whoever has an
/// answer and finds no news here knows which connection it came over.
struct News {
    made: u64,
    connections: broadcast::Receiver<Server>,
    topology: broadcast::Receiver<Vec<ClusterStateChange>>,
}

impl News {
    fn read(&mut self) -> u64 {
        let is_news =
            |heard: Result<(), TryRecvError>| !matches!(heard, Err(TryRecvError::Empty | TryRecvError::Closed));
        // One that came too often to be kept counts too.
        while is_news(self.connections.try_recv().map(drop)) || is_news(self.topology.try_recv().map(drop)) {
            self.made += 1;
        }
        self.made
    }
}

impl std::fmt::Debug for FredLink {
    /// Without the address, which may carry a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FredLink").field("up", &self.is_up()).finish_non_exhaustive()
    }
}

impl FredLink {
    /// `redis://[[user]:password@]host:port[/db]`, or `redis-cluster://...` with any node of a cluster; `rediss` in place of
    /// `redis` for TLS. Connects in the background, for ever. `ca_file`: see [`super::Settings`]. Call inside a runtime.
    pub fn connect(url: &str, timeout: Duration, ca_file: Option<&Path>) -> Result<FredLink, LinkError> {
        let config = config(url, ca_file)?;
        let client = Builder::from_config(Config { fail_fast: false, ..config })
            .with_connection_config(|c| {
                c.connection_timeout = CONNECT_TIMEOUT;
                c.internal_command_timeout = CONNECT_TIMEOUT;
                c.max_command_attempts = 1;
                c.max_command_buffer_len = QUEUE_MAX;
                c.tcp.nodelay = Some(true);
                // A server that answers nothing for this long is left, and with it what was sent to it.
                c.unresponsive = UnresponsiveConfig { max_timeout: Some(timeout * 2), interval: timeout / 2 };
            })
            .with_performance_config(|p| p.default_command_timeout = timeout)
            .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MIN_MS, RECONNECT_MAX_MS, 2))
            .build()
            .map_err(|e| LinkError::NotSent(e.to_string()))?;
        let (connections, topology) = (client.reconnect_rx(), client.cluster_change_rx());
        let news = Mutex::new(News { made: 0, connections, topology });
        let stir = watch::Sender::new(());
        let (one, other) = (stir.clone(), stir.clone());
        let trouble = Arc::new(Mutex::new(None));
        let (worse, better) = (trouble.clone(), trouble.clone());
        client.on_error(move |(error, _)| {
            *worse.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            async { Ok(()) }
        });
        client.on_reconnect(move |_| {
            *better.lock().unwrap_or_else(PoisonError::into_inner) = None;
            one.send_replace(());
            async { Ok(()) }
        });
        client.on_cluster_change(move |_| {
            other.send_replace(());
            async { Ok(()) }
        });
        client.connect();
        let options = Options { max_attempts: Some(1), timeout: Some(timeout), fail_fast: true, ..Options::default() };
        Ok(FredLink { client, options, news, stir, trouble })
    }

    fn ready(&self) -> Result<(), LinkError> {
        if self.client.is_connected() {
            return Ok(());
        }
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let why = trouble.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        Err(LinkError::NotSent(format!("not connected{why}")))
    }

    /// The same command to every server that holds keys.
    async fn everywhere(&self, command: CustomCommand, args: &[&str]) -> Result<Vec<Value>, LinkError> {
        self.ready()?;
        let mut servers = self.client.active_connections();
        servers.sort();
        let mut answers = Vec::with_capacity(servers.len());
        for server in servers {
            let options = Options { cluster_node: Some(server), ..self.options.clone() };
            let args: Vec<Value> = args.iter().map(|a| Value::from(*a)).collect();
            let client = if self.client.is_clustered() { &options } else { &self.options };
            answers.push(self.client.with_options(client).custom(command.clone(), args).await.map_err(error)?);
        }
        Ok(answers)
    }
}

fn config(url: &str, ca_file: Option<&Path>) -> Result<Config, LinkError> {
    let unfit = |said: String| LinkError::NotSent(format!("the Redis address: {said}"));
    // What the driver does not know it takes for plain text; the address may be a secret, so nobody has looked at it yet.
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if !SCHEMES.contains(&scheme) {
        return Err(unfit(format!("expected one that begins with {}://, got {scheme:?}", SCHEMES.join("://, "))));
    }
    let mut config = Config::from_url(url).map_err(|e| unfit(e.to_string()))?;
    if let Some(file) = ca_file {
        let Some(tls) = &mut config.tls else {
            let said = format!("expected rediss:// with limiter.ca_file = {file:?}, got {scheme}://, which has no TLS");
            return Err(unfit(said));
        };
        let mut roots = RootCertStore::empty();
        for authority in authorities(file)? {
            let unfit = |e| LinkError::NotSent(format!("limiter.ca_file {}: not an authority: {e}", file.display()));
            roots.add(authority).map_err(unfit)?;
        }
        tls.connector = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth().into();
    }
    Ok(config)
}

/// The certificates of a PEM file, of which there is at least one.
fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let unread = |e| LinkError::NotSent(format!("limiter.ca_file {} cannot be read: {e}", file.display()));
    let found: Vec<_> =
        CertificateDer::pem_file_iter(file).map_err(unread)?.collect::<Result<_, _>>().map_err(unread)?;
    if found.is_empty() {
        let said = format!("expected certificates in PEM in limiter.ca_file {}, found none", file.display());
        return Err(LinkError::NotSent(said));
    }
    Ok(found)
}

impl Drop for FredLink {
    fn drop(&mut self) {
        // Ends fred's own tasks; nothing waits for it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let client = self.client.clone();
            drop(runtime.spawn(async move { client.quit().await }));
        }
    }
}

fn error(e: Error) -> LinkError {
    let text = e.details();
    if text.starts_with("NOSCRIPT") {
        return LinkError::NoScript;
    }
    match e.kind() {
        ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Unknown if !is_reply(text) => {
            LinkError::Lost(e.to_string())
        }
        ErrorKind::Backpressure => LinkError::NotSent("the queue is full".to_owned()),
        _ => LinkError::Refused(e.to_string()),
    }
}

/// Error replies begin with a word in capitals, as `READONLY`, `OOM`, `MISCONF`.
fn is_reply(text: &str) -> bool {
    let word = text.split(' ').next().unwrap_or_default();
    word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase())
}

#[async_trait]
impl Link for FredLink {
    async fn run(&self, script: &Script, load: bool, keys: &[Bytes], args: Vec<Bytes>) -> Result<Bytes, LinkError> {
        self.ready()?;
        let client = self.client.with_options(&self.options);
        let keys: Vec<Key> = keys.iter().map(|k| Key::from(k.clone())).collect();
        let args: Vec<Value> = args.into_iter().map(Value::Bytes).collect();
        let answer: Result<Value, Error> = match script.hash.get() {
            Some(hash) if !load => client.evalsha(hash.clone(), keys, args).await,
            _ => {
                if script.hash.get().is_none() {
                    // The hash is the same on every server.
                    let hash: String = client.script_load(script.text).await.map_err(error)?;
                    let _ = script.hash.set(hash);
                }
                client.eval(script.text, keys, args).await
            }
        };
        match answer.map_err(error)? {
            Value::Bytes(bytes) => Ok(bytes),
            Value::String(text) => Ok(text.into_inner()),
            other => Err(LinkError::Refused(format!("expected a byte string, got {:?}", other.kind()))),
        }
    }

    async fn info(&self, section: &str) -> Result<Vec<String>, LinkError> {
        let command = CustomCommand::new_static("INFO", ClusterHash::FirstKey, false);
        let answers = self.everywhere(command, &[section]).await?;
        Ok(answers.into_iter().map(|v| v.into_string().unwrap_or_default()).collect())
    }

    async fn setting(&self, name: &str) -> Result<Vec<Option<String>>, LinkError> {
        let command = CustomCommand::new_static("CONFIG", ClusterHash::FirstKey, false);
        match self.everywhere(command, &["GET", name]).await {
            Ok(answers) => Ok(answers.into_iter().map(second).collect()),
            // Hosted servers forbid CONFIG.
            Err(LinkError::Refused(_)) => Ok(vec![None]),
            Err(e) => Err(e),
        }
    }

    fn generation(&self) -> u64 {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).read()
    }

    async fn changed(&self, generation: u64) -> u64 {
        let mut stir = self.stir.subscribe();
        loop {
            let now = self.generation();
            if now != generation {
                return now;
            }
            // The sender lives as long as self.
            let _ = stir.changed().await;
        }
    }

    fn is_up(&self) -> bool {
        self.client.is_connected()
    }
}

/// `CONFIG GET` answers with name and value: as a map or as a list.
fn second(answer: Value) -> Option<String> {
    match answer {
        Value::Array(pair) => pair.into_iter().nth(1).and_then(|v| v.into_string()),
        Value::Map(map) => map.inner().into_values().next().and_then(|v| v.into_string()),
        _ => None,
    }
}
