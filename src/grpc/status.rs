//! How an [`api::Error`](crate::api::Error) is told over gRPC: code, message and google.rpc details.
//!
//! Must never know: what went wrong. Next: `api/error`, the one table of codes.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::pb;
use crate::api::Error;
use crate::api::error::{DOMAIN, Resource};

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        status(error)
    }
}

/// The rich status of an error. ErrorInfo is always there.
pub fn status(error: Error) -> Status {
    let Error { code, reason, message, more } = error;
    let metadata: HashMap<String, String> =
        more.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    for violation in &more.violations {
        details.add_bad_request_violation(&violation.field, &violation.description);
    }
    if more.retry_after.is_some() {
        details.set_retry_info(more.retry_after);
    }
    if let Some(Resource { kind, name }) = &more.resource {
        details.set_resource_info(*kind, name, "", &message);
        if code == crate::api::Code::FailedPrecondition {
            details.add_precondition_failure_violation(reason, format!("{kind}/{name}"), &message);
        }
    }
    if code == crate::api::Code::ResourceExhausted {
        let subject = more.metadata.iter().find(|(key, _)| *key == "cap").map_or("", |(_, cap)| cap);
        details.add_quota_failure_violation(subject, &message);
    }
    Status::with_error_details(Code::from_i32(code.grpc()), message, details)
}

/// The same for one item of a request.
pub fn item_error(error: Error) -> pb::ItemError {
    let Error { code, reason, message, more } = error;
    let violations = more.violations.into_iter().map(|violation| pb::FieldViolation {
        field: violation.field,
        description: violation.description,
        reason: violation.reason.to_owned(),
    });
    pb::ItemError {
        code: code.grpc(),
        reason: reason.to_owned(),
        message,
        violations: violations.collect(),
        metadata: more.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api;

    #[test]
    fn every_code_arrives_as_itself_with_its_reason() {
        for (code, number, _) in api::error::CODES {
            let told = status(Error::new(code, "SOME_REASON", "because"));
            assert_eq!(told.code() as i32, number);
            let details = told.get_error_details();
            let info = details.error_info().expect("ErrorInfo is always there");
            assert_eq!((info.reason.as_str(), info.domain.as_str()), ("SOME_REASON", "tidegate"));
        }
    }

    #[test]
    fn a_wrong_field_a_wait_and_a_resource_are_told() {
        let told = status(Error::field("jobs[3].payload", "PAYLOAD_NOT_JSON", "expected JSON"));
        assert_eq!(told.get_error_details().bad_request().unwrap().field_violations[0].field, "jobs[3].payload");
        let told = status(Error::draining());
        assert_eq!(told.get_error_details().retry_info().unwrap().retry_delay, Some(api::error::RESTART_WAIT));
        let told = status(Error::not_found("job", "x").retry_in(Duration::from_secs(1)));
        assert_eq!(told.get_error_details().resource_info().unwrap().resource_type, "job");
    }
}
