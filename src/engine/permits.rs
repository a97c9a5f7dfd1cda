//! Permits for programs that make their own calls: the way from the front door to the gate and back.
//!
//! Any daemon of a cluster may be asked; its own gate takes the turns, and the limits are shared. Must never know:
//! proto types. Next: `gate/outside`, `lender`.

use http::{HeaderMap, Method};

use super::caller::heard::{self, Word};
use super::gate::{Ask, Lending, Lesson};
use super::handle::{EngineError, Handle};
use super::lender::{Purpose, Used};
use super::registry::Entry;
use crate::clock::Timestamp;
use crate::limiter::{behind, provider_spends, spends};
use crate::model::call::{Call, Ending, Lane};
use crate::model::flow::Class;
use crate::model::id::Id;
use crate::model::name::{Account, Key, OperationName, ProviderName};
use crate::model::provider::Provider;
use crate::model::verdict::{Answer, Health, limiting};
use crate::store::Refusal;

/// The journal's name for a call of no declared operation.
const NO_OPERATION: &str = "outside";

/// Which limits a program's calls spend.
#[derive(Clone, Debug)]
pub enum Spending {
    /// As the daemon's own calls of an operation.
    Operation(OperationName, Lane),
    /// Those of the provider that count this method.
    Method(Method),
}

/// What a program asks for, checked.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub provider: ProviderName,
    pub spending: Spending,
    pub account: Account,
    pub key: Option<Key>,
    pub min: u32,
    pub max: u32,
    pub class: Class,
    pub wait: std::time::Duration,
    pub lease: std::time::Duration,
}

/// What a program saw when it had made its calls.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub sent: u32,
    pub status: Option<u16>,
    pub headers: HeaderMap,
}

/// What became of a settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Counted as told.
    Now,
    /// It had ended before: settled, or its lease was over.
    Before,
    NoSuchGrant,
    /// More were said to be sent than were granted.
    TooMany {
        granted: u32,
    },
}

fn health(provider: &Provider, answer: &Answer) -> Health {
    let said = limiting(provider, answer, answer.received_at);
    said.map_or(Health::Good, |said| Health::Limiting { until: said.until })
}

impl Handle {
    /// Waits for permits as long as is asked for.
    pub async fn acquire_permits(&self, wanted: Wanted) -> Result<Lending, EngineError> {
        if self.is_draining() {
            return Err(EngineError::Draining);
        }
        let Wanted { provider, spending, account, key, min, max, class, wait, lease } = wanted;
        let Some(entry) = self.registry().get(&provider) else { return Err(Refusal::NoProvider(provider).into()) };
        let (operation, lane, spends) = match spending {
            Spending::Operation(name, lane) => {
                let declared = entry.provider.operations.get(&name);
                let spends = declared.map(|o| spends(&entry.provider, o, lane, &account, key.as_ref()));
                (name, lane, spends.unwrap_or_default())
            }
            Spending::Method(method) => {
                let name = OperationName::new(NO_OPERATION).expect("it is a word");
                (name, Lane::Single, provider_spends(&entry.provider, &method, &account).into())
            }
        };
        let purpose = Purpose { provider, operation, lane, account };
        let wait_until = self.clock().steady() + wait;
        let ask = Ask { purpose, spends, min, max, class, wait_until, lease };
        entry.gate.permits(ask).await.ok_or(EngineError::Draining)?
    }

    /// Ends a grant: what was sent counts from now, the rest returns at once, and a "not now" holds everybody.
    pub async fn settle_permits(&self, token: Id, seen: Seen) -> Result<Settled, EngineError> {
        let lender = &self.0.parts.lender;
        let Some(call) = lender.find(token).await? else { return Ok(Settled::NoSuchGrant) };
        if seen.sent > call.outside {
            return Ok(Settled::TooMany { granted: call.outside });
        }
        let entry = self.registry().get(&call.provider);
        let mut word = Word::default();
        if let Some(entry) = &entry
            && let Some(answer) = self.answer(&seen)
        {
            let mut health = health(&entry.provider, &answer);
            word = self.heard(entry, &call, &answer, &mut health);
            let granted_at = call.permit.granted_at;
            word.blocked_until = entry.gate.hear_health(self.clock(), health, granted_at);
            if let Some(until) = word.blocked_until {
                entry.gate.learn(Lesson { spends: std::mem::take(&mut word.taught), granted_at, until });
            }
        }
        let Word { blocked_until, blocked_limit, said, .. } = word;
        if blocked_until.is_some() {
            self.metrics().throttled(call.provider.as_str(), "");
            tracing::warn!(provider = %call.provider, call = %call.id, "the provider said not now to a program outside");
        }
        let Seen { sent, status, .. } = seen;
        let was_open = call.ending == Ending::Open;
        let counted = lender.settle(&call, Used { sent, status, blocked_until, blocked_limit, said }).await;
        if let Some(entry) = entry {
            entry.gate.permits_settled(sent < call.outside);
        }
        Ok(if was_open && counted { Settled::Now } else { Settled::Before })
    }

    /// `None`: the program told of no answer.
    fn answer(&self, seen: &Seen) -> Option<Answer> {
        let (status, received_at) = (seen.status?, self.clock().now());
        let headers = seen.headers.clone();
        Some(Answer { status, headers, body: bytes::Bytes::new(), truncated: false, received_at })
    }

    /// What the answer says of the limits of a grant. A refusal's health learns its end.
    fn heard(&self, entry: &Entry, call: &Call, answer: &Answer, health: &mut Health) -> Word {
        let Entry { provider, gate, .. } = entry;
        let operation = provider.operations.get(&call.operation).map(|o| (&**o, call.lane));
        let spent = behind(provider, operation, &call.account, &call.permit.spends);
        let read = heard::read(&spent, answer, *health, self.clock().steady(), self.clock().now());
        *health = read.health.unwrap_or(*health);
        if read.ignored > 0 {
            self.metrics().limit_headers_ignored(provider.name.as_str(), read.ignored);
        }
        gate.hear_told(read.told);
        Word { blocked_limit: read.limit, said: read.said, taught: read.taught, ..Word::default() }
    }

    /// Steady in wall terms.
    pub fn wall(&self, steady: Timestamp) -> Timestamp {
        super::wall_of(self.clock(), steady)
    }
}
