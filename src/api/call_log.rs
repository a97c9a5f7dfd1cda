//! The call log: every call that was journaled, newest first, as long as retention keeps it.
//!
//! Must never know: proto types. Next: `api/filter` for its fields, `model/call_log` for what is kept of a call.

use super::error::{Error, Result};
use super::jobs::Page;
use super::{Api, filter, page};
use crate::model::call::Call;
use crate::model::id::CallId;

/// Calls of one page with bodies: 32 KiB each at most, and an answer has its bound.
pub const FULL_PAGE_MAX: usize = 100;

impl Api {
    pub async fn list_calls(&self, filter: &str, page_size: i32, page_token: &str, bodies: bool) -> Result<Page<Call>> {
        let filter = filter::parse_calls(filter)?;
        let list = page::fingerprint("calls", &filter::to_text(&filter));
        let before = page::position(list, page_token)?.map(CallId);
        let size = page::size(page_size)?;
        let size = if bodies { size.min(FULL_PAGE_MAX) } else { size };
        let found = self.engine().store().list_calls(&filter, before, size, bodies).await?;
        let next_page_token = found.next.map(|at| page::token(list, at.0)).unwrap_or_default();
        Ok(Page { items: found.calls, next_page_token })
    }

    pub async fn get_call(&self, id: i64) -> Result<Call> {
        if id < 1 {
            return Err(Error::field("call_id", "BAD_ID", format_args!("expected a number from 1, got {id}")));
        }
        self.engine().store().call(CallId(id)).await?.ok_or_else(|| Error::not_found("call", id))
    }
}
