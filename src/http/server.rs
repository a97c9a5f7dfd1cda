//! Connections of the HTTP face: bounded in number, in time and in the size of their heads.
//!
//! Runs as one future that owns its connections: whoever owns it supervises it. Must never know: routes.

use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What one listener carries at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Open connections; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// A client that has not sent its head by then is cut off: one byte a second must not hold a place.
    pub head_timeout: Duration,
    /// Bytes of one head.
    pub head_bytes_max: usize,
    /// Time for requests to finish after the stop.
    pub grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections_max: 1_024,
            head_timeout: Duration::from_secs(10),
            head_bytes_max: 16 << 10,
            grace: Duration::from_secs(5),
        }
    }
}

/// After a failed accept (no file descriptors left, as a rule) the next try waits so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, then for the grace at most.
pub async fn serve(router: Router, listener: TcpListener, bounds: Bounds, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let full = connections.len() >= bounds.connections_max;
        tokio::select! {
            () = stop.cancelled() => break,
            // Ended connections make room.
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if !full => match accepted {
                Ok((socket, from)) => {
                    connections.spawn(connection(socket, from, router.clone(), bounds, stop.clone()));
                }
                Err(e) => {
                    tracing::warn!(error = %e, "an HTTP connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(bounds.grace, drained).await.is_err() {
        tracing::warn!("HTTP requests were still running after the grace; cut off");
    }
}

async fn connection(socket: TcpStream, from: SocketAddr, router: Router, bounds: Bounds, stop: CancellationToken) {
    // Who asks, for the record of what was done.
    let router = router.layer(Extension(from));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(bounds.head_bytes_max)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    tokio::pin!(serving);
    // What a client does wrong on its connection is between it and hyper.
    tokio::select! {
        ended = serving.as_mut() => {
            let _ = ended;
        }
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn answer(addr: std::net::SocketAddr, request: &str) -> String {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        // A reset is an answer too: nothing.
        let _ = socket.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn requests_are_answered_until_the_stop_and_a_huge_head_is_refused() {
        let router = Router::new().route("/", get(|| async { "here" }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let serving = tokio::spawn(serve(router, listener, Bounds::default(), stop.clone()));
        let good = answer(addr, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(good.starts_with("HTTP/1.1 200") && good.ends_with("here"), "{good}");
        let huge = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(64 << 10));
        let refused = answer(addr, &huge).await;
        assert!(!refused.contains(" 200 "), "{refused}");
        stop.cancel();
        serving.await.unwrap();
        assert!(TcpStream::connect(addr).await.is_err());
    }
}
