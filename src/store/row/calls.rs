//! Rows of the journal of calls, and what was seen of a call as it is stored. Next: `row`.

use std::time::Duration;

use super::{Cells, Columns, Read, strange};
use crate::model::call::{Call, Lane};
use crate::model::call_log::{Bodies, Kept, Seen};
use crate::model::id::CallId;
use crate::store::JournalEntry;
use crate::store::rules::was_sent;

pub(in crate::store) fn call<R: Cells>(row: &R) -> Read<Call> {
    let mut columns = Columns::of(row);
    Ok(Call {
        id: CallId(columns.int()?),
        provider: columns.provider()?,
        operation: columns.operation()?,
        lane: columns.one_of("a lane", Lane::from_u8)?,
        account: columns.account()?,
        permit: columns.permit()?,
        lease_until: columns.time()?,
        jobs: columns.packed()?,
        begun_at: columns.time()?,
        ended_at: columns.opt_time()?,
        settled_at: columns.opt_time()?,
        ending: columns.ending()?,
        status: columns.status()?,
        error: columns.opt_text()?,
        outside: columns.int()?.try_into().unwrap_or(u32::MAX),
        seen: seen(&mut columns)?,
    })
}

/// The last three columns of a call.
fn seen<R: Cells>(columns: &mut Columns<'_, R>) -> Read<Option<Seen>> {
    let (latency, headers, bodies) = (columns.opt_int()?, columns.opt_str()?, columns.opt_str()?);
    let Some(latency) = latency else { return Ok(None) };
    let headers = match headers {
        Some(text) => serde_json::from_str(text).map_err(|_| strange("headers of a call", text))?,
        None => Vec::new(),
    };
    let bodies = bodies.map(|text| serde_json::from_str(text).map_err(|e| strange("bodies of a call", e)));
    let bodies = bodies.transpose()?.map(|(request, answer)| Bodies { request: kept(request), answer: kept(answer) });
    let latency = Duration::from_micros(u64::try_from(latency).unwrap_or(0));
    Ok(Some(Seen { latency, headers, bodies }))
}

fn kept((text, bytes, cut): (String, u64, bool)) -> Kept {
    Kept { text, bytes, cut }
}

/// What was seen of a call, as columns: latency in microseconds, headers, bodies. Must stay readable for ever.
pub(in crate::store) fn seen_texts(seen: Option<&Seen>) -> (Option<i64>, Option<String>, Option<String>) {
    let Some(seen) = seen else { return (None, None, None) };
    let json = |written: serde_json::Result<String>| written.expect("texts and numbers are JSON");
    let latency = i64::try_from(seen.latency.as_micros()).unwrap_or(i64::MAX);
    let headers = (!seen.headers.is_empty()).then(|| json(serde_json::to_string(&seen.headers)));
    let part = |kept: &Kept| (kept.text.clone(), kept.bytes, kept.cut);
    let bodies = seen.bodies.as_ref().map(|b| json(serde_json::to_string(&(part(&b.request), part(&b.answer)))));
    (Some(latency), headers, bodies)
}

pub(in crate::store) fn journal_entry<R: Cells>(row: &R) -> Read<JournalEntry> {
    let mut columns = Columns::of(row);
    Ok(JournalEntry {
        call: CallId(columns.int()?),
        permit: columns.permit()?,
        settled_at: columns.opt_time()?,
        sent: was_sent(columns.ending()?),
        outside_until: columns.opt_time()?,
    })
}
