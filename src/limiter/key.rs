//! What a call spends: the limits that count it, each with the key under which it is counted.
//!
//! A key names provider, limit, declared window and the scope's value: `crm/core:3600s@acct-7`. A lane's own limit
//! carries operation and lane: `crm/sync_user.batch/calls:3600s@acct-7`. The maximum is not part of it, so a changed
//! maximum keeps its count and a lowered one applies without a burst; the window is, because counts of one window say
//! nothing about another. Must never know: counts. Next: `limiter/local.rs`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::Spend;
use crate::model::call::{Lane, LimitKey};
use crate::model::name::{Account, Key};
use crate::model::provider::{CalendarPeriod, Limit, LimitKind, Operation, Provider, Scope};

/// What one call of an operation spends. A limit that counts by key is left out when there is no key; one whose methods
/// do not fit the lane's is left out as well. Empty when the operation has no such lane and the provider no limits.
pub fn spends(
    provider: &Provider,
    operation: &Operation,
    lane: Lane,
    account: &Account,
    key: Option<&Key>,
) -> Arc<[Spend]> {
    let Some(spec) = operation.lane(lane) else {
        return Arc::from([]);
    };
    let own = format!("{}/{}.{}/", provider.name, operation.name, lane);
    let shared = format!("{}/", provider.name);
    let all = provider.limits.iter().map(|l| (&shared, l)).chain(spec.limits.iter().map(|l| (&own, l)));
    let mut spends: Vec<Spend> = Vec::new();
    for (prefix, limit) in all {
        let counts = limit.methods.is_empty() || limit.methods.contains(&spec.method);
        if !counts {
            continue;
        }
        let Some(text) = key_text(prefix, limit, account, key) else {
            continue;
        };
        // Two declarations of one name and window are one count; the stricter speaks for both.
        match spends.iter_mut().find(|s| *s.key.0 == *text) {
            Some(same) if limit.kind.max() < same.limit.kind.max() => same.limit = limit.clone(),
            Some(_) => {}
            None => spends.push(Spend::new(LimitKey(Arc::from(text)), limit.clone())),
        }
    }
    spends.into()
}

/// A limit that counts by key, before the key is known.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// Of the key under which it is counted; the job's key comes behind it.
    pub prefix: Arc<str>,
    pub limit: Arc<Limit>,
}

impl Keyed {
    pub fn spend(&self, key: &Key) -> Spend {
        Spend::new(LimitKey(format!("{}{key}", self.prefix).into()), self.limit.clone())
    }
}

/// The limits by key that a call of an operation spends for each of its jobs that has one.
pub fn keyed(provider: &Provider, operation: &Operation, lane: Lane, account: &Account) -> Arc<[Keyed]> {
    let Some(spec) = operation.lane(lane) else {
        return Arc::from([]);
    };
    let own = format!("{}/{}.{}/", provider.name, operation.name, lane);
    let shared = format!("{}/", provider.name);
    let all = provider.limits.iter().map(|l| (&shared, l)).chain(spec.limits.iter().map(|l| (&own, l)));
    let by_key = all.filter(|(_, l)| l.scope == Scope::Key);
    let counted = by_key.filter(|(_, l)| l.methods.is_empty() || l.methods.contains(&spec.method));
    let keyed = counted.map(|(prefix, l)| Keyed { prefix: key_prefix(prefix, l, account).into(), limit: l.clone() });
    keyed.collect()
}

/// What a call of no operation spends, as a test of the connection: the limits that count every call of the provider.
pub fn provider_spends(provider: &Provider, method: &http::Method, account: &Account) -> Vec<Spend> {
    let prefix = format!("{}/", provider.name);
    let counted = provider.limits.iter().filter(|l| l.methods.is_empty() || l.methods.contains(method));
    let spend = |limit: &Arc<Limit>| {
        let text = key_text(&prefix, limit, account, None)?;
        Some(Spend::new(LimitKey(Arc::from(text)), limit.clone()))
    };
    counted.filter_map(spend).collect()
}

/// The limits behind the keys of a permit that was given under this declaration, or an older one: what that declared and this
/// does not is left out. `operation`: whose lane's own limits may be among them.
pub fn behind(
    provider: &Provider,
    operation: Option<(&Operation, Lane)>,
    account: &Account,
    keys: &[(LimitKey, u32)],
) -> Vec<Spend> {
    let shared = format!("{}/", provider.name);
    let own = operation.map(|(o, lane)| format!("{}/{}.{}/", provider.name, o.name, lane)).unwrap_or_default();
    let spec = operation.and_then(|(o, lane)| o.lane(lane));
    let limits = spec.into_iter().flat_map(|spec| &spec.limits).map(|l| (&own, l));
    let mut spends: Vec<Spend> = Vec::new();
    for (prefix, limit) in provider.limits.iter().map(|l| (&shared, l)).chain(limits) {
        let is_it = |key: &str| match limit.scope {
            Scope::Key => key.starts_with(&key_prefix(prefix, limit, account)),
            Scope::Provider | Scope::Account => key_text(prefix, limit, account, None).as_deref() == Some(key),
        };
        let found = keys.iter().map(|(key, _)| key).filter(|key| is_it(&key.0));
        let fresh = found.filter(|key| !spends.iter().any(|s| s.key == **key)).cloned().collect::<Vec<_>>();
        spends.extend(fresh.into_iter().map(|key| Spend::new(key, limit.clone())));
    }
    spends
}

/// `None` when the limit counts by key and there is none.
fn key_text(prefix: &str, limit: &Limit, account: &Account, key: Option<&Key>) -> Option<String> {
    let mut text = format!("{prefix}{}:{}", limit.name, window_text(&limit.kind));
    match limit.scope {
        Scope::Provider => {}
        Scope::Account => {
            let _ = write!(text, "@{account}");
        }
        Scope::Key => return Some(key_prefix(prefix, limit, account) + key?.as_str()),
    }
    Some(text)
}

/// Of a limit that counts by key: all but the key.
fn key_prefix(prefix: &str, limit: &Limit, account: &Account) -> String {
    // The account's own slashes must not look like the one before the key.
    let account = account.as_str().replace('%', "%25").replace('/', "%2F");
    format!("{prefix}{}:{}@{account}/", limit.name, window_text(&limit.kind))
}

fn window_text(kind: &LimitKind) -> String {
    match kind {
        LimitKind::Window { per, .. } => duration_text(*per),
        LimitKind::Bucket { per, .. } => format!("bucket-{}", duration_text(*per)),
        LimitKind::Concurrency { .. } => "concurrent".to_owned(),
        LimitKind::Calendar { period, zone, .. } => {
            let period = match period {
                CalendarPeriod::Hour => "hour",
                CalendarPeriod::Day => "day",
                CalendarPeriod::Month => "month",
            };
            match zone.iana_name() {
                Some(name) => format!("{period}-{name}"),
                None => format!("{period}-{zone:?}"),
            }
        }
        LimitKind::Paced { per, .. } => format!("paced-{}", duration_text(*per)),
    }
}

/// Whole seconds where possible, so that people recognise their window.
fn duration_text(d: Duration) -> String {
    match (d.subsec_nanos(), d.subsec_micros() % 1_000) {
        (0, _) => format!("{}s", d.as_secs()),
        (_, 0) => format!("{}ms", d.as_millis()),
        _ => format!("{}us", d.as_micros()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::LimitName;
    use crate::model::provider::{Anchor, Reserve};

    fn limit(name: &str, kind: LimitKind, scope: Scope) -> Limit {
        let name = LimitName::new(name).unwrap();
        Limit {
            name,
            kind,
            scope,
            methods: Vec::new(),
            cost: 1,
            reserve: Reserve::default(),
            not_counted: Vec::new(),
            learned: false,
            cost_from: None,
            headers: None,
        }
    }

    fn window(max: u32, per: Duration) -> LimitKind {
        LimitKind::Window { max, per, anchor: Anchor::Answer }
    }

    #[test]
    fn a_key_names_the_window_but_not_the_maximum() {
        let account = Account::new("acct-7").unwrap();
        let text = |kind, scope| key_text("crm/", &limit("core", kind, scope), &account, None).unwrap();
        let hour = Duration::from_secs(3_600);
        assert_eq!(text(window(50, hour), Scope::Account), "crm/core:3600s@acct-7");
        assert_eq!(text(window(99, hour), Scope::Account), "crm/core:3600s@acct-7");
        assert_eq!(text(window(50, Duration::from_millis(1_500)), Scope::Provider), "crm/core:1500ms");
        let day = LimitKind::Calendar {
            max: 5,
            period: CalendarPeriod::Day,
            zone: jiff::tz::TimeZone::get("Europe/Paris").unwrap(),
        };
        assert_eq!(text(day, Scope::Provider), "crm/core:day-Europe/Paris");
    }

    #[test]
    fn a_key_of_one_account_is_never_taken_for_that_of_another() {
        let spec = limit("per-record", window(10, Duration::from_secs(1)), Scope::Key);
        let text = |account: &str, key: &str| {
            key_text("crm/", &spec, &Account::new(account).unwrap(), Some(&Key::new(key).unwrap())).unwrap()
        };
        assert_ne!(text("a", "b/c"), text("a/b", "c"));
        assert_eq!(key_text("crm/", &spec, &Account::default(), None), None);
        let (account, key) = (Account::new("a/b").unwrap(), Key::new("c/d").unwrap());
        let keyed = Keyed { prefix: key_prefix("crm/", &spec, &account).into(), limit: Arc::new(spec.clone()) };
        assert_eq!(*keyed.spend(&key).key.0, *key_text("crm/", &spec, &account, Some(&key)).unwrap());
    }
}
