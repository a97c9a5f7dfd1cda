//! A call that fetches a page of a pull: its request, and what its answer becomes. Pure but for looking collections up.
//!
//! The page is stored, and the job of the next one enqueued, by the transaction that ends the call: so a page is fetched
//! twice at most when the daemon dies between answer and commit, and never stored twice. Must never know: SQL. Next:
//! `model/pages`, `store/records`.

use std::sync::Arc;

use serde_json::Value;

use super::{Caller, Errand};
use crate::model::call::Lane;
use crate::model::collection::{Collection, PullRule};
use crate::model::job::NewJob;
use crate::model::name::{CollectionName, Key};
use crate::model::pages::{Items, Page, later_mark, read};
use crate::model::request::{Request, render};
use crate::model::verdict::{Answer, Failure, Judgement, Verdict};
use crate::outbound::Credential;
use crate::store::{FinishCall, Next, PageEnd, PageWhat, RecordWrite};

/// A page whose call has been answered.
pub(super) struct Fetched {
    page: Page,
    collection: CollectionName,
    stored: Option<PageWhat>,
}

/// The page that a call is to fetch; `None`: it fetches none.
fn page_of(errand: &Errand) -> Option<Page> {
    let [job] = &errand.call.jobs[..] else { return None };
    (errand.lane == Lane::Single && errand.operation.pages.is_some()).then(|| Page::of(&job.payload)).flatten()
}

/// Makes the operation's request one for the page.
pub(super) fn prepare(errand: &Errand, request: &mut Request) -> Result<(), String> {
    match (page_of(errand), &errand.operation.pages) {
        (Some(page), Some(pages)) => pages.prepare(&page, request),
        _ => Ok(()),
    }
}

impl Caller {
    /// Reads the page out of an answer that delivered it. One that cannot be used turns the verdict.
    pub(super) fn page(
        &self,
        errand: &Errand,
        answer: &Result<Answer, Failure>,
        credential: &Credential,
        judgement: &mut Judgement,
    ) -> Option<Fetched> {
        let page = page_of(errand)?;
        let collection = CollectionName::new(&page.collection).ok()?;
        let mut stored = None;
        if let (Ok(answer), Some(verdict @ Verdict::Delivered { .. })) = (answer, judgement.verdicts.first_mut()) {
            // Records, and the link to the next page, are kept: an echoed credential must not be among them.
            *verdict = match self.store_page(errand, &page, &collection, &credential.hide_in(answer)) {
                // The records are what is kept of the answer.
                Ok(what) => {
                    stored = Some(what);
                    Verdict::Delivered { result: None }
                }
                Err(reason) => Verdict::Rejected { reason: reason.into(), result: None },
            };
        }
        Some(Fetched { page, collection, stored })
    }

    fn store_page(
        &self,
        errand: &Errand,
        page: &Page,
        name: &CollectionName,
        answer: &Answer,
    ) -> Result<PageWhat, String> {
        let collection = self.collections.get(name);
        let collection = collection.ok_or_else(|| format!("collection {name} is not declared any more"))?;
        let rule = collection.pull.as_ref().ok_or_else(|| format!("collection {name} is not pulled any more"))?;
        let pages = errand.operation.pages.as_ref().ok_or("the operation has no pages any more")?;
        // Where the page was asked for: what a link is relative to, and whose origin it must have.
        let Errand { operation, lane, account, tenant, call, .. } = errand;
        let rendered = render(&self.provider, operation, *lane, account, tenant, &call.jobs);
        let mut request = rendered.map_err(|fault| fault.reason)?;
        pages.prepare(page, &mut request)?;
        let Items { items, next, etag, not_modified } = read(pages, page, &request.url, answer)?;
        let taken = take(&collection, rule, &items);
        let next = next.map(|at| Box::new(self.next_job(errand, page.next(at))));
        let Taken { writes, rejected, first_rejected, seen } = taken;
        Ok(PageWhat::Stored { writes, rejected, first_rejected, seen, etag, not_modified, next })
    }

    fn next_job(&self, errand: &Errand, page: Page) -> NewJob {
        let mut job = NewJob::new(self.provider.name.clone(), errand.operation.name.clone(), page.payload());
        job.account = errand.account.clone();
        job.tenant = errand.tenant.clone();
        job.labels.insert("collection".to_owned(), page.collection.to_string());
        if let Some(this) = errand.call.jobs.first() {
            job.class = this.class;
            job.traceparent = this.traceparent.clone();
        }
        job
    }
}

impl Fetched {
    /// What the end of the call means for the pull: nothing while the page's job goes on trying.
    pub(super) fn end(self, finish: &FinishCall) -> Option<PageEnd> {
        let Fetched { page, collection, stored } = self;
        let outcome = finish.outcomes.first()?;
        let what = match (outcome.next, stored) {
            (Next::Delivered, Some(stored)) => stored,
            (Next::Dead, _) => PageWhat::Failed { reason: outcome.error.as_deref().unwrap_or("").to_owned() },
            _ => return None,
        };
        Some(PageEnd { call: finish.call, page, collection, what })
    }
}

#[derive(Default)]
struct Taken {
    writes: Vec<RecordWrite>,
    rejected: u32,
    first_rejected: Option<String>,
    seen: Option<String>,
}

/// Items become records. One that cannot is counted and passed over: it must not keep the others out.
fn take(collection: &Collection, rule: &PullRule, items: &[&str]) -> Taken {
    let mut taken = Taken::default();
    // What comes from a provider is not sent back to it.
    let push = collection.push.clone().filter(|push| push.provider != rule.provider);
    for item in items {
        match record_of(collection, rule, item) {
            Ok((id, document, mark)) => {
                taken.seen = later_mark(taken.seen.take(), mark);
                taken.writes.push(RecordWrite {
                    collection: collection.name.clone(),
                    id,
                    document,
                    expect: None,
                    push: push.clone(),
                    shape: collection.shape.clone(),
                });
            }
            Err(reason) => {
                taken.rejected += 1;
                taken.first_rejected.get_or_insert(reason);
            }
        }
    }
    taken
}

type Item = (Key, Option<crate::model::collection::Checked>, Option<String>);

fn record_of(collection: &Collection, rule: &PullRule, item: &str) -> Result<Item, String> {
    let value: Value = serde_json::from_str(item).map_err(|e| format!("expected a JSON object, got an item: {e}"))?;
    let plain = |pointer: &str| match value.pointer(pointer) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(n)) => Some(n.to_string()),
        _ => None,
    };
    let id = plain(&rule.id).ok_or_else(|| format!("expected an id at {:?} of an item, got none", rule.id))?;
    let id = Key::new(&id).map_err(|e| format!("item {id:?}: {e}"))?;
    let mark = rule.updated.as_deref().and_then(plain);
    let gone = rule.deleted_if.as_deref().and_then(|pointer| value.pointer(pointer));
    if gone.is_some_and(|v| !matches!(v, Value::Null | Value::Bool(false)) && v.as_str() != Some("")) {
        return Ok((id, None, mark));
    }
    let checked = collection.check(Arc::<str>::from(item)).map_err(|wrong| {
        let first = wrong.first().map(ToString::to_string).unwrap_or_default();
        format!("item {id}: {first}")
    })?;
    Ok((id, Some(checked), mark))
}
