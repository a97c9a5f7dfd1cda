//! The layer that adds the credential, last of all headers.
//!
//! Must never know: where requests go. Next: `secret.rs`.

use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use http::{HeaderName, HeaderValue};
use tower::{Layer, Service};

use super::Request;
use super::secret::SecretHeader;
use crate::clock::Clock;
use crate::model::provider;

/// Name and value of the credential's header; `None` when the provider wants none.
type Credential = Option<Arc<(HeaderName, SecretHeader)>>;

#[derive(Clone, Debug)]
pub(super) struct AuthLayer(Credential);

impl AuthLayer {
    /// Reads the secret. Errors name its reference, never its value.
    pub fn new(auth: &provider::Auth, clock: &Clock) -> Result<AuthLayer, String> {
        let header = |text: String| {
            HeaderValue::from_str(&text).map_err(|_| "expected visible ASCII without line ends".to_owned())
        };
        let credential = match auth {
            provider::Auth::None => None,
            provider::Auth::Bearer(secret) => {
                let make = Box::new(move |s: &str| header(format!("Bearer {s}")));
                Some((http::header::AUTHORIZATION, SecretHeader::read(secret, clock, make)?))
            }
            provider::Auth::Basic { username, password } => {
                let username = username.clone();
                let make = Box::new(move |s: &str| {
                    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{s}"));
                    header(format!("Basic {pair}"))
                });
                Some((http::header::AUTHORIZATION, SecretHeader::read(password, clock, make)?))
            }
            provider::Auth::Header { name, value } => {
                let make = Box::new(move |s: &str| header(s.to_owned()));
                Some((name.clone(), SecretHeader::read(value, clock, make)?))
            }
        };
        Ok(AuthLayer(credential.map(Arc::new)))
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = Auth<S>;
    fn layer(&self, inner: S) -> Auth<S> {
        Auth { credential: self.0.clone(), inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Auth<S> {
    credential: Credential,
    inner: S,
}

impl<S: Service<Request>> Service<Request> for Auth<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> S::Future {
        if let Some(credential) = &self.credential {
            request.headers.insert(credential.0.clone(), credential.1.value());
        }
        self.inner.call(request)
    }
}
