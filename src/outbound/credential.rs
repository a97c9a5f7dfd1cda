//! What a call shows to say who it is, and what must never be seen of it again.
//!
//! Put on a request last of all, inside the transport, so that neither journal nor trace has ever met it. It knows its
//! secrets in every form in which an answer may echo them, and takes them out of what is kept. Must never know: where
//! requests go. Next: `credentials`, which finds the one of an account; `mark` for tokens.

use std::sync::Arc;

use base64::Engine as _;
use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::Request;
use super::mark::{Mark, Shown};
use super::signature::SigningKey;
use crate::clock::{Clock, Timestamp};
use crate::model::auth::{Auth, WEBHOOK_ID};
use crate::model::verdict::Answer;

/// Shorter secrets are not searched for: they would hide half of every text, and protect nothing.
const HIDDEN_BYTES_MIN: usize = 6;
/// What stands in a text in place of a secret.
const HIDDEN: &str = "***";

/// Cheap to clone; prints nothing.
#[derive(Clone, Default)]
pub struct Credential(Option<Arc<Made>>);

struct Made {
    sign: Sign,
    /// The secret as it is and as it looks on the wire.
    hide: Vec<SecretString>,
    token: Option<Arc<Mark>>,
}

enum Sign {
    Header(HeaderName, HeaderValue),
    Query(String, SecretString),
    /// Over id, time and body.
    Webhook(SigningKey, Clock),
}

/// Why an account's calls cannot leave now. Carries no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NoCredential {
    /// One sentence.
    pub reason: Arc<str>,
    /// Trying again does not help: somebody has to authorize anew.
    pub for_good: bool,
}

/// A credential that could not be had when it was last tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Steady time before which it is not tried again. In the past: the next call tries.
    pub until: Timestamp,
    pub reason: Arc<str>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Credential(hidden)" } else { "Credential(none)" })
    }
}

impl Credential {
    fn made(sign: Sign, hide: Vec<String>) -> Credential {
        let hide = hide.into_iter().filter(|text| text.len() >= HIDDEN_BYTES_MIN).map(SecretString::from).collect();
        Credential(Some(Arc::new(Made { sign, hide, token: None })))
    }

    /// Of a way with one secret. The error says what is wrong with the secret, never what it is.
    pub(super) fn of_secret(auth: &Auth, secret: &str, clock: &Clock) -> Result<Credential, String> {
        let as_is = || vec![secret.to_owned(), in_query(secret)];
        Ok(match auth {
            Auth::Bearer(_) => Credential::made(bearer(secret)?, as_is()),
            Auth::Basic { username, .. } => {
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{secret}"));
                let sign = Sign::Header(http::header::AUTHORIZATION, header(&format!("Basic {pair}"))?);
                Credential::made(sign, vec![secret.to_owned(), pair])
            }
            Auth::Header { name, .. } => Credential::made(Sign::Header(name.clone(), header(secret)?), as_is()),
            Auth::Query { name, .. } => {
                Credential::made(Sign::Query(name.clone(), SecretString::from(secret)), as_is())
            }
            Auth::Webhook(_) => {
                Credential::made(Sign::Webhook(SigningKey::standard(secret)?, clock.clone()), vec![secret.to_owned()])
            }
            Auth::None | Auth::OAuth2(_) => Credential::default(),
        })
    }

    /// Of a token that an endpoint gave out.
    pub(super) fn of_token(token: &str, mark: Arc<Mark>) -> Result<Credential, String> {
        let sign = bearer(token)?;
        let hide = vec![SecretString::from(token)];
        Ok(Credential(Some(Arc::new(Made { sign, hide, token: Some(mark) }))))
    }

    /// Adds it to a request, over what a template may have put there.
    pub(super) fn sign(&self, request: &mut Request) {
        match self.0.as_deref().map(|made| &made.sign) {
            None => {}
            Some(Sign::Header(name, value)) => drop(request.headers.insert(name.clone(), value.clone())),
            Some(Sign::Query(name, value)) => {
                drop_pair(&mut request.url, name);
                request.url.query_pairs_mut().append_pair(name, value.expose_secret());
            }
            Some(Sign::Webhook(key, clock)) => {
                // Each try has a time of its own under the same id, so that a receiver may refuse what is old and still know
                // what it has seen.
                let time = (clock.now().millis() / 1_000).to_string();
                let id = request.headers.get(WEBHOOK_ID).map(HeaderValue::as_bytes).unwrap_or_default();
                let made = key.sign(&[id, b".", time.as_bytes(), b".", &request.body]);
                let signature = format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(made));
                for (name, text) in [("webhook-timestamp", time), ("webhook-signature", signature)] {
                    let value = HeaderValue::from_str(&text).expect("digits and base64 are visible ASCII");
                    request.headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
    }

    /// An answer with this status came to a call that carried it.
    pub fn answered(&self, status: u16, now: Timestamp) -> Shown {
        let mark = self.0.as_ref().and_then(|made| made.token.as_ref());
        mark.map_or(Shown::Fine, |mark| mark.answered(status, now))
    }

    /// The answer without the secret, in headers and body. A body that is no text is left as it is.
    pub fn hide_in(&self, answer: &Answer) -> Answer {
        let mut hidden = answer.clone();
        if self.0.is_none() {
            return hidden;
        }
        if let Some(body) = std::str::from_utf8(&answer.body).ok().and_then(|text| self.found_in(text)) {
            hidden.body = body.into();
        }
        for value in hidden.headers.values_mut() {
            let found = value.to_str().ok().and_then(|text| self.found_in(text));
            if let Some(Ok(clean)) = found.map(|text| HeaderValue::from_str(&text)) {
                *value = clean;
            }
        }
        hidden
    }

    /// The text without the secret.
    pub fn hide(&self, text: &Arc<str>) -> Arc<str> {
        self.found_in(text).map_or_else(|| text.clone(), Arc::from)
    }

    /// The text without the secret, if it was there.
    fn found_in(&self, text: &str) -> Option<String> {
        let mut hidden: Option<String> = None;
        for secret in self.0.iter().flat_map(|made| &made.hide).map(ExposeSecret::expose_secret) {
            let text = hidden.as_deref().unwrap_or(text);
            if text.contains(secret) {
                hidden = Some(text.replace(secret, HIDDEN));
            }
        }
        hidden
    }
}

/// A link of the provider may carry it already, or what was put in its place.
fn drop_pair(url: &mut url::Url, name: &str) {
    if url.query_pairs().any(|(other, _)| other == name) {
        let others: Vec<(String, String)> =
            url.query_pairs().filter(|(other, _)| other != name).map(|(a, b)| (a.into(), b.into())).collect();
        url.query_pairs_mut().clear().extend_pairs(others);
    }
}

fn bearer(token: &str) -> Result<Sign, String> {
    Ok(Sign::Header(http::header::AUTHORIZATION, header(&format!("Bearer {token}"))?))
}

fn header(text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(text).map_err(|_| "expected visible ASCII without line ends".to_owned());
    value.map(|mut value| {
        value.set_sensitive(true);
        value
    })
}

fn in_query(secret: &str) -> String {
    url::form_urlencoded::byte_serialize(secret.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::auth::SecretRef;

    fn query(secret: &str) -> Credential {
        let auth = Auth::Query { name: "key".into(), value: SecretRef::Env("X".into()) };
        Credential::of_secret(&auth, secret, &Clock::manual(Timestamp::ZERO)).unwrap()
    }

    #[test]
    fn a_secret_stands_in_the_request_and_in_nothing_that_is_kept() {
        let credential = query("s3cret/&x");
        let mut request = Request {
            method: http::Method::GET,
            url: "http://x/a?b=1".parse().unwrap(),
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
        };
        credential.sign(&mut request);
        assert_eq!(request.url.as_str(), "http://x/a?b=1&key=s3cret%2F%26x");
        let echo: Arc<str> = format!("bad key s3cret/&x in {}", request.url).into();
        assert_eq!(&*credential.hide(&echo), "bad key *** in http://x/a?b=1&key=***");
        assert_eq!(format!("{credential:?}"), "Credential(hidden)");
    }

    #[test]
    fn an_answer_that_echoes_the_secret_is_kept_without_it_and_its_link_is_signed_anew() {
        let credential = query("s3cret/&x");
        let link = "http://x/a?key=s3cret%2F%26x&page=2";
        let answer = Answer {
            status: 200,
            headers: http::HeaderMap::from_iter([(http::header::LINK, link.parse().unwrap())]),
            body: "{\"key\":\"s3cret/&x\"}".into(),
            truncated: false,
            received_at: Timestamp::ZERO,
        };
        let hidden = credential.hide_in(&answer);
        assert_eq!(
            (&hidden.body[..], hidden.headers["link"].to_str().unwrap()),
            (&b"{\"key\":\"***\"}"[..], "http://x/a?key=***&page=2")
        );
        let mut request = Request {
            method: http::Method::GET,
            url: hidden.headers["link"].to_str().unwrap().parse().unwrap(),
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
        };
        credential.sign(&mut request);
        assert_eq!(request.url.as_str(), "http://x/a?page=2&key=s3cret%2F%26x");
    }

    #[test]
    fn a_short_secret_does_not_hide_half_of_a_text() {
        let text: Arc<str> = "a banana".into();
        assert_eq!(query("a").hide(&text), text);
    }
}
