//! What a failure of PostgreSQL means: once more, pass, or stop. Next: `commit`.

use crate::store::Error;
pub(super) use crate::store::row::strange;

/// A failure within a commit.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another daemon was in the way and is done by now, or the database gave up one of two that waited for each other:
    /// the same batch may succeed at once.
    Again(String),
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Failed(error)
    }
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        match code_of(&error).as_deref() {
            // Serialization failure, deadlock; a lock that was waited for too long is no better the next time.
            Some("40001" | "40P01") => Trouble::Again(error.to_string()),
            // A constraint decided between two daemons (job_head, idempotency, flow_by_key, a declaration).
            Some("23505") => Trouble::Again(error.to_string()),
            // A partition of finished jobs was dropped or not made yet.
            Some("23514") if error.to_string().contains("no partition of relation") => {
                Trouble::Again(error.to_string())
            }
            _ => Trouble::Failed(of(error)),
        }
    }
}

fn code_of(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

pub(super) fn of(error: sqlx::Error) -> Error {
    of_ref(&error)
}

pub(super) fn of_ref(error: &sqlx::Error) -> Error {
    let reason = error.to_string();
    match (error, code_of(error).as_deref()) {
        // I/O error (a failed fsync among them), corrupt data or index.
        (_, Some("58030" | "XX001" | "XX002")) => Error::Fatal { reason },
        // The schema is not the one that this program made: a missing table, column, function.
        (_, Some(code)) if code.starts_with("42") => Error::Fatal { reason },
        (
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. },
            _,
        ) => Error::Fatal { reason },
        _ => Error::Unavailable { reason },
    }
}

/// Was the connection lost, rather than a statement refused?
pub(super) fn is_disconnect(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // Shut down, crashed, not yet up: the connection is of no use any more.
        _ => code_of(error).is_some_and(|code| code.starts_with("57P0") || code.starts_with("08")),
    }
}
