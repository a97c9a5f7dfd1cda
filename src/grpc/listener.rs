//! Connections: TCP and unix sockets as one stream of them, capped in number, each knowing who it is from.
//!
//! Must never know: HTTP/2. Next: `grpc/server`, which speaks over them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(Option<SocketAddr>),
    /// User id, as the kernel says.
    Unix(Option<u32>),
}

/// Who asks, for the record of what was done.
pub(super) fn actor<T>(request: &tonic::Request<T>) -> String {
    match request.extensions().get::<Peer>() {
        Some(Peer::Tcp(Some(at))) => format!("tcp {at}"),
        Some(Peer::Unix(Some(uid))) => format!("unix uid={uid}"),
        Some(Peer::Tcp(None)) => "tcp".to_owned(),
        Some(Peer::Unix(None)) => "unix".to_owned(),
        None => "grpc".to_owned(),
    }
}

/// The next connections, at most `max` open at a time: the others wait in the listener's backlog. All of them break
/// when `cut` is cancelled.
pub(super) fn connections(
    tcp: Option<TcpListener>,
    unix: Option<UnixListener>,
    max: usize,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let room = Arc::new(Semaphore::new(max));
    stream::unfold((tcp, unix, room, cut), |(tcp, unix, room, cut)| async move {
        let place = Arc::clone(&room).acquire_owned().await.ok()?;
        let accepted = accept(tcp.as_ref(), unix.as_ref()).await?;
        let connection = accepted.map(|(socket, peer)| Connection {
            socket,
            peer,
            cut: Box::pin(cut.clone().cancelled_owned()),
            _place: place,
        });
        Some((connection, (tcp, unix, room, cut)))
    })
}

/// `None`: there is no listener at all.
async fn accept(tcp: Option<&TcpListener>, unix: Option<&UnixListener>) -> Option<io::Result<(Socket, Peer)>> {
    let by_tcp = async |listener: &TcpListener| {
        let (socket, from) = listener.accept().await?;
        // An answer of a few bytes must not wait for more to send.
        socket.set_nodelay(true)?;
        Ok((Socket::Tcp(socket), Peer::Tcp(Some(from))))
    };
    let by_unix = async |listener: &UnixListener| {
        let (socket, _) = listener.accept().await?;
        let uid = socket.peer_cred().ok().map(|cred| cred.uid());
        Ok((Socket::Unix(socket), Peer::Unix(uid)))
    };
    match (tcp, unix) {
        (None, None) => None,
        (Some(tcp), None) => Some(by_tcp(tcp).await),
        (None, Some(unix)) => Some(by_unix(unix).await),
        (Some(tcp), Some(unix)) => Some(tokio::select! {
            accepted = by_tcp(tcp) => accepted,
            accepted = by_unix(unix) => accepted,
        }),
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection. Its place is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
