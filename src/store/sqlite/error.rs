//! What a failure of SQLite means: pass, or stop. Next: `open`.

use crate::store::Error;
pub(super) use crate::store::row::strange;

/// Primary result codes after which going on could lose what was acknowledged: I/O error (a failed fsync among them),
/// corrupt file, not a database.
const FATAL: [i32; 3] = [10, 11, 26];

pub(super) fn of(error: sqlx::Error) -> Error {
    of_ref(&error)
}

pub(super) fn of_ref(error: &sqlx::Error) -> Error {
    let reason = error.to_string();
    match error {
        sqlx::Error::Database(database) => {
            let code: i32 = database.code().and_then(|code| code.parse().ok()).unwrap_or(0);
            if FATAL.contains(&(code & 0xff)) { Error::Fatal { reason } } else { Error::Unavailable { reason } }
        }
        // A row that is not what the schema says.
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. } => Error::Fatal { reason },
        _ => Error::Unavailable { reason },
    }
}
