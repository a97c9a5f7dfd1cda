//! The limiter in this process: all counts behind one mutex, rebuilt from the journal at start.
//!
//! A decision is a few lookups and additions, so one lock is faster than many; nothing in here waits. Memory is bounded:
//! a limit without a count is forgotten when others come, because a fresh one gives the same answers. Must never know:
//! jobs, stores, HTTP. Next: `limiter/local/table.rs` does the work, `limit/` has the arithmetic.

use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;

use super::{Acquire, Answer, Error, LimitView, Limiter, Seed, Settle, Spend};
use crate::clock::Timestamp;

mod table;

use table::Table;

#[derive(Debug)]
pub struct LocalLimiter {
    epoch: i64,
    table: Mutex<Table>,
}

impl LocalLimiter {
    /// `epoch` is the store's; it is written into every permit.
    pub fn new(epoch: i64) -> Self {
        LocalLimiter { epoch, table: Mutex::new(Table::default()) }
    }

    /// [`Limiter::acquire`] of one request, without the detour of a future.
    pub fn decide(&self, now: Timestamp, request: &Acquire) -> Answer {
        self.table().acquire(self.epoch, now, request)
    }

    /// [`Limiter::settle`] of one call, without the detour of a future.
    pub fn finish(&self, now: Timestamp, settle: &Settle) {
        self.table().settle(now, settle);
    }

    /// [`Limiter::peek`], without the detour of a future.
    pub fn look(&self, now: Timestamp, spends: &[Spend]) -> Vec<LimitView> {
        let mut table = self.table();
        spends.iter().map(|s| table.view(now, s)).collect()
    }

    /// Limits that are held in memory right now.
    pub fn len(&self) -> usize {
        self.table().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic in the arithmetic leaves counts that were not given back at worst: safe, and better than no limiter.
        self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Limiter for LocalLimiter {
    async fn acquire(&self, now: Timestamp, requests: &[Acquire]) -> Result<Vec<Answer>, Error> {
        let mut table = self.table();
        Ok(requests.iter().map(|r| table.acquire(self.epoch, now, r)).collect())
    }

    async fn settle(&self, now: Timestamp, settles: &[Settle]) -> Result<(), Error> {
        let mut table = self.table();
        settles.iter().for_each(|s| table.settle(now, s));
        Ok(())
    }

    async fn seed(&self, now: Timestamp, limits: &[Spend], entries: &[Seed]) -> Result<(), Error> {
        self.table().seed(now, limits, entries);
        Ok(())
    }

    async fn peek(&self, now: Timestamp, spends: &[Spend]) -> Result<Vec<LimitView>, Error> {
        Ok(self.look(now, spends))
    }

    fn epoch(&self) -> i64 {
        self.epoch
    }
}
