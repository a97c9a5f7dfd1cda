//! How many jobs the next batch takes, and what becomes of a batch that was refused as a whole.
//!
//! One bad record must not keep a thousand good ones back, nor may looking for it eat the quota. So a refused batch is
//! halved, its older half goes first, and each part takes a credit of the tide like any partial batch. No record is
//! given up for the company it was in: a refusal holds for a job only when it was alone in its call. The search ends,
//! because every refusal makes parts smaller: n jobs cost fewer than 2n calls however many of them are bad, at the pace
//! of the credits. Where most are bad, halving is dearer than asking one by one; so after twice as many refusals in a
//! row as there are halvings, the suspects go by the single lane, where there is one.
//! Must never know: payloads, answers. Next: `engine/gate`.

/// The search for bad records in one (operation, account). Empty when nothing was refused.
///
/// While it is active the gate sends one batch at a time, oldest jobs first, so that a part meets the jobs it was made
/// for. When it does not (an urgent job came in between), parts are cut in the wrong place, which costs calls, not
/// jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splitter {
    /// Sizes of the parts to come, the next one last.
    parts: Vec<u32>,
    /// Refusals without a delivery in between.
    in_a_row: u32,
    /// Jobs of the largest refused batch.
    whole: u32,
}

/// Parts waiting at most. Halving needs one per level and a batch has at most 2^32 jobs; more come from batches that
/// were in flight together, and those that do not fit are sent whole once more.
const PARTS_MAX: usize = 64;

impl Splitter {
    /// Jobs that the next batch may take.
    pub fn cap(&self, size_max: u32) -> u32 {
        self.parts.last().map_or(size_max, |&n| n.min(size_max)).max(1)
    }

    pub fn is_active(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Most of the records seem to be bad: ask for each by itself, if that can be done.
    pub fn is_hopeless(&self) -> bool {
        let levels = u32::BITS - self.whole.leading_zeros();
        self.is_active() && self.in_a_row >= 2 * levels
    }

    /// Jobs in the parts to come.
    pub fn suspects(&self) -> u32 {
        self.parts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// If a batch of `jobs` is refused as a whole, do its jobs go back to waiting, to be sent in smaller parts, without
    /// an attempt counted? Otherwise the refusal is that of its only job.
    pub fn may_split(jobs: u32) -> bool {
        jobs > 1
    }

    /// A batch of `jobs` was answered. `refused`: as a whole, for what it carried.
    pub fn ended(&mut self, jobs: u32, refused: bool) {
        self.take_part(jobs);
        if refused && Splitter::may_split(jobs) && self.parts.len() + 2 <= PARTS_MAX {
            self.parts.push(jobs / 2);
            self.parts.push(jobs - jobs / 2);
        }
        if self.parts.is_empty() {
            *self = Splitter::default();
        } else if refused {
            self.whole = self.whole.max(jobs);
            self.in_a_row += 1;
        } else {
            self.in_a_row = 0;
        }
    }

    /// Jobs left by the single lane, the oldest first: they are no longer part of the search.
    pub fn left_singly(&mut self, mut jobs: u32) {
        while jobs > 0
            && let Some(part) = self.parts.pop()
        {
            if part > jobs {
                self.parts.push(part - jobs);
            }
            jobs = jobs.saturating_sub(part);
        }
        if self.parts.is_empty() {
            *self = Splitter::default();
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
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What it took to send all jobs.
    #[derive(Debug, Default, PartialEq)]
    struct Drained {
        batches: u32,
        singles: u32,
        /// Finally refused.
        lost: Vec<u32>,
    }

    /// Sends `jobs`, of which `bad` are refused, until none is left; by the single lane only what the search gives up.
    fn drain(jobs: u32, bad: &BTreeSet<u32>, size_max: u32, single_lane: bool) -> Drained {
        let mut queue: Vec<u32> = (0..jobs).collect();
        let mut splitter = Splitter::default();
        let mut done = Drained::default();
        while !queue.is_empty() {
            if single_lane && splitter.is_hopeless() {
                let job = queue.remove(0);
                done.singles += 1;
                done.lost.extend(bad.contains(&job).then_some(job));
                splitter.left_singly(1);
                continue;
            }
            let n = splitter.cap(size_max).min(queue.len() as u32);
            let batch: Vec<u32> = queue.drain(..n as usize).collect();
            done.batches += 1;
            let refused = batch.iter().any(|j| bad.contains(j));
            match (refused, Splitter::may_split(n)) {
                (true, true) => drop(queue.splice(0..0, batch)),
                (true, false) => done.lost.extend(batch),
                (false, _) => {}
            }
            splitter.ended(n, refused);
        }
        assert!(!splitter.is_active());
        done
    }

    fn drain_all(jobs: u32, bad: impl IntoIterator<Item = u32>, single_lane: bool) -> Drained {
        drain(jobs, &bad.into_iter().collect(), jobs, single_lane)
    }

    #[test]
    fn one_bad_record_is_found_in_two_calls_per_halving() {
        for bad in [0, 1, 499, 500, 998, 999] {
            let done = drain_all(1_000, [bad], true);
            assert_eq!((done.lost, done.singles), (vec![bad], 0));
            assert!(done.batches <= 21, "{} calls", done.batches);
        }
    }

    #[test]
    fn a_good_record_among_bad_ones_is_never_refused_with_them() {
        for single_lane in [true, false] {
            for good in [0, 1, 500, 998, 999] {
                let done = drain_all(1_000, (0..1_000).filter(|j| *j != good), single_lane);
                assert_eq!(done.lost.len(), 999, "{good}");
                assert!(!done.lost.contains(&good));
            }
        }
    }

    #[test]
    fn a_request_that_is_wrong_for_all_is_asked_for_each_once_by_the_single_lane() {
        let done = drain_all(1_000, 0..1_000, true);
        assert_eq!(done.lost.len(), 1_000);
        assert!(done.batches <= 32 && done.singles <= 1_000, "{} batches, {} singles", done.batches, done.singles);
        let done = drain_all(1_000, 0..1_000, false);
        assert!(done.batches < 2_000, "without a single lane: {} batches", done.batches);
    }

    proptest! {
        #[test]
        fn a_search_always_ends_and_refuses_the_bad_ones_alone(
            jobs in 1u32..600, share in 0.0f64..1.0, dice in any::<u64>(), size_max in 1u32..300, single in any::<bool>(),
        ) {
            // Each job is bad with the same chance, from none to all.
            let roll = |j: u32| (dice ^ u64::from(j)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
            let bad: BTreeSet<u32> = (0..jobs).filter(|j| (roll(*j) as f64 / (1u64 << 53) as f64) < share).collect();
            let mut done = drain(jobs, &bad, size_max, single);
            // What left singly overtook nobody, but batches may have been answered before it.
            done.lost.sort_unstable();
            prop_assert_eq!(done.lost, bad.into_iter().collect::<Vec<_>>());
            prop_assert!(done.batches + done.singles < 2 * jobs + jobs.div_ceil(size_max), "{} calls", done.batches);
        }
    }
}
