//! The checks themselves. Each answers with one finding and changes nothing that stays.
//!
//! Must never know: how findings are shown.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;

use super::{Finding, Level, shared};
use crate::cli::connect::Daemon;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config, LoadOptions, load};
use crate::grpc::pb;
use crate::store::Store;
use crate::store::sqlite::{SqliteOptions, SqliteStore};

/// Flushes that are timed: enough for a median.
const FLUSHES: usize = 21;
/// No disk flushes faster than this; what does keeps its data in memory.
const FLUSH_TOO_FAST: Duration = Duration::from_micros(15);
/// A group commit costs one flush, so a slow one bounds the answers.
const FLUSH_SLOW: Duration = Duration::from_millis(20);
const FREE_BYTES_LOW: u64 = 1 << 30;
/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of linux/magic.h.
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// Files that the daemon holds beside connections and calls: database, log, listeners, runtime.
const FILES_BESIDE: u64 = 128;
/// A clock before this date was never set (the day this check was written).
const CLOCK_FLOOR: Timestamp = Timestamp(1_795_000_000_000_000);

/// Every secret that a provider names can be read.
pub fn credentials(options: &LoadOptions) -> Finding {
    match load(options) {
        Ok(_) => Finding::new("credentials", Level::Ok, "every secret that a provider names can be read"),
        Err(problems) => {
            let all: Vec<String> = problems.iter().map(|p| p.message.clone()).collect();
            Finding::new("credentials", Level::Fail, all.join("; "))
        }
    }
}

/// The daemon at the address, when there is one.
pub async fn daemon(addr: Option<&str>) -> Option<pb::Daemon> {
    let daemon = Daemon::connect(addr).await.ok()?;
    daemon.admin().get_daemon(pb::GetDaemonRequest {}).await.ok()?.into_inner().daemon
}

/// Where jobs are kept and permits counted keeps what it was told to keep.
pub async fn base(config: &Config, daemon: Option<&pb::Daemon>) -> Vec<Finding> {
    match &config.store {
        config::Store::File(path) => file(path, daemon).await,
        config::Store::Postgres { url, .. } => {
            let mut findings = vec![shared::postgres(url).await];
            if let config::Limiter::Redis { url, ca_file } = &config.limiter {
                findings.extend(shared::redis(url, ca_file.as_ref()).await);
            }
            findings
        }
    }
}

/// A file's disk: settings read back, flushes timed, space left.
async fn file(path: &Path, daemon: Option<&pb::Daemon>) -> Vec<Finding> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(e) = std::fs::create_dir_all(folder) {
        return vec![Finding::new("store", Level::Fail, format!("{} cannot be made: {e}", folder.display()))];
    }
    vec![durability(folder, daemon).await, flush(folder), space(folder)]
}

/// What the database says about itself: the daemon's own, or a trial one in the same folder.
async fn durability(folder: &Path, daemon: Option<&pb::Daemon>) -> Finding {
    if let Some(store) = daemon.and_then(|d| d.store.as_ref()) {
        return Finding::new(
            "store",
            Level::Ok,
            format!("{}, read back by the daemon: {}", store.kind, store.durability),
        );
    }
    let trial = match tempfile::Builder::new().prefix(".tidegate-doctor").tempdir_in(folder) {
        Ok(trial) => trial,
        Err(e) => return Finding::new("store", Level::Fail, format!("{} cannot be written: {e}", folder.display())),
    };
    match SqliteStore::open(SqliteOptions::new(trial.path().join("trial.db"))).await {
        Ok(store) => {
            let found = match store.info().await {
                Ok(info) => Finding::new("store", Level::Ok, format!("{}, read back: {}", info.kind, info.durability)),
                Err(e) => Finding::new("store", Level::Fail, e.to_string()),
            };
            store.close().await;
            found
        }
        Err(e) => Finding::new("store", Level::Fail, e.to_string()),
    }
}

fn flush(folder: &Path) -> Finding {
    let failed = |e: std::io::Error| Finding::new("flush", Level::Fail, format!("{}: {e}", folder.display()));
    let in_memory = rustix::fs::statfs(folder).is_ok_and(|fs| MEMORY_FILE_SYSTEMS.contains(&(fs.f_type as u64)));
    if in_memory {
        return Finding::new(
            "flush",
            Level::Warn,
            format!("{} is in memory: nothing survives a reboot", folder.display()),
        );
    }
    let clock = Clock::system();
    let mut times = Vec::with_capacity(FLUSHES);
    let mut file = match tempfile::tempfile_in(folder) {
        Ok(file) => file,
        Err(e) => return failed(e),
    };
    for _ in 0..FLUSHES {
        let start = clock.steady();
        if let Err(e) = file.write_all(&[0u8; 4_096]).and_then(|()| file.sync_data()) {
            return failed(e);
        }
        times.push(clock.steady().since(start));
    }
    times.sort();
    let median = times[FLUSHES / 2];
    let took = format!("a flush takes {:.2} ms", median.as_secs_f64() * 1e3);
    match median {
        m if m < FLUSH_TOO_FAST => {
            let found = format!("{took}: faster than any disk, so a power cut may lose what was flushed");
            Finding::new("flush", Level::Warn, found)
        }
        m if m > FLUSH_SLOW => Finding::new("flush", Level::Warn, format!("{took}: every answer waits for one")),
        _ => Finding::new("flush", Level::Ok, took),
    }
}

fn space(folder: &Path) -> Finding {
    match rustix::fs::statvfs(folder) {
        Ok(fs) => {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            let level = if free < FREE_BYTES_LOW { Level::Warn } else { Level::Ok };
            Finding::new(
                "space",
                level,
                format!("{:.1} GiB free in {}", free as f64 / f64::from(1 << 30), folder.display()),
            )
        }
        Err(e) => Finding::new("space", Level::Warn, format!("{}: {e}", folder.display())),
    }
}

/// Each connection and each call holds a file.
pub fn file_limit(config: &Config) -> Finding {
    let calls: u64 = config.providers.iter().map(|d| u64::from(d.provider.in_flight_max)).sum();
    let wanted = u64::from(config.server.connections_max) + calls + FILES_BESIDE;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < wanted => {
            let found =
                format!("{limit} files may be open, but connections and calls may need {wanted}; raise LimitNOFILE");
            Finding::new("files", Level::Warn, found)
        }
        Some(limit) => Finding::new("files", Level::Ok, format!("{limit} may be open, at most {wanted} are needed")),
        None => Finding::new("files", Level::Ok, "any number may be open"),
    }
}

/// Limits live on a line that nobody can set; schedules, records and `Retry-After` dates live on the wall clock.
pub fn clock() -> Finding {
    let now = Clock::system().now();
    let kept =
        ["/run/systemd/timesync/synchronized", "/run/chrony/chronyd.pid", "/run/chrony/chronyd.sock", "/run/ntpd.pid"];
    if now < CLOCK_FLOOR {
        return Finding::new("clock", Level::Fail, format!("it is not {now}: set the clock"));
    }
    match kept.iter().any(|path| Path::new(path).exists()) {
        true => Finding::new("clock", Level::Ok, format!("{now}, kept by a time service")),
        false => Finding::new("clock", Level::Warn, format!("{now}; no time service was found that keeps it")),
    }
}

/// The addresses are free, or a daemon of ours is behind them.
pub async fn addresses(config: &Config, running: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for (check, addr) in [("server.listen", config.server.listen), ("http.listen", config.http.listen)] {
        found.push(address(check, addr, running).await);
    }
    found
}

async fn address(check: &'static str, addr: SocketAddr, running: bool) -> Finding {
    match TcpListener::bind(addr).await {
        Ok(_) => Finding::new(check, Level::Ok, format!("{addr} is free")),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && running => {
            Finding::new(check, Level::Ok, format!("{addr} is taken, as it should be while the daemon runs"))
        }
        Err(e) => Finding::new(check, Level::Fail, format!("{addr}: {e}")),
    }
}

/// The daemon itself.
pub fn service(daemon: Option<&pb::Daemon>) -> Finding {
    let Some(daemon) = daemon else { return Finding::new("daemon", Level::Ok, "none runs at this address") };
    let ours = env!("CARGO_PKG_VERSION");
    let hung: Vec<&str> = daemon.actors.iter().filter(|a| !a.alive).map(|a| a.name.as_str()).collect();
    match (daemon.version == ours, hung.is_empty()) {
        (_, false) => Finding::new("daemon", Level::Fail, format!("not alive: {}", hung.join(", "))),
        (false, _) => Finding::new("daemon", Level::Warn, format!("runs {}, this program is {ours}", daemon.version)),
        _ => Finding::new("daemon", Level::Ok, format!("runs {}, process {}", daemon.version, daemon.pid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_healthy_folder_passes_and_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let found = file(&folder.path().join("tidegate.db"), None).await;
        assert!(found.iter().all(|f| f.level != Level::Fail), "{found:?}");
        assert!(found[0].found.contains("synchronous"), "{found:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_taken_address_fails_unless_the_daemon_has_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = taken.local_addr().unwrap();
        assert_eq!(address("server.listen", addr, false).await.level, Level::Fail);
        assert_eq!(address("server.listen", addr, true).await.level, Level::Ok);
    }

    #[test]
    fn a_missing_secret_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidegate.toml");
        let text = "[providers.crm]\nbase_url = \"https://crm.example\"\nauth = { bearer = { file = \"/nowhere/key\" } }\n\
                    [providers.crm.operations.ping]\nrequest = \"GET /ping\"\n";
        std::fs::write(&file, text).unwrap();
        let found = credentials(&LoadOptions { file: Some(file), ..LoadOptions::default() });
        assert_eq!(found.level, Level::Fail);
        assert!(found.found.contains("/nowhere/key"), "{found:?}");
    }
}
