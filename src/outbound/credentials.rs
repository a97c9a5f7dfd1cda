//! Which credential a call of an account carries: the provider's own, or one found when the account first needs it.
//!
//! What is missing holds the jobs of its account and nobody else's, and is looked for again. Must never know: requests,
//! what answers mean. Next: `secret` for what is read from places, `token` for what an endpoint gives out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::credential::{Credential, NoCredential, Trouble};
use super::secret::Watched;
use super::token::{TokenSource, Tokens};
use crate::clock::{Clock, Timestamp};
use crate::model::auth::Auth;
use crate::model::name::Account;
use crate::model::provider::Provider;

/// Accounts whose credentials are remembered, under 1 KiB each; when there are more, all are found anew.
const ACCOUNTS_KEPT: usize = 10_000;
/// How often a missing secret is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
enum Source {
    None,
    Secret(Arc<Watched<Credential>>),
    Token(Arc<TokenSource>),
}

/// All credentials of one declaration.
#[derive(Debug)]
pub(super) struct Credentials {
    provider: Arc<Provider>,
    clock: Clock,
    tokens: Tokens,
    /// The provider's own; `None` when every account has one.
    own: Option<Source>,
    accounts: Mutex<HashMap<Account, Result<Source, Trouble>>>,
}

impl Credentials {
    /// Reads the provider's own secret. Errors name its reference, never its value.
    pub fn new(provider: &Arc<Provider>, clock: &Clock, tokens: Tokens) -> Result<Credentials, String> {
        let mut made = Credentials {
            provider: provider.clone(),
            clock: clock.clone(),
            tokens,
            own: None,
            accounts: Mutex::default(),
        };
        if !provider.auth.is_per_account() {
            made.own = Some(made.make(&provider.auth, &Account::default())?);
        }
        Ok(made)
    }

    fn make(&self, auth: &Auth, owner: &Account) -> Result<Source, String> {
        let reference = match auth {
            Auth::None => return Ok(Source::None),
            Auth::OAuth2(client) => return self.tokens.source(client, owner).map(Source::Token),
            Auth::Bearer(secret)
            | Auth::Basic { password: secret, .. }
            | Auth::Header { value: secret, .. }
            | Auth::Query { value: secret, .. }
            | Auth::Webhook(secret) => secret,
        };
        let way = auth.clone();
        let clock = self.clock.clone();
        let make = Box::new(move |secret: &str| Credential::of_secret(&way, secret, &clock));
        Ok(Source::Secret(Arc::new(Watched::read(reference, &self.clock, make)?)))
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<Account, Result<Source, Trouble>>> {
        self.accounts.lock().expect("no panic while held")
    }

    fn source(&self, account: &Account) -> Result<Source, Trouble> {
        let owner = self.provider.credential_of(account);
        if let Some(own) = self.own.as_ref().filter(|_| owner == Account::default()) {
            return Ok(own.clone());
        }
        let now = self.clock.steady();
        match self.accounts().get(&owner) {
            Some(Err(trouble)) if now < trouble.until => return Err(trouble.clone()),
            Some(Ok(source)) => return Ok(source.clone()),
            _ => {}
        }
        let made = self.provider.auth_of(&owner).and_then(|auth| self.make(&auth, &owner));
        let made = made.map_err(|reason| Trouble { until: now + LOOK_EVERY, reason: reason.into() });
        let mut accounts = self.accounts();
        if accounts.len() >= ACCOUNTS_KEPT {
            accounts.clear();
        }
        accounts.insert(owner, made.clone());
        made
    }

    /// May wait for a token.
    pub async fn of(&self, account: &Account) -> Result<Credential, NoCredential> {
        match self.source(account) {
            Ok(Source::None) => Ok(Credential::default()),
            Ok(Source::Secret(secret)) => Ok(secret.value()),
            Ok(Source::Token(source)) => source.token().await,
            Err(Trouble { reason, .. }) => Err(NoCredential { reason, for_good: false }),
        }
    }

    pub fn trouble(&self, account: &Account) -> Option<Trouble> {
        match self.source(account) {
            Ok(Source::Token(source)) => source.trouble(),
            Ok(_) => None,
            Err(trouble) => Some(trouble),
        }
    }

    /// The next call is a probe.
    pub fn before_probe(&self, account: &Account) {
        if let Ok(Source::Token(source)) = self.source(account) {
            source.drop_useless();
        }
    }

    /// Forgets every trouble: the next call tries anew.
    pub fn reset(&self) {
        let mut accounts = self.accounts();
        for source in accounts.values_mut() {
            match source {
                Ok(Source::Token(source)) => source.try_anew(),
                Err(trouble) => trouble.until = Timestamp::ZERO,
                Ok(_) => {}
            }
        }
        if let Some(Source::Token(source)) = &self.own {
            source.try_anew();
        }
    }
}
