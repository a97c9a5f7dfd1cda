//! How many jobs the next batch takes, and what becomes of a batch that was refused as a whole.
//!
//! One bad record must not keep a thousand good ones back, nor may looking for it eat the quota. So a refused batch is
//! halved, its older half goes first, and each part takes a credit of the tide like any partial batch. The search ends:
//! a part of one job is that job's own refusal, and too many refusals in a row mean that the request itself is wrong.
//! Must never know: payloads, answers. Next: `engine/gate`.

use serde::{Deserialize, Serialize};

/// The search for bad records in one (operation, account). Empty when nothing was refused.
///
/// While it is active the gate sends one batch at a time, oldest jobs first, so that a part meets the jobs it was made
/// for. When it does not (an urgent job came in between), parts are cut in the wrong place, which costs calls, not
/// jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splitter {
    /// Sizes of the parts to come, the next one last.
    parts: Vec<u32>,
    /// Refusals without a delivery in between.
    in_a_row: u32,
    /// Refusals since the search began.
    total: u32,
    /// Jobs of the first refused batch.
    whole: u32,
}

/// Parts waiting at most. Halving needs one per level and a batch has at most 2^32 jobs; more come from batches that
/// were in flight together, and those that do not fit are sent whole.
const PARTS_MAX: usize = 64;

impl Splitter {
    /// Jobs that the next batch may take.
    pub fn cap(&self, size_max: u32) -> u32 {
        self.parts.last().map_or(size_max, |&n| n.min(size_max)).max(1)
    }

    pub fn is_active(&self) -> bool {
        !self.parts.is_empty()
    }

    /// If a batch of `jobs` is refused as a whole, do its jobs go back to waiting, to be sent in smaller parts, without
    /// an attempt counted? Otherwise the refusal holds for every one of them. Ask when the batch leaves.
    pub fn may_split(&self, jobs: u32) -> bool {
        // One bad record costs a refusal per level. Twice the levels in a row without anything delivered, or eight bad
        // records' worth in all, is no longer a search.
        let levels = u32::BITS - self.whole.max(jobs).leading_zeros();
        jobs > 1 && self.in_a_row < 2 * levels && self.total < 8 * levels
    }

    /// A batch of `jobs` was answered. `refused`: as a whole, for what it carried.
    pub fn ended(&mut self, jobs: u32, refused: bool) {
        let split = refused && self.may_split(jobs);
        self.take_part(jobs);
        if split && self.parts.len() + 2 <= PARTS_MAX {
            self.parts.push(jobs / 2);
            self.parts.push(jobs - jobs / 2);
        }
        if self.parts.is_empty() {
            *self = Splitter::default();
        } else if refused {
            self.whole = self.whole.max(jobs);
            self.in_a_row += 1;
            self.total += 1;
        } else {
            self.in_a_row = 0;
        }
    }

    /// The part that this batch was; a smaller batch leaves its rest.
    fn take_part(&mut self, jobs: u32) {
        if let Some(part) = self.parts.pop()
            && part > jobs
        {
            self.parts.push(part - jobs);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends `jobs`, of which `bad` are refused, until none is left. Returns (calls, finally refused jobs).
    fn drain(jobs: u32, bad: &[u32], size_max: u32) -> (u32, Vec<u32>) {
        let mut queue: Vec<u32> = (0..jobs).collect();
        let mut splitter = Splitter::default();
        let (mut calls, mut lost) = (0, Vec::new());
        while !queue.is_empty() {
            let n = splitter.cap(size_max).min(queue.len() as u32);
            let batch: Vec<u32> = queue.drain(..n as usize).collect();
            calls += 1;
            let refused = batch.iter().any(|j| bad.contains(j));
            match (refused, splitter.may_split(n)) {
                (true, true) => drop(queue.splice(0..0, batch)),
                (true, false) => lost.extend(batch),
                (false, _) => {}
            }
            splitter.ended(n, refused);
        }
        assert!(!splitter.is_active());
        (calls, lost)
    }

    #[test]
    fn one_bad_record_is_found_in_two_calls_per_halving() {
        for bad in [0, 1, 499, 500, 998, 999] {
            let (calls, lost) = drain(1_000, &[bad], 1_000);
            assert_eq!(lost, [bad]);
            assert!(calls <= 21, "{calls} calls");
        }
    }

    #[test]
    fn a_request_that_is_wrong_for_all_does_not_loop_through_the_quota() {
        let all: Vec<u32> = (0..1_000).collect();
        let (calls, lost) = drain(1_000, &all, 1_000);
        assert_eq!(lost.len(), 1_000);
        assert!(calls <= 32, "{calls} calls");
    }

    proptest! {
        #[test]
        fn a_search_always_ends_and_loses_no_good_record_to_a_few_bad_ones(
            jobs in 1u32..600, bad in proptest::collection::btree_set(0u32..600, 0..5), size_max in 1u32..300,
        ) {
            let bad: Vec<u32> = bad.into_iter().filter(|b| *b < jobs).collect();
            let (calls, lost) = drain(jobs, &bad, size_max);
            prop_assert_eq!(&lost, &bad);
            let batches = jobs.div_ceil(size_max);
            prop_assert!(calls <= batches + bad.len() as u32 * 24);
        }
    }
}
