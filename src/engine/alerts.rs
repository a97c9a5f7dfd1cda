//! The actor behind alerts: looks at what the rules watch, and raises, repeats and clears.
//!
//! A look costs what a status page costs: counters that are kept anyway, and indexed reads. What is raised stands in the
//! store, so a restart neither forgets nor repeats it, and of several daemons that tell it at once one does. Among many the
//! daemon that sends for a provider's own account looks after its rules, and sees the jobs of all. Must never know: SQL, HTTP. Next: `model/alert`,
//! which decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Handle;
use super::status::{BreakerState, ProviderStatus};
use super::supervisor::BEAT_EVERY;
use crate::clock::Timestamp;
use crate::engine::EngineError;
use crate::model::alert::{Growth, Raised, Rule, Seen, Step, Watch, decide};
use crate::model::name::{Account, AlertName, ProviderName};
use crate::store::{AlertChange, Change, Refusal};

mod oldest;

/// As often as leases are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Rules in force. Cheap to clone; a reader never waits for a writer.
#[derive(Clone, Debug, Default)]
pub struct Alerts(Arc<ArcSwap<Vec<Rule>>>);

impl Alerts {
    pub fn new(rules: Vec<Rule>) -> Alerts {
        let alerts = Alerts::default();
        alerts.replace(rules);
        alerts
    }

    /// Puts these in force in place of all others. What a rule raised that is gone is cleared.
    pub fn replace(&self, rules: Vec<Rule>) {
        self.0.store(Arc::new(rules));
    }
}

/// What is remembered of a rule between two looks.
#[derive(Default)]
struct Memory {
    /// Steady.
    amiss_since: Option<Timestamp>,
    growth: Growth,
}

/// Starts the actor.
pub(super) fn start(handle: &Handle) {
    let supervisor = handle.supervisor().clone();
    let handle = handle.clone();
    supervisor.actor("alerts", Default::default(), move |beat| {
        let handle = handle.clone();
        async move {
            let clock = handle.clock().clone();
            let (mut memories, mut look_at) = (BTreeMap::new(), clock.steady());
            loop {
                beat.beat();
                if clock.steady() >= look_at {
                    if let Err(e) = beat.through(look(&handle, &mut memories)).await {
                        // A store that is away is no fault of this actor; it looks again.
                        tracing::warn!(error = %e, "alerts could not be looked at");
                    }
                    look_at = clock.steady() + LOOK_EVERY;
                }
                let wake_at = look_at.min(clock.steady() + BEAT_EVERY);
                tokio::select! {
                    biased;
                    () = beat.stop.cancelled() => return Ok(()),
                    () = clock.sleep_until(wake_at) => {}
                }
            }
        }
    });
}

async fn look(handle: &Handle, memories: &mut BTreeMap<AlertName, Memory>) -> Result<(), EngineError> {
    let rules = handle.alerts().0.load_full();
    if handle.is_draining() || (rules.is_empty() && memories.is_empty()) {
        return Ok(());
    }
    let is_ours = |provider: &ProviderName| handle.0.parts.owned.hold(provider, &Account::default(), 0).is_some();
    let stored = handle.store().alerts().await?;
    let raised: BTreeMap<&AlertName, &Raised> = stored.iter().map(|raised| (&raised.name, raised)).collect();
    memories.retain(|name, _| rules.iter().any(|rule| rule.name == *name));
    let mut statuses: BTreeMap<&ProviderName, Option<ProviderStatus>> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| is_ours(&rule.provider)) {
        if !statuses.contains_key(&rule.provider) {
            statuses.insert(&rule.provider, handle.provider_status(&rule.provider).await);
        }
        let memory = memories.entry(rule.name.clone()).or_default();
        let seen = match &statuses[&rule.provider] {
            Some(status) => seen(handle, rule, status, memory).await?,
            None if handle.provider(&rule.provider).is_none() => Seen::Well,
            None => Seen::CannotSay,
        };
        let now = handle.clock().steady();
        memory.amiss_since = matches!(seen, Seen::Amiss(_)).then(|| memory.amiss_since.unwrap_or(now));
        let lasted = memory.amiss_since.map(|since| now.since(since)).unwrap_or_default();
        let known = raised.get(&rule.name).copied();
        let step = decide(rule, &seen, lasted, known, handle.clock().now());
        if let Some(step) = step {
            tell(handle, rule, step, seen, known).await?;
        }
        let is_raised = step.map_or(known.is_some(), |step| step != Step::Clear);
        handle.metrics().alert(rule.name.as_str(), rule.provider.as_str(), is_raised);
    }
    for gone in stored.iter().filter(|raised| !rules.iter().any(|rule| rule.name == raised.name)) {
        if is_ours(&gone.provider) {
            let alert = Raised { detail: "its rule is declared no more".to_owned(), ..gone.clone() };
            apply(handle, Step::Clear, alert, Some(gone.told_at)).await?;
            handle.metrics().alert(gone.name.as_str(), gone.provider.as_str(), false);
        }
    }
    Ok(())
}

async fn seen(handle: &Handle, rule: &Rule, status: &ProviderStatus, memory: &mut Memory) -> Result<Seen, EngineError> {
    let amiss = |amiss: bool, said: String| if amiss { Seen::Amiss(said) } else { Seen::Well };
    Ok(match &rule.watch {
        Watch::Failures { operation, dead, within } => {
            let of = |name: &_| operation.as_ref().is_none_or(|wanted| wanted == name);
            let count = status.operations.iter().filter(|o| of(&o.name)).map(|o| o.counts.dead).sum();
            let (grown, known) = memory.growth.look(handle.clock().steady(), count, *within);
            match grown >= *dead {
                true => Seen::Amiss(format!("{grown} jobs died within {} s", within.as_secs())),
                false if known => Seen::Well,
                false => Seen::CannotSay,
            }
        }
        Watch::Oldest { age } => {
            let oldest = match handle.standing() {
                Some(_) => oldest::oldest_ready(&**handle.store(), &rule.provider).await?,
                None => status.oldest_ready_at,
            };
            let oldest = oldest.map(|at| handle.clock().now().since(at)).unwrap_or_default();
            amiss(oldest > *age, format!("the oldest job is ready since {} s", oldest.as_secs()))
        }
        Watch::Breaker => {
            let error = status.breaker.last_error.as_deref().unwrap_or("no error is known");
            amiss(status.breaker.state != BreakerState::Closed, format!("its breaker is open: {error}"))
        }
        Watch::Quota { limit, left_below } => {
            let views = status.limits.iter().filter(|l| l.name == limit.as_str()).map(|l| &l.view);
            let left = |v: &crate::limiter::LimitView| (f64::from(v.left()) / f64::from(v.max.max(1)), v.left(), v.max);
            match views.map(left).min_by(|a, b| a.0.total_cmp(&b.0)) {
                Some((share, left, max)) => amiss(share < *left_below, format!("{left} of {max} are left of {limit}")),
                None => Seen::Well,
            }
        }
    })
}

async fn tell(handle: &Handle, rule: &Rule, step: Step, seen: Seen, known: Option<&Raised>) -> Result<(), EngineError> {
    let now = handle.clock().now();
    let detail = match seen {
        Seen::Amiss(said) => said,
        Seen::Well | Seen::CannotSay => "it is well again".to_owned(),
    };
    let alert = Raised::told(rule, known, detail, now);
    apply(handle, step, alert, known.map(|known| known.told_at)).await
}

async fn apply(handle: &Handle, step: Step, alert: Raised, expect: Option<Timestamp>) -> Result<(), EngineError> {
    let Raised { name, provider, detail, .. } = alert.clone();
    match handle.change(Change::Alert(Box::new(AlertChange { step, alert, expect }))).await {
        Ok(_) if step == Step::Clear => tracing::info!(alert = %name, %provider, "alert cleared: {detail}"),
        Ok(_) => tracing::warn!(alert = %name, %provider, "alert {}: {detail}", step.name()),
        // Another daemon told it first.
        Err(EngineError::Refused(Refusal::AlertMoved(_))) => {}
        Err(e) => return Err(e),
    }
    Ok(())
}
