//! An error as problem+json (RFC 9457), made of the status that gRPC would tell. Must never know: what went wrong.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tonic::Status;
use tonic_types::StatusExt;

use crate::api::error::CODES;

/// An error, ready for HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Of the answer.
    pub status: u16,
    /// The whole text.
    pub json: String,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// With a status of its own, for what HTTP has a word for and gRPC has not.
    pub fn new(status: u16, reason: &str, detail: &str) -> Problem {
        let title = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("error");
        let body = json!({
            "type": kind(reason), "title": title, "status": status, "detail": detail, "reason": reason
        });
        Problem { status, json: body.to_string(), retry_after: None }
    }
}

/// A name, not an address: nothing is to be fetched there.
fn kind(reason: &str) -> String {
    format!("urn:tidegate:error:{reason}")
}

fn http_status(code: tonic::Code) -> u16 {
    let row = CODES.iter().find(|row| row.1 == code as i32);
    row.map_or(
        match code {
            tonic::Code::Ok => 200,
            tonic::Code::Cancelled => 499,
            tonic::Code::Unauthenticated => 401,
            tonic::Code::PermissionDenied => 403,
            _ => 500,
        },
        |row| row.2,
    )
}

impl From<Status> for Problem {
    fn from(status: Status) -> Problem {
        let details = status.get_error_details();
        let code = http_status(status.code());
        let info = details.error_info();
        let reason = info.map_or("UNKNOWN", |info| info.reason.as_str());
        let mut body = Map::new();
        let mut put = |key: &str, value: Value| drop(body.insert(key.to_owned(), value));
        put("type", kind(reason).into());
        put("title", status.code().description().into());
        put("status", code.into());
        put("detail", status.message().into());
        put("reason", reason.into());
        if let Some(request) = details.bad_request() {
            let fields = request.field_violations.iter();
            let told = fields.map(|v| json!({"field": v.field, "description": v.description}));
            put("violations", told.collect::<Vec<_>>().into());
        }
        if let Some(about) = details.resource_info() {
            put("resource", json!({"type": about.resource_type, "name": about.resource_name}));
        }
        if let Some(info) = info.filter(|info| !info.metadata.is_empty()) {
            let mut facts: Vec<_> = info.metadata.iter().collect();
            facts.sort();
            put("metadata", facts.into_iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect());
        }
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        if let Some(wait) = retry_after {
            put("retryAfterSeconds", wait.as_secs_f64().into());
        }
        Problem { status: code, json: Value::Object(body).to_string(), retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Error;

    #[test]
    fn a_wrong_field_and_a_wait_are_told() {
        let problem = Problem::from(Error::field("job.payload", "PAYLOAD_NOT_JSON", "expected JSON, got 'x'"));
        let body: Value = serde_json::from_str(&problem.json).unwrap();
        assert_eq!((problem.status, &body["status"]), (400, &json!(400)));
        assert_eq!(body["reason"], "PAYLOAD_NOT_JSON");
        assert_eq!(body["violations"][0]["field"], "job.payload");
        let problem = Problem::from(Error::draining());
        assert_eq!((problem.status, problem.retry_after), (503, Some(crate::api::error::RESTART_WAIT)));
    }
}
