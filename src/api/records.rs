//! Records of collections: put, get, list, delete, push, pull. `records/aggregate` sums, `records/watch` tells changes.
//!
//! Must never know: proto types, SQL. Next: `engine/collections`, which makes them durable.

use std::sync::Arc;

use serde_json::Value;

use super::enqueue::check_payload;
use super::error::{Code, Error, Result, Violation};
use super::filter::BadFilter;
use super::filter::read::{Reader, Token};
use super::{Api, filter, page};
use crate::engine::collections::{PullError, chores};
use crate::model::collection::{Checked, Collection};
use crate::model::filter::Comparison;
use crate::model::id::JobId;
use crate::model::name::{CollectionName, Key};
use crate::model::record::{CollectionInfo, Pull, RECORDS_MAX, Record};
use crate::model::state::State;
pub use crate::store::Written;
use crate::store::{RecordDone, RecordOp, RecordWrite, Refusal};

pub mod aggregate;
pub mod watch;

/// A record as a client hands it in.
#[derive(Clone, Debug, Default)]
pub struct PutSpec {
    pub id: String,
    /// JSON object.
    pub data: String,
    pub expect: Option<i64>,
}

/// A collection as declared, and as the store has it.
#[derive(Clone, Debug)]
pub struct CollectionView {
    pub declared: Arc<Collection>,
    /// `None`: nothing was ever put there.
    pub known: Option<CollectionInfo>,
    pub building: bool,
}

/// One page of records.
#[derive(Clone, Debug, Default)]
pub struct RecordList {
    pub records: Vec<Record>,
    pub next_page_token: String,
}

impl Api {
    pub(super) fn declared(&self, name: &str) -> Result<Arc<Collection>> {
        let checked = CollectionName::new(name).map_err(|e| Error::field("collection", "BAD_NAME", e))?;
        self.engine().collections().get(&checked).ok_or_else(|| Error::not_found("collection", &checked))
    }

    /// `None`: it was only checked.
    pub async fn put_record(&self, collection: &str, spec: PutSpec, validate_only: bool) -> Result<Option<Written>> {
        let collection = self.declared(collection)?;
        let write = self.write(&collection, spec)?;
        if validate_only {
            return Ok(None);
        }
        let done = self.engine().records(vec![write]).await?.pop();
        written(done).map(Some)
    }

    /// One result per record, in order; the good ones are kept.
    pub async fn put_records(&self, collection: &str, specs: Vec<PutSpec>) -> Result<Vec<Result<Written>>> {
        let collection = self.declared(collection)?;
        if specs.is_empty() || specs.len() > RECORDS_MAX {
            let said = format!("expected 1 to {RECORDS_MAX} records, got {}", specs.len());
            return Err(Error::field("records", "BAD_RECORD_COUNT", said));
        }
        let mut results = Vec::with_capacity(specs.len());
        let (mut ops, mut places) = (Vec::new(), Vec::new());
        for (at, spec) in specs.into_iter().enumerate() {
            match self.write(&collection, spec) {
                Ok(op) => {
                    ops.push(op);
                    places.push(at);
                    results.push(Err(Error::internal("the writer gave no result")));
                }
                Err(e) => results.push(Err(e)),
            }
        }
        let done = self.engine().records(ops).await?;
        for (at, done) in places.into_iter().zip(done) {
            results[at] = written(Some(done));
        }
        Ok(results)
    }

    fn write(&self, collection: &Arc<Collection>, spec: PutSpec) -> Result<RecordOp> {
        let id = record_id(&spec.id)?;
        check_payload("data", &spec.data, self.0.options.payload_bytes_max)?;
        check_version(spec.expect)?;
        let document = check(collection, spec.data)?;
        Ok(self.write_op(collection, id, Some(document), spec.expect))
    }

    pub(super) fn write_op(
        &self,
        of: &Arc<Collection>,
        id: Key,
        document: Option<Checked>,
        expect: Option<i64>,
    ) -> RecordOp {
        let push = self.engine().push_rule(of);
        RecordOp::Write(RecordWrite {
            collection: of.name.clone(),
            id,
            document,
            expect,
            push,
            shape: of.shape.clone(),
        })
    }

    pub async fn get_record(&self, collection: &str, id: &str) -> Result<Record> {
        let (collection, id) = (self.declared(collection)?, record_id(id)?);
        let found = self.engine().store().record(&collection.name, &id).await?;
        let none = || Error::not_found("record", format_args!("{}/{id}", collection.name));
        found.filter(|record| !record.deleted).ok_or_else(none)
    }

    /// The job that tells the provider, if one does.
    pub async fn delete_record(&self, collection: &str, id: &str, expect: Option<i64>) -> Result<Option<JobId>> {
        let (collection, id) = (self.declared(collection)?, record_id(id)?);
        check_version(expect)?;
        let op = self.write_op(&collection, id, None, expect);
        Ok(written(self.engine().records(vec![op]).await?.pop())?.push)
    }

    /// The job that sends the record as it stands: the same one however often this is asked, while it is kept. One that
    /// stands still is refused, since nothing would leave.
    pub async fn push_record(&self, collection: &str, id: &str) -> Result<JobId> {
        let (collection, id) = (self.declared(collection)?, record_id(id)?);
        let rule = self.engine().push_rule(&collection).ok_or_else(|| {
            let said = format!("collection {0} has no push; declare [collections.{0}.push]", collection.name);
            Error::new(Code::FailedPrecondition, "NO_PUSH", said).about("collection", &collection.name)
        })?;
        let op = RecordOp::Push { collection: collection.name.clone(), id, rule };
        match self.engine().records(vec![op]).await?.pop() {
            Some(Ok(RecordDone::Pushed(Some(job)))) => self.still_pushes(job).await,
            // The version was sent under an earlier declaration, to the letter of its key but not of its content.
            Some(Err(Refusal::KeyReused { first })) => {
                let said = format!(
                    "this version of the record was pushed by job {first} under another declaration; change the record to \
                     push it again"
                );
                Err(Error::new(Code::FailedPrecondition, "PUSHED_OTHERWISE", said).about("job", first))
            }
            Some(Err(refusal)) => Err(refusal.into()),
            _ => Err(Error::internal("the writer gave no result")),
        }
    }

    /// The job, unless it has stopped without having delivered: asking for it once more sends nothing.
    async fn still_pushes(&self, id: JobId) -> Result<JobId> {
        let Some(job) = self.engine().store().job(id).await? else { return Ok(id) };
        let what_to_do = match job.state {
            State::Waiting | State::Calling | State::Delivered => return Ok(id),
            State::Dead => format!("send it with tidegate jobs retry {id}"),
            State::Unknown => {
                format!("say what became of it with tidegate jobs resolve delivered {id}, or again, or dead")
            }
            State::Cancelled => "change the record to push it again".to_owned(),
        };
        let said = format!("job {id}, which pushes this version of the record, is {}; {what_to_do}", job.state);
        let stopped = Error::new(Code::FailedPrecondition, "PUSH_STOPPED", said).about("job", id);
        Err(stopped.with("state", job.state.name()))
    }

    pub async fn list_records(&self, name: &str, filter: &str, size: i32, token: &str) -> Result<RecordList> {
        let collection = self.declared(name)?;
        let limit = page::size(size)?;
        let list = page::fingerprint("records", &format!("{} {filter}", collection.name));
        let after = page::text_position(list, token)?.unwrap_or_default();
        let wanted = conditions(filter)?;
        let index = match wanted.is_empty() {
            true => None,
            false => Some(index_for(&collection, &wanted)?),
        };
        if index.is_some() {
            self.need_built(&collection).await?;
        }
        let store = self.engine().store();
        let asked = index.as_ref().map(|(name, value)| (&**name, value.as_str()));
        let found = store.list_records(&collection.name, asked, &after, limit).await?;
        let next = found.records.last().filter(|_| found.more);
        let next_page_token = next.map(|record| page::text_token(list, record.id.as_str())).unwrap_or_default();
        Ok(RecordList { records: found.records, next_page_token })
    }

    /// Indexes and aggregates must be those of the declaration.
    async fn need_built(&self, collection: &Collection) -> Result<()> {
        let known = self.engine().store().collection(&collection.name).await?;
        if chores::is_built(collection, known.as_ref()) {
            return Ok(());
        }
        let said = format!("the indexes of collection {} are being built for its new declaration", collection.name);
        Err(Error::new(Code::Unavailable, "INDEX_BUILDING", said).retry_in(std::time::Duration::from_secs(1)))
    }

    /// Starts a pull, or finds the one that is running: the flag says which.
    pub async fn pull_collection(&self, name: &str, full: bool, actor: &str) -> Result<(Pull, bool)> {
        let collection = self.declared(name)?;
        let refused = |e: PullError| match e {
            PullError::NoCollection(name) => Error::not_found("collection", name),
            PullError::Engine(e) => e.into(),
            other => Error::new(Code::FailedPrecondition, "NO_PULL", other.to_string()).about("collection", name),
        };
        self.engine().start_pull(&collection.name, full, actor).await.map_err(refused)
    }

    pub async fn get_collection(&self, name: &str) -> Result<CollectionView> {
        let declared = self.declared(name)?;
        let known = self.engine().store().collection(&declared.name).await?;
        Ok(view(declared, known))
    }

    pub async fn list_collections(&self) -> Result<Vec<CollectionView>> {
        let mut known = self.engine().store().collections().await?;
        let all = self.engine().collections().all();
        let views = all.values().map(|declared| {
            let at = known.iter().position(|known| known.name == declared.name);
            view(declared.clone(), at.map(|at| known.swap_remove(at)))
        });
        Ok(views.collect())
    }
}

fn view(declared: Arc<Collection>, known: Option<CollectionInfo>) -> CollectionView {
    CollectionView { building: !chores::is_built(&declared, known.as_ref()), declared, known }
}

fn written(done: Option<std::result::Result<RecordDone, Refusal>>) -> Result<Written> {
    match done {
        Some(Ok(RecordDone::Written(written))) => Ok(written),
        Some(Err(refusal)) => Err(refusal.into()),
        _ => Err(Error::internal("the writer gave no result")),
    }
}

fn record_id(id: &str) -> Result<Key> {
    Key::new(id).map_err(|e| Error::field("id", "BAD_ID", e.to_string().replace("a key", "a record id")))
}

fn check_version(expect: Option<i64>) -> Result<()> {
    match expect {
        Some(n) if n < 0 => {
            Err(Error::field("expected_version", "BAD_VERSION", format_args!("expected 0 or more, got {n}")))
        }
        _ => Ok(()),
    }
}

/// The document, or every violation with the JSON pointer as its field.
pub(super) fn check(collection: &Collection, data: impl Into<Arc<str>>) -> Result<Checked> {
    collection.check(data).map_err(|wrong| {
        let violation = |wrong: crate::model::collection::Wrong| Violation {
            field: format!("data{}", wrong.pointer),
            reason: "BAD_DOCUMENT",
            description: wrong.to_string(),
        };
        Error::fields(wrong.into_iter().map(violation).collect())
    })
}

/// `FIELD = VALUE AND ...`, the part of the filter language that an index can answer.
fn conditions(text: &str) -> Result<Vec<(String, Value)>> {
    if text.len() > filter::FILTER_BYTES_MAX {
        let what = format!("expected at most {} bytes, got {}", filter::FILTER_BYTES_MAX, text.len());
        return Err(BadFilter { at: filter::FILTER_BYTES_MAX, what }.into());
    }
    let mut reader = Reader::new(text);
    let mut found: Vec<(String, Value)> = Vec::new();
    loop {
        let field = match reader.next()? {
            (_, Token::End) if found.is_empty() => return Ok(found),
            (_, Token::Word(word) | Token::Text(word)) => word,
            (_, Token::Label(name)) => format!("labels.{name}"),
            (at, other) => return Err(BadFilter { at, what: format!("expected a field, got {other}") }.into()),
        };
        match reader.next()? {
            (_, Token::Compare(Comparison::Equal)) => {}
            (at, other) => {
                let what = format!("expected =, which is all that an index of records answers, got {other}");
                return Err(BadFilter { at, what }.into());
            }
        }
        let value = match reader.next()? {
            (_, Token::Text(text)) => Value::String(text),
            // A bare word is a number, true, false or null where it reads like one.
            (_, Token::Word(word)) => match serde_json::from_str::<Value>(&word) {
                Ok(value) => value,
                Err(_) => Value::String(word),
            },
            (at, other) => return Err(BadFilter { at, what: format!("expected a value, got {other}") }.into()),
        };
        if found.iter().any(|(known, _)| *known == field) {
            return Err(BadFilter { at: 0, what: format!("expected the field {field} once") }.into());
        }
        found.push((field, value));
        match reader.next()? {
            (_, Token::End) => return Ok(found),
            (_, Token::Word(word)) if word == "AND" => {}
            (at, other) => return Err(BadFilter { at, what: format!("expected AND or the end, got {other}") }.into()),
        }
    }
}

/// The index over exactly these fields, and the value to look for in it.
fn index_for(collection: &Collection, wanted: &[(String, Value)]) -> Result<(Arc<str>, String)> {
    let value_of = |name: &str| wanted.iter().find(|(field, _)| field == name).map(|(_, value)| value);
    let fits = collection.indexes.iter().find_map(|index| {
        let values: Option<Vec<&Value>> = index.fields.iter().map(|field| value_of(&field.name)).collect();
        values.filter(|values| values.len() == wanted.len()).map(|values| (index.name.clone(), values))
    });
    if let Some((name, values)) = fits {
        return Ok((name, serde_json::to_string(&values).unwrap_or_default()));
    }
    let asked: Vec<&str> = wanted.iter().map(|(field, _)| field.as_str()).collect();
    let known: Vec<&str> = collection.indexes.iter().map(|index| &*index.name).collect();
    let known = if known.is_empty() { "none".to_owned() } else { format!("[{}]", known.join("], [")) };
    let said = format!(
        "expected the fields of an index of collection {}, got [{}]; declared are {known}. Declare another with indexes = [...]",
        collection.name,
        asked.join(",")
    );
    Err(Error::field("filter", "NO_SUCH_INDEX", said))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_filter_is_equalities_of_fields_and_says_so() {
        let read = |text: &str| conditions(text).unwrap();
        assert_eq!(read(""), []);
        let expected = [("status".to_owned(), json!("open")), ("/a/b".to_owned(), json!(7))];
        assert_eq!(read(r#"status = open AND "/a/b" = 7"#), expected);
        assert_eq!(read(r#"n = "7""#), [("n".to_owned(), json!("7"))]);
        for bad in ["status", "status > 1", "status = ", "a = 1 OR b = 2", "a = 1 AND", "(a = 1)", "a = 1 AND a = 2"] {
            assert_eq!(conditions(bad).unwrap_err().reason, "BAD_FILTER", "{bad}");
        }
    }
}
