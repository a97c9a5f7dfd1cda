//! Many rows by one statement: a query whose tuple of parameters is repeated.
//!
//! A statement costs two hops between threads, so a row of its own each is out of the question. Sizes are fixed, so
//! that every statement is prepared once; and unlike with `json_each` arrays nothing is rendered and parsed.

use std::sync::Arc;

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, SqliteConnection};

use super::error;
use crate::store::Error;

/// Rows per statement. The largest stays under SQLite's 32,766 parameters with 20 columns.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

#[derive(Debug)]
pub(super) struct Bulk([Arc<str>; SIZES.len()]);

/// Statements with their parameters.
#[derive(Debug)]
pub(super) struct Filled(Vec<(Arc<str>, SqliteArguments)>);

/// The values of one row.
pub(super) struct Cells<'a>(&'a mut SqliteArguments);

impl Bulk {
    /// `sql` holds one tuple `values (?, ...)`.
    pub(super) fn new(sql: &'static str) -> Self {
        let from = sql.find("values (?").expect("a bulk query has a tuple of parameters") + "values ".len();
        let to = from + sql[from..].find(')').expect("the tuple is closed") + 1;
        let (head, tuple, tail) = (&sql[..from], &sql[from..to], &sql[to..]);
        Bulk(SIZES.map(|n| format!("{head}{}{tail}", vec![tuple; n].join(", ")).into()))
    }

    /// Statements for all rows. `fill` adds the columns of a row in the order of the tuple.
    pub(super) fn of<T>(&self, rows: &[T], fill: impl Fn(&mut Cells<'_>, &T)) -> Filled {
        let mut rest = rows;
        let mut statements = Vec::new();
        for (size, sql) in SIZES.into_iter().zip(&self.0) {
            while rest.len() >= size {
                let (now, later) = rest.split_at(size);
                rest = later;
                let mut args = SqliteArguments::default();
                for row in now {
                    fill(&mut Cells(&mut args), row);
                }
                statements.push((sql.clone(), args));
            }
        }
        Filled(statements)
    }
}

impl Filled {
    pub(super) async fn run(self, conn: &mut SqliteConnection) -> Result<(), Error> {
        for (sql, args) in self.0 {
            // Safe: the text comes from a file of ours, repeated; values go in as parameters only.
            sqlx::query_with(AssertSqlSafe(sql), args).execute(&mut *conn).await.map_err(error::of)?;
        }
        Ok(())
    }
}

impl Cells<'_> {
    pub(super) fn int(&mut self, n: i64) {
        self.0.add(n).expect("a number can always be bound");
    }

    pub(super) fn opt_int(&mut self, n: Option<i64>) {
        self.0.add(n).expect("a number can always be bound");
    }

    pub(super) fn str(&mut self, s: &str) {
        self.0.add(s).expect("a text can always be bound");
    }

    pub(super) fn opt_str(&mut self, s: Option<&str>) {
        self.0.add(s).expect("a text can always be bound");
    }

    /// Shares the text instead of copying it.
    pub(super) fn text(&mut self, s: &Arc<str>) {
        self.0.add(s.clone()).expect("a text can always be bound");
    }

    pub(super) fn opt_text(&mut self, s: Option<&Arc<str>>) {
        match s {
            Some(s) => self.text(s),
            None => self.0.add(None::<&str>).expect("null can always be bound"),
        }
    }

    pub(super) fn blob(&mut self, b: Vec<u8>) {
        self.0.add(b).expect("bytes can always be bound");
    }
}

/// Job numbers and the like for `json_each`.
pub(super) fn json(numbers: impl IntoIterator<Item = i64>) -> String {
    let mut text = String::from("[");
    for n in numbers {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&n.to_string());
    }
    text.push(']');
    text
}
