//! Many rows by one statement: columns as arrays, for `unnest`. PostgreSQL cannot keep the character NUL in a text, so it
//! becomes U+FFFD here: one odd text must not keep a whole batch from being stored. Next: `work`.

use std::borrow::Cow;

use sqlx::Postgres;
use sqlx::postgres::PgArguments;

use crate::model::flow::FlowCounts;
use crate::store::rules::{Core, Stand, counter};

pub(super) type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// A text that PostgreSQL takes.
pub(super) fn text(s: &str) -> Cow<'_, str> {
    if s.contains('\0') { Cow::Owned(s.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(s) }
}

pub(super) fn opt_text(s: Option<&str>) -> Option<Cow<'_, str>> {
    s.map(text)
}

/// Binds the cores as `update_jobs.sql`, `finish_jobs.sql` and `revive_jobs.sql` take them.
pub(super) fn bind_cores<'q>(query: Query<'q>, cores: &[&Core]) -> Query<'q> {
    let ints = |get: fn(&Core) -> i64| -> Vec<i64> { cores.iter().map(|core| get(core)).collect() };
    let opts = |get: fn(&Core) -> Option<i64>| -> Vec<Option<i64>> { cores.iter().map(|core| get(core)).collect() };
    let last_error: Vec<Option<Cow<'_, str>>> = cores.iter().map(|core| opt_text(core.last_error.as_deref())).collect();
    let result: Vec<Option<Cow<'_, str>>> = cores.iter().map(|core| opt_text(core.result.as_deref())).collect();
    query
        .bind(ints(|c| c.id.seq))
        .bind(ints(|c| c.stand as i64))
        .bind(ints(|c| c.class as i64))
        .bind(ints(|c| c.turn))
        .bind(opts(|c| c.key_hash))
        .bind(ints(|c| i64::from(c.version)))
        .bind(ints(|c| i64::from(c.attempts)))
        .bind(ints(|c| i64::from(c.crashes)))
        .bind(ints(|c| i64::from(c.throttles)))
        .bind(ints(|c| c.due_at.0))
        .bind(ints(|c| c.updated_at.0))
        .bind(opts(|c| c.finished_at.map(|t| t.0)))
        .bind(ints(|c| i64::from(c.cancel_requested)))
        .bind(opts(|c| c.first_sent_at.map(|t| t.0)))
        .bind(opts(|c| c.last_status.map(i64::from)))
        .bind(last_error)
        .bind(result)
}

/// What a commit adds to the ten counters of a flow, a sum or a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delta([i64; 10]);

impl Delta {
    pub(super) fn count(&mut self, at: Option<(Stand, crate::model::flow::Class)>, n: i64) {
        let Some((stand, class)) = at else { return };
        // The rules know which counter a place has; ask them by counting to one.
        let mut one = FlowCounts::default();
        *counter(&mut one, stand, class) = 1;
        for (mine, there) in self.0.iter_mut().zip(columns(&one)) {
            *mine += n * there;
        }
    }

    pub(super) fn add(&mut self, other: &Delta) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

/// In the order of the columns.
fn columns(c: &FlowCounts) -> [i64; 10] {
    let [urgent, normal, bulk] = c.ready;
    [urgent, normal, bulk, c.later, c.behind, c.calling, c.unknown, c.delivered, c.dead, c.cancelled].map(|n| n as i64)
}

/// Binds ten arrays, one per counter.
pub(super) fn bind_deltas<'q>(mut query: Query<'q>, deltas: &[Delta]) -> Query<'q> {
    for column in 0..10 {
        query = query.bind(deltas.iter().map(|delta| delta.0[column]).collect::<Vec<i64>>());
    }
    query
}
