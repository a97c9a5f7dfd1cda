//! A fault proxy of our own, between a client and a server: it can slow both ways down, carry few bytes a second, swallow
//! answers, refuse, cut and reset connections, and drop one in the middle of what it carries.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// Between a client and a server.
pub struct Proxy {
    pub port: u16,
    state: Arc<watch::Sender<State>>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// Where new connections lead.
    to: u16,
    /// Answers are thrown away.
    swallow: bool,
    /// Nothing passes, either way, and nobody is told: a partition.
    silent: bool,
    /// Each piece waits for this long.
    delay: Duration,
    /// Connections end after so many bytes of an answer; 0: never.
    bytes_max: u64,
    /// Connections of an older number are cut.
    number: u64,
    /// New connections are closed at once.
    refuse: bool,
    /// Cut connections end by a reset, not in order.
    reset: bool,
    /// Bytes of each way in a second; 0: as fast as they come.
    rate: u64,
}

impl State {
    /// Of a piece of so many bytes.
    fn wait(&self, bytes: usize) -> Duration {
        let throttled = (bytes as u64 * 1_000_000).checked_div(self.rate).map_or(Duration::ZERO, Duration::from_micros);
        self.delay + throttled
    }
}

impl Proxy {
    pub async fn to(port: u16) -> Proxy {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().port();
        let state = Arc::new(watch::Sender::new(State { to: port, ..State::default() }));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut links = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if !shared.borrow().refuse {
                    links.spawn(link(client, shared.subscribe()));
                }
            }
        });
        Proxy { port: here, state, _task: tokio_util::task::AbortOnDropHandle::new(task) }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn swallow(&self, on: bool) {
        self.state.send_modify(|s| s.swallow = on);
    }

    /// Neither way, and neither end hears of it. What was sent meanwhile is lost with the connection.
    pub fn silent(&self, on: bool) {
        self.state.send_modify(|s| s.silent = on);
    }

    pub fn delay(&self, delay: Duration) {
        self.state.send_modify(|s| s.delay = delay);
    }

    /// Connections end in the middle of an answer, after so many bytes; 0: never.
    pub fn drop_after(&self, bytes: u64) {
        self.state.send_modify(|s| s.bytes_max = bytes);
    }

    /// Cuts all connections; new ones lead to this port.
    pub fn point_at(&self, port: u16) {
        self.state.send_modify(|s| (s.to, s.number) = (port, s.number + 1));
    }

    pub fn cut(&self) {
        self.state.send_modify(|s| (s.reset, s.number) = (false, s.number + 1));
    }

    /// Cuts all connections by a reset: what was on the way is gone with them.
    pub fn reset(&self) {
        self.state.send_modify(|s| (s.reset, s.number) = (true, s.number + 1));
    }

    /// No more than so many bytes a second each way; 0: as fast as they come.
    pub fn throttle(&self, rate: u64) {
        self.state.send_modify(|s| s.rate = rate);
    }

    /// Cuts all connections and lets none in.
    pub fn refuse(&self, on: bool) {
        self.state.send_modify(|s| (s.refuse, s.number) = (on, s.number + 1));
    }
}

async fn link(mut client: tokio::net::TcpStream, mut cuts: watch::Receiver<State>) {
    let state = cuts.clone();
    // Before the connection is made: one that is made while all are cut is cut too.
    let State { to, number, .. } = *state.borrow();
    let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", to)).await else { return };
    let (mut up, mut down, mut carried) = (vec![0; 65_536], vec![0; 65_536], 0u64);
    loop {
        let now = *state.borrow();
        tokio::select! {
            n = client.read(&mut up) => match n {
                Ok(n) if n > 0 => {
                    tokio::time::sleep(now.wait(n)).await;
                    if !state.borrow().silent && server.write_all(&up[..n]).await.is_err() { return }
                }
                _ => return,
            },
            n = server.read(&mut down) => match n {
                Ok(n) if n > 0 => {
                    tokio::time::sleep(now.wait(n)).await;
                    let now = *state.borrow();
                    carried += n as u64;
                    let over = now.bytes_max > 0 && carried > now.bytes_max;
                    let whole = if over { n / 2 } else { n };
                    let passes = !now.swallow && !now.silent;
                    if passes && client.write_all(&down[..whole]).await.is_err() || over { return }
                }
                _ => return,
            },
            () = cut(&mut cuts, number) => {
                if state.borrow().reset {
                    for stream in [&client, &server] {
                        let _ = stream.set_zero_linger();
                    }
                }
                return;
            }
        }
    }
}

/// Returns when connections of this number are to be cut.
async fn cut(cuts: &mut watch::Receiver<State>, number: u64) {
    let _ = cuts.wait_for(|s| s.number != number).await;
}
