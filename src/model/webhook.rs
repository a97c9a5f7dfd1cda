//! Webhooks that come in, as declared: who may send, which messages are wanted, and what each starts.
//!
//! Pure: a message goes in, a job or a record comes out. Must never know: signatures, stores. Next: `api/webhooks`, which
//! asks who sent it; `config/webhooks` for how it is declared.

use std::sync::Arc;
use std::time::Duration;

use super::auth::SecretRef;
use super::flow::Class;
use super::id::{FlowId, Id};
use super::job::{ClaimedJob, Coalesce, Labels, NewJob};
use super::name::{Account, CollectionName, Key, OperationName, ProviderName, Tenant, WebhookName};
use super::provider::Match;
use super::request::{BodyTemplate, Facts, Into, Template};
use super::schedule::PullSpec;
use super::verdict::{Answer, any_fits};
use crate::clock::Timestamp;

/// Secrets of one webhook: the old and the new one while senders change over.
pub const SECRETS_MAX: usize = 2;

#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    pub name: WebhookName,
    pub scheme: Scheme,
    /// 1 to [`SECRETS_MAX`]; any of them will do.
    pub secrets: Vec<SecretRef>,
    /// How far the time that was signed may be from now, either way. Not for [`Scheme::GitHub`], which signs none.
    pub tolerance: Duration,
    /// How long a message is remembered, so that it starts nothing when it comes again.
    pub remember: Duration,
    pub body_bytes_max: usize,
    /// Any of them must fit; empty: every message is wanted.
    pub only: Vec<Match>,
    pub starts: Starts,
}

/// How senders sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    Standard,
    /// `X-Hub-Signature-256`, over the body alone.
    GitHub,
    /// `Stripe-Signature`, over time and body.
    Stripe,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Starts {
    Job(Box<JobRule>),
    Pull(PullSpec),
    Record(Box<RecordRule>),
}

/// A job whose texts may be filled in from the message.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRule {
    pub provider: ProviderName,
    pub operation: OperationName,
    pub account: Template,
    pub tenant: Tenant,
    pub key: Option<Template>,
    pub class: Class,
    pub payload: BodyTemplate,
    pub labels: Labels,
}

/// A record that is put, or deleted when any of `deleted_if` fits.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordRule {
    pub collection: CollectionName,
    pub id: Template,
    pub data: BodyTemplate,
    pub deleted_if: Vec<Match>,
}

/// A message whose sender is known, and whose body is JSON. Matches look at it like at an answer.
#[derive(Clone, Debug)]
pub struct Message {
    seen: Answer,
    body: Arc<str>,
}

impl Message {
    pub fn new(headers: http::HeaderMap, body: &str, received_at: Timestamp) -> Message {
        let bytes = bytes::Bytes::copy_from_slice(body.as_bytes());
        let seen = Answer { status: 200, headers, body: bytes, truncated: false, received_at };
        Message { seen, body: body.into() }
    }

    /// Fills a rule in. Templates know jobs, so the message goes as the payload of one.
    fn fill<T>(&self, read: impl FnOnce(&Facts<'_>) -> Result<T, super::request::RenderError>) -> Result<T, String> {
        let carrier = ClaimedJob {
            id: Id::new(Timestamp::ZERO, 0),
            flow: FlowId(0),
            class: Class::Normal,
            key: None,
            payload: self.body.clone(),
            version: 1,
            due_at: Timestamp::ZERO,
            attempts: 0,
            crashes: 0,
            throttles: 0,
            first_sent_at: None,
            traceparent: None,
        };
        let (account, tenant) = (Account::default(), Tenant::default());
        let facts = Facts { account: &account, tenant: &tenant, jobs: &[carrier] };
        read(&facts).map_err(|e| e.reason.replace("the request needs", "it needs"))
    }

    fn name(&self, template: &Template) -> Result<String, String> {
        self.fill(|facts| template.text(facts, Into::Name))
    }

    fn document(&self, template: &BodyTemplate) -> Result<Arc<str>, String> {
        let bytes = self.fill(|facts| template.bytes(facts))?;
        String::from_utf8(bytes).map(Arc::from).map_err(|e| e.to_string())
    }
}

impl Webhook {
    pub fn wants(&self, message: &Message) -> bool {
        self.only.is_empty() || any_fits(&self.only, &message.seen)
    }
}

impl JobRule {
    /// The job of a message, or what is wrong with the message. `coalesce`: the operation's rule.
    pub fn job(&self, message: &Message, coalesce: Coalesce) -> Result<NewJob, String> {
        let account = Account::new(message.name(&self.account)?).map_err(|e| e.to_string())?;
        let key = self.key.as_ref().map(|key| message.name(key)).transpose()?;
        let mut job = NewJob::new(self.provider.clone(), self.operation.clone(), message.document(&self.payload)?);
        job.key = key.map(Key::new).transpose().map_err(|e| e.to_string())?;
        job.tenant = self.tenant.clone();
        job.class = self.class;
        job.labels = self.labels.clone();
        Ok(NewJob { account, coalesce, ..job })
    }
}

impl RecordRule {
    /// Id and document; no document: it is to be deleted.
    pub fn record(&self, message: &Message) -> Result<(Key, Option<Arc<str>>), String> {
        let id = Key::new(message.name(&self.id)?).map_err(|e| e.to_string())?;
        if any_fits(&self.deleted_if, &message.seen) {
            return Ok((id, None));
        }
        Ok((id, Some(message.document(&self.data)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::Site;

    fn text(source: &str) -> Template {
        Template::parse(source, Site::Webhook).unwrap()
    }

    fn body(source: serde_json::Value) -> BodyTemplate {
        BodyTemplate::parse(source, Site::Webhook).unwrap()
    }

    #[test]
    fn a_record_is_filled_in_byte_for_byte_and_a_message_without_its_id_says_so() {
        let rule = RecordRule {
            collection: CollectionName::new("orders").unwrap(),
            id: text("order-{payload.data.id}"),
            data: body("{payload.data}".into()),
            deleted_if: vec![Match { json: Some(("/type".into(), Some("gone".into()))), ..Match::default() }],
        };
        let message = |text: &str| Message::new(http::HeaderMap::new(), text, Timestamp::ZERO);
        let (id, data) = rule.record(&message(r#"{"type":"new","data":{"id":7, "n":1.50}}"#)).unwrap();
        assert_eq!((id.as_str(), data.as_deref()), ("order-7", Some(r#"{"id":7, "n":1.50}"#)));
        let (id, data) = rule.record(&message(r#"{"type":"gone","data":{"id":"8"}}"#)).unwrap();
        assert_eq!((id.as_str(), data), ("order-8", None));
        let said = rule.record(&message(r#"{"data":{}}"#)).unwrap_err();
        assert_eq!(said, "it needs payload.data.id, and it is not there");
    }

    #[test]
    fn only_the_message_can_stand_in_what_it_starts() {
        for bad in ["{key}", "{account}", "{payloads}", "{job_id}", "{payload}"] {
            assert!(Template::parse(bad, Site::Webhook).is_err(), "{bad}");
        }
    }
}
