//! News between daemons by LISTEN and NOTIFY: one connection that listens, one notice per commit.
//!
//! A notice is a hint: it makes the others quick, the database makes them right. So whatever is lost (a connection, a full
//! channel) becomes "look at everything". Must never know: gates. Next: `leases`.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::lender::within;
use crate::model::flow::Flow;
use crate::model::id::{DaemonId, FlowId};
use crate::model::invalidation::Which;
use crate::model::name::ProviderName;
use crate::store::{Error, Notice, Touched};

const CHANNEL: &str = "tidegate";
/// PostgreSQL refuses payloads of 8,000 bytes.
const PAYLOAD_BYTES_MAX: usize = 7_000;
/// Notices that wait for a slow reader.
const NOTICES_MAX: usize = 256;
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// A listener that hears nothing asks whether anybody is there so often.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// As it goes over the wire; short, because it goes with every commit.
#[derive(serde::Serialize, serde::Deserialize)]
struct Wire {
    /// Who sends it.
    d: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    f: Vec<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    p: Vec<String>,
    #[serde(default)]
    e: bool,
    #[serde(default)]
    c: bool,
    #[serde(default)]
    t: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    i: Vec<Which>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    x: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    g: bool,
}

/// What a commit tells beside its flows.
#[derive(Clone, Default)]
pub(super) struct Said {
    pub events: bool,
    pub declarations: bool,
    pub due: bool,
    pub called_off: bool,
    pub invalidated: Vec<Which>,
}

pub(super) fn payload(daemon: DaemonId, flows: &[Flow], said: Said) -> String {
    let render = |f: Vec<i64>, p: Vec<String>| {
        let Said { events, declarations, due, called_off, invalidated } = said.clone();
        let (d, x, g) = (daemon.to_string(), called_off, false);
        let wire = Wire { d, f, p, e: events, c: declarations, t: due, i: invalidated, x, g };
        serde_json::to_string(&wire).expect("numbers and texts are JSON")
    };
    let whole = render(flows.iter().map(|flow| flow.id.0).collect(), Vec::new());
    if whole.len() <= PAYLOAD_BYTES_MAX {
        return whole;
    }
    let providers: BTreeSet<String> = flows.iter().map(|flow| flow.key.provider.to_string()).collect();
    let named = render(Vec::new(), providers.into_iter().collect());
    // So many providers at once: nothing named means everything.
    if named.len() <= PAYLOAD_BYTES_MAX { named } else { "{}".to_owned() }
}

/// Says that `daemon` gave partitions back.
pub(super) fn given_back(daemon: DaemonId) -> String {
    let (f, p) = (Vec::new(), Vec::new());
    let d = daemon.to_string();
    let wire = Wire { d, f, p, e: false, c: false, t: false, i: Vec::new(), x: false, g: true };
    serde_json::to_string(&wire).expect("texts are JSON")
}

/// What a payload says to `daemon`; `None` for its own.
fn read(payload: &str, daemon: DaemonId) -> Option<Notice> {
    let Ok(wire) = serde_json::from_str::<Wire>(payload) else { return Some(Notice::Everything) };
    if wire.d == daemon.to_string() {
        return None;
    }
    let providers: Result<Vec<ProviderName>, _> = wire.p.iter().map(ProviderName::new).collect();
    let Ok(providers) = providers else { return Some(Notice::Everything) };
    let flows = wire.f.into_iter().map(FlowId).collect();
    Some(Notice::Changed(Touched {
        flows,
        providers,
        events: wire.e,
        declarations: wire.c,
        due: wire.t,
        invalidated: wire.i,
        called_off: wire.x,
        given_back: wire.g,
    }))
}

/// Connects, and returns the work of passing notices on until nobody reads them any more.
pub(super) async fn listen(
    pool: PgPool,
    daemon: DaemonId,
    answer_max: Duration,
) -> Result<(mpsc::Receiver<Notice>, impl Future<Output = ()> + Send + 'static), Error> {
    let listener = connect(&pool, answer_max).await.map_err(super::error::of)?;
    let (sender, receiver) = mpsc::channel(NOTICES_MAX);
    let work = async move {
        let mut listener = Some(listener);
        let mut missed = false;
        while !sender.is_closed() && !pool.is_closed() {
            let heard = match &mut listener {
                Some(live) => tokio::select! {
                    heard = live.try_recv() => heard,
                    // A connection that was cut silently would be silent for ever.
                    () = tokio::time::sleep(PROBE_EVERY) => match probe(live, answer_max).await {
                        Ok(()) => continue,
                        Err(e) => Err(e),
                    },
                    () = sender.closed() => return,
                    // A full channel had to leave something out: say so as soon as there is room.
                    permit = sender.reserve(), if missed => {
                        let Ok(permit) = permit else { return };
                        permit.send(Notice::Everything);
                        missed = false;
                        continue;
                    }
                },
                None => {
                    listener = connect(&pool, answer_max).await.ok();
                    match listener {
                        Some(_) => missed = true,
                        None => tokio::time::sleep(RECONNECT_PAUSE).await,
                    }
                    continue;
                }
            };
            match heard {
                Ok(Some(notification)) => {
                    let Some(notice) = read(notification.payload(), daemon) else { continue };
                    // After something was left out, nothing less than everything will do.
                    if missed {
                        continue;
                    }
                    match sender.try_send(notice) {
                        Ok(()) => {}
                        Err(TrySendError::Full(_)) => missed = true,
                        Err(TrySendError::Closed(_)) => return,
                    }
                }
                // Lost: whatever was said until the next connection listens is missed.
                Ok(None) | Err(_) => listener = None,
            }
        }
    };
    Ok((receiver, work))
}

async fn connect(pool: &PgPool, answer_max: Duration) -> Result<PgListener, sqlx::Error> {
    let connected = async {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(listener)
    };
    within(answer_max, connected).await
}

/// Does the server answer on this connection?
async fn probe(listener: &mut PgListener, answer_max: Duration) -> Result<(), sqlx::Error> {
    within(answer_max, sqlx::query("select 1").execute(listener)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::flow::FlowKey;
    use crate::model::name::{Account, OperationName, Tenant};

    fn daemon(n: u128) -> DaemonId {
        DaemonId(uuid::Uuid::from_u128(n))
    }

    fn flow(id: i64, provider: &str) -> Flow {
        let key = FlowKey {
            provider: ProviderName::new(provider).unwrap(),
            operation: OperationName::new("sync").unwrap(),
            account: Account::default(),
            tenant: Tenant::default(),
            run: 0,
            part: 0,
        };
        Flow { id: FlowId(id), key, counts: Default::default(), held: false, version: 0 }
    }

    #[test]
    fn many_flows_are_named_by_their_providers_and_too_many_of_those_by_nothing() {
        let said = |flows: &[Flow]| {
            let payload =
                payload(daemon(1), flows, Said { events: true, due: true, called_off: true, ..Said::default() });
            assert!(payload.len() <= PAYLOAD_BYTES_MAX);
            assert_eq!(read(&payload, daemon(1)).is_none(), payload != "{}");
            read(&payload, daemon(2))
        };
        let Some(Notice::Changed(few)) = said(&[flow(7, "crm"), flow(9, "crm")]) else { panic!("expected flows") };
        assert_eq!((few.flows, few.providers.len()), (vec![FlowId(7), FlowId(9)], 0));
        assert_eq!((few.events, few.declarations, few.due, few.called_off), (true, false, true, true));
        let many: Vec<Flow> = (1_000_000..1_002_000).map(|id| flow(id, "crm")).collect();
        let Some(Notice::Changed(many)) = said(&many) else { panic!("expected providers") };
        assert_eq!((many.flows.len(), many.providers), (0, vec![ProviderName::new("crm").unwrap()]));
        let all: Vec<Flow> = (0..2_000).map(|id| flow(id + 1_000_000, &format!("provider-{id}"))).collect();
        assert_eq!(said(&all), Some(Notice::Everything));
    }
}
