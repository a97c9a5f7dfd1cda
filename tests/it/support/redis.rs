//! Redis servers of a test's own: a free port, a temporary folder, gone with the value. Alone, or with a replica.
//!
//! `TIDEGATE_REDIS_SERVER` names another binary, as Valkey's; its `-cli` is not needed.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::process::{free_port, until};
use super::proxy::Proxy;

pub struct RedisServer {
    child: Child,
    folder: tempfile::TempDir,
    pub port: u16,
    flags: Vec<String>,
}

impl RedisServer {
    pub async fn start() -> RedisServer {
        RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    pub async fn with(flags: &[&str]) -> RedisServer {
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let child = spawn(&folder, port, &flags);
        let server = RedisServer { child, folder, port, flags };
        server.wait().await;
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn wait(&self) {
        let answers = async || self.try_command(&["PING"]).filter(|a| a == "PONG");
        until(Duration::from_secs(20), answers).await.expect("the server starts");
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// On the same port. `empty`: its files are gone.
    pub async fn restart(&mut self, empty: bool) {
        self.kill();
        if empty {
            self.folder = tempfile::tempdir().unwrap();
        }
        self.child = spawn(&self.folder, self.port, &self.flags);
        self.wait().await;
    }

    pub fn command(&self, words: &[&str]) -> String {
        self.try_command(words).expect("the server answers")
    }

    /// A number that the server tells of itself.
    pub fn number(&self, section: &str, name: &str) -> u64 {
        let said = self.command(&["INFO", section]);
        let number = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
        number.unwrap_or_else(|| panic!("expected {name} in INFO {section}, got {said}"))
    }

    fn follow(&self, port: u16) {
        self.command(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
    }

    /// A number, a text or an error as text; of a list its parts in lines.
    fn try_command(&self, words: &[&str]) -> Option<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|w| text.push_str(&format!("${}\r\n{w}\r\n", w.len())));
        stream.write_all(text.as_bytes()).ok()?;
        answer(&mut BufReader::new(stream))
    }
}

/// A primary and its replica. The replica follows over a link of its own, so that the last writes can be kept from it.
pub struct Pair {
    pub primary: RedisServer,
    replica: RedisServer,
    link: Proxy,
}

/// A first copy is sent at once, not five seconds after it was asked for.
const PAIRED: [&str; 6] = ["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"];

impl Pair {
    pub async fn start() -> Pair {
        let (primary, replica) = (RedisServer::with(&PAIRED).await, RedisServer::with(&PAIRED).await);
        let link = Proxy::to(primary.port).await;
        replica.follow(link.port);
        Pair { primary, replica, link }
    }

    /// What the replica answers, where it answers.
    pub fn of_replica(&self, words: &[&str]) -> Option<String> {
        self.replica.try_command(words)
    }

    /// Waits until the replica has what the primary has, or will have it in a moment.
    pub async fn in_step(&self) {
        let up = async || {
            let said = self.replica.try_command(&["INFO", "replication"])?;
            said.contains("master_link_status:up").then_some(())
        };
        until(Duration::from_secs(60), up).await.expect("the replica finds its primary");
    }

    /// The primary dies, and with it all that it wrote in the last `lag`: the replica takes over without. It gets an
    /// empty replica of its own.
    pub async fn fail_over(&mut self, lag: Duration) {
        self.keep_back(lag).await;
        self.primary.kill();
        self.promote();
        self.replica = RedisServer::with(&PAIRED).await;
        self.replica.follow(self.link.port);
    }

    /// The two change places, again without the last writes. The old primary goes on as a replica: who still speaks with
    /// it may only read.
    pub async fn switch(&mut self, lag: Duration) {
        self.keep_back(lag).await;
        self.promote();
        self.replica.follow(self.link.port);
    }

    /// From now on the replica learns nothing new, until one of the two above.
    pub async fn keep_back(&self, lag: Duration) {
        self.in_step().await;
        self.link.silent(true);
        tokio::time::sleep(lag).await;
    }

    fn promote(&mut self) {
        self.replica.command(&["REPLICAOF", "NO", "ONE"]);
        std::mem::swap(&mut self.primary, &mut self.replica);
        self.link.point_at(self.primary.port);
        self.link.silent(false);
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &tempfile::TempDir, port: u16, flags: &[String]) -> Child {
    let program = std::env::var("TIDEGATE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let mut command = Command::new(&program);
    command.args(["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1", "--dir"]).arg(folder.path());
    command.args(flags).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|e| panic!("{program} cannot be started ({e}); run scripts/need.sh test"))
}

fn answer(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let (kind, rest) = line.trim_end().split_at(1);
    match kind {
        "$" => {
            let size: i64 = rest.parse().ok()?;
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0) + 2];
            if size < 0 {
                return Some(String::new());
            }
            reader.read_exact(&mut bytes).ok()?;
            bytes.truncate(size as usize);
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" => {
            let parts: Option<Vec<String>> = (0..rest.parse().ok()?).map(|_| answer(reader)).collect();
            parts.map(|p| p.join("\n"))
        }
        _ => Some(rest.to_owned()),
    }
}
