//! The oldest job of a provider that could leave, whichever daemon sends for its account.
//!
//! A gate knows the flows of its own accounts only, so among many the flows are read from the store: those with work, in
//! pages along their index, and of each with something ready the first job along its. Bounded, as a look comes every few
//! seconds. Must never know: SQL. Next: `engine/alerts`.

use crate::clock::Timestamp;
use crate::model::id::FlowId;
use crate::model::name::ProviderName;
use crate::store::{Error, PAGE_MAX, Store};

/// Flows whose first job is read.
const FLOWS_MAX: usize = 100;
/// Pages of flows with work, of all providers together.
const PAGES_MAX: usize = 10;

pub(super) async fn oldest_ready(store: &dyn Store, provider: &ProviderName) -> Result<Option<Timestamp>, Error> {
    let (mut after, mut left, mut oldest) = (FlowId(0), FLOWS_MAX, None);
    for _ in 0..PAGES_MAX {
        let page = store.flows(after, PAGE_MAX).await?;
        let ready = page.iter().filter(|f| f.key.provider == *provider && !f.held && f.counts.ready_all() > 0);
        for flow in ready.take(left) {
            left -= 1;
            let first = store.oldest_ready(flow.id).await?;
            oldest = oldest.into_iter().chain(first).min();
        }
        match page.last() {
            Some(last) if page.len() == PAGE_MAX && left > 0 => after = last.id,
            _ => break,
        }
    }
    Ok(oldest)
}
