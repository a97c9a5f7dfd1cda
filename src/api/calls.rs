//! Calls whose answer somebody waits for, and throwing cached answers away.
//!
//! Must never know: proto types. Next: `engine/call`.

use std::time::Duration;

use super::Api;
use super::enqueue::check_payload;
use super::error::{BUSY_WAIT, Code, Error, Result, Violation};
pub use crate::engine::call::{CacheStatus, Told};
use crate::engine::call::{CallAsk, CallError};
use crate::model::flow::Class;
use crate::model::invalidation::{KEY_BYTES_MAX, Keys, Which};
use crate::model::name::{Account, BadName, Key, Namespace, OperationName, ProviderName, Tenant};

/// How long a call waits for the limits when nothing is said.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(30);
pub const WAIT_MAX: Duration = Duration::from_secs(300);

/// A call as a client asks for it, unchecked.
#[derive(Clone, Debug, Default)]
pub struct CallSpec {
    pub provider: String,
    pub operation: String,
    pub account: String,
    pub tenant: String,
    /// Empty: none.
    pub key: String,
    /// JSON; empty means `null`.
    pub payload: String,
    /// `None`: urgent.
    pub class: Option<Class>,
    /// `None`: [`WAIT_DEFAULT`].
    pub wait: Option<Duration>,
    /// Empty: the provider's name.
    pub namespace: String,
    pub fresh: bool,
}

impl Api {
    pub async fn call(&self, spec: CallSpec) -> Result<std::sync::Arc<Told>> {
        let ask = self.check_call(spec)?;
        let about = format!("{}/{}", ask.provider, ask.operation);
        self.engine().call(ask).await.map_err(|e| self.call_error(e, &about))
    }

    /// How many answers this daemon had.
    pub async fn invalidate(&self, namespace: &str, keys: Option<Keys>, actor: &str) -> Result<usize> {
        let which = which(namespace, keys)?;
        if self.is_draining() {
            return Err(Error::draining());
        }
        Ok(self.engine().invalidate(which, actor).await?)
    }

    fn check_call(&self, spec: CallSpec) -> Result<CallAsk> {
        check_payload("payload", &spec.payload, self.0.options.payload_bytes_max)?;
        let mut wrong = Vec::new();
        fn named<T>(wrong: &mut Vec<Violation>, field: &str, made: std::result::Result<T, BadName>) -> Option<T> {
            let bad = |e: BadName| Violation { field: field.into(), reason: "BAD_NAME", description: e.to_string() };
            made.map_err(|e| wrong.push(bad(e))).ok()
        }
        let provider = named(&mut wrong, "provider", ProviderName::new(&spec.provider));
        let operation = named(&mut wrong, "operation", OperationName::new(&spec.operation));
        let account = named(&mut wrong, "account", Account::new(&spec.account));
        let tenant = named(&mut wrong, "tenant", Tenant::new(&spec.tenant));
        let key = if spec.key.is_empty() { None } else { named(&mut wrong, "key", Key::new(&spec.key)) };
        let space = if spec.namespace.is_empty() { &spec.provider } else { &spec.namespace };
        let namespace = named(&mut wrong, "namespace", Namespace::new(space));
        let wait = spec.wait.unwrap_or(WAIT_DEFAULT);
        if wait > WAIT_MAX {
            let description = format!("expected at most {} s, got {wait:?}", WAIT_MAX.as_secs());
            wrong.push(Violation { field: "max_wait".into(), reason: "BAD_WAIT", description });
        }
        match (provider, operation, account, tenant, namespace) {
            (Some(provider), Some(operation), Some(account), Some(tenant), Some(namespace)) if wrong.is_empty() => {
                Ok(CallAsk {
                    provider,
                    operation,
                    account,
                    tenant,
                    key,
                    payload: if spec.payload.is_empty() { "null".into() } else { spec.payload.into() },
                    class: spec.class.unwrap_or(Class::Urgent),
                    wait,
                    namespace,
                    fresh: spec.fresh,
                })
            }
            _ => Err(Error::fields(wrong)),
        }
    }

    fn call_error(&self, error: CallError, about: &str) -> Error {
        let said = error.to_string();
        let operation = |code, reason| Error::new(code, reason, said.clone()).about("operation", about);
        match error {
            CallError::NoProvider(name) => Error::not_found("provider", name),
            CallError::NoOperation(..) => operation(Code::NotFound, "NO_SUCH_OPERATION"),
            CallError::Render(why) => Error::field("payload", "CANNOT_RENDER", why),
            CallError::NoRoom { earliest, .. } => {
                let error = operation(Code::ResourceExhausted, "NO_ROOM");
                match earliest {
                    Some(at) => error.retry_in(at.since(self.clock().now())).with("earliest", at.to_string()),
                    None => error,
                }
            }
            CallError::Refused(_) => operation(Code::FailedPrecondition, "PROVIDER_HELD"),
            CallError::NotSent(_) => operation(Code::Unavailable, "NOT_SENT").retry_in(Duration::from_secs(1)),
            CallError::Lost(_) => operation(Code::Unavailable, "ANSWER_LOST"),
            CallError::Busy(_) => Error::new(Code::ResourceExhausted, "TOO_MANY_CALLERS", said).retry_in(BUSY_WAIT),
            CallError::Unavailable(_) => Error::new(Code::Unavailable, "UNAVAILABLE", said).retry_in(BUSY_WAIT),
            CallError::Draining => Error::draining(),
        }
    }
}

/// Checks which answers are meant.
pub(super) fn which(namespace: &str, keys: Option<Keys>) -> Result<Which> {
    let namespace = Namespace::new(namespace).map_err(|e| Error::field("namespace", "BAD_NAME", e))?;
    let none = || Error::field("key", "NO_KEY", "expected a key or a prefix; the empty prefix is all of the namespace");
    let keys = keys.ok_or_else(none)?;
    let (field, text) = match &keys {
        Keys::Exactly(text) => ("key", text),
        Keys::Beginning(text) => ("prefix", text),
    };
    if text.len() > KEY_BYTES_MAX {
        return Err(Error::above_cap(field, "key_bytes_max", KEY_BYTES_MAX, text.len()));
    }
    Ok(Which { namespace, keys })
}
