//! Filtered lists, newest first: of jobs, and of calls. Each looks at a window of rows along the primary key. Next: `read`.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe};

use super::row::{self, Columns};
use super::{SqliteStore, sql};
use crate::model::call::Call;
use crate::model::filter::Filter;
use crate::model::id::CallId;
use crate::store::filter::{Bind, condition, number_parameters, of_call, of_job};
use crate::store::{CallPage, Error, JobPage, LIST_SCAN_MAX, page};

/// Rows that a list looks at first.
const FIRST_WINDOW: usize = 256;

/// A label of a job, for the list filter.
const LABEL: &str = "(select value from json_each(j.labels) where key = ?)";

type Row = SqliteRow;
type Args = SqliteArguments;

/// A list with a filter in its text.
struct List<T> {
    text: Arc<str>,
    binds: Vec<Bind>,
    /// The query for where a window ends.
    floor: &'static str,
    read: fn(&Row) -> Result<T, Error>,
    number: fn(&T) -> i64,
}

impl SqliteStore {
    pub(super) async fn read_list(&self, filter: &Filter, before: Option<i64>, limit: usize) -> Result<JobPage, Error> {
        let mut binds = Vec::new();
        let condition = condition(filter, &of_job(LABEL), &mut binds);
        let text = with(sql::LIST_JOBS, &condition, 4);
        let list = List { text, binds, floor: sql::LIST_FLOOR, read: row::job, number: |job| job.id.seq };
        let (jobs, next) = self.window(list, before, limit).await?;
        Ok(JobPage { jobs, next })
    }

    pub(super) async fn read_call_list(
        &self,
        filter: &Filter,
        before: Option<CallId>,
        limit: usize,
        bodies: bool,
    ) -> Result<CallPage, Error> {
        let mut binds = vec![Bind::Int(i64::from(bodies))];
        let condition = condition(filter, &of_call, &mut binds);
        let text = with(sql::LIST_CALLS, &condition, 5);
        let number = |call: &Call| call.id.0;
        let list = List { text, binds, floor: sql::CALL_FLOOR, read: row::call, number };
        let (calls, next) = self.window(list, before.map(|id| id.0), limit).await?;
        Ok(CallPage { calls, next: next.map(CallId) })
    }

    /// Looks at a few rows first and at more only if they do not fill the page: most lists are not that selective.
    async fn window<T>(
        &self,
        list: List<T>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<T>, Option<i64>), Error> {
        let limit = page(limit);
        let (mut found, mut next) = (Vec::new(), None);
        let mut below = before.unwrap_or(i64::MAX);
        let mut looked = 0;
        while looked < LIST_SCAN_MAX {
            let window = if looked == 0 { FIRST_WINDOW.max(limit) } else { LIST_SCAN_MAX - looked };
            looked += window;
            let args = args([below, window as i64, (limit - found.len()) as i64], &list.binds);
            // Safe: the text is made of words of ours; values go in as parameters only.
            let query = sqlx::query_with(AssertSqlSafe(list.text.clone()), args).persistent(false);
            found.extend(self.rows(query, list.read).await?);
            if found.len() == limit {
                next = found.last().map(list.number);
                break;
            }
            let floor = sqlx::query(list.floor).bind(below).bind(window as i64 - 1);
            next = self.row(floor, |row| Columns::of(row).int()).await?;
            let Some(floor) = next else { break };
            below = floor;
        }
        Ok((found, next))
    }
}

/// The text with the filter in it. The parameters of the file are numbered, those of the condition are not: number them
/// on from there, as the driver binds them by position.
fn with(text: &str, condition: &str, first: usize) -> Arc<str> {
    number_parameters(&text.replacen("where true", &format!("where {condition}"), 1), first, '?').into()
}

fn args(numbers: [i64; 3], binds: &[Bind]) -> Args {
    let mut args = Args::default();
    for n in numbers {
        args.add(n).expect("a number can always be bound");
    }
    for bind in binds {
        match bind {
            Bind::Text(text) => args.add(text.as_str()).expect("a text can always be bound"),
            Bind::Int(n) => args.add(*n).expect("a number can always be bound"),
        }
    }
    args
}
