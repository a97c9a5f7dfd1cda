//! A shelf of values by namespace and key, bounded in bytes: whatever was used least recently goes first.
//!
//! What is thrown away stays away: a value that was asked for before an invalidation and comes after it is not put back
//! ([`Shelf::mark`]). Generic: answers of providers stand on one, and whatever else is dear to make may stand on another.
//! Must never know: HTTP, time. Next: `../cache`, which knows how long an answer is good.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::invalidation::{Keys, Which};
use crate::model::name::Namespace;

/// What a slot costs beside its value and its key: the maps' nodes.
const SLOT_BYTES: usize = 256;
/// Namespaces whose invalidations are told apart; beyond it one stands for all.
const NAMESPACES_MAX: usize = 10_000;

/// Where a value stands. Ordered so that the keys of a prefix are neighbours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub namespace: Namespace,
    pub key: Arc<str>,
    /// Whose it is, and which variant. Invalidations look at namespace and key alone.
    pub who: Arc<str>,
}

/// When a value was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

#[derive(Debug)]
pub struct Shelf<V> {
    slots: Mutex<Slots<V>>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Slots<V> {
    by_place: BTreeMap<Place, Slot<V>>,
    /// By their last use, oldest first.
    by_use: BTreeMap<u64, Place>,
    bytes: usize,
    uses: u64,
    /// Grows with every invalidation; per namespace the last one, and that of all.
    moves: u64,
    moved: HashMap<Namespace, u64>,
    all_moved: u64,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<V: Clone> Shelf<V> {
    pub fn new(bytes_max: usize) -> Self {
        let slots = Slots {
            by_place: BTreeMap::new(),
            by_use: BTreeMap::new(),
            bytes: 0,
            uses: 0,
            moves: 0,
            moved: HashMap::new(),
            all_moved: 0,
        };
        Shelf { slots: Mutex::new(slots), bytes_max }
    }

    fn slots(&self) -> MutexGuard<'_, Slots<V>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, place: &Place) -> Option<V> {
        let mut slots = self.slots();
        slots.uses += 1;
        let now = slots.uses;
        let slot = slots.by_place.get_mut(place)?;
        let (value, before) = (slot.value.clone(), std::mem::replace(&mut slot.used, now));
        if let Some(place) = slots.by_use.remove(&before) {
            slots.by_use.insert(now, place);
        }
        Some(value)
    }

    /// To be taken before a value is asked for.
    pub fn mark(&self) -> Mark {
        Mark(self.slots().moves)
    }

    /// Puts a value of `bytes` there, unless its namespace was invalidated since `asked` or it takes more than an eighth
    /// of the shelf. False: it is not there.
    pub fn put(&self, place: Place, value: V, bytes: usize, asked: Mark) -> bool {
        let bytes = bytes + place.key.len() + place.who.len() + SLOT_BYTES;
        let mut slots = self.slots();
        let moved = slots.moved.get(&place.namespace).copied().unwrap_or(0).max(slots.all_moved);
        if moved > asked.0 || bytes > self.bytes_max / 8 {
            return false;
        }
        slots.remove(&place);
        slots.uses += 1;
        let used = slots.uses;
        slots.by_use.insert(used, place.clone());
        slots.by_place.insert(place, Slot { value, bytes, used });
        slots.bytes += bytes;
        while slots.bytes > self.bytes_max {
            let Some((_, oldest)) = slots.by_use.pop_first() else { break };
            slots.remove(&oldest);
        }
        true
    }

    /// Throws one value away, as one that turned out to be of no use.
    pub fn remove(&self, place: &Place) {
        self.slots().remove(place);
    }

    /// How many were thrown away.
    pub fn invalidate(&self, which: &Which) -> usize {
        let mut slots = self.slots();
        slots.moves += 1;
        let moves = slots.moves;
        if slots.moved.len() >= NAMESPACES_MAX {
            slots.moved.clear();
            slots.all_moved = moves;
        }
        slots.moved.insert(which.namespace.clone(), moves);
        let (Keys::Exactly(text) | Keys::Beginning(text)) = &which.keys;
        let from = Place { namespace: which.namespace.clone(), key: Arc::from(text.as_str()), who: Arc::from("") };
        let of_it = slots.by_place.range(from..).map(|(place, _)| place);
        let of_it = of_it.take_while(|p| p.namespace == which.namespace && which.holds(&p.key));
        let of_it: Vec<Place> = of_it.cloned().collect();
        of_it.iter().for_each(|place| slots.remove(place));
        of_it.len()
    }

    /// Throws everything away: something may have been missed.
    pub fn clear(&self) {
        let mut slots = self.slots();
        slots.moves += 1;
        slots.all_moved = slots.moves;
        slots.moved.clear();
        slots.by_place.clear();
        slots.by_use.clear();
        slots.bytes = 0;
    }

    /// Values and their bytes.
    pub fn size(&self) -> (usize, usize) {
        let slots = self.slots();
        (slots.by_place.len(), slots.bytes)
    }
}

impl<V> Slots<V> {
    fn remove(&mut self, place: &Place) {
        if let Some(slot) = self.by_place.remove(place) {
            self.by_use.remove(&slot.used);
            self.bytes -= slot.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(namespace: &str, key: &str, who: &str) -> Place {
        Place { namespace: Namespace::new(namespace).unwrap(), key: key.into(), who: who.into() }
    }

    fn which(namespace: &str, keys: Keys) -> Which {
        Which { namespace: Namespace::new(namespace).unwrap(), keys }
    }

    #[test]
    fn a_key_goes_with_all_that_is_kept_under_it_and_a_prefix_with_its_keys() {
        let shelf = Shelf::new(1 << 20);
        let places =
            [("a", "/x", "1"), ("a", "/x", "2"), ("a", "/x/y", ""), ("a", "/xy", ""), ("a", "/z", ""), ("b", "/x", "")];
        let fill = || {
            for (n, (namespace, key, who)) in places.into_iter().enumerate() {
                assert!(shelf.put(place(namespace, key, who), n, 10, shelf.mark()));
            }
        };
        let left = || -> Vec<usize> { places.iter().filter_map(|(n, k, w)| shelf.get(&place(n, k, w))).collect() };
        fill();
        assert_eq!(shelf.invalidate(&which("a", Keys::Exactly("/x".into()))), 2);
        assert_eq!(left(), [2, 3, 4, 5]);
        fill();
        assert_eq!(shelf.invalidate(&which("a", Keys::Beginning("/x".into()))), 4);
        assert_eq!(left(), [4, 5]);
        assert_eq!(shelf.invalidate(&which("a", Keys::Beginning(String::new()))), 1);
        assert_eq!(left(), [5]);
        shelf.clear();
        assert_eq!(shelf.size(), (0, 0));
    }

    #[test]
    fn what_was_asked_for_before_an_invalidation_is_not_put_back() {
        let shelf = Shelf::new(1 << 20);
        let asked = shelf.mark();
        shelf.invalidate(&which("a", Keys::Exactly("/other".into())));
        assert!(!shelf.put(place("a", "/x", ""), 1, 1, asked));
        assert!(shelf.put(place("b", "/x", ""), 1, 1, asked));
        shelf.clear();
        assert!(!shelf.put(place("b", "/x", ""), 1, 1, asked));
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let shelf = Shelf::new(16 * 1_024);
        for n in 0..9 {
            shelf.put(place("a", &format!("/{n}"), ""), n, 1_500, shelf.mark());
        }
        assert!(shelf.get(&place("a", "/0", "")).is_some());
        shelf.put(place("a", "/9", ""), 9, 1_500, shelf.mark());
        assert!(shelf.get(&place("a", "/0", "")).is_some() && shelf.get(&place("a", "/1", "")).is_none());
        assert!(!shelf.put(place("a", "/big", ""), 0, 2_048, shelf.mark()));
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_what_stands_there(steps in proptest::collection::vec((0u8..4, 0u8..12, 0usize..900), 0..200)) {
            let shelf = Shelf::new(8 * 1_024);
            for (what, key, bytes) in steps {
                let at = place("a", &format!("/{key}"), "");
                match what {
                    0 => drop(shelf.get(&at)),
                    1 => drop(shelf.invalidate(&which("a", Keys::Beginning(format!("/{key}"))))),
                    2 => shelf.remove(&at),
                    _ => drop(shelf.put(at, (), bytes, shelf.mark())),
                }
                let slots = shelf.slots();
                prop_assert_eq!(slots.bytes, slots.by_place.values().map(|s| s.bytes).sum::<usize>());
                prop_assert_eq!(slots.by_place.len(), slots.by_use.len());
                prop_assert!(slots.bytes <= 8 * 1_024);
            }
        }
    }
}
