//! What the gate has learned of limits whose numbers nobody publishes, and the refusals that it learns from.
//!
//! A learned number takes the place of the declared maximum wherever the gate asks the limiter: the key stays, so counts
//! do, and both limiters know how to count under a changed maximum. It is part of the gate's memory, saved and told to
//! other daemons with the breakers (docs/decisions/0031-learned-numbers-are-the-gates.md). Must never know: headers. Next:
//! `limit/learned.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::actor::Gate;
use crate::clock::Timestamp;
use crate::limit::LimitView;
use crate::limit::learned::Learned;
use crate::limiter::Spend;
use crate::model::call::LimitKey;

/// Numbers remembered; of more the one that was refused longest ago is forgotten.
const LEARNED_MAX: usize = 1_000;
/// Refusals that the gate has not looked at. It looks with every call that ends.
const LESSONS_MAX: usize = 1_000;

/// A refusal, as it was heard.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// The limits that it may be about, as declared.
    pub spends: Vec<Spend>,
    pub granted_at: Timestamp,
    /// Until when the provider said "not now"; steady.
    pub until: Timestamp,
}

/// From callers to the gate.
#[derive(Debug, Default)]
pub struct Lessons(Mutex<Vec<Lesson>>);

impl Lessons {
    pub fn tell(&self, lesson: Lesson) {
        let mut lessons = self.0.lock().expect("no panic while held");
        // Of so many at once each says the same.
        if lessons.len() < LESSONS_MAX && !lesson.spends.is_empty() {
            lessons.push(lesson);
        }
    }

    pub(super) fn take(&self) -> Vec<Lesson> {
        std::mem::take(&mut *self.0.lock().expect("no panic while held"))
    }
}

#[derive(Debug, Default)]
pub(super) struct Memory(BTreeMap<LimitKey, Learned>);

impl Memory {
    pub fn recall(saved: Vec<(String, Learned)>) -> Self {
        let key = |text: String| LimitKey(Arc::from(text));
        Memory(saved.into_iter().take(LEARNED_MAX).map(|(text, learned)| (key(text), learned)).collect())
    }

    pub fn remember(&self) -> Vec<(String, Learned)> {
        self.0.iter().map(|(key, learned)| (key.to_string(), learned.clone())).collect()
    }

    /// What the gate of another daemon remembers.
    pub fn follow(&mut self, heard: Vec<(String, Learned)>) {
        for (key, theirs) in Memory::recall(heard).0 {
            match self.0.get_mut(&key) {
                Some(ours) => ours.follow(theirs),
                None => self.keep(key, theirs),
            }
        }
    }

    /// `views` of the limits as they stand. True when a number sank: others are to be told at once.
    pub fn hear(&mut self, lessons: Vec<Lesson>, views: &[LimitView], now: Timestamp) -> bool {
        let mut sank = false;
        for Lesson { spends, granted_at, until } in lessons {
            for spend in spends.iter().filter(|s| s.limit.learned) {
                // Without a view, three tenths less than what is in force.
                let used = views.iter().find(|v| v.key == spend.key).map_or(0, |v| v.used);
                sank |= match self.0.get_mut(&spend.key) {
                    Some(learned) => learned.refused(&spend.limit, used, granted_at, now, until),
                    None => match Learned::first(&spend.limit, used, now, until) {
                        Some(learned) => {
                            self.keep(spend.key.clone(), learned);
                            true
                        }
                        None => false,
                    },
                };
            }
        }
        sank
    }

    /// There is more to send than these limits (as declared) allow now, as their views say.
    pub fn press<'a>(&mut self, declared: &[Spend], full: impl Iterator<Item = &'a LimitKey>, now: Timestamp) {
        for key in full {
            let spend = declared.iter().find(|s| s.key == *key && s.limit.learned);
            if let (Some(spend), Some(learned)) = (spend, self.0.get_mut(key)) {
                learned.pressed(&spend.limit, now);
            }
        }
    }

    /// The limits with the numbers in force.
    pub fn apply(&self, declared: Arc<[Spend]>) -> Arc<[Spend]> {
        let is_learned = |s: &Spend| s.limit.learned && self.0.contains_key(&s.key);
        if self.0.is_empty() || !declared.iter().any(is_learned) {
            return declared;
        }
        let applied = |s: &Spend| match self.of(s) {
            Some(learned) => Spend::new(s.key.clone(), learned.apply(&s.limit)),
            None => s.clone(),
        };
        declared.iter().map(applied).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn of(&self, spend: &Spend) -> Option<&Learned> {
        self.0.get(&spend.key).filter(|_| spend.limit.learned)
    }

    fn keep(&mut self, key: LimitKey, learned: Learned) {
        if self.0.len() >= LEARNED_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, l)| l.cut_at()).map(|(key, _)| key.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.insert(key, learned);
    }
}

impl Gate {
    /// Looks at the refusals that were heard since it looked last.
    pub async fn learn(&mut self) {
        let lessons = self.shared.lessons.take();
        if lessons.is_empty() {
            return;
        }
        let mut about: Vec<Spend> = lessons.iter().flat_map(|lesson| lesson.spends.iter().cloned()).collect();
        about.sort_by(|a, b| a.key.cmp(&b.key));
        about.dedup_by(|a, b| a.key == b.key);
        let now = self.now();
        let applied = self.learned.apply(about.into());
        let views = self.parts.limiter.peek(now, &applied).await.unwrap_or_default();
        if self.learned.hear(lessons, &views, now) {
            // Others are not to find it out by refusals of their own.
            self.tell_memory();
        }
    }
}

/// Those that let no call of any class through now.
pub(super) fn full(views: &[LimitView]) -> impl Iterator<Item = &LimitKey> {
    views.iter().filter(|v| v.free_by_class[0] < v.cost).map(|v| &v.key)
}
