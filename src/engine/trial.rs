//! A test of a provider: one real call outside of the queue, journaled and counted like any other.
//!
//! It is of no declared operation, so it has one of its own for the journal. Must never know: limits, HTTP. Next:
//! `gate/report`, which lets it go; `caller/direct`, which carries it out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::call::unqueued;
use super::gate::direct::{Ask, Said};
use super::handle::{EngineError, Handle};
use super::status::TestReport;
use crate::clock::Timestamp;
use crate::model::call::Lane;
use crate::model::call_log::limit_headers;
use crate::model::flow::Class;
use crate::model::name::{Account, OperationName, ProviderName};
use crate::model::provider::Operation;
use crate::model::request::Request;
use crate::store::Refusal;

/// What the journal calls it.
const OPERATION: &str = "test";

impl Handle {
    /// One GET of `path` below the base URL, with the provider's credentials, outside of the queue. It spends a permit
    /// of each provider-wide limit like any other call.
    pub async fn test_provider(&self, name: &ProviderName, path: &str) -> Result<TestReport, EngineError> {
        let Some(entry) = self.registry().get(name) else { return Err(Refusal::NoProvider(name.clone()).into()) };
        let provider = entry.provider;
        let mut url = provider.base_url.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let joined = format!("{}/{}", url.path().trim_end_matches('/'), path.trim_start_matches('/'));
        url.set_path(&joined);
        url.set_query(query);
        let method = http::Method::GET;
        let operation = Operation::bare(OperationName::new(OPERATION).expect("it is a word"), method.clone());
        let ask = Ask {
            provider: provider.clone(),
            operation: Arc::new(operation),
            account: Account::default(),
            job: unqueued(self, Class::Urgent, None, "null".into()),
            request: Request { method, url, headers: http::HeaderMap::new(), body: bytes::Bytes::new() },
            class: Class::Urgent,
            wait_until: Timestamp::ZERO,
            on_wire: watch::Sender::new(false),
        };
        let operation = ask.operation.clone();
        let (said, took) = entry.gate.test(ask).await.ok_or(EngineError::Draining)??;
        Ok(report(said, took, &provider.limit_header_names(&operation, Lane::Single)))
    }
}

fn report(said: Said, took: Duration, names: &[&http::HeaderName]) -> TestReport {
    let unanswered = |why: String| TestReport { status: None, error: Some(why), took, limit_headers: Vec::new() };
    match said {
        Said::Answered(answer) | Said::Outdated(answer) | Said::NotNow { answer, .. } => TestReport {
            status: Some(answer.status),
            error: None,
            took,
            limit_headers: limit_headers(&answer.headers, names),
        },
        Said::Failed(failure) => unanswered(failure.reason.to_string()),
        Said::Refused(why) | Said::NoRoom { why, .. } => unanswered(why),
    }
}
