//! The question that all benches of a limiter ask: a permit for a call of each of many accounts, three limits each.

use std::sync::Arc;
use std::time::Duration;

use crate::limiter::{Acquire, Spend};
use crate::model::call::LimitKey;
use crate::model::flow::Class;
use crate::model::name::LimitName;
use crate::model::provider::{Anchor, Limit, LimitKind, Reserve, Scope};

/// How many accounts there are.
pub const ACCOUNTS: usize = 10_000;

fn limit(name: &str, kind: LimitKind) -> Arc<Limit> {
    let name = LimitName::new(name).expect("a word");
    Arc::new(Limit {
        name,
        kind,
        scope: Scope::Account,
        methods: Vec::new(),
        cost: 1,
        reserve: Reserve { urgent: 1, normal: 1 },
        not_counted: Vec::new(),
        learned: false,
        cost_from: None,
        headers: None,
    })
}

/// One request per account, in an order that the processor cannot foresee.
pub fn requests() -> Vec<Acquire> {
    let window = |max, secs| LimitKind::Window { max, per: Duration::from_secs(secs), anchor: Anchor::Answer };
    let limits = [
        limit("core", window(5_000, 3_600)),
        limit("writes", window(80, 60)),
        limit("wire", LimitKind::Concurrency { max: 100 }),
    ];
    let spends = |account: usize| -> Arc<[Spend]> {
        let key = |l: &Arc<Limit>| LimitKey(Arc::from(format!("bench/{}:3600s@account-{account}", l.name)));
        limits.iter().map(|l| Spend::new(key(l), l.clone())).collect()
    };
    let request = |account| Acquire { spends: spends(account), min: 1, max: 1, class: Class::Normal, request: 0 };
    (0..ACCOUNTS).map(|i| request(i * 7_919 % ACCOUNTS)).collect()
}
