//! Redis servers of a test's own: a free port, a temporary folder, gone with the value.
//!
//! `TIDEGATE_REDIS_SERVER` names another binary, as Valkey's; its `-cli` is not needed.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::process::{free_port, until};

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
