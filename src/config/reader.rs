//! Walking a table key by key: a key that is asked for is known, and what is left at the end is a mistake.
//!
//! Readers go on after a problem, so that one run shows all of them. Must never know: what the keys mean.
//! Next: `values.rs` for the kinds of values, `provider.rs` for a table that is read so.

use std::cell::RefCell;

use super::problem::{At, Found, Problem};
use super::tree::{Entry, Node, Table, Value};

/// Why a value cannot be used; `None` in place of a value means that the problem has been noted.
pub type Unfit = Problem;

/// One table being read.
#[derive(Debug)]
pub struct Reader<'a> {
    pub found: &'a Found,
    pub at: &'a At,
    table: &'a Table,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Reader<'a> {
    pub fn new(found: &'a Found, at: &'a At, table: &'a Table) -> Self {
        Reader { found, at, table, asked: RefCell::default() }
    }

    /// A reader for a node that has to be a table.
    pub fn of(found: &'a Found, node: &'a Node) -> Option<Self> {
        match &node.value {
            Value::Table(table) => Some(Reader::new(found, &node.at, table)),
            other => {
                found.add(Problem::new(format!("expected a table, got {}", other.kind())).at(&node.at));
                None
            }
        }
    }

    pub fn entry(&self, key: &'static str) -> Option<&'a Entry> {
        self.asked.borrow_mut().push(key);
        self.table.get(key)
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The value of a key, if it is there and fits.
    pub fn get<T>(&self, key: &'static str, read: impl FnOnce(&'a Node) -> Result<T, Unfit>) -> Option<T> {
        self.node(key).and_then(|node| self.note(&node.at, read(node)))
    }

    /// The value of a key that has to be there. A missing one is noted with `help`.
    pub fn need<T>(&self, key: &'static str, help: &str, read: impl FnOnce(&'a Node) -> Result<T, Unfit>) -> Option<T> {
        if self.entry(key).is_none() {
            self.found.add(Problem::new(format!("expected the key `{key}` here")).at(self.at).help(help));
        }
        self.get(key, read)
    }

    /// The value, or a note at `at` when the problem does not say where it is.
    pub fn note<T>(&self, at: &At, read: Result<T, Unfit>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(problem) => {
                self.found.add(if problem.at.is_some() { problem } else { problem.at(at) });
                None
            }
        }
    }

    /// All entries, for tables whose keys are names that users choose. In the order of the file.
    pub fn entries(&self) -> Vec<(&'a str, &'a Entry)> {
        let mut entries: Vec<_> = self.table.iter().map(|(key, entry)| (key.as_str(), entry)).collect();
        entries.sort_by_key(|(_, entry)| entry.key_at.span.start);
        entries
    }

    /// Notes every key that nobody asked for, with the nearest known one.
    pub fn finish(self) {
        let asked = self.asked.into_inner();
        for (key, entry) in self.table {
            if !asked.contains(&key.as_str()) {
                self.found.add(unknown("key", key, asked.iter().copied()).at(&entry.key_at));
            }
        }
    }
}

/// `unknown key ...`, with what was probably meant.
pub fn unknown<'k>(what: &str, got: &str, known: impl Iterator<Item = &'k str> + Clone) -> Problem {
    let problem = Problem::new(format!("unknown {what} `{got}`"));
    match nearest(got, known.clone()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => {
            let mut all: Vec<&str> = known.collect();
            all.sort_unstable();
            all.dedup();
            problem.help(format!("expected one of: {}", all.join(", ")))
        }
    }
}

/// The known word that is closest, if any is close.
pub fn nearest<'k>(got: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let got = got.to_ascii_lowercase();
    let scored = known.map(|word| (strsim::jaro_winkler(&got, word), word));
    scored.filter(|(score, _)| *score >= 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, word)| word)
}
