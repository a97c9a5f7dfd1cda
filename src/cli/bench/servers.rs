//! A PostgreSQL and a Redis for one measurement: found on this machine, started in a temporary folder on free ports,
//! ended with the value. Never one that is there already.
//!
//! As durable as production is to be: fsync and synchronous commits, an append-only file. Must never know: what is
//! measured. Next: `cluster`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tokio::process::{Child, Command};

use super::super::exit::Error;
use super::daemon::free_port;
use crate::clock::Clock;

const START_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Where packages put programs that are not in the path.
const PLACES: [&str; 3] = ["/usr/lib/postgresql", "/usr/pgsql", "/usr/local/pgsql"];

pub struct Servers {
    postgres: Child,
    _redis: Child,
    pub postgres_url: String,
    pub redis_url: String,
    /// Removed when the measurement is over.
    _folder: tempfile::TempDir,
}

impl Servers {
    /// Says in one line what is missing.
    pub async fn start() -> Result<Servers, Error> {
        let (initdb, redis) = (program("initdb"), program("redis-server").or_else(|| program("valkey-server")));
        let (Some(initdb), Some(redis)) = (&initdb, &redis) else {
            let missing: Vec<&str> = [("PostgreSQL (initdb)", &initdb), ("Redis (redis-server)", &redis)]
                .into_iter()
                .filter_map(|(name, found)| found.is_none().then_some(name))
                .collect();
            let said = missing.join(" and ");
            return Err(Error::failed(format!("expected {said} on this machine; install postgresql and redis-server")));
        };
        let folder = tempfile::tempdir().map_err(failed)?;
        // Another user must be able to pass through.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).map_err(failed)?;
        let (postgres, postgres_url) = postgres(initdb, &folder.path().join("postgres")).await?;
        let (redis, redis_url) = start_redis(redis, &folder.path().join("redis")).await?;
        Ok(Servers { postgres, _redis: redis, postgres_url, redis_url, _folder: folder })
    }

    /// The sections of a daemon's configuration.
    pub fn config(&self) -> String {
        let (postgres, redis) = (&self.postgres_url, &self.redis_url);
        format!("[store]\nkind = \"postgres\"\nurl = {postgres:?}\n\n[limiter]\nkind = \"redis\"\nurl = {redis:?}\n")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // At once and without a last checkpoint, but in order: a killed postmaster leaves shared memory behind.
        if let Some(pid) = self.postgres.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, Signal::QUIT);
            for _ in 0..100 {
                if !matches!(self.postgres.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }
}

fn failed(e: std::io::Error) -> Error {
    Error::failed(format!("cannot start a server: {e}"))
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    let versions = PLACES.iter().flat_map(|place| std::fs::read_dir(place).into_iter().flatten().flatten());
    let mut packaged: Vec<PathBuf> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|file| file.is_file()).collect();
    packaged.sort();
    // As it is named: Debian's redis-server is a link to a program that looks at its own name.
    in_path.or_else(|| packaged.pop())
}

/// PostgreSQL refuses to run as root: user and group of somebody with fewer rights.
fn humble() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map(|n| n.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    user("postgres").or_else(|| user("nobody"))
}

fn command(program: &Path, folder: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}

async fn postgres(initdb: &Path, folder: &Path) -> Result<(Child, String), Error> {
    std::fs::create_dir(folder).map_err(failed)?;
    let user = humble();
    if let Some((user, group)) = user {
        std::os::unix::fs::chown(folder, Some(user), Some(group)).map_err(failed)?;
    }
    let mut init = command(initdb, folder, user);
    init.args(["-D", "data", "-U", "tidegate", "-A", "trust", "-E", "UTF8", "--locale=C"]);
    if !init.status().await.map_err(failed)?.success() {
        return Err(Error::failed(format!("{} failed", initdb.display())));
    }
    let port = free_port().map_err(failed)?;
    // A link's neighbours are beside the file that it leads to.
    let initdb = initdb.canonicalize().map_err(failed)?;
    let mut server = command(&initdb.with_file_name("postgres"), folder, user);
    server.args(["-D", "data", "-p", &port.to_string(), "-k"]).arg(folder);
    for setting in [
        "listen_addresses=127.0.0.1",
        "max_connections=200",
        "fsync=on",
        "synchronous_commit=on",
        "full_page_writes=on",
        "max_wal_size=2GB",
    ] {
        server.args(["-c", setting]);
    }
    let child = server.spawn().map_err(failed)?;
    let url = format!("postgres://tidegate@127.0.0.1:{port}/postgres");
    until("PostgreSQL", async || PgConnection::connect(&url).await.is_ok()).await?;
    Ok((child, url))
}

async fn start_redis(program: &Path, folder: &Path) -> Result<(Child, String), Error> {
    std::fs::create_dir(folder).map_err(failed)?;
    let port = free_port().map_err(failed)?;
    let mut server = command(program, folder, None);
    server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
    let child = server.spawn().map_err(failed)?;
    until("Redis", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await?;
    Ok((child, format!("redis://127.0.0.1:{port}")))
}

async fn until(name: &str, is_up: impl AsyncFn() -> bool) -> Result<(), Error> {
    let clock = Clock::system();
    let end = clock.steady() + START_MAX;
    while !is_up().await {
        if clock.steady() > end {
            return Err(Error::failed(format!("{name} does not start")));
        }
        clock.sleep_until(clock.steady() + LOOK_AGAIN).await;
    }
    Ok(())
}
