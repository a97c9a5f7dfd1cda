//! Finds the records in a request body, and writes the answer that speaks about each of them.
//!
//! A batch is a top-level array of objects, or an object with exactly one field that is an array of objects; anything
//! else is one record. Bodies are scanned, not built: a thousand records cost one pass. Must never know: limits.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::config::Records;
use crate::model::walk;

/// A record as the provider sees it.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: String,
    pub version: Option<i64>,
}

/// What a body carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    pub batch: bool,
    pub records: Vec<Record>,
}

/// The declared places, split once.
#[derive(Clone, Debug)]
pub struct Reader {
    id: Vec<String>,
    version: Vec<String>,
}

impl Reader {
    pub fn new(records: &Records) -> Self {
        Reader { id: split_pointer(&records.id), version: split_pointer(&records.version) }
    }

    /// Never fails: a body that is no JSON is one record named by the path.
    pub fn read(&self, path: &str, body: &[u8]) -> Carried {
        if let Some(items) = batch_of(body) {
            let record = |raw: &RawValue| self.record(raw.get().as_bytes()).unwrap_or_default();
            return Carried { batch: true, records: items.into_iter().map(record).collect() };
        }
        let named_by_path = || last_segment(path).into_owned();
        let record = match self.record(body) {
            Some(record) if !record.id.is_empty() => record,
            Some(record) => Record { id: named_by_path(), ..record },
            None => Record { id: named_by_path(), version: None },
        };
        Carried { batch: false, records: vec![record] }
    }

    fn record(&self, json: &[u8]) -> Option<Record> {
        let id = at(json, &self.id)?;
        let version = at(json, &self.version)?.and_then(|raw| raw.get().parse().ok());
        Some(Record { id: id.map(plain_text).unwrap_or_default(), version })
    }
}

/// `{"results": [{"id": "u1"}, {"id": "u2", "error": "..."}]}`, in the order of the request.
pub fn batch_answer(names: &Records, records: &[Record], failed: &[bool]) -> Bytes {
    let mut out = Vec::with_capacity(32 + records.len() * 24);
    out.push(b'{');
    push_text(&mut out, &names.results);
    out.extend_from_slice(b":[");
    for (i, record) in records.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_result(&mut out, names, record, failed.get(i).copied().unwrap_or(false));
    }
    out.extend_from_slice(b"]}");
    Bytes::from(out)
}

/// `{"id": "u1"}`, or with the reason.
pub fn single_answer(names: &Records, record: &Record, failed: bool) -> Bytes {
    let mut out = Vec::with_capacity(64);
    push_result(&mut out, names, record, failed);
    Bytes::from(out)
}

fn push_result(out: &mut Vec<u8>, names: &Records, record: &Record, failed: bool) {
    out.push(b'{');
    push_text(out, &names.result_id);
    out.push(b':');
    push_text(out, &record.id);
    if failed {
        out.push(b',');
        push_text(out, &names.result_error);
        out.extend_from_slice(b":\"refused by the simulator\"");
    }
    out.push(b'}');
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string always serializes into memory");
}

fn split_pointer(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}

/// The text of a JSON string without its quotes; of anything else its JSON.
fn plain_text(raw: &RawValue) -> String {
    serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

fn last_segment(path: &str) -> Cow<'_, str> {
    let segment = path.rsplit('/').find(|s| !s.is_empty()).unwrap_or("");
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy()
}

/// The items of a batch, or `None` when the body is not one.
fn batch_of(body: &[u8]) -> Option<Vec<&RawValue>> {
    let first = body.iter().find(|b| !b.is_ascii_whitespace())?;
    let items: Vec<&RawValue> = match first {
        b'[' => serde_json::from_slice(body).ok()?,
        b'{' => {
            let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(body).ok()?;
            let mut lists = fields.values().filter(|v| v.get().starts_with('['));
            let list = lists.next()?;
            if lists.next().is_some() {
                return None;
            }
            serde_json::from_str(list.get()).ok()?
        }
        _ => return None,
    };
    let all_objects = !items.is_empty() && items.iter().all(|i| i.get().starts_with('{'));
    all_objects.then_some(items)
}

/// The value at a pointer; `Some(None)` when the document is JSON but has none there.
fn at<'a>(json: &'a [u8], path: &[String]) -> Option<Option<&'a RawValue>> {
    walk::down(json, path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, body: &str) -> Carried {
        Reader::new(&Records::default()).read(path, body.as_bytes())
    }

    fn record(id: &str, version: Option<i64>) -> Record {
        Record { id: id.to_owned(), version }
    }

    #[test]
    fn a_batch_is_found_at_the_top_or_under_its_one_list() {
        let expected = Carried { batch: true, records: vec![record("u1", Some(4)), record("7", None)] };
        assert_eq!(read("/b", r#"{"users":[{"n":4,"id":"u1","tags":[1]},{"id":7}],"dry":false}"#), expected);
        assert_eq!(read("/b", r#" [{"id":"u1","n":4},{"id":7,"n":"x"}]"#), expected);
    }

    #[test]
    fn anything_else_is_one_record_named_by_its_id_or_its_path() {
        assert_eq!(read("/users/u9", r#"{"id":"u1","n":4,"tags":["a"]}"#).records, [record("u1", Some(4))]);
        assert_eq!(read("/users/u%209/", r#"{"n":5}"#).records, [record("u 9", Some(5))]);
        for body in ["", "not json", "[]", "[1,2]", "3", r#"{"a":[{}],"b":[{}],"#] {
            let seen = read("/users/u9", body);
            assert_eq!((seen.batch, seen.records), (false, vec![record("u9", None)]), "{body}");
        }
    }

    #[test]
    fn ids_may_lie_deeper_and_carry_escapes() {
        let reader = Reader::new(&Records { id: "/user/a~1b".to_owned(), ..Records::default() });
        let seen = reader.read("/", br#"[{"user":{"x":[{}],"a/b":"\u00e9\"q"}}]"#);
        assert_eq!(seen.records, [record("\u{e9}\"q", None)]);
    }

    #[test]
    fn a_batch_answer_names_each_record_in_order() {
        let answer = batch_answer(&Records::default(), &[record("a\"", None), record("b", None)], &[false, true]);
        let expected = r#"{"results":[{"id":"a\""},{"id":"b","error":"refused by the simulator"}]}"#;
        assert_eq!(answer, expected.as_bytes());
    }
}
