//! The layer that reads an answer's body within its bounds, packed and unpacked.
//!
//! Whatever goes wrong after the status line cuts the body and nothing else: the status still counts. A body may be
//! packed once, by gzip, br or zstd, and may grow by at most [`RATIO_MAX`] when unpacked. Must never know: what an
//! answer means.

use std::task::{Context, Poll};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, USER_AGENT};
use tokio::io::{AsyncRead, AsyncReadExt};
use tower::{Layer, Service};

use super::Request;
use super::deadline::{Cut, Reply};
use crate::clock::Clock;
use crate::model::verdict::{Answer, Failure};

/// Most bytes out per byte in. Real JSON stays under 30; a bomb is near 1,000.
const RATIO_MAX: usize = 100;
/// Unpacked bytes that are free of the ratio: a short text may well be all spaces.
const RATIO_FREE_BYTES: usize = 64 * 1024;
/// Unpacked at a time.
const PIECE_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug)]
pub(super) struct BoundedLayer {
    bytes_max: usize,
    clock: Clock,
}

impl BoundedLayer {
    pub fn new(bytes_max: usize, clock: &Clock) -> Self {
        BoundedLayer { bytes_max, clock: clock.clone() }
    }
}

impl<S> Layer<S> for BoundedLayer {
    type Service = Bounded<S>;
    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { bytes_max: self.bytes_max, clock: self.clock.clone(), inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Bounded<S> {
    bytes_max: usize,
    clock: Clock,
    inner: S,
}

impl<S> Service<Request> for Bounded<S>
where
    S: Service<Request, Response = Reply, Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Answer, Failure>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        request.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br, zstd"));
        let agent = HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
        request.headers.entry(USER_AGENT).or_insert(agent);
        let reply = self.inner.call(request);
        let (bytes_max, clock) = (self.bytes_max, self.clock.clone());
        Box::pin(async move {
            let mut reply = reply.await?;
            let received_at = clock.now();
            let status = reply.response.status().as_u16();
            let headers = std::mem::take(reply.response.headers_mut());
            let (packed, cut) = read(&mut reply, bytes_max).await;
            let (body, spoiled) = match packing(&headers) {
                Packing::None => (packed, false),
                Packing::Gzip => unpack(GzipDecoder::new(&*packed), packed.len(), bytes_max).await,
                Packing::Brotli => unpack(BrotliDecoder::new(&*packed), packed.len(), bytes_max).await,
                Packing::Zstd => unpack(ZstdDecoder::new(&*packed), packed.len(), bytes_max).await,
                Packing::Unknown => (Bytes::new(), true),
            };
            Ok(Answer { status, headers, body, truncated: cut || spoiled, received_at })
        })
    }
}

/// The body as it comes, at most `bytes_max`, and whether it was cut.
async fn read(reply: &mut Reply, bytes_max: usize) -> (Bytes, bool) {
    // Most bodies are one piece, which is then not copied.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let cut = loop {
        let mut piece = match reply.chunk().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break false,
            Err(Cut) => break true,
        };
        let room = bytes_max - all.len().max(first.len());
        let over = piece.len() > room;
        piece.truncate(room);
        if first.is_empty() {
            first = piece;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&piece);
        }
        if over {
            break true;
        }
    };
    (if all.is_empty() { first } else { all.freeze() }, cut)
}

enum Packing {
    None,
    Gzip,
    Brotli,
    Zstd,
    /// More than one layer, or one that was not asked for.
    Unknown,
}

fn packing(headers: &HeaderMap) -> Packing {
    let mut named = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|line| line.to_str().unwrap_or("?").split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty() && name != "identity");
    match (named.next().as_deref(), named.next()) {
        (None, _) => Packing::None,
        (Some("gzip" | "x-gzip"), None) => Packing::Gzip,
        (Some("br"), None) => Packing::Brotli,
        (Some("zstd"), None) => Packing::Zstd,
        _ => Packing::Unknown,
    }
}

/// Unpacks what fits; true when that is not all, or when the packing is broken.
async fn unpack(mut decoder: impl AsyncRead + Unpin, packed_bytes: usize, bytes_max: usize) -> (Bytes, bool) {
    if packed_bytes == 0 {
        return (Bytes::new(), false);
    }
    let bound = bytes_max.min(packed_bytes.saturating_mul(RATIO_MAX).max(RATIO_FREE_BYTES));
    let mut out = BytesMut::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match decoder.read(&mut piece).await {
            Ok(0) => return (out.freeze(), false),
            Ok(n) => {
                let room = bound - out.len();
                out.extend_from_slice(&piece[..n.min(room)]);
                if n > room {
                    return (out.freeze(), true);
                }
            }
            Err(_) => return (out.freeze(), true),
        }
    }
}
