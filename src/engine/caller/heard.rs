//! What an answer said about the limits that its call spent, for the limiter: numbers, and whose refusal it is.
//!
//! A refusal without `Retry-After` lasts until the reset of the limit that says it has nothing left, and blocks that one
//! alone. `Retry-After` wins over a reset. Must never know: headers; the declaration and `limit/feedback` do. Next:
//! `super`, which settles with it before the outcome is written.

use super::super::gate::Lesson;
use super::Caller;
use super::told::Told;
use crate::clock::Timestamp;
use crate::limit::feedback;
use crate::limiter::{Said, Spend, spends};
use crate::model::call::{Lane, LimitKey};
use crate::model::name::{Account, Key};
use crate::model::provider::{LimitHeaders, Operation, Provider};
use crate::model::verdict::{Answer, Failure, Health, RETRY_AFTER_MIN};

/// What is told to the limiter beside the end of a call.
#[derive(Clone, Debug, Default)]
pub struct Word {
    /// Steady.
    pub blocked_until: Option<Timestamp>,
    pub blocked_limit: Option<String>,
    pub said: Vec<Said>,
    /// Learned limits that a refusal may be about.
    pub taught: Vec<Spend>,
    /// An answer came that was no refusal.
    pub good: bool,
    /// What a call has cost of limits, where it is not what was granted for it.
    pub costs: Vec<(LimitKey, u32)>,
}

/// What was read of an answer.
#[derive(Clone, Debug, Default)]
pub struct Read {
    pub said: Vec<Said>,
    /// The same as it was said, for people.
    pub told: Vec<(LimitKey, Told)>,
    /// The only limit that a refusal is about.
    pub limit: Option<String>,
    /// Learned limits that a refusal may be about, of which no number was said.
    pub taught: Vec<Spend>,
    /// A refusal, with its end if the headers named one.
    pub health: Option<Health>,
    /// Values that could not be meant.
    pub ignored: u32,
}

/// Reads what `answer` says about `spent`. `now` and `wall` are the same moment on the two lines.
pub fn read(spent: &[Spend], answer: &Answer, health: Health, now: Timestamp, wall: Timestamp) -> Read {
    let mut read = Read::default();
    let mut about: Vec<(&str, Option<std::time::Duration>)> = Vec::new();
    for spend in spent.iter().filter(|s| s.limit.headers.is_some()) {
        let heard = feedback::read(&spend.limit, &answer.headers, answer.received_at);
        read.ignored += heard.ignored;
        read.said.extend(heard.left.map(|left| said(spend, left, now + heard.holds_for(&spend.limit))));
        if heard.left.is_some() || heard.max.is_some() {
            let reset_at = heard.reset_in.map(|wait| now + wait);
            let told = Told { max: heard.max, left: heard.left, reset_at, heard_at: Some(now) };
            read.told.push((spend.key.clone(), told));
        }
        let named = matches!(spend.limit.headers.as_deref(), Some(LimitHeaders::RetryAfter));
        let speaks = named && answer.headers.contains_key(http::header::RETRY_AFTER);
        let is_spent = heard.left.is_some_and(|left| left < spend.limit.cost.max(1));
        if is_spent || speaks || heard.retry_in.is_some() {
            about.push((spend.limit.name.as_str(), heard.retry_in.or(heard.reset_in)));
        }
    }
    let Health::Limiting { until } = health else { return read };
    // Two windows of one name are one limit to whoever is refused.
    let one = about.first().filter(|first| about.iter().all(|other| other.0 == first.0));
    read.limit = one.map(|(name, _)| (*name).to_owned());
    let named = |s: &Spend| read.limit.as_deref().is_none_or(|name| name == s.limit.name.as_str());
    // A number that is told is better than one that is learned.
    let numbered = |s: &Spend| read.said.iter().any(|said| said.key == s.key);
    read.taught = spent.iter().filter(|s| s.limit.learned && named(s) && !numbered(s)).cloned().collect();
    let wait = about.iter().filter_map(|(_, wait)| *wait).max();
    let until = until.or(wait.map(|wait| wall + wait.max(RETRY_AFTER_MIN)));
    read.health = Some(Health::Limiting { until });
    read
}

fn said(spend: &Spend, left: u32, until: Timestamp) -> Said {
    Said { key: spend.key.clone(), left, until }
}

/// Does any limit of such a call declare how answers speak of it, or learn from them?
fn is_declared(provider: &Provider, operation: &Operation, lane: Lane) -> bool {
    let own = operation.lane(lane).map(|spec| &spec.limits);
    provider.limits.iter().chain(own.into_iter().flatten()).any(|limit| limit.headers.is_some() || limit.learned)
}

impl Caller {
    /// Of an answer to a call that was granted then: until when everything is blocked. A refusal teaches.
    pub(super) fn learn(&self, word: &mut Word, health: Health, granted_at: Timestamp) {
        // A refused credential is no refusal of a limit: the call was let through to it.
        word.good = matches!(health, Health::Good | Health::Refusing);
        word.blocked_until = self.throttles.until(&self.clock, health, granted_at);
        if let Some(until) = word.blocked_until {
            self.lessons.tell(Lesson { spends: std::mem::take(&mut word.taught), granted_at, until });
        }
    }

    /// Of an answer to a call. A refusal's health learns its end.
    pub(super) fn heard(
        &self,
        operation: &Operation,
        lane: Lane,
        account: &Account,
        key: Option<&Key>,
        answer: &Result<Answer, Failure>,
        health: &mut Health,
    ) -> Word {
        let Ok(answer) = answer else { return Word::default() };
        if !is_declared(&self.provider, operation, lane) {
            return Word::default();
        }
        let spent = spends(&self.provider, operation, lane, account, key);
        let read = read(&spent, answer, *health, self.clock.steady(), self.clock.now());
        self.told.note(read.told);
        if let Some(limiting) = read.health {
            *health = limiting;
        }
        if read.ignored > 0 {
            self.metrics.limit_headers_ignored(self.provider.name.as_str(), read.ignored);
        }
        Word { blocked_limit: read.limit, said: read.said, taught: read.taught, ..Word::default() }
    }
}
