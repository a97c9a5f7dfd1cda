//! Where a job stands in its line, answered from a few indexed numbers: alike in both SQL stores.
//!
//! Must never know: SQL, which of the two databases. Next: `postgres/read`, `sqlite/read`.

use super::{Error, Store};
use crate::clock::Timestamp;
use crate::model::flow::{Class, Place};
use crate::model::id::FlowId;
use crate::model::job::Job;

/// Jobs ahead are counted up to here and estimated beyond.
const AHEAD_EXACT: u64 = 1_000;

/// The numbers that a store looks up; what they mean stands here.
pub(super) trait Line: Store {
    /// [`Place`] as stored, and the hash of the key.
    async fn place_of(&self, job: i64) -> Result<Option<(i64, Option<i64>)>, Error>;

    /// The first job of the key's line.
    async fn first_of(&self, key_hash: i64) -> Result<Option<i64>, Error>;

    /// Ready jobs of one class before a turn, counted up to `most`.
    async fn count_before(&self, flow: FlowId, class: Class, turn: i64, most: u64) -> Result<u64, Error>;

    /// First and last turn of the ready jobs of one class.
    async fn turns(&self, flow: FlowId, class: Class) -> Result<Option<(i64, i64)>, Error>;

    /// When the job became due whose turn is the first of its class.
    async fn first_due(&self, flow: FlowId, class: Class) -> Result<Option<Timestamp>, Error>;

    async fn line_blocker(&self, job: &Job) -> Result<Option<Job>, Error> {
        let Some((place, Some(hash))) = self.place_of(job.id.seq).await? else { return Ok(None) };
        if place != Place::Behind as i64 {
            return Ok(None);
        }
        match self.first_of(hash).await?.filter(|&seq| seq != job.id.seq) {
            Some(seq) => Ok(self.jobs(&[seq]).await?.pop()),
            None => Ok(None),
        }
    }

    async fn line_ahead(&self, job: &Job) -> Result<u64, Error> {
        let mut ahead = 0;
        for class in Class::ALL.into_iter().filter(|class| *class <= job.class) {
            let turn = if class == job.class { job.turn } else { i64::MAX };
            ahead += self.count_before(job.flow, class, turn, AHEAD_EXACT + 1 - ahead).await?;
            if ahead > AHEAD_EXACT {
                return self.estimate_ahead(job).await;
            }
        }
        Ok(ahead)
    }

    /// More urgent classes by their counter, the own class by where the turn lies between the first and the last.
    async fn estimate_ahead(&self, job: &Job) -> Result<u64, Error> {
        let Some(flow) = self.flow(job.flow).await? else { return Ok(0) };
        let more_urgent: u64 = flow.counts.ready[..job.class as usize].iter().sum();
        let Some((first, last)) = self.turns(job.flow, job.class).await? else {
            return Ok(more_urgent.max(AHEAD_EXACT));
        };
        let share = (job.turn - first).max(0) as f64 / (last - first + 1).max(1) as f64;
        let own = flow.counts.ready[job.class as usize] as f64 * share.min(1.0);
        Ok((more_urgent + own as u64).max(AHEAD_EXACT))
    }

    async fn line_oldest(&self, flow: FlowId) -> Result<Option<Timestamp>, Error> {
        let mut oldest = None;
        for class in Class::ALL {
            oldest = oldest.into_iter().chain(self.first_due(flow, class).await?).min();
        }
        Ok(oldest)
    }
}
