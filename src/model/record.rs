//! A record: one JSON document of a collection under its external id; and the pull that fills a collection.
//!
//! [`Facts`] are what indexes and aggregates know of a record. They are kept beside it, so that taking a record out of
//! them never depends on a declaration that has changed since. Must never know: how they are stored. Next:
//! `model/collection`, which makes facts of documents.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::JobId;
use super::name::{CollectionName, Key};
use crate::clock::Timestamp;

/// Largest document of a record, bytes. Configurable as `server.payload_bytes_max`, because a push sends it as payload.
pub const RECORD_BYTES_MAX: usize = super::job::PAYLOAD_BYTES_MAX;
/// Records in one write.
pub const RECORDS_MAX: usize = 1_000;

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub collection: CollectionName,
    /// The external id, at most 512 bytes.
    pub id: Key,
    /// JSON, byte for byte as it came. Of a deleted record the last one.
    pub data: Arc<str>,
    /// Of the content, whatever the order of its keys: 32 hexadecimal digits.
    pub hash: Arc<str>,
    /// 1 when it came; grows with every change of content, with a delete, and when it comes back.
    pub version: i64,
    /// Its place in the collection's sequence of changes: that of its last change.
    pub change: i64,
    pub deleted: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What indexes and aggregates hold of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Index name and value. The value is the JSON list of the fields.
    #[serde(rename = "i", default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<(Arc<str>, String)>,
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
}

/// What a record adds to one aggregate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Name of the aggregate.
    #[serde(rename = "n")]
    pub aggregate: Arc<str>,
    /// JSON list of the group's fields.
    #[serde(rename = "g")]
    pub group: String,
    /// Begin of the bucket of time, microseconds; `None`: the record has no time, or the aggregate no buckets.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<i64>,
    /// One per measure, in millionths; `None`: the record has no such number.
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Option<i64>>,
    /// Bit n: measure n has a smallest and a largest.
    #[serde(rename = "x", default)]
    pub extremes: u8,
    /// What the order of groups goes by: 0 the count, n the sum of measure n - 1.
    #[serde(rename = "o", default)]
    pub order: u8,
}

/// The bucket that stands for all time.
pub const ALL_TIME: i64 = i64::MIN;

/// One group of an aggregate within one bucket of time, or all time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    #[serde(rename = "n")]
    pub count: i64,
    /// In the order of the declaration.
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<Measured>,
}

/// A measure over the records of a group, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Records that have the number.
    #[serde(rename = "n")]
    pub count: i64,
    /// JSON readers take no number of this size, so it is a text there.
    #[serde(rename = "s", with = "text")]
    pub sum: i128,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

mod text {
    pub fn serialize<S: serde::Serializer>(n: &i128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(n)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<i128, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// JSON list of the group's fields.
    pub group: String,
    pub sums: Sums,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullState {
    /// Pages are fetched.
    Running,
    /// All pages are here; records that none of them had are being deleted.
    Sweeping,
    Done,
    /// A page gave up. Retrying its job goes on with the pull; a new pull begins anew.
    Failed,
}

impl PullState {
    pub fn is_over(self) -> bool {
        matches!(self, PullState::Done | PullState::Failed)
    }
}

/// The newest pull of a collection: its checkpoint, and what the next one needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pull {
    /// 1 for the first of the collection.
    pub id: i64,
    pub state: PullState,
    /// All records are asked for, not only those that changed.
    pub full: bool,
    /// Records that no page had are deleted at the end.
    pub sweeps: bool,
    /// The job of the page that is fetched, or of the last one.
    pub job: Option<(Timestamp, i64)>,
    /// Pages stored.
    pub pages: u32,
    /// Records of these pages, and what became of them.
    pub items: u64,
    pub changed: u64,
    pub deleted: u64,
    /// Items that could not be taken; the first reason is in `error`.
    pub rejected: u64,
    pub started_at: Timestamp,
    /// The collection's last change when it began. What was written since is newer than the pages may be, and is not swept.
    #[serde(default = "any_change")]
    pub began_after: i64,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub error: Option<String>,
    /// Who started it.
    pub actor: String,
    /// Largest mark seen in this pull.
    pub seen: Option<String>,
    /// ETag of this pull's first page.
    pub etag: Option<String>,
    /// Of the last pull that was done: the next asks for what changed since.
    pub since: Option<String>,
    /// Of the last pull that was done.
    pub since_etag: Option<String>,
    /// When the last full pull began that was done.
    pub full_at: Option<Timestamp>,
}

/// Of a pull that a version of before began, which did not note it.
fn any_change() -> i64 {
    i64::MAX
}

impl Pull {
    pub fn job_id(&self) -> Option<JobId> {
        self.job.map(|(created_at, seq)| JobId { created_at, seq })
    }
}

/// A collection as a store knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    pub name: CollectionName,
    /// Records that are not deleted.
    pub live: i64,
    /// Number of the last change.
    pub last_change: i64,
    /// Changes up to here may be gone: deleted records that were forgotten.
    pub forgotten: i64,
    /// The indexes and aggregates that its records are in, as a fingerprint of their declaration.
    pub shape: Arc<str>,
    pub pull: Option<Pull>,
}
