//! Tells workers that what they work on is called off, so that they need not go on with it.
//!
//! A cancel that this daemon commits is told at once (`handle`); what other daemons commit is looked up when they say that
//! there is something (`cluster/relay`). The sweeper looks too, a page at a time, for what came between a job's start and
//! its lease, and for runs. The store has the last word either way: a job that was called off is not tried again. Must never
//! know: streams, SQL. Next: `desk`, which has the leases.

use std::collections::BTreeSet;

use super::desk::Desk;
use crate::model::run::RunState;
use crate::store::{Error, PAGE_MAX, Store};

/// Looks at every job that workers have.
pub async fn look_at_all(desk: &Desk, store: &dyn Store) -> Result<(), Error> {
    let mut after = 0;
    loop {
        after = look(desk, store, after).await?;
        if after == 0 {
            return Ok(());
        }
    }
}

/// Looks at up to [`PAGE_MAX`] of them above `after`. Returns where to go on; 0: from the start.
pub async fn look(desk: &Desk, store: &dyn Store, after: i64) -> Result<i64, Error> {
    let held = desk.jobs(after, PAGE_MAX);
    let Some(last) = held.last().copied() else { return Ok(0) };
    let jobs = store.jobs(&held).await?;
    let gone = called_off_runs(store, jobs.iter().any(|job| job.flow_key.run > 0)).await?;
    for job in jobs.iter().filter(|job| job.cancel_requested || gone.contains(&job.flow_key.run)) {
        desk.call_off(job.id.seq);
    }
    Ok(if held.len() < PAGE_MAX { 0 } else { last })
}

/// Numbers of the runs that are being called off, among the newest.
async fn called_off_runs(store: &dyn Store, needed: bool) -> Result<BTreeSet<i64>, Error> {
    if !needed {
        return Ok(BTreeSet::new());
    }
    let runs = store.list_runs(None, PAGE_MAX).await?;
    Ok(runs.into_iter().filter(|run| run.state == RunState::Cancelling).map(|run| run.id.seq).collect())
}
