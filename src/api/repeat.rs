//! Answers to repeated requests, by request id: kept in this process for 24 hours, bounded, forgotten at a restart.
//!
//! Only for what is harmless to do twice after a restart (an empty run, a bulk action on jobs that have left the state
//! it acts on). Enqueues do not use it: their request id becomes a durable idempotency key, see `api/enqueue`. Must
//! never know: what the answers mean. Next: `api/bulk`.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::error::{Code, Error, Result};
use crate::clock::Timestamp;

/// Longest request id, bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Answers that are kept; the oldest goes when one more comes.
const ANSWERS_MAX: usize = 10_000;
const LIFE: Duration = Duration::from_secs(24 * 3_600);

type Answer = Arc<dyn Any + Send + Sync>;

#[derive(Debug)]
struct Kept {
    method: &'static str,
    /// Stands for the content of the request.
    content: [u8; 8],
    until: Timestamp,
    answer: Answer,
}

#[derive(Debug, Default)]
pub struct Repeats(Mutex<(HashMap<String, Kept>, VecDeque<String>)>);

impl Repeats {
    /// The first answer to this request, if there was one. Other content under the same id is refused.
    pub fn find<T: Clone + Send + Sync + 'static>(
        &self,
        id: &str,
        method: &'static str,
        content: [u8; 8],
        now: Timestamp,
    ) -> Result<Option<T>> {
        if id.is_empty() {
            return Ok(None);
        }
        check(id)?;
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.0.get(id).filter(|k| k.until > now) {
            None => Ok(None),
            Some(k) if k.method == method && k.content == content => Ok(k.answer.downcast_ref::<T>().cloned()),
            Some(_) => {
                let said = format!("request id {id:?} was used for another request");
                Err(Error::new(Code::AlreadyExists, "REQUEST_ID_REUSED", said))
            }
        }
    }

    pub fn keep<T: Send + Sync + 'static>(
        &self,
        id: &str,
        method: &'static str,
        content: [u8; 8],
        now: Timestamp,
        answer: T,
    ) {
        if id.is_empty() {
            return;
        }
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (answers, order) = &mut *guard;
        let kept = Kept { method, content, until: now + LIFE, answer: Arc::new(answer) };
        if answers.insert(id.to_owned(), kept).is_none() {
            order.push_back(id.to_owned());
        }
        while order.len() > ANSWERS_MAX {
            if let Some(oldest) = order.pop_front() {
                answers.remove(&oldest);
            }
        }
    }
}

/// A request id is short and printable.
pub fn check(id: &str) -> Result<()> {
    if id.len() > REQUEST_ID_BYTES_MAX || id.chars().any(char::is_control) {
        let said = format!("expected at most {REQUEST_ID_BYTES_MAX} bytes without control characters");
        return Err(Error::field("request_id", "BAD_REQUEST_ID", said));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(0);

    #[test]
    fn a_repeat_gets_the_first_answer_and_other_content_is_refused() {
        let repeats = Repeats::default();
        repeats.keep("r1", "CancelJobs", [1; 8], NOW, 7u32);
        assert_eq!(repeats.find::<u32>("r1", "CancelJobs", [1; 8], NOW).unwrap(), Some(7));
        let reused = repeats.find::<u32>("r1", "CancelJobs", [2; 8], NOW).unwrap_err();
        assert_eq!(reused.code, Code::AlreadyExists);
        assert_eq!(repeats.find::<u32>("r1", "CancelJobs", [1; 8], NOW + LIFE).unwrap(), None);
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let repeats = Repeats::default();
        for i in 0..=ANSWERS_MAX {
            repeats.keep(&format!("r{i}"), "CreateRun", [0; 8], NOW, i);
        }
        assert_eq!(repeats.find::<usize>("r0", "CreateRun", [0; 8], NOW).unwrap(), None);
        assert_eq!(repeats.find::<usize>("r1", "CreateRun", [0; 8], NOW).unwrap(), Some(1));
    }
}
