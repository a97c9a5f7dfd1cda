//! One transaction per batch, tried again (and then alone) where another daemon was in the way, and asked after when its
//! commit was not answered. Next: `work`, what happens within it.

use std::time::Duration;

use sqlx::Connection;

use super::error::{self, Trouble};
use super::lender::{silence, within};
use super::row::Columns;
use super::work::Work;
use super::{PgStore, sql};
use crate::store::{Batch, Change, Changed, Committed, Error};

/// Tries of one batch. Each conflict means that another daemon's commit went through.
const TRIES_MAX: u32 = 8;
/// Broken connections that may be thrown away in a row: after a restart of the database, all of the pool.
const BROKEN_MAX: u32 = 64;
/// How long to ask for the fate of a commit: as long as a restart of the database may take.
const FATE_MAX: Duration = Duration::from_secs(15);
const FATE_PAUSE: Duration = Duration::from_millis(250);
const RETRY_PAUSE: Duration = Duration::from_millis(2);

impl PgStore {
    pub(super) async fn commit_batch(&self, batch: &Batch) -> Result<Committed, Error> {
        let dropped = self.tend_days(batch).await?;
        let (mut tries, mut broken) = (0, 0);
        loop {
            let reason = match self.attempt(batch, tries > 0).await {
                Ok(mut done) => {
                    add_dropped(&mut done, dropped);
                    return Ok(done);
                }
                Err(Attempt::Trouble(Trouble::Failed(e))) => return Err(e),
                Err(Attempt::Trouble(Trouble::Again(reason))) => reason,
                Err(Attempt::Broken(e)) => {
                    broken += 1;
                    if broken > BROKEN_MAX {
                        return Err(error::of(e));
                    }
                    continue;
                }
            };
            tries += 1;
            if tries == TRIES_MAX {
                return Err(Error::Unavailable { reason: format!("{TRIES_MAX} tries met other commits: {reason}") });
            }
            tracing::debug!(%reason, tries, "a commit starts anew");
            self.days.forget();
            self.keys.forget();
            self.days.make(&self.lender, batch.now).await?;
            tokio::time::sleep(RETRY_PAUSE * tries).await;
        }
    }

    /// Before the transaction: the day on which its jobs may end must be there, and whole days that are old go.
    async fn tend_days(&self, batch: &Batch) -> Result<u64, Error> {
        if !batch.finishes.is_empty() || !batch.changes.is_empty() {
            self.days.make(&self.lender, batch.now).await?;
        }
        let mut dropped = 0;
        for change in &batch.changes {
            if let Change::Prune { finished_before, limit, .. } = change {
                dropped += self.days.drop_before(&self.lender, *finished_before, *limit).await?;
            }
        }
        Ok(dropped)
    }

    /// `alone`: after others that add, end or change jobs, and before those to come. Two commits that meet on many keys
    /// would meet again and again.
    async fn attempt(&self, batch: &Batch, alone: bool) -> Result<Committed, Attempt> {
        let most = self.lender.answer_max;
        let mut lent = self.lender.lend().await.map_err(Trouble::from)?;
        // Taken with the begin: one way to the server less.
        let jobs = !batch.finishes.is_empty() || !batch.changes.is_empty() || !batch.enqueues.is_empty();
        let locks = jobs || !batch.records.is_empty();
        let begin = match (locks, alone) {
            (false, _) => "begin",
            (true, false) => concat!("begin;\n", include_str!("share_keys.sql")),
            (true, true) => concat!("begin;\n", include_str!("own_keys.sql")),
        };
        let mut transaction = match within(most, lent.conn().begin_with(begin)).await {
            Ok(transaction) => transaction,
            // It died while nobody used it, before anything was asked of it; the others may have, too.
            Err(e) if error::is_disconnect(&e) => {
                self.lender.forget();
                return Err(Attempt::Broken(e));
            }
            // Not given back: half a begin may be left in it.
            Err(e) => return Err(Trouble::from(e).into()),
        };
        let work = Work::new(&mut transaction, self.daemon, &self.keys, batch).apply(batch);
        let worked = match tokio::time::timeout(most, work).await {
            Ok(Ok(worked)) => worked,
            Ok(Err(trouble)) => {
                // A connection that cannot even do that is thrown away.
                if within(most, transaction.rollback()).await.is_ok() {
                    lent.give_back();
                }
                return Err(trouble.into());
            }
            // Nothing happened, because no commit was sent: the server rolls back when it notices.
            Err(_) => {
                self.lender.forget();
                return Err(Attempt::Broken(silence(most)));
            }
        };
        let committed = within(most, transaction.commit()).await;
        let Err(e) = lent.judge(committed) else { return Ok(worked.done) };
        match worked.transaction {
            // The database said no, so nothing happened.
            _ if !error::is_disconnect(&e) => Err(Trouble::from(e).into()),
            Some(id) if self.happened(&id).await? => Ok(worked.done),
            // It did not happen, or would have changed nothing: once more.
            _ => Err(Attempt::Broken(e)),
        }
    }

    /// Did a transaction happen whose commit was not answered?
    async fn happened(&self, id: &str) -> Result<bool, Trouble> {
        match tokio::time::timeout(FATE_MAX, self.fate(id)).await {
            Ok(fate) => Ok(fate?),
            Err(_) => {
                let reason =
                    format!("the connection was lost in the commit of transaction {id}, whose fate cannot be learned");
                Err(Trouble::Failed(Error::Unavailable { reason }))
            }
        }
    }

    /// Asks until the server knows.
    async fn fate(&self, id: &str) -> Result<bool, Error> {
        loop {
            if let Ok(row) = self.lender.ask_one(sqlx::query(sql::FATE).bind(id)).await {
                match Columns::of(&row).opt_str()? {
                    Some("committed") => return Ok(true),
                    Some("aborted") => return Ok(false),
                    // In progress: the server has not noticed yet that we are gone. The commit may still arrive, out of
                    // some buffer on the way, so the session is ended before anything is concluded.
                    _ => drop(self.lender.ask(sqlx::query(sql::END_SESSION).bind(id)).await),
                }
            }
            tokio::time::sleep(FATE_PAUSE).await;
        }
    }
}

enum Attempt {
    Trouble(Trouble),
    /// The connection was of no use; another one may be.
    Broken(sqlx::Error),
}

impl From<Trouble> for Attempt {
    fn from(trouble: Trouble) -> Self {
        Attempt::Trouble(trouble)
    }
}

/// What went with whole days counts as pruned by the first prune of the batch.
fn add_dropped(done: &mut Committed, dropped: u64) {
    let counts = done.changes.iter_mut().flatten();
    if let Some(count) = counts.filter_map(|c| if let Changed::Count(n) = c { Some(n) } else { None }).next_back()
        && dropped > 0
    {
        *count += dropped;
    }
}
