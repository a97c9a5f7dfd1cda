//! Finding the jobs of a run that a version of before wrote without their run: a look at all jobs, in portions, once.
//!
//! Only where the index has fewer than the run has delivered. How far the look is stays in memory; a daemon that starts
//! anew looks anew. Must never know: what undoing does. Next: `store::Change::FillRun`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::FILL_MAX;
use crate::api::Api;
use crate::api::error::{Error, Result};
use crate::clock::Timestamp;
use crate::model::run::Run;
use crate::store::{Change, Changed};

/// Jobs that are looked at in one transaction.
const JOBS_LOOKED_AT: u32 = 10_000;
/// Runs whose look is remembered; of more the oldest is looked for anew.
const RUNS_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// What the run had delivered when the look began: what it delivers later is looked for anew.
    delivered: u64,
    /// `None`: all was looked at.
    upto: Option<i64>,
}

#[derive(Debug, Default)]
pub(in crate::api) struct Looks(Mutex<BTreeMap<i64, Look>>);

impl Looks {
    fn of(&self, run: &Run) -> Look {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = looks.get(&run.id.seq).filter(|look| look.delivered == run.counts.delivered);
        known.copied().unwrap_or(Look { delivered: run.counts.delivered, upto: Some(0) })
    }

    fn keep(&self, run: &Run, look: Look) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.insert(run.id.seq, look);
        if looks.len() > RUNS_MAX {
            looks.pop_first();
        }
    }
}

impl Api {
    /// Looks on for jobs of the run. False: the time of one call was over.
    pub(super) async fn fill_run(&self, run: &Run, started: Timestamp) -> Result<bool> {
        let mut look = self.0.looks.of(run);
        while let Some(after) = look.upto {
            if self.clock().steady().since(started) > FILL_MAX {
                return Ok(false);
            }
            let change = Change::FillRun { run: run.id, after, limit: JOBS_LOOKED_AT };
            look.upto = match self.engine().change(change).await? {
                Changed::Filled { upto } => upto,
                other => return Err(Error::internal(format!("the store answered a look for jobs with {other:?}"))),
            };
            self.0.looks.keep(run, look);
        }
        Ok(true)
    }
}
