//! Webhooks that come in: who sent the message, is it wanted, what does it start. Accepted means committed.
//!
//! A message is known again by what its signature covers: the signed id of Standard Webhooks, the event's id within the
//! signed body of Stripe, the body itself of GitHub, whose delivery id is a header that anybody may change. Must never
//! know: HTTP servers, SQL. Next: `webhooks/verify`, `engine/webhooks`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};

use super::enqueue::check_payload;
use super::error::{Code, Error, Result};
use super::{Api, records};
use crate::clock::Clock;
use crate::engine::EngineError;
use crate::engine::collections::PullError;
use crate::engine::webhooks::{Received, Wanted};
use crate::model::job::LABEL_BYTES_MAX;
use crate::model::name::WebhookName;
use crate::model::webhook::{Message, Scheme, Starts, Webhook};
use crate::outbound::{SigningKey, Watched};
use crate::store::Refusal;

mod verify;

use verify::{Signed, verify};

/// Webhooks in force. Cheap to clone; a message never waits for a reload.
#[derive(Clone, Debug, Default)]
pub struct Webhooks(Arc<ArcSwap<Armed>>);

/// Webhooks with the keys of their secrets.
pub type Armed = BTreeMap<WebhookName, Arc<WithKeys>>;

#[derive(Debug)]
pub struct WithKeys {
    webhook: Webhook,
    keys: Vec<Watched<SigningKey>>,
}

impl Webhooks {
    pub fn replace(&self, armed: Armed) {
        self.0.store(Arc::new(armed));
    }
}

/// Reads the secrets; they are read again when their files change. The error names a reference, never a value.
pub fn arm(webhooks: &[Webhook], clock: &Clock) -> std::result::Result<Armed, String> {
    let mut armed = Armed::new();
    for webhook in webhooks {
        let scheme = webhook.scheme;
        let key = move |text: &str| match scheme {
            Scheme::Standard => SigningKey::standard(text),
            Scheme::GitHub | Scheme::Stripe => Ok(SigningKey::plain(text)),
        };
        let read = |reference| {
            Watched::read(reference, clock, Box::new(key)).map_err(|e| format!("webhook {}: {e}", webhook.name))
        };
        let keys = webhook.secrets.iter().map(read).collect::<std::result::Result<Vec<_>, String>>()?;
        armed.insert(webhook.name.clone(), Arc::new(WithKeys { webhook: webhook.clone(), keys }));
    }
    Ok(armed)
}

/// What became of a message whose sender is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// What it starts is durable.
    Accepted,
    /// None of the webhook's `only` fits: nothing was started, and nothing remembered.
    NotWanted,
    /// It was there before: nothing was started.
    Repeated,
}

impl Api {
    fn webhook(&self, name: &str) -> Result<Arc<WithKeys>> {
        let found = self.0.options.webhooks.0.load().get(name).cloned();
        // A name that nobody declared is no label of a metric: senders choose it.
        found.ok_or_else(|| Error::not_found("webhook", name.chars().take(63).collect::<String>()))
    }

    /// Bytes of a message at most.
    pub fn webhook_bytes_max(&self, name: &str) -> Result<usize> {
        Ok(self.webhook(name)?.webhook.body_bytes_max)
    }

    /// Takes a message in. `body` is as it came. Errors start nothing.
    pub async fn hear(&self, name: &str, headers: http::HeaderMap, body: &[u8]) -> Result<Heard> {
        let with_keys = self.webhook(name)?;
        let heard = self.hear_by(&with_keys, headers, body).await;
        let outcome = match &heard {
            Ok(Heard::Accepted) => "accepted".to_owned(),
            Ok(Heard::NotWanted) => "not_wanted".to_owned(),
            Ok(Heard::Repeated) => "repeated".to_owned(),
            Err(e) => e.reason.to_ascii_lowercase(),
        };
        self.metrics().webhook(name, &outcome);
        heard
    }

    async fn hear_by(&self, with_keys: &WithKeys, headers: http::HeaderMap, body: &[u8]) -> Result<Heard> {
        if self.is_draining() {
            return Err(Error::draining());
        }
        let WithKeys { webhook, keys } = with_keys;
        let now = self.clock().now();
        let keys: Vec<SigningKey> = keys.iter().map(Watched::value).collect();
        let signed = verify(webhook, &keys, &headers, body, now).map_err(|refused| {
            tracing::warn!(webhook = %webhook.name, reason = refused.reason(), "a message was refused");
            Error::new(Code::Unauthenticated, refused.reason(), refused.to_string()).about("webhook", &webhook.name)
        })?;
        let text = std::str::from_utf8(body).unwrap_or_default();
        if text.trim().is_empty() {
            return Err(Error::field("body", "PAYLOAD_NOT_JSON", "expected a JSON document in UTF-8"));
        }
        check_payload("body", text, webhook.body_bytes_max)?;
        let message = Message::new(headers, text, now);
        if !webhook.wants(&message) {
            return Ok(Heard::NotWanted);
        }
        let wanted = self.wanted_by(webhook, &message, &signed)?;
        let mark = mark(&webhook.name, &signed);
        let forget_at = now + webhook.remember;
        match self.engine().receive(Received { webhook: webhook.name.clone(), mark, forget_at, wanted }).await {
            Ok(()) => Ok(Heard::Accepted),
            Err(PullError::Engine(EngineError::Refused(Refusal::Repeated(_)))) => Ok(Heard::Repeated),
            Err(PullError::Engine(e)) => Err(e.into()),
            Err(e) => Err(no_target(webhook, e)),
        }
    }

    fn wanted_by(&self, webhook: &Webhook, message: &Message, signed: &Signed) -> Result<Wanted> {
        let unfit = |said: String| Error::field("body", "BAD_MESSAGE", said);
        match &webhook.starts {
            Starts::Pull(spec) => Ok(Wanted::Pull(spec.clone())),
            Starts::Record(rule) => {
                let collection = self.engine().collections().get(&rule.collection);
                let collection = collection.ok_or_else(|| {
                    no_target(webhook, format_args!("collection {} is not declared", rule.collection))
                })?;
                let (id, data) = rule.record(message).map_err(unfit)?;
                let document = data.map(|data| records::check(&collection, data)).transpose()?;
                Ok(Wanted::Record(self.write_op(&collection, id, document, None)))
            }
            Starts::Job(rule) => {
                let operation = self.engine().registry().operation(&rule.provider, &rule.operation);
                let (_, operation) = operation.ok_or_else(|| {
                    let target = format_args!("operation {}/{} is not declared", rule.provider, rule.operation);
                    no_target(webhook, target)
                })?;
                let mut job = rule.job(message, operation.coalesce).map_err(unfit)?;
                check_payload("payload", &job.payload, self.0.options.payload_bytes_max)?;
                job.labels.insert("webhook".to_owned(), webhook.name.to_string());
                if signed.id.len() <= LABEL_BYTES_MAX {
                    job.labels.insert("delivery".to_owned(), signed.id.clone());
                }
                Ok(Wanted::Job(job))
            }
        }
    }
}

/// Nothing is wrong with the message, so that its sender may try again when it is mended.
fn no_target(webhook: &Webhook, said: impl std::fmt::Display) -> Error {
    let said = format!("webhook {} cannot start anything: {said}", webhook.name);
    Error::new(Code::FailedPrecondition, "WEBHOOK_UNUSABLE", said).about("webhook", &webhook.name)
}

fn mark(webhook: &WebhookName, signed: &Signed) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(webhook.as_str().as_bytes());
    hash.update([0]);
    hash.update(signed.id.as_bytes());
    hash.finalize().into()
}
