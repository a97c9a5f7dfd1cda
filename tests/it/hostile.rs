//! A provider that misbehaves on the wire: a raw TCP server that says exactly what a test tells it to.
//!
//! It counts connections and requests, so that a test can tell a request that was sent twice from one that was not.
//! Next: `outbound.rs`, which calls it through the real stack.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens once a request has been read.
#[derive(Clone, Debug)]
pub enum Act {
    /// These bytes, and on to the next request of the connection.
    Say(Vec<u8>),
    /// These bytes, then the end of the connection.
    SayAndClose(Vec<u8>),
    /// The end of the connection without a byte.
    Close,
    /// A reset without a byte.
    Reset,
    /// Nothing, for ever.
    Silence,
    /// The first bytes, then the second ones again and again for ever.
    Endless(Vec<u8>, Vec<u8>),
    /// The first bytes, then the second ones one by one.
    Drip(Vec<u8>, Vec<u8>, Duration),
}

impl Act {
    /// A good answer that keeps the connection.
    pub fn ok(body: &str) -> Act {
        Act::Say(answer("200 OK", "", body.as_bytes()))
    }
}

/// An answer with the right length. `headers` end with CR LF each.
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What the server saw.
#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    /// Heads of requests, in order.
    requests: Vec<String>,
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Hostile {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

impl Hostile {
    /// Answers the n-th request (over all connections) with the n-th act, and further ones with the last.
    pub async fn start(acts: Vec<Act>) -> Hostile {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::new();
        let (all, acts) = (seen.clone(), Arc::new(acts));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                all.lock().unwrap().connections += 1;
                connections.spawn(talk(stream, acts.clone(), all.clone()));
            }
        });
        Hostile { address, seen, _tasks: tasks }
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Heads of all requests seen.
    pub fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().requests.clone()
    }
}

async fn talk(mut stream: TcpStream, acts: Arc<Vec<Act>>, seen: Arc<Mutex<Seen>>) {
    while let Some(head) = read_request(&mut stream).await {
        let act = {
            let mut seen = seen.lock().unwrap();
            seen.requests.push(head);
            acts[(seen.requests.len() - 1).min(acts.len() - 1)].clone()
        };
        if perform(&mut stream, act).await.is_none() {
            return;
        }
    }
}

/// `None`: the connection is over.
async fn perform(stream: &mut TcpStream, act: Act) -> Option<()> {
    match act {
        Act::Say(bytes) => stream.write_all(&bytes).await.ok(),
        Act::SayAndClose(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            stream.shutdown().await.ok()?;
            None
        }
        Act::Close => None,
        Act::Reset => {
            // Zero linger: closing sends RST in place of FIN.
            stream.set_zero_linger().ok()?;
            None
        }
        Act::Silence => {
            // Until the other side gives up.
            while stream.read_u8().await.is_ok() {}
            None
        }
        Act::Endless(first, again) => {
            stream.write_all(&first).await.ok()?;
            while stream.write_all(&again).await.is_ok() {}
            None
        }
        Act::Drip(first, bytes, every) => {
            stream.write_all(&first).await.ok()?;
            let mut ticks = tokio::time::interval(every);
            for byte in bytes {
                ticks.tick().await;
                stream.write_all(&[byte]).await.ok()?;
            }
            None
        }
    }
}

/// Head of the next request, its body read too.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}
