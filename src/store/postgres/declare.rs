//! Changes of what is declared or saved: providers, the gate's memory; and forgetting what is old. Next:
//! `enqueue`.

use super::arrays::text;
use super::change::Answer;
use super::row::{self, Columns};
use super::sql;
use super::work::{Step, Work};
use crate::clock::Timestamp;
use crate::model::event::What;
use crate::model::id::FlowId;
use crate::model::name::ProviderName;
use crate::store::rules;
use crate::store::{AppliedProvider, Changed, Refusal};

impl Work<'_> {
    /// The declaration, held until the commit; so is the absence of one.
    async fn provider(&mut self, name: &ProviderName) -> Step<Option<AppliedProvider>> {
        sqlx::query(sql::LOCK_PROVIDERS).execute(&mut *self.conn).await?;
        let found = sqlx::query(sql::PROVIDER).bind(name.as_str()).fetch_optional(&mut *self.conn).await?;
        Ok(found.map(|row| row::provider(&row)).transpose()?)
    }

    async fn save_provider(&mut self, p: &AppliedProvider) -> Step<()> {
        let save = sqlx::query(sql::SAVE_PROVIDER).bind(p.name.as_str()).bind(text(&p.source)).bind(p.revision);
        let save = save.bind(i64::from(p.paused)).bind(p.applied_at.0).bind(text(&p.actor));
        save.bind(p.memory.as_deref().map(text)).execute(&mut *self.conn).await?;
        Ok(())
    }

    pub(super) async fn apply_provider(
        &mut self,
        name: &ProviderName,
        source: &str,
        expect: Option<i64>,
        actor: &str,
    ) -> Answer<Changed> {
        let old = self.provider(name).await?;
        let current = old.as_ref().map_or(0, |p| p.revision);
        if let Some(expected) = expect.filter(|&expected| expected != current) {
            return Ok(Err(Refusal::StaleRevision { name: name.clone(), current, expected }));
        }
        let new = AppliedProvider {
            name: name.clone(),
            source: source.to_owned(),
            revision: current + 1,
            paused: old.as_ref().is_some_and(|p| p.paused),
            applied_at: self.now,
            actor: actor.to_owned(),
            memory: old.and_then(|p| p.memory),
        };
        self.save_provider(&new).await?;
        self.declared(name, "applied", &format!("revision {}", new.revision), actor);
        Ok(Ok(Changed::Provider(new)))
    }

    fn declared(&mut self, name: &ProviderName, kind: &str, detail: &str, actor: &str) {
        self.declarations = true;
        self.packer.note(What::provider(name, kind, detail, actor));
    }

    pub(super) async fn delete_provider(&mut self, name: &ProviderName, force: bool, actor: &str) -> Answer<Changed> {
        if self.provider(name).await?.is_none() {
            return Ok(Err(Refusal::NoProvider(name.clone())));
        }
        self.flush().await?;
        let mut jobs = 0;
        for tally in sqlx::query(sql::TALLIES).fetch_all(&mut *self.conn).await? {
            let tally = row::tally(&tally)?;
            if tally.provider == *name {
                jobs += rules::hot(&tally.counts);
            }
        }
        if jobs > 0 && !force {
            return Ok(Err(Refusal::ProviderBusy { name: name.clone(), jobs }));
        }
        sqlx::query(sql::DELETE_PROVIDER).bind(name.as_str()).execute(&mut *self.conn).await?;
        self.declared(name, "deleted", "", actor);
        Ok(Ok(Changed::Done))
    }

    pub(super) async fn pause_provider(&mut self, name: &ProviderName, paused: bool, actor: &str) -> Answer<Changed> {
        let Some(mut provider) = self.provider(name).await? else {
            return Ok(Err(Refusal::NoProvider(name.clone())));
        };
        if provider.paused != paused {
            provider.paused = paused;
            self.save_provider(&provider).await?;
            self.declared(name, if paused { "paused" } else { "resumed" }, "", actor);
        }
        Ok(Ok(Changed::Provider(provider)))
    }

    pub(super) async fn save_gate(&mut self, name: &ProviderName, memory: &str) -> Answer<Changed> {
        let Some(mut found) = self.provider(name).await? else {
            return Ok(Err(Refusal::NoProvider(name.clone())));
        };
        found.memory = Some(memory.to_owned());
        self.save_provider(&found).await?;
        Ok(Ok(Changed::Done))
    }

    /// Old rows one by one, up to `limit` of each kind. Whole days of finished jobs went before (`days`).
    pub(super) async fn prune(
        &mut self,
        jobs: [(&'static str, Timestamp); 2],
        log: [(&'static str, Timestamp); 3],
        limit: u32,
    ) -> Step<u64> {
        let limit = i64::from(limit);
        let before_all = jobs.iter().map(|(_, before)| *before).min().unwrap_or(Timestamp::ZERO);
        let (mut old, mut no_more): (Vec<i64>, bool) = (Vec::new(), true);
        for (query, before) in jobs {
            let rows = sqlx::query(query).bind(before.0).bind(limit).fetch_all(&mut *self.conn).await?;
            no_more &= (rows.len() as i64) < limit;
            for row in rows {
                old.push(Columns::of(&row).int()?);
            }
        }
        let mut pruned = old.len() as u64;
        if !old.is_empty() {
            for query in [sql::DELETE_IDEMPOTENCY, sql::DELETE_JOBS] {
                sqlx::query(query).bind(&old).execute(&mut *self.conn).await?;
            }
        }
        for (query, before) in log {
            let gone = sqlx::query(query).bind(before.0).bind(limit).execute(&mut *self.conn).await?;
            pruned += gone.rows_affected();
        }
        if no_more {
            pruned += self.prune_ended(before_all, limit).await?;
        }
        Ok(pruned)
    }

    /// Flows and runs that nothing names any more. Flows that this commit changes stay, and their runs, whatever their rows
    /// still say. A run that it only looked at may go: one whose row is final changes no more.
    async fn prune_ended(&mut self, before: Timestamp, limit: i64) -> Step<u64> {
        let in_hand: Vec<i64> = self.deltas.keys().chain(self.saved.keys()).map(|id| id.0).collect();
        let gone = sqlx::query(sql::PRUNE_FLOWS).bind(before.0).bind(limit).bind(in_hand);
        let gone = gone.fetch_all(&mut *self.conn).await?;
        for row in &gone {
            self.flows.remove(&FlowId(Columns::of(row).int()?));
        }
        let in_hand = self.deltas.keys().filter_map(|id| Some(self.flows.get(id)?.run));
        let runs = sqlx::query(sql::PRUNE_RUNS).bind(before.0).bind(limit).bind(in_hand.collect::<Vec<i64>>());
        let runs = runs.fetch_all(&mut *self.conn).await?;
        for row in &runs {
            self.runs.remove(&Columns::of(row).int()?);
        }
        Ok((gone.len() + runs.len()) as u64)
    }
}
