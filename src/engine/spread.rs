//! Which part of its account a new job goes to, where several daemons share the work.
//!
//! Jobs of a key go to one part, so that batches and limits by key see them together. Their order does not depend on it: a
//! store lets one job of a key go at a time, whatever flow it stands in, so `spread` may change while jobs wait. Jobs
//! without a key go to the parts in turn. Must never know: who owns a part. Next: `model/shard.rs`.

use std::sync::atomic::{AtomicU16, Ordering};

use super::registry::Registry;
use crate::model::job::NewJob;
use crate::model::name::ProviderName;
use crate::model::shard::part_of;

#[derive(Debug, Default)]
pub struct Spread {
    /// Part of the next job without a key, of whatever account.
    next: AtomicU16,
}

impl Spread {
    pub fn place(&self, jobs: &mut [NewJob], registry: &Registry) {
        // Jobs of a request are mostly of one provider.
        let mut known: Option<(ProviderName, u16)> = None;
        for job in jobs {
            let spread = match &known {
                Some((name, spread)) if *name == job.provider => *spread,
                _ => registry.get(&job.provider).map_or(1, |entry| entry.provider.spread),
            };
            job.part = self.part(job, spread);
            if known.as_ref().is_none_or(|(name, _)| *name != job.provider) {
                known = Some((job.provider.clone(), spread));
            }
        }
    }

    fn part(&self, job: &NewJob, spread: u16) -> u16 {
        match &job.key {
            _ if spread <= 1 => 0,
            Some(key) => part_of(key, spread),
            None => self.next.fetch_add(1, Ordering::Relaxed) % spread,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::{Key, OperationName};

    #[test]
    fn a_key_has_one_part_and_jobs_without_a_key_take_turns() {
        let spread = Spread::default();
        let job = |key: Option<&str>| NewJob {
            key: key.map(|key| Key::new(key).unwrap()),
            ..NewJob::new(ProviderName::new("crm").unwrap(), OperationName::new("sync").unwrap(), "1")
        };
        let mut counts = [0; 4];
        (0..40).for_each(|_| counts[usize::from(spread.part(&job(None), 4))] += 1);
        assert_eq!(counts, [10; 4]);
        let parts: Vec<u16> = (0..9).map(|_| spread.part(&job(Some("a")), 4)).collect();
        assert!(parts.iter().all(|part| *part == parts[0] && *part < 4), "{parts:?}");
        assert!((0..9).all(|_| spread.part(&job(None), 1) == 0));
    }
}
