//! The settings of the daemon itself. Every key has its default in `default.toml`, so every key is there.
//!
//! Must never know: files, layers, providers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problem::Problem;
use super::reader::{Reader, Unfit};
use super::rules;
use super::tree::{Node, Value};
use super::values::{self, expected};
use super::{Address, Cluster, Engine, Http, Limiter, Log, LogFormat, Retention, Secrets, Server, Store, Telemetry};

const SECOND: Duration = Duration::from_secs(1);

/// One section being read; `None` when anything in it is wrong, which is then noted.
fn section<'a, T>(reader: &Reader<'a>, key: &'static str, read: impl FnOnce(&Reader<'a>) -> Option<T>) -> Option<T> {
    let section = Reader::of(reader.found, reader.need(key, "see default.toml", Ok)?)?;
    let value = read(&section);
    section.finish();
    value
}

pub fn server(reader: &Reader<'_>, env: &BTreeMap<String, String>) -> Option<Server> {
    section(reader, "server", |r| {
        let listen = r.get("listen", listen);
        let socket = r.get("socket", |n| Ok(socket(values::text(n)?, env)));
        let payload = r.get("payload_bytes_max", values::size(1_024..=3 << 20));
        let connections = r.get("connections_max", values::whole(1..=65_536));
        let streams = r.get("streams_max", values::whole(1..=4_096));
        Some(Server {
            listen: listen?,
            socket: socket?,
            payload_bytes_max: payload?,
            connections_max: connections?,
            streams_max: streams?,
        })
    })
}

pub fn http(reader: &Reader<'_>) -> Option<Http> {
    section(reader, "http", |r| Some(Http { listen: r.get("listen", listen)? }))
}

pub fn store(reader: &Reader<'_>, env: &BTreeMap<String, String>) -> Option<Store> {
    section(reader, "store", |r| {
        let kind = r.get("kind", values::choice(&[("sqlite", false), ("postgres", true)]));
        let path = r.get("path", values::text);
        let url = r.node("url").map(|node| address(r, node, &["postgres", "postgresql"]));
        let connections = r.get("connections_max", values::whole(2..=1_000));
        if !kind? {
            unused(r, "url", "store.kind is \"sqlite\", which has no address", "set store.kind = \"postgres\"")?;
            let path = path?;
            let path = if path.is_empty() { state(env).join("tidegate.db") } else { PathBuf::from(path) };
            return Some(Store::File(path));
        }
        Some(Store::Postgres { url: named(r, "store", url??)?, connections_max: connections? })
    })
}

pub fn limiter(reader: &Reader<'_>) -> Option<Limiter> {
    section(reader, "limiter", |r| {
        let kind = r.get("kind", values::choice(&[("local", false), ("redis", true)]));
        let schemes = ["redis", "rediss", "redis-cluster", "rediss-cluster"];
        let url = r.node("url").map(|node| address(r, node, &schemes));
        let ca_file = r.get("ca_file", values::text);
        if !kind? {
            unused(r, "url", "limiter.kind is \"local\", which has no address", "set limiter.kind = \"redis\"")?;
            unused(r, "ca_file", "limiter.kind is \"local\", which has no TLS", "set limiter.kind = \"redis\"")?;
            return Some(Limiter::Local);
        }
        let url = named(r, "limiter", url??)?;
        if matches!(&url, Address::Plain(url) if !url.starts_with("rediss")) {
            unused(r, "ca_file", "limiter.url has no TLS", "begin it with rediss://")?;
        }
        let ca_file = Some(ca_file?).filter(|file| !file.is_empty()).map(PathBuf::from);
        Some(Limiter::Redis { url, ca_file })
    })
}

/// Daemons that share jobs must share counts, and counts that are shared are rebuilt from a journal that is shared.
pub fn fits(reader: &Reader<'_>, store: &Store, limiter: &Limiter) -> Option<()> {
    let (said, help) = match (store, limiter) {
        (Store::File(_), Limiter::Local) | (Store::Postgres { .. }, Limiter::Redis { .. }) => return Some(()),
        (Store::Postgres { .. }, Limiter::Local) => (
            "expected limiter.kind = \"redis\" with store.kind = \"postgres\", got \"local\": two daemons would each use \
             the whole of every limit",
            "set limiter.kind and limiter.url, or store.kind = \"sqlite\"",
        ),
        (Store::File(_), Limiter::Redis { .. }) => (
            "expected store.kind = \"postgres\" with limiter.kind = \"redis\", got \"sqlite\": the counts of many daemons \
             cannot be rebuilt from the journal of one",
            "set store.kind and store.url, or limiter.kind = \"local\"",
        ),
    };
    let at = reader.node("limiter").map_or(reader.at, |node| &node.at);
    reader.found.add(Problem::new(said).at(at).help(help));
    None
}

pub fn cluster(reader: &Reader<'_>) -> Option<Cluster> {
    section(reader, "cluster", |r| {
        let name = r.get("name", |n| match values::text(n)? {
            "" => Ok(host_name()),
            text if text.len() <= 64 && text.chars().all(|c| c.is_ascii_graphic()) => Ok(text.to_owned()),
            _ => Err(expected("at most 64 letters, digits and signs", n)),
        });
        Some(Cluster { name: name? })
    })
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A URL in plain text, or where the secret is that holds it. Inner `None`: an empty text.
fn address(reader: &Reader<'_>, node: &Node, schemes: &[&str]) -> Option<Option<Address>> {
    if let Value::Table(_) = &node.value {
        return rules::secret(reader.found, node).map(|secret| Some(Address::Secret(secret)));
    }
    let read = values::text(node).and_then(|text| {
        if text.is_empty() {
            return Ok(None);
        }
        let like = format!("{}://host:port/name", schemes[0]);
        let url = url::Url::parse(text).ok().filter(|url| schemes.contains(&url.scheme()));
        // The text is not shown: there may be a password in it.
        let url = url.ok_or_else(|| Problem::new(format!("expected a URL like {like}")))?;
        if url.password().is_some() {
            let said = "a password must not stand in a configuration";
            return Err(Problem::new(said).help(rules::HOW.replace("the secret", "the whole URL")));
        }
        Ok(Some(Address::Plain(text.to_owned())))
    });
    reader.note(&node.at, read)
}

/// A key that is set and would be ignored is a mistake somewhere: `None`, and noted.
fn unused(reader: &Reader<'_>, key: &'static str, why: &str, help: &str) -> Option<()> {
    let node = reader.node(key)?;
    if matches!(&node.value, Value::Text(text) if text.is_empty()) {
        return Some(());
    }
    reader.found.add(Problem::new(format!("expected no {key} here: {why}")).at(&node.at).help(help));
    None
}

/// The address that this kind cannot do without.
fn named(reader: &Reader<'_>, section: &str, url: Option<Address>) -> Option<Address> {
    if url.is_none() {
        let said = format!("expected {section}.url, the address of the server, got \"\"");
        reader.found.add(Problem::new(said).at(reader.at).help(rules::HOW.replace("the secret", "the URL")));
    }
    url
}

pub fn engine(reader: &Reader<'_>) -> Option<Engine> {
    section(reader, "engine", |r| {
        let grace = r.get("grace", values::time(Duration::ZERO..=600 * SECOND));
        Some(Engine { grace: grace? })
    })
}

pub fn retention(reader: &Reader<'_>) -> Option<Retention> {
    section(reader, "retention", |r| {
        let kept = || values::time(60 * SECOND..=values::TIME_MAX);
        let (finished, dead) = (r.get("finished", kept()), r.get("dead", kept()));
        let (events, calls) = (r.get("events", kept()), r.get("calls", kept()));
        Some(Retention { finished: finished?, dead: dead?, events: events?, calls: calls? })
    })
}

pub fn log(reader: &Reader<'_>) -> Option<Log> {
    section(reader, "log", |r| {
        let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = r.get("format", values::choice(&formats));
        let level = r.get("level", |n| {
            let text = values::filled(n)?;
            match text.parse::<tracing_subscriber::filter::Targets>() {
                Ok(_) => Ok(text.to_owned()),
                Err(_) => Err(expected("a level like \"info\" or \"info,tidegate=debug\"", n)),
            }
        });
        Some(Log { format: format?, level: level? })
    })
}

pub fn telemetry(reader: &Reader<'_>) -> Option<Telemetry> {
    section(reader, "telemetry", |r| {
        let otlp = r.get("otlp", |n| match values::text(n)? {
            "" => Ok(None),
            text => match url::Url::parse(text) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
                _ => Err(expected("a URL like \"http://127.0.0.1:4317\", or \"\" for none", n)),
            },
        });
        Some(Telemetry { otlp: otlp? })
    })
}

pub fn secrets(reader: &Reader<'_>) -> Option<Secrets> {
    section(reader, "secrets", |r| {
        let node = r.node("key")?;
        match &node.value {
            Value::Table(_) => Some(Secrets { key: Some(rules::secret(r.found, node)?) }),
            Value::Text(text) if text.is_empty() => Some(Secrets { key: None }),
            other => {
                // The value is not shown: it may be the key itself.
                let said = format!("expected a reference to a secret, got {}", other.kind());
                r.found.add(Problem::new(said).at(&node.at).help(rules::HOW));
                None
            }
        }
    })
}

/// An address with port. Port 0 takes a free one.
fn listen(node: &Node) -> Result<SocketAddr, Unfit> {
    let text = values::text(node)?;
    let address: SocketAddr = text.parse().map_err(|_| {
        let unfit = expected("an address with port like \"127.0.0.1:7070\" or \"[::1]:7070\"", node);
        match text.strip_prefix("localhost:").or(text.strip_prefix(':')) {
            Some(port) => unfit.help(format!("did you mean \"127.0.0.1:{port}\"?")),
            None => unfit,
        }
    })?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    let said = format!("{address} can be reached from other machines, and there is no TLS and no authentication yet");
    Err(Problem::new(said).at(&node.at).help("listen on 127.0.0.1 or [::1]; other machines come in through a tunnel"))
}

fn socket(text: &str, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    match text {
        "none" => None,
        "" => {
            let folder = env.get("RUNTIME_DIRECTORY").map(|d| first(d)).or(env.get("XDG_RUNTIME_DIR").map(Path::new));
            folder.map(|folder| folder.join("tidegate.sock"))
        }
        path => Some(PathBuf::from(path)),
    }
}

/// systemd may name several folders, with colons between.
fn first(folders: &str) -> &Path {
    Path::new(folders.split(':').next().unwrap_or(folders))
}

fn state(env: &BTreeMap<String, String>) -> PathBuf {
    env.get("STATE_DIRECTORY").map_or_else(|| PathBuf::from("."), |folders| first(folders).to_owned())
}
