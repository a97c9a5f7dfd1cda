//! The access token of one credential: one refresh for all who wait, ahead of its end, shared and kept where that is
//! possible.
//!
//! A slot holds the token in force; its turn is taken by one caller, who refreshes while the others wait, or go on with
//! the old token while that is good. A failing endpoint is left alone for a while that grows, and everybody hears the same
//! reason. With a vault, a lease there makes it one refresh over all daemons, and the result is read by the others. Must
//! never know: jobs, gates, SQL. Next: `oauth` for the exchange, `mark` for what answers say of a token, `kept` for what
//! is stored.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use secrecy::SecretString;

use super::credential::{Credential, NoCredential, Trouble};
use super::guard::Lookup;
use super::kept::{self, KeptToken};
use super::mark::Mark;
use super::oauth::{self, ANSWER_BYTES_MAX, Fault};
use super::seal::SealKey;
use super::secret;
use super::stack::{Stack, stack};
use super::vault::{Kept, Leased, Vault};
use crate::clock::{Clock, Timestamp};
use crate::model::auth::{Grant, OAuth2};
use crate::model::name::{Account, ProviderName};
use crate::model::provider::Provider;

/// A token is refreshed at this share of its life, or so long before its end, whichever is later.
const AHEAD_SHARE: f64 = 0.8;
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// Of what is left then, at most this share is waited for, by dice: many daemons should not refresh at once.
const AHEAD_SPREAD: f64 = 0.25;
/// Not used so shortly before its end: a call takes its time to arrive.
const MARGIN_MAX: Duration = Duration::from_secs(5);
const MARGIN_SHARE: f64 = 0.05;
/// First pause after a failed exchange; doubles up to the second, spread by a fifth either way.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// A lease outlives the exchange by so much.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// Between two looks while another daemon refreshes.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Tries to save a token that was given out.
const SAVES_MAX: u32 = 3;
const SAVE_AGAIN: Duration = Duration::from_millis(200);
/// Slots remembered; beyond, those that nobody uses are forgotten.
const SLOTS_KEPT: usize = 20_000;

/// A vault and the key to what is in it.
#[derive(Clone, Debug)]
pub struct Vaulted {
    pub vault: Arc<dyn Vault>,
    pub key: Arc<SealKey>,
}

/// Slots of all providers. Cheap to clone.
pub(super) type Slots = Arc<Mutex<HashMap<(ProviderName, Account), Arc<Slot>>>>;

/// What the tokens of one declaration share.
#[derive(Debug)]
pub(super) struct Tokens {
    pub provider: Arc<Provider>,
    pub clock: Clock,
    pub lookup: Arc<dyn Lookup>,
    pub vault: Option<Vaulted>,
    pub slots: Slots,
    /// One client per endpoint, however many accounts use it.
    pub endpoints: Mutex<HashMap<url::Url, Stack>>,
}

impl Tokens {
    pub fn source(&self, client: &Arc<OAuth2>, owner: &Account) -> Result<Arc<TokenSource>, String> {
        // Missing ones are told now; what they hold is read at each exchange.
        client.client_secret.iter().try_for_each(|s| secret::resolve(s).map(drop))?;
        if let Grant::RefreshToken(token) = &client.grant {
            secret::resolve(token)?;
        }
        let name = (self.provider.name.clone(), owner.clone());
        let slot = {
            let mut slots = self.slots.lock().expect("no panic while held");
            if slots.len() >= SLOTS_KEPT {
                slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
            slots.entry(name).or_default().clone()
        };
        let origin = kept::origin(client);
        if slot.now.load().as_ref().is_some_and(|token| token.origin != origin) {
            // Another client than before: its token is not ours.
            slot.now.store(None);
        }
        Ok(Arc::new(TokenSource {
            client: client.clone(),
            provider: self.provider.name.clone(),
            owner: owner.clone(),
            origin,
            stack: self.endpoint(&client.token_url)?,
            lease: self.provider.timeouts.total + LEASE_MARGIN,
            clock: self.clock.clone(),
            vault: self.vault.clone(),
            slot,
        }))
    }

    fn endpoint(&self, url: &url::Url) -> Result<Stack, String> {
        let mut endpoints = self.endpoints.lock().expect("no panic while held");
        if let Some(known) = endpoints.get(url) {
            return Ok(known.clone());
        }
        let endpoint =
            Provider { base_url: url.clone(), response_bytes_max: ANSWER_BYTES_MAX, ..Provider::clone(&self.provider) };
        let made = stack(&endpoint, &self.clock, &self.lookup)?;
        endpoints.insert(url.clone(), made.clone());
        Ok(made)
    }
}

/// The token in force.
#[derive(Debug)]
struct Token {
    credential: Credential,
    mark: Arc<Mark>,
    origin: [u8; 32],
    /// Steady times.
    refresh_at: Timestamp,
    usable_until: Timestamp,
}

impl Token {
    fn is_good(&self, now: Timestamp) -> bool {
        !self.mark.is_spent() && now < self.usable_until
    }
}

/// Outlives declarations.
#[derive(Debug, Default)]
pub(super) struct Slot {
    now: ArcSwapOption<Token>,
    /// Whoever refreshes holds it; inside, what was given out last.
    turn: tokio::sync::Mutex<Option<KeptToken>>,
    trouble: Mutex<Option<Trouble>>,
    /// Failed exchanges in a row.
    failures: AtomicU32,
}

#[derive(Debug)]
pub(super) struct TokenSource {
    client: Arc<OAuth2>,
    provider: ProviderName,
    owner: Account,
    origin: [u8; 32],
    stack: Stack,
    lease: Duration,
    clock: Clock,
    vault: Option<Vaulted>,
    slot: Arc<Slot>,
}

impl TokenSource {
    pub async fn token(&self) -> Result<Credential, NoCredential> {
        let now = self.clock.steady();
        let current = self.slot.now.load_full().filter(|token| token.is_good(now));
        if let Some(token) = current {
            // Ahead of time one goes for the next token, and the others go on with this one.
            if now >= token.refresh_at
                && self.last_trouble().is_none_or(|trouble| trouble.until <= now)
                && let Ok(mut turn) = self.slot.turn.try_lock()
                && let Ok(fresh) = self.renew(&mut turn).await
            {
                return Ok(fresh);
            }
            return Ok(token.credential.clone());
        }
        let mut turn = self.slot.turn.lock().await;
        let now = self.clock.steady();
        if let Some(token) = self.slot.now.load_full().filter(|token| token.is_good(now)) {
            return Ok(token.credential.clone());
        }
        match self.last_trouble() {
            Some(Trouble { until, reason }) if now < until => {
                Err(NoCredential { reason, for_good: until == Timestamp::NEVER })
            }
            _ => self.renew(&mut turn).await,
        }
    }

    /// While there is a good token, a failed refresh troubles nobody.
    pub fn trouble(&self) -> Option<Trouble> {
        let trouble = self.last_trouble()?;
        let now = self.clock.steady();
        let good = self.slot.now.load().as_ref().is_some_and(|token| token.is_good(now));
        (!good).then_some(trouble)
    }

    fn last_trouble(&self) -> Option<Trouble> {
        self.slot.trouble.lock().expect("no panic while held").clone()
    }

    fn set_trouble(&self, trouble: Option<Trouble>) {
        *self.slot.trouble.lock().expect("no panic while held") = trouble;
    }

    /// Somebody mended it.
    pub fn try_anew(&self) {
        self.reset();
        self.drop_useless();
    }

    /// A token that was refused as soon as it was there makes room for the next.
    pub fn drop_useless(&self) {
        if let Some(token) = self.slot.now.load().as_ref().filter(|token| token.mark.is_useless()) {
            token.mark.replace();
        }
    }

    fn reset(&self) {
        self.slot.failures.store(0, Ordering::Relaxed);
        self.set_trouble(None);
    }

    async fn renew(&self, last: &mut Option<KeptToken>) -> Result<Credential, NoCredential> {
        match self.fresh(last).await {
            Ok(kept) => {
                let token = self.token_of(&kept).map_err(|reason| self.failed(Fault::passing(reason)))?;
                let credential = token.credential.clone();
                *last = Some(kept);
                if let Some(old) = self.slot.now.swap(Some(Arc::new(token))) {
                    old.mark.replace();
                }
                self.reset();
                Ok(credential)
            }
            Err(fault) => Err(self.failed(fault)),
        }
    }

    /// Everybody hears of it, and the endpoint is left alone for a while.
    fn failed(&self, fault: Fault) -> NoCredential {
        let failures = self.slot.failures.fetch_add(1, Ordering::Relaxed).min(16);
        let pause = PAUSE_FIRST.saturating_mul(1 << failures).min(PAUSE_MAX).mul_f64(0.8 + 0.4 * rand::random::<f64>());
        let pause = fault.wait.map_or(pause, |wait| wait.max(pause));
        let until = if fault.for_good { Timestamp::NEVER } else { self.clock.steady() + pause };
        let reason: Arc<str> = fault.reason.into();
        tracing::warn!(provider = %self.provider, account = %self.owner, %reason, "no token");
        self.set_trouble(Some(Trouble { until, reason: reason.clone() }));
        NoCredential { reason, for_good: fault.for_good }
    }

    /// A token that is not spent: another daemon's, or a new one.
    async fn fresh(&self, last: &Option<KeptToken>) -> Result<KeptToken, Fault> {
        let first = match &self.client.grant {
            Grant::RefreshToken(reference) => Some(secret::resolve(reference).map_err(Fault::passing)?),
            Grant::ClientCredentials => None,
        };
        let seed = kept::seed(&self.origin, first.as_ref());
        let Some(vaulted) = &self.vault else {
            let last = last.clone().filter(|kept| kept.seed == seed);
            return self.exchange(last.as_ref(), first, seed).await;
        };
        let row = self.lease(vaulted).await?;
        let version = row.as_ref().map_or(0, |row| row.version);
        let opened = row.and_then(|row| {
            let plain = vaulted.key.open(&self.provider, &self.owner, &row.sealed);
            if plain.is_none() {
                tracing::warn!(provider = %self.provider, account = %self.owner,
                    "a stored token does not open with this [secrets] key; it is replaced");
            }
            KeptToken::read(&plain?, row.version)
        });
        // What could not be saved is newer than what is there.
        let known = [opened, last.clone()].into_iter().flatten().filter(|kept| kept.seed == seed);
        let newest = known.max_by_key(|kept| kept.version);
        let ours = last.as_ref().map_or(0, |kept| kept.version);
        let now = self.clock.steady();
        if let Some(theirs) = newest.as_ref().filter(|kept| kept.version > ours && self.is_usable(kept, now)) {
            self.release(vaulted).await;
            return Ok(theirs.clone());
        }
        match self.exchange(newest.as_ref(), first, seed).await {
            Ok(mut kept) => {
                kept.version = kept.version.max(version + 1);
                self.save(vaulted, version, &kept).await;
                Ok(kept)
            }
            Err(fault) => {
                self.release(vaulted).await;
                Err(fault)
            }
        }
    }

    fn is_usable(&self, kept: &KeptToken, now: Timestamp) -> bool {
        now < usable_until(kept)
    }

    /// Waits while another daemon refreshes: for as long as its lease can last.
    async fn lease(&self, vaulted: &Vaulted) -> Result<Option<Kept>, Fault> {
        let give_up_at = self.clock.steady() + self.lease;
        loop {
            match vaulted.vault.lease(&self.provider, &self.owner, self.lease).await {
                Ok(Leased::Ours(row)) => return Ok(row),
                Ok(Leased::Taken) if self.clock.steady() < give_up_at => {
                    self.clock.sleep_until(self.clock.steady() + LOOK_AGAIN).await;
                }
                Ok(Leased::Taken) => {
                    return Err(Fault::passing("another daemon refreshes the token and does not come to an end"));
                }
                Err(reason) => return Err(Fault::passing(format!("the token cannot be refreshed: {reason}"))),
            }
        }
    }

    async fn release(&self, vaulted: &Vaulted) {
        if let Err(reason) = vaulted.vault.release(&self.provider, &self.owner).await {
            tracing::warn!(provider = %self.provider, reason, "the lease of a token ends by itself");
        }
    }

    /// A token that was given out is used whether it could be saved or not: the endpoint may have forgotten the last.
    async fn save(&self, vaulted: &Vaulted, expect: i64, kept: &KeptToken) {
        for left in (0..SAVES_MAX).rev() {
            let reason = match vaulted.key.seal(&self.provider, &self.owner, &kept.text()) {
                Ok(sealed) => {
                    let sealed = Kept { version: kept.version, sealed };
                    match vaulted.vault.save(&self.provider, &self.owner, expect, sealed).await {
                        Ok(true) => return,
                        Ok(false) => "somebody else saved one meanwhile".to_owned(),
                        Err(reason) if left > 0 => {
                            tracing::warn!(provider = %self.provider, reason, "a token could not be saved; once more");
                            self.clock.sleep_until(self.clock.steady() + SAVE_AGAIN).await;
                            continue;
                        }
                        Err(reason) => reason,
                    }
                }
                Err(reason) => reason,
            };
            tracing::error!(provider = %self.provider, account = %self.owner, reason,
                "a token could not be saved: until the next refresh it is in memory only");
            return;
        }
    }

    async fn exchange(
        &self,
        last: Option<&KeptToken>,
        first: Option<SecretString>,
        seed: [u8; 32],
    ) -> Result<KeptToken, Fault> {
        let refresh = last.and_then(|kept| kept.refresh.clone()).or(first);
        let asked_at = self.clock.steady();
        let granted = oauth::exchange(&self.client, &self.stack, refresh.as_ref()).await?;
        tracing::info!(provider = %self.provider, account = %self.owner, "the token was refreshed");
        Ok(KeptToken {
            version: last.map_or(0, |kept| kept.version) + 1,
            seed,
            access: granted.access,
            // What was not replaced stays good.
            refresh: granted.refresh.or(refresh),
            obtained_at: asked_at,
            // Counted from the question: the endpoint's clock began later.
            expires_at: granted.life.map_or(Timestamp::NEVER, |life| asked_at + life),
        })
    }

    fn token_of(&self, kept: &KeptToken) -> Result<Token, String> {
        let before = self.slot.now.load_full();
        let mark = Arc::new(Mark::new(kept.obtained_at, before.as_ref().map(|token| &*token.mark)));
        let unfit = |e| format!("the token endpoint gave out a token that cannot be sent: {e}");
        let credential = kept.credential(mark.clone()).map_err(unfit)?;
        let refresh_at = refresh_at(kept, rand::random::<f64>());
        Ok(Token { credential, mark, origin: self.origin, refresh_at, usable_until: usable_until(kept) })
    }
}

fn life(kept: &KeptToken) -> Option<Duration> {
    (kept.expires_at != Timestamp::NEVER).then(|| kept.expires_at.since(kept.obtained_at))
}

fn usable_until(kept: &KeptToken) -> Timestamp {
    let Some(life) = life(kept) else { return Timestamp::NEVER };
    kept.expires_at - life.mul_f64(MARGIN_SHARE).min(MARGIN_MAX)
}

/// When to go for the next one; `dice` is uniform in `[0, 1)`.
fn refresh_at(kept: &KeptToken, dice: f64) -> Timestamp {
    let Some(life) = life(kept) else { return Timestamp::NEVER };
    let share = kept.obtained_at + life.mul_f64(AHEAD_SHARE);
    let before_end = kept.expires_at - AHEAD_MAX.min(life);
    let at = share.max(before_end);
    at + usable_until(kept).since(at).mul_f64(AHEAD_SPREAD * dice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(life: u64) -> KeptToken {
        let obtained_at = Timestamp::from_secs(1_000);
        KeptToken {
            version: 1,
            seed: [0; 32],
            access: SecretString::from("t"),
            refresh: None,
            obtained_at,
            expires_at: obtained_at + Duration::from_secs(life),
        }
    }

    #[test]
    fn a_token_is_refreshed_late_in_its_life_and_before_it_is_unusable() {
        for (life, first, last) in [(3_600, 3_540.0, 3_555.0), (100, 80.0, 84.0), (10, 8.0, 8.4)] {
            let kept = token(life);
            let after = |at: Timestamp| at.since(kept.obtained_at).as_secs_f64();
            let (early, late) = (after(refresh_at(&kept, 0.0)), after(refresh_at(&kept, 0.999_999)));
            assert!(
                early >= first - 0.01 && late <= last && late < after(usable_until(&kept)),
                "{life}: {early} {late}"
            );
        }
        let endless = KeptToken { expires_at: Timestamp::NEVER, ..token(1) };
        assert_eq!((refresh_at(&endless, 0.5), usable_until(&endless)), (Timestamp::NEVER, Timestamp::NEVER));
    }
}
