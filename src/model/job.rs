//! A job: one durable piece of work, the unit that users see.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::flow::{Class, FlowKey, Place};
use super::id::{CallId, FlowId, JobId, RunId};
use super::name::{Account, IdempotencyKey, Key, OperationName, ProviderName, Tenant};
use super::state::State;
use crate::clock::Timestamp;

/// A JSON document as text. Kept byte for byte as the caller sent it.
pub type Payload = Arc<str>;

/// Small texts that a caller hangs on a job for filtering. At most [`LABELS_MAX`].
pub type Labels = BTreeMap<String, String>;

pub const LABELS_MAX: usize = 32;
pub const LABEL_BYTES_MAX: usize = 256;
/// Default cap of one payload, bytes. Configurable as `server.payload_bytes_max`.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Jobs in one EnqueueJobs call.
pub const ENQUEUE_JOBS_MAX: usize = 10_000;

/// What waits for a newer change of its key may become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coalesce {
    /// Every job is sent.
    #[default]
    Never,
    /// The newest waiting change wins.
    Replace,
    /// The newest is merged into the waiting one as a JSON merge patch (RFC 7396).
    Merge,
}

/// A job as handed in, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    pub provider: ProviderName,
    pub operation: OperationName,
    pub account: Account,
    pub tenant: Tenant,
    pub run: Option<RunId>,
    pub key: Option<Key>,
    pub class: Class,
    pub payload: Payload,
    /// Not before this wall time; `None`: now.
    pub due_at: Option<Timestamp>,
    pub labels: Labels,
    pub idempotency_key: Option<IdempotencyKey>,
    /// W3C `traceparent` of the caller.
    pub traceparent: Option<Arc<str>>,
    /// The operation's rule for waiting jobs of the same key, copied here so that a store needs no provider.
    pub coalesce: Coalesce,
    /// Part of the account ([`super::shard`]); the engine fills it in.
    pub part: u16,
}

impl NewJob {
    /// A normal job without key, account or tenant.
    pub fn new(provider: ProviderName, operation: OperationName, payload: impl Into<Payload>) -> Self {
        NewJob {
            provider,
            operation,
            account: Account::default(),
            tenant: Tenant::default(),
            run: None,
            key: None,
            class: Class::Normal,
            payload: payload.into(),
            due_at: None,
            labels: Labels::new(),
            idempotency_key: None,
            traceparent: None,
            coalesce: Coalesce::Never,
            part: 0,
        }
    }

    pub fn flow_key(&self) -> FlowKey {
        FlowKey {
            provider: self.provider.clone(),
            operation: self.operation.clone(),
            account: self.account.clone(),
            tenant: self.tenant.clone(),
            run: self.run.map_or(0, |r| r.seq),
            part: self.part,
        }
    }
}

/// A job as the store holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: JobId,
    pub flow: FlowId,
    pub flow_key: FlowKey,
    pub key: Option<Key>,
    pub class: Class,
    pub state: State,
    /// Meaningful while the job is hot (`waiting`, `calling`, `unknown`).
    pub place: Place,
    /// Position in the order of its key and flow. Equal to `id.seq` until the job is revived or resolved `again`.
    pub turn: i64,
    pub payload: Payload,
    /// 1 when accepted; grows with every coalesced or edited payload. Part of the outbound idempotency key.
    pub version: u32,
    /// Calls that counted as tries: sent ones, except those the provider throttled.
    pub attempts: u32,
    /// Attempts that ended because the daemon died.
    pub crashes: u32,
    /// Times the provider said "not now".
    pub throttles: u32,
    /// Not before this wall time.
    pub due_at: Timestamp,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub cancel_requested: bool,
    pub labels: Labels,
    pub traceparent: Option<Arc<str>>,
    /// Calls that carried it, oldest first, at most the last 32.
    pub calls: Vec<CallId>,
    /// HTTP status of the last answer, if any came.
    pub last_status: Option<u16>,
    /// What went wrong last, one sentence.
    pub last_error: Option<Arc<str>>,
    /// The provider's answer for this job, cut to the operation's `keep_bytes`.
    pub result: Option<Arc<str>>,
}

/// A job that a begun call took, with all that rendering and judging need.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimedJob {
    pub id: JobId,
    pub flow: FlowId,
    pub class: Class,
    pub key: Option<Key>,
    pub payload: Payload,
    pub version: u32,
    /// When it was to leave at the earliest.
    pub due_at: Timestamp,
    /// Including the one that begins now.
    pub attempts: u32,
    pub crashes: u32,
    pub throttles: u32,
    /// When the job was first sent under its present version, if ever: an outbound idempotency key lives from then.
    pub first_sent_at: Option<Timestamp>,
    pub traceparent: Option<Arc<str>>,
}
