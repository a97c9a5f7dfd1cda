//! Families of instruments with a bound on how many there can be.
//!
//! A label value that somebody else chooses (an operation, a limit) could grow without end; from the cap on, new ones
//! are counted together under "other". Must never know: what is measured. Next: `metrics.rs`.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::{Family, MetricConstructor};

/// Members of one family at most, "other" among them. At 500 bytes a histogram's line set, a scrape stays below 4 MB.
pub const MEMBERS_MAX: usize = 1_000;

/// The value that stands for all others.
pub const OTHER: &str = "other";

/// Labels that can be exchanged for "other".
pub trait Labels: Clone + Debug + Hash + Eq + EncodeLabelSet + Send + Sync + 'static {
    fn other() -> Self;
}

/// A family that stops growing.
#[derive(Clone, Debug)]
pub struct Bounded<L: Labels, M, C = fn() -> M> {
    family: Family<L, M, C>,
    /// Members made so far. Two threads may count the same new one twice, which only fills the family sooner.
    members: Arc<AtomicUsize>,
}

impl<L: Labels, M: Clone + Default> Default for Bounded<L, M> {
    fn default() -> Self {
        Bounded { family: Family::default(), members: Arc::default() }
    }
}

impl<L: Labels, M: Clone, C: MetricConstructor<M>> Bounded<L, M, C> {
    pub fn with_constructor(constructor: C) -> Self {
        Bounded { family: Family::new_with_constructor(constructor), members: Arc::default() }
    }

    /// Does something to the member with these labels, or to "other" when the family is full.
    pub fn with<T>(&self, labels: &L, act: impl FnOnce(&M) -> T) -> T {
        if let Some(member) = self.family.get(labels) {
            return act(&member);
        }
        match self.members.fetch_add(1, Ordering::Relaxed) < MEMBERS_MAX - 1 {
            true => act(&self.family.get_or_create(labels)),
            false => act(&self.family.get_or_create(&L::other())),
        }
    }

    /// The family for the registry: a cheap clone that shares the members.
    pub fn share(&self) -> Family<L, M, C>
    where
        C: Clone,
    {
        self.family.clone()
    }

    /// Forgets all members: for gauges that are filled anew with every scrape.
    pub fn clear(&self) {
        self.family.clear();
        self.members.store(0, Ordering::Relaxed);
    }
}

/// Defines a label set of texts. The names of the fields are the names of the labels.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelSet)]
        pub struct $name {
            $(pub $field: Text,)+
        }

        impl $name {
            pub fn of($($field: &str),+) -> Self {
                $name { $($field: Arc::from($field)),+ }
            }
        }

        impl Labels for $name {
            fn other() -> Self {
                $name { $($field: { let _ = stringify!($field); Arc::from(OTHER) }),+ }
            }
        }
    };
}

/// A label's value, cheap to clone.
pub type Text = Arc<str>;

labels!(
    /// One provider.
    ByProvider { provider }
);
labels!(
    /// One operation of a provider.
    ByOperation { provider, operation }
);
labels!(
    /// How jobs of an operation ended.
    ByOutcome { provider, operation, outcome }
);
labels!(
    /// Calls of a lane, by the class of their status: `2xx`, `4xx`, `none`.
    ByStatus { provider, lane, status_class }
);
labels!(
    /// One limit of a provider.
    ByLimit { provider, limit }
);
labels!(
    /// Jobs of a provider in a state.
    ByState { provider, state }
);
labels!(
    /// Why work of a provider waited: a limit's name, `breaker`, `in_flight`, `paused`.
    ByCause { provider, cause }
);
labels!(
    /// A call to a provider, after OpenTelemetry's conventions for HTTP clients.
    HttpCall { provider, http_request_method, http_response_status_code }
);
labels!(
    /// A call to this daemon, after OpenTelemetry's conventions for RPC servers.
    RpcCall { rpc_method, rpc_response_status_code }
);
labels!(
    /// One supervised task.
    ByActor { actor }
);
labels!(
    /// One alert of the configuration.
    ByAlert { alert, provider }
);
labels!(
    /// What became of a webhook's messages.
    ByWebhook { webhook, outcome }
);
labels!(
    /// What was built.
    Build { version }
);

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_family_stops_growing_and_loses_no_count() {
        let family: Bounded<ByProvider, Counter> = Bounded::default();
        for n in 0..MEMBERS_MAX * 2 {
            family.with(&ByProvider::of(&format!("p{n}")), Counter::inc);
        }
        let kept =
            (0..MEMBERS_MAX * 2).filter(|n| family.share().get(&ByProvider::of(&format!("p{n}"))).is_some()).count();
        assert_eq!(kept, MEMBERS_MAX - 1);
        let others = family.share().get(&ByProvider::other()).map(|c| c.get());
        assert_eq!(others, Some((MEMBERS_MAX + 1) as u64));
    }
}
