//! A trip to the database's thread: writes wait here and travel together, with the next read or with the commit.
//!
//! A statement of its own costs two hops between threads, and on a busy machine each waits for a processor; a commit
//! of a dozen statements took five times as long as its work. So writes are put off until something must be read or the
//! transaction ends, and go as one text of many statements, prepared once per combination. Must never know what the
//! statements are for. Next: `work`.

use std::sync::Arc;

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Either, Executor, SqliteConnection};

use super::error;
use crate::store::Error;

/// A parameter.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Int(i64),
    Text(Arc<str>),
    Owned(String),
    Blob(Vec<u8>),
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Value::Int(n)
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Value::Owned(s.to_owned())
    }
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Value::Owned(s)
    }
}

impl From<Arc<str>> for Value {
    fn from(s: Arc<str>) -> Self {
        Value::Text(s)
    }
}

impl From<Vec<u8>> for Value {
    fn from(b: Vec<u8>) -> Self {
        Value::Blob(b)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Value::Null, Into::into)
    }
}

/// Statements on their way, and the connection that they go to.
pub(super) struct Trip<'c> {
    conn: &'c mut SqliteConnection,
    text: String,
    args: SqliteArguments,
}

impl<'c> Trip<'c> {
    /// The first statement opens the transaction; [`Trip::commit`] ends it. A trip that is dropped on the way leaves
    /// it open: whoever owns the connection rolls back.
    pub(super) fn begin(conn: &'c mut SqliteConnection) -> Self {
        Trip { conn, text: String::from("begin immediate;\n"), args: SqliteArguments::default() }
    }

    /// Adds a statement with parameters `?1`, `?2`, ... It takes effect before everything that is asked later.
    pub(super) fn write(&mut self, sql: &str, values: &[Value]) {
        append(sql, &mut self.text, |n| add(&mut self.args, &values[n - 1]));
    }

    /// Adds a statement whose parameters are bare and are filled in by `fill`. It has no comments.
    pub(super) fn write_rows(&mut self, sql: &str, fill: impl FnOnce(&mut SqliteArguments)) {
        self.text.push_str(sql);
        self.text.push_str(";\n");
        fill(&mut self.args);
    }

    /// Sends what waits, then asks. Rows of the last statement only: the ones before it return none.
    pub(super) async fn read(&mut self, sql: &str, values: &[Value]) -> Result<Vec<SqliteRow>, Error> {
        self.write(sql, values);
        self.send().await.map(|(rows, _)| rows)
    }

    /// Sends what waits; how many rows the last statement changed.
    pub(super) async fn flush(&mut self) -> Result<u64, Error> {
        if self.text.is_empty() {
            return Ok(0);
        }
        self.send().await.map(|(_, changed)| changed)
    }

    /// Durable when it returns.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        self.text.push_str("commit;\n");
        self.send().await.map(drop)
    }

    async fn send(&mut self) -> Result<(Vec<SqliteRow>, u64), Error> {
        let (text, args) = (std::mem::take(&mut self.text), std::mem::take(&mut self.args));
        // Safe: the text is made of our files only; values go in as parameters.
        let mut answers = self.conn.fetch_many(sqlx::query_with(AssertSqlSafe(text), args));
        let (mut rows, mut changed) = (Vec::new(), 0);
        while let Some(answer) = answers.try_next().await.map_err(error::of)? {
            match answer {
                Either::Left(done) => changed = done.rows_affected(),
                Either::Right(row) => rows.push(row),
            }
        }
        Ok((rows, changed))
    }
}

fn add(args: &mut SqliteArguments, value: &Value) {
    let added = match value {
        Value::Null => args.add(None::<i64>),
        Value::Int(n) => args.add(*n),
        Value::Text(s) => args.add(s.clone()),
        Value::Owned(s) => args.add(s.clone()),
        Value::Blob(b) => args.add(b.clone()),
    };
    added.expect("numbers, texts and bytes can always be bound");
}

/// Appends a statement without its comments, and with its numbered parameters as bare ones, because numbers count over
/// a whole text of statements. `parameter` is told each number in the order in which they stand.
fn append(sql: &str, text: &mut String, mut parameter: impl FnMut(usize)) {
    for line in sql.lines() {
        let line = line.split("--").next().unwrap_or("");
        let mut parts = line.split('?');
        text.push_str(parts.next().unwrap_or(""));
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            parameter(part[..digits].parse().expect("parameters are numbered"));
            text.push('?');
            text.push_str(&part[digits..]);
        }
        if !line.is_empty() {
            text.push('\n');
        }
    }
    text.push_str(";\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_stands_twice_is_asked_for_twice_and_comments_go() {
        let (mut text, mut asked) = (String::new(), Vec::new());
        append("-- of ?9\nselect ?2 -- ?7\nwhere a = ?12\n  and b = ?2", &mut text, |n| asked.push(n));
        assert_eq!(text, "select ? \nwhere a = ?\n  and b = ?\n;\n");
        assert_eq!(asked, [2, 12, 2]);
    }
}
