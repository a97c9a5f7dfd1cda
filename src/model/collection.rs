//! A collection as declared: what its records must look like, what they are found by, what is counted of them, where
//! they come from and where their changes go.
//!
//! Pure: a document goes in, a [`Checked`] record with its [`Facts`] comes out, or what is wrong with it. `collection/facts.rs`
//! reads the fields, `collection/number.rs` the numbers. Must never know: stores, files. Next: `model/pages`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::flow::Class;
use super::job::{Coalesce, NewJob};
use super::name::{Account, CollectionName, IdempotencyKey, Key, OperationName, ProviderName};
use super::record::Facts;

mod facts;
mod number;

pub use facts::{FIELD_BYTES_MAX, Wrong};
pub use number::{MILLION, read as read_number, show as show_number};

/// Violations of one document that are told.
const WRONG_MAX: usize = 20;

#[derive(Clone, Debug)]
pub struct Collection {
    pub name: CollectionName,
    pub schema: Option<Schema>,
    pub indexes: Vec<Index>,
    pub aggregates: BTreeMap<Arc<str>, Aggregate>,
    pub pull: Option<PullRule>,
    pub push: Option<Arc<PushRule>>,
    /// How long deleted records are remembered for watchers.
    pub tombstones: Duration,
    /// Fingerprint of indexes and aggregates.
    pub shape: Arc<str>,
}

/// A compiled JSON Schema.
#[derive(Clone)]
pub struct Schema {
    pub source: Arc<Value>,
    validator: Arc<jsonschema::Validator>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The fields' names, joined with commas.
    pub name: Arc<str>,
    pub fields: Vec<Field>,
}

/// A field of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// As declared: `status`, or a pointer.
    pub name: Arc<str>,
    /// JSON pointer.
    pub pointer: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    pub name: Arc<str>,
    pub group_by: Vec<Field>,
    /// Name and field. At most [`MEASURES_MAX`].
    pub measures: Vec<(Arc<str>, Field)>,
    /// Bit n: measure n has a smallest and a largest.
    pub extremes: u8,
    /// 0: groups are ordered by count, n: by the sum of measure n - 1.
    pub order: u8,
    /// Where the time of a record stands, and how long a bucket is.
    pub time: Option<(Field, Duration)>,
}

pub const MEASURES_MAX: usize = 8;

/// Where the records come from.
#[derive(Clone, Debug, PartialEq)]
pub struct PullRule {
    pub provider: ProviderName,
    /// An operation with `pages`.
    pub operation: OperationName,
    pub account: Account,
    /// JSON pointer to an item's id: a text or a number.
    pub id: String,
    /// JSON pointer to what grows when an item changes; its largest is asked for next time.
    pub updated: Option<String>,
    /// JSON pointer to what says that an item is gone.
    pub deleted_if: Option<String>,
    pub sweep: bool,
    /// With `updated`: a pull asks for everything when the last that did is older than this.
    pub full_every: Duration,
}

/// Where changes go.
#[derive(Clone, Debug, PartialEq)]
pub struct PushRule {
    pub provider: ProviderName,
    pub operation: OperationName,
    /// Rule of the operation, copied when the collection is put in force.
    pub coalesce: Coalesce,
    /// What is called when a record is deleted.
    pub delete: Option<(OperationName, Coalesce)>,
    /// Only changes of these fields; empty: any change.
    pub watch: Vec<Field>,
    /// JSON pointer to the job's key; `None`: the record's id.
    pub key: Option<String>,
    pub account: AccountRule,
    pub class: Class,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountRule {
    Fixed(Account),
    /// JSON pointer.
    Field(String),
}

/// A document that may be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    pub data: Arc<str>,
    pub hash: Arc<str>,
    pub facts: Arc<Facts>,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source.fmt(f)
    }
}

impl Schema {
    /// References to other documents are not followed.
    pub fn compile(source: Value) -> Result<Schema, String> {
        let validator = jsonschema::validator_for(&source).map_err(|e| e.to_string())?;
        Ok(Schema { source: Arc::new(source), validator: Arc::new(validator) })
    }
}

impl Collection {
    /// The record that a document makes, or everything that is wrong with it, by JSON pointer.
    pub fn check(&self, data: impl Into<Arc<str>>) -> Result<Checked, Vec<Wrong>> {
        let data: Arc<str> = data.into();
        let value: Value =
            serde_json::from_str(&data).map_err(|e| vec![Wrong::at("", format!("expected JSON: {e}"))])?;
        if !value.is_object() {
            return Err(vec![Wrong::at("", "expected a JSON object".to_owned())]);
        }
        if let Some(schema) = &self.schema {
            let wrong = schema.validator.iter_errors(&value).take(WRONG_MAX);
            let wrong: Vec<Wrong> = wrong.map(|e| Wrong::at(&e.instance_path().to_string(), e.to_string())).collect();
            if !wrong.is_empty() {
                return Err(wrong);
            }
        }
        let facts = Arc::new(self.facts(&value)?);
        Ok(Checked { hash: hash_of(&value), data, facts })
    }

    pub fn aggregate(&self, name: &str) -> Option<&Aggregate> {
        self.aggregates.get(name)
    }
}

impl PushRule {
    /// Do the two documents differ in a watched field?
    pub fn minds(&self, old: &str, new: &str) -> bool {
        if self.watch.is_empty() {
            return true;
        }
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let (old, new) = (read(old), read(new));
        self.watch.iter().any(|field| old.pointer(&field.pointer) != new.pointer(&field.pointer))
    }

    /// The job that sends a record as its change `change` left it; the same one however often it is asked for. `None`: a
    /// delete that nobody is told of.
    ///
    /// A change, because a version comes again: a record that was deleted, forgotten and put anew is at version 1, and
    /// the job of its former version 1 may still hold that key.
    pub fn job(
        &self,
        collection: &CollectionName,
        id: &Key,
        data: &Arc<str>,
        change: i64,
        gone: bool,
    ) -> Option<NewJob> {
        let (operation, coalesce) = match gone {
            true => self.delete.clone()?,
            false => (self.operation.clone(), self.coalesce),
        };
        let needs = self.key.is_some() || matches!(self.account, AccountRule::Field(_));
        let value: Value = if needs { serde_json::from_str(data).unwrap_or_default() } else { Value::Null };
        let text = |pointer: &str| value.pointer(pointer).and_then(facts::plain_text);
        let key = self.key.as_deref().and_then(text).and_then(|key| Key::new(key).ok()).unwrap_or_else(|| id.clone());
        let account = match &self.account {
            AccountRule::Fixed(account) => account.clone(),
            AccountRule::Field(pointer) => text(pointer).and_then(|a| Account::new(a).ok()).unwrap_or_default(),
        };
        let mut job = NewJob::new(self.provider.clone(), operation, data.clone());
        let identity = [collection.as_str(), id.as_str(), self.provider.as_str(), job.operation.as_str()];
        job.idempotency_key = IdempotencyKey::new(format!("tidegate.push/{}/c{change}", digest(&identity))).ok();
        job.labels.insert("collection".to_owned(), collection.to_string());
        Some(NewJob { key: Some(key), account, class: self.class, coalesce, ..job })
    }
}

fn digest(parts: &[&str]) -> Arc<str> {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update([part.as_bytes(), &[0]].concat()));
    hex(&hash.finalize()[..16])
}

fn hex(bytes: &[u8]) -> Arc<str> {
    use std::fmt::Write as _;
    let write = |mut text: String, byte: &u8| {
        let _ = write!(text, "{byte:02x}");
        text
    };
    bytes.iter().fold(String::with_capacity(32), write).into()
}

/// Of a declaration's text, for [`Collection::shape`].
pub fn shape_of(text: &str) -> Arc<str> {
    digest(&[text])
}

/// Of the content: the order of keys and the white space do not matter.
pub fn hash_of(value: &Value) -> Arc<str> {
    let mut hash = Sha256::new();
    feed(&mut hash, value);
    hex(&hash.finalize()[..16])
}

fn feed(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| *key);
            hash.update(b"{");
            for (key, value) in keys {
                hash.update(serde_json::to_string(key).unwrap_or_default());
                hash.update(b":");
                feed(hash, value);
                hash.update(b",");
            }
            hash.update(b"}");
        }
        Value::Array(items) => {
            hash.update(b"[");
            for item in items {
                feed(hash, item);
                hash.update(b",");
            }
            hash.update(b"]");
        }
        other => hash.update(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
