//! What the call log keeps of a call that has ended: its latency, the provider's word on its limits, and bodies where the
//! operation asks for them.
//!
//! A request is rendered once more for its body, so that a call that is not to be logged pays nothing. Must never know:
//! what is a secret; `model/call_log` and the credential do. Next: `super`.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;

use super::{Caller, Errand, pages};
use crate::model::call::Lane;
use crate::model::call_log::{Bodies, LogBodies, Seen, limit_headers};
use crate::model::provider::{Operation, Provider};
use crate::model::request::{Request, render};
use crate::model::verdict::{Answer, Failure, Sent};
use crate::outbound::Credential;

impl Caller {
    /// `None`: nothing was sent.
    pub(super) fn seen(
        &self,
        errand: &Errand,
        answer: &Result<Answer, Failure>,
        credential: &Credential,
        took: Duration,
    ) -> Option<Seen> {
        let Errand { operation, lane, account, tenant, call, .. } = errand;
        seen(&self.provider, operation, *lane, answer, credential, took, || {
            let mut request = render(&self.provider, operation, *lane, account, tenant, &call.jobs).ok()?;
            pages::prepare(errand, &mut request).ok()?;
            Some(request)
        })
    }
}

/// The same for any call. `request`: what was sent, asked for only if its body is to be kept.
pub(super) fn seen(
    provider: &Provider,
    operation: &Operation,
    lane: Lane,
    answer: &Result<Answer, Failure>,
    credential: &Credential,
    took: Duration,
    request: impl FnOnce() -> Option<Request>,
) -> Option<Seen> {
    if matches!(answer, Err(Failure { sent: Sent::No, .. })) {
        return None;
    }
    let secrets = |text: &str| credential.hide(&Arc::from(text)).to_string();
    let names = provider.limit_header_names(operation, lane);
    let mut headers = answer.as_ref().map(|a| limit_headers(&a.headers, &names)).unwrap_or_default();
    headers.iter_mut().for_each(|(_, value)| *value = secrets(value));
    let bodies = operation.log_bodies.as_ref().map(|log| bodies(log, request(), answer, secrets));
    Some(Seen { latency: took, headers, bodies })
}

fn bodies(
    log: &LogBodies,
    request: Option<Request>,
    answer: &Result<Answer, Failure>,
    secrets: impl Fn(&str) -> String,
) -> Bodies {
    let kind = |headers: &http::HeaderMap| {
        headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned()
    };
    let request = request.map(|r| log.kept(&r.body, true, &kind(&r.headers), &secrets));
    let answer = answer.as_ref().ok().map(|a| log.kept(&a.body, !a.truncated, &kind(&a.headers), &secrets));
    Bodies { request: request.unwrap_or_default(), answer: answer.unwrap_or_default() }
}
