//! Many rows by one statement: a query whose tuple of parameters is repeated.
//!
//! Sizes are few and fixed, so that a statement is prepared once; a list that fits none is filled up with rows of nulls,
//! which every such query passes over. Unlike with `json_each` arrays nothing is rendered and parsed. Next: `trip`.

use std::sync::Arc;

use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;

use super::trip::Trip;
use crate::store::Error;

/// Rows per statement. The largest stays under SQLite's 32,766 parameters with 20 columns.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];
/// Statements of this many rows and more travel by themselves: they are worth a trip, and as part of longer texts each
/// would be kept prepared in many places.
const ALONE: usize = 64;

#[derive(Debug)]
pub(super) struct Bulk {
    texts: [Arc<str>; SIZES.len()],
    columns: usize,
}

/// The values of one row.
pub(super) struct Cells<'a>(&'a mut SqliteArguments);

impl Bulk {
    /// `sql` holds one tuple `values (?, ...)` and passes over rows whose first column is null.
    pub(super) fn new(sql: &'static str) -> Self {
        let sql: String = sql.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
        let from = sql.find("values (?").expect("a bulk query has a tuple of parameters") + "values ".len();
        let to = from + sql[from..].find(')').expect("the tuple is closed") + 1;
        let (head, tuple, tail) = (&sql[..from], &sql[from..to], &sql[to..]);
        let texts = SIZES.map(|n| format!("{head}{}{tail}", vec![tuple; n].join(", ")).into());
        Bulk { texts, columns: tuple.matches('?').count() }
    }

    /// Writes all rows. `fill` adds the columns of a row in the order of the tuple.
    pub(super) async fn write<T>(
        &self,
        trip: &mut Trip<'_>,
        rows: &[T],
        fill: impl Fn(&mut Cells<'_>, &T),
    ) -> Result<(), Error> {
        let mut rest = rows;
        while !rest.is_empty() {
            // As many full statements as there are, then one that is filled up.
            let whole = SIZES.iter().rposition(|&size| size <= rest.len()).expect("one row is a size");
            let fits = SIZES.iter().position(|&size| size >= rest.len());
            let at = if SIZES[whole] >= ALONE { whole } else { fits.unwrap_or(whole) };
            let (now, later) = rest.split_at(SIZES[at].min(rest.len()));
            rest = later;
            let alone = SIZES[at] >= ALONE;
            if alone {
                trip.flush().await?;
            }
            trip.write_rows(&self.texts[at], |args| {
                now.iter().for_each(|row| fill(&mut Cells(args), row));
                (0..(SIZES[at] - now.len()) * self.columns).for_each(|_| Cells(args).opt_int(None));
            });
            if alone {
                trip.flush().await?;
            }
        }
        Ok(())
    }
}

impl Cells<'_> {
    pub(super) fn int(&mut self, n: i64) {
        self.0.add(n).expect("a number can always be bound");
    }

    pub(super) fn real(&mut self, n: f64) {
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
