//! The per-record results of a batch answer: each found by JSONPath, matched to its job by key, never by position.
//!
//! Must never know: statuses other than "the batch was taken"; `verdict.rs` has dealt with them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Answer, Judged, Oddity, Verdict, excerpt, holds, keep};
use crate::model::request::BatchResult;

impl Judged<'_> {
    /// One verdict per job. A job without a result may have been done: it is lost, not failed.
    pub(super) fn by_results(&self, rule: &BatchResult, answer: &Answer, oddities: &mut Vec<Oddity>) -> Vec<Verdict> {
        // A body that was cut, or is deeper than serde_json's 128 levels, tells nothing about any of the jobs.
        let Some(document) = serde_json::from_slice::<Value>(&answer.body).ok().filter(|_| !answer.truncated) else {
            oddities.push(Oddity::UnreadableResult);
            let reason: Arc<str> = self.said(answer, "the batch was taken, but its results cannot be read");
            return self.jobs.iter().map(|job| self.lost(job, reason.clone())).collect();
        };
        let index: HashMap<&str, usize> =
            self.jobs.iter().enumerate().filter_map(|(i, job)| Some((job.key.as_ref()?.as_str(), i))).collect();
        let mut verdicts: Vec<Option<Verdict>> = vec![None; self.jobs.len()];
        let (mut unknown, mut duplicate) = (0, 0);
        for record in rule.each.query(&document) {
            let job = record.pointer(&rule.key).and_then(key_text).and_then(|key| index.get(&*key).copied());
            match job.map(|i| &mut verdicts[i]) {
                None => unknown += 1,
                Some(Some(_)) => duplicate += 1,
                Some(slot) => *slot = Some(self.of_record(rule, record)),
            }
        }
        let missing = verdicts.iter().filter(|v| v.is_none()).count();
        let counted = [
            (missing, Oddity::MissingResults(missing)),
            (unknown, Oddity::UnknownResults(unknown)),
            (duplicate, Oddity::DuplicateResults(duplicate)),
        ];
        oddities.extend(counted.into_iter().filter(|(n, _)| *n > 0).map(|(_, oddity)| oddity));
        let reason: Arc<str> = "the batch was taken, but its answer has no result for this job".into();
        let jobs = self.jobs.iter().zip(verdicts);
        jobs.map(|(job, verdict)| verdict.unwrap_or_else(|| self.lost(job, reason.clone()))).collect()
    }

    fn of_record(&self, rule: &BatchResult, record: &Value) -> Verdict {
        let max = self.operation.keep_bytes;
        if let Some((pointer, expected)) = &rule.retry_if
            && let Some(found) = holds(record, pointer, expected.as_ref())
        {
            let reason = format!("the provider did not take it yet: {}", excerpt(&text_of(found)));
            return Verdict::Retry { reason: reason.into(), not_before: None };
        }
        let result = if max == 0 { None } else { keep(record.to_string().as_bytes(), max) };
        match rule.failed_if.as_ref().and_then(|pointer| holds(record, pointer, None)) {
            Some(_) if crate::mutant::on("batch-failure-ignored") => Verdict::Delivered { result },
            None => Verdict::Delivered { result },
            Some(error) => {
                let reason = format!("the provider refused it: {}", excerpt(&text_of(error)));
                Verdict::Rejected { reason: reason.into(), result }
            }
        }
    }
}

fn text_of(value: &Value) -> Cow<'_, str> {
    value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed)
}

/// A key in a result: a text, or a whole number that reads like one.
fn key_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}
