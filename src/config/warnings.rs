//! What is allowed and will surprise: said by `check-config` and at the start, never refused.
//!
//! Must never know: the values of secrets. Next: `load.rs`.

use super::{Config, Store};
use crate::model::auth::{Auth, Grant, SecretRef};
use crate::model::provider::Provider;

/// Sentences, in the order of the providers. `missing` tells what is wrong with a reference, if anything is.
pub fn warnings(config: &Config, missing: impl Fn(&SecretRef) -> Option<String>) -> Vec<String> {
    let mut all = Vec::new();
    for provider in config.providers.iter().map(|declared| &*declared.provider) {
        if config.secrets.key.is_none() {
            all.extend(unsealed(provider, matches!(config.store, Store::Postgres { .. })));
        }
        for (account, auth) in &provider.accounts {
            for missing in auth.secrets().into_iter().filter(|s| !s.is_per_account()).filter_map(&missing) {
                let name = &provider.name;
                all.push(format!("provider {name}: the jobs of account {account} will wait: {missing}"));
            }
        }
    }
    all
}

/// What is lost when tokens cannot be kept.
fn unsealed(provider: &Provider, shared: bool) -> Option<String> {
    let ways = || std::iter::once(&provider.auth).chain(provider.accounts.values());
    let refreshes = |auth: &Auth| matches!(auth, Auth::OAuth2(c) if matches!(c.grant, Grant::RefreshToken(_)));
    let name = &provider.name;
    if ways().any(refreshes) {
        return Some(format!(
            "provider {name}: without [secrets] key a refresh token that its endpoint replaces is in memory only: a restart \
             goes back to the first one, and daemons do not share it"
        ));
    }
    (shared && ways().any(|auth| matches!(auth, Auth::OAuth2(_))))
        .then(|| format!("provider {name}: without [secrets] key every daemon gets tokens of its own"))
}
