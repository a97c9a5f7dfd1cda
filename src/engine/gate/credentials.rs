//! Credentials as the gate sees them: whose calls may leave, whose wait until a credential works again.
//!
//! Every credential has a breaker of its own, so that a wrong one stops the accounts that use it and nobody else. What
//! the transport cannot have at all (a missing secret, a token endpoint that fails) holds them likewise, before a call
//! is begun for nothing. Must never know: secrets, tokens, HTTP. Next: `release`, which asks; `actor`, which tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::caller::{Completion, REFUSED_AGAIN};
use super::super::status::{BreakerState, BreakerView, CredentialView};
use super::super::wall_of;
use super::actor::Gate;
use crate::clock::Timestamp;
use crate::model::name::Account;
use crate::model::provider::BreakerPolicy;
use crate::outbound::Trouble;
use crate::outbound::breaker::{self, Admit, Breaker, State};

/// Credentials with something to tell, remembered, saved and shown at most.
const KEPT_MAX: usize = 10_000;
const SAVED_MAX: usize = 1_000;
const SHOWN_MAX: usize = 100;
/// What is over for so long is forgotten; until then other daemons hear of it.
const QUIET: Duration = Duration::from_secs(600);

/// Breakers of a former life.
pub(super) fn recall(policy: BreakerPolicy, saved: Vec<(String, breaker::Memory)>) -> BTreeMap<Account, Breaker> {
    let one = |(account, memory): (String, breaker::Memory)| {
        let mut breaker = Breaker::for_credential(policy);
        breaker.recall(memory);
        Some((Account::new(account).ok()?, breaker))
    };
    saved.into_iter().filter_map(one).collect()
}

impl Gate {
    fn owner(&self, account: &Account) -> Account {
        self.current.provider.credential_of(account)
    }

    fn credential(&mut self, owner: Account) -> &mut Breaker {
        let policy = self.current.provider.breaker;
        self.credentials.entry(owner).or_insert_with(|| Breaker::for_credential(policy))
    }

    fn trouble(&self, account: &Account) -> Option<Trouble> {
        self.current.transport.as_ref().ok()?.trouble(account)
    }

    /// How many calls of the account may begin, of so many, and whether as a probe; or when to look again.
    pub fn credential_admits(
        &mut self,
        account: &Account,
        slots: u32,
        now: Timestamp,
    ) -> Result<(u32, bool), Timestamp> {
        let mut slots = slots;
        match self.trouble(account) {
            Some(trouble) if now < trouble.until => return Err(trouble.until),
            // It failed the last time: one call goes for it before many do.
            Some(_) => slots = slots.min(1),
            None => {}
        }
        if self.credentials.is_empty() {
            return Ok((slots, false));
        }
        let Some(breaker) = self.credentials.get(&self.owner(account)) else { return Ok((slots, false)) };
        match breaker.admits(now, self.parts.dice.roll()) {
            Admit::Yes if breaker.is_ramping(now) => Ok((slots.min(1), false)),
            Admit::Yes => Ok((slots, false)),
            Admit::Probe => Ok((slots.min(1), true)),
            Admit::No { until } => Err(until),
        }
    }

    /// At once, not when it is journaled: until then another could be planned.
    pub fn credential_probe_began(&mut self, account: &Account, now: Timestamp) {
        let owner = self.owner(account);
        if let Some(breaker) = self.credentials.get_mut(&owner) {
            breaker.began(now);
        }
    }

    /// It did not leave after all.
    pub fn credential_probe_ended(&mut self, account: &Account) {
        let (owner, now) = (self.owner(account), self.now());
        if let Some(breaker) = self.credentials.get_mut(&owner) {
            breaker.record(now, breaker::Class::Neutral, true, 0.0, None);
            self.turns.unpark_all();
        }
    }

    /// A call of the account has ended. True when its credential's breaker moved.
    pub fn credential_answered(&mut self, account: &Account, completion: &Completion, now: Timestamp) -> bool {
        let class = breaker::Class::for_credential(completion.health);
        let owner = self.owner(account);
        let known = self.credentials.contains_key(&owner);
        // Good news of one that has nothing bad to tell are no news.
        if !known && class != breaker::Class::Bad && !completion.lost_credential {
            return false;
        }
        if !known && self.credentials.len() >= KEPT_MAX {
            self.credentials.retain(|_, breaker| breaker.state() != State::Closed);
        }
        let dice = self.parts.dice.roll();
        let breaker = self.credential(owner.clone());
        let again = completion.refused_again.then(|| Arc::from(REFUSED_AGAIN));
        let error = again.as_ref().or(completion.error.as_ref());
        let mut moved = breaker.record(now, class, completion.probe, dice, error);
        if completion.refused_again {
            // What could be done was done: the token was refreshed, and the call repeated.
            moved |= breaker.open_at_once(now, dice);
        }
        if let Some(error) = error.filter(|_| completion.lost_credential) {
            moved |= breaker.open_until_reset(now, error);
        }
        let state = breaker.state();
        if moved {
            let provider = &self.current.provider.name;
            tracing::warn!(%provider, account = %owner, ?state, "the breaker of a credential moved");
        }
        if moved || completion.probe {
            // Others that use it wait for the same.
            self.turns.unpark_all();
        }
        moved
    }

    /// A person mended something: everything is tried anew.
    pub fn reset_breakers(&mut self) {
        let now = self.now();
        self.host.reset(now);
        self.credentials.values_mut().for_each(|breaker| breaker.reset(now));
        self.try_credentials_anew();
        self.tell_memory();
    }

    fn try_credentials_anew(&mut self) {
        if let Ok(transport) = &self.current.transport {
            transport.reset();
        }
        self.turns.unpark_all();
    }

    /// What another daemon's gate saw of them.
    pub fn hear_credentials(&mut self, heard: Vec<(String, breaker::Memory)>) {
        let mut closed = false;
        for (account, memory) in heard.into_iter().take(KEPT_MAX) {
            let Ok(owner) = Account::new(account) else { continue };
            let breaker = self.credential(owner.clone());
            if breaker.follow(memory) {
                let state = breaker.state();
                closed |= state == State::Closed;
                let provider = &self.current.provider.name;
                tracing::warn!(%provider, account = %owner, ?state, "the breaker of a credential moved elsewhere");
            }
        }
        if closed {
            self.try_credentials_anew();
        }
    }

    /// For a restart and for other daemons; forgets what is over.
    pub fn remember_credentials(&mut self, now: Timestamp) -> Vec<(String, breaker::Memory)> {
        self.credentials.retain(|_, breaker| !breaker.is_idle(now, QUIET));
        let mut all: Vec<_> = self.credentials.iter().collect();
        // Open ones first, should there be too many.
        all.sort_by_key(|(_, breaker)| breaker.state() == State::Closed);
        all.into_iter().take(SAVED_MAX).map(|(a, breaker)| (a.to_string(), breaker.memory().clone())).collect()
    }

    /// Those that do not simply work.
    pub fn credential_views(&self) -> Vec<CredentialView> {
        let open = self.credentials.iter().filter(|(_, breaker)| breaker.state() != State::Closed);
        let mut views: BTreeMap<Account, BreakerView> =
            open.map(|(owner, breaker)| (owner.clone(), self.view_of(breaker))).take(SHOWN_MAX).collect();
        let accounts = self.groups.iter().filter(|(_, group)| group.ready.iter().any(|n| *n > 0)).map(|(key, _)| key);
        for key in accounts.take(10 * SHOWN_MAX) {
            let owner = self.owner(&key.account);
            if views.len() >= SHOWN_MAX || views.contains_key(&owner) {
                continue;
            }
            if let Some(trouble) = self.trouble(&key.account) {
                views.insert(owner, self.view_of_trouble(&trouble));
            }
        }
        views.into_iter().map(|(account, breaker)| CredentialView { account, breaker }).collect()
    }

    fn view_of_trouble(&self, trouble: &Trouble) -> BreakerView {
        let probe_at = (trouble.until != Timestamp::NEVER).then(|| wall_of(&self.parts.clock, trouble.until));
        BreakerView {
            state: BreakerState::Open,
            failures_in_a_row: 0,
            probe_at,
            opened_at: None,
            last_error: Some(trouble.reason.clone()),
        }
    }

    /// Why the account's jobs wait for its credential, and until when, if they do.
    pub fn explain_credential(&self, account: &Account) -> Option<(String, Option<Timestamp>)> {
        let owner = self.owner(account);
        let whose = match owner.as_str() {
            "" => "its provider's credential".to_owned(),
            account => format!("the credential of account {account}"),
        };
        if let Some(breaker) = self.credentials.get(&owner).filter(|breaker| breaker.state() != State::Closed) {
            let view = self.view_of(breaker);
            let why = view.last_error.as_deref().unwrap_or("it was refused");
            return Some((format!("the breaker of {whose} is open: {why}"), view.probe_at));
        }
        let trouble = self.trouble(account)?;
        let view = self.view_of_trouble(&trouble);
        Some((format!("{whose} cannot be had: {}", trouble.reason), view.probe_at))
    }

    /// Does everything that is ready wait for a credential?
    pub fn all_work_lacks_credentials(&self, now: Timestamp) -> bool {
        let lacks = |account: &Account| {
            let open = |breaker: &Breaker| matches!(breaker.state(), State::Open { until } if now < until);
            self.credentials.get(&self.owner(account)).is_some_and(open)
                || self.trouble(account).is_some_and(|trouble| now < trouble.until)
        };
        let mut ready = self.groups.iter().filter(|(_, group)| group.ready.iter().any(|n| *n > 0)).peekable();
        ready.peek().is_some() && ready.take(SHOWN_MAX).all(|(key, _)| lacks(&key.account))
    }
}
