//! The fields of a document that indexes and aggregates hold. Must never know: where they are held.

use serde_json::Value;

use super::{Aggregate, Collection, Field, number};
use crate::model::record::{Entry, Facts};

/// Longest value of an index or a group, bytes of JSON: databases bound the rows of an index.
pub const FIELD_BYTES_MAX: usize = 1_024;

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// JSON pointer; empty: the whole.
    pub pointer: String,
    /// One sentence.
    pub what: String,
}

impl Wrong {
    pub fn at(pointer: &str, what: String) -> Wrong {
        Wrong { pointer: pointer.to_owned(), what }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pointer = if self.pointer.is_empty() { "the document" } else { &self.pointer };
        write!(f, "at {pointer}: {}", self.what)
    }
}

impl Collection {
    /// What the document puts into indexes and aggregates.
    pub(super) fn facts(&self, value: &Value) -> Result<Facts, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut facts = Facts::default();
        for index in &self.indexes {
            match list(value, &index.fields) {
                Ok(text) => facts.indexes.push((index.name.clone(), text)),
                Err(e) => wrong.push(e),
            }
        }
        for aggregate in self.aggregates.values() {
            match entry(value, aggregate) {
                Ok(entry) => facts.entries.push(entry),
                Err(e) => wrong.push(e),
            }
        }
        if wrong.is_empty() { Ok(facts) } else { Err(wrong) }
    }
}

/// The fields as a JSON list; a field that is not there is null.
fn list(value: &Value, fields: &[Field]) -> Result<String, Wrong> {
    let values: Vec<&Value> = fields.iter().map(|f| value.pointer(&f.pointer).unwrap_or(&Value::Null)).collect();
    let text = serde_json::to_string(&values).unwrap_or_default();
    if text.len() > FIELD_BYTES_MAX {
        let what = format!("expected at most {FIELD_BYTES_MAX} bytes for an index or a group, got {}", text.len());
        return Err(Wrong::at(&fields[0].pointer, what));
    }
    Ok(text)
}

fn entry(value: &Value, aggregate: &Aggregate) -> Result<Entry, Wrong> {
    let group = list(value, &aggregate.group_by)?;
    let mut values = Vec::with_capacity(aggregate.measures.len());
    for (name, field) in &aggregate.measures {
        values.push(match value.pointer(&field.pointer) {
            None | Some(Value::Null) => None,
            Some(found) => Some(number::read(found).ok_or_else(|| {
                let what =
                    format!("expected a number within +-9 trillion for the measure {name}, got {}", short(found));
                Wrong::at(&field.pointer, what)
            })?),
        });
    }
    let bucket = match &aggregate.time {
        None => None,
        Some((field, length)) => match value.pointer(&field.pointer) {
            None | Some(Value::Null) => None,
            Some(found) => {
                let at = time(found).ok_or_else(|| {
                    let what =
                        format!("expected a time like \"2026-11-24T14:30:00Z\" or Unix seconds, got {}", short(found));
                    Wrong::at(&field.pointer, what)
                })?;
                let length = length.as_micros() as i64;
                Some(at.div_euclid(length) * length)
            }
        },
    };
    let Aggregate { name, extremes, order, .. } = aggregate;
    Ok(Entry { aggregate: name.clone(), group, bucket, values, extremes: *extremes, order: *order })
}

/// Microseconds since the epoch.
fn time(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse::<jiff::Timestamp>().ok().map(|t| t.as_microsecond()),
        Value::Number(n) => {
            let n = n.as_f64()?;
            // Beyond the year 5000 in seconds: milliseconds.
            let seconds = if n.abs() > 1e11 { n / 1e3 } else { n };
            (seconds.abs() < 1e11).then_some((seconds * 1e6) as i64)
        }
        _ => None,
    }
}

/// A text, a number or a truth value as plain text.
pub(super) fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}
