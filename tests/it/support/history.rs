//! One history: what the clients were told, what the daemon has on record, what the provider saw. JSON lines.
//!
//! The three views are independent witnesses; only the checker brings them together. All times are microseconds on one
//! machine's clock; `skew_us` says how far the views may differ. Next: `checker`.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidegate::simulator::Arrival;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// What was promised. Once, first.
    Declared(Declared),
    /// Client: an enqueue was sent. Without a later `acked` it may or may not have happened.
    Tried { record: String, version: i64 },
    /// Client: the enqueue was answered OK.
    Acked { at_us: i64, job: String, record: String, version: i64 },
    /// Client: a cancel was answered, and the job was off.
    Cancelled { at_us: i64, job: String },
    /// Harness: the daemon was killed, or the power cut.
    Killed { at_us: i64 },
    /// Harness: between these the power was off, while the daemon still ran until it was killed (`tests/it/powercut.rs`).
    Dark { from_us: i64, until_us: i64 },
    /// Harness: connections to the provider were cut, and answers on their way with them.
    Cut { at_us: i64 },
    /// Daemon: a job at the end.
    Job(JobRow),
    /// Daemon: its own counters at the end, over all states.
    Counted { jobs: u64 },
    /// Provider: a request arrived.
    Arrived(Arrival),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Declared {
    pub limits: Vec<DeclaredLimit>,
    /// A call whose answer was lost may be sent again.
    pub repeat_safe: bool,
    /// A newer waiting change of a record replaces the older one.
    pub coalesce: bool,
    /// Records whose id begins with one of these are neither safe to repeat nor coalesced.
    pub one_shot: Vec<String>,
    /// Records whose id begins with one of these are safe to repeat, but every change of them is sent.
    pub every_change: Vec<String>,
    /// Sends per job; 0: not checked.
    pub attempts_max: u32,
    /// After this time without an answer the daemon gives a call up, so that its answer is lost; 0: never.
    pub give_up_us: i64,
    /// How far the clocks of the three views may differ.
    pub skew_us: i64,
    /// Everything must be final at the end.
    pub drained: bool,
}

impl Declared {
    fn is_one_shot(&self, record: &str) -> bool {
        self.one_shot.iter().any(|prefix| record.starts_with(prefix.as_str()))
    }

    pub fn repeat_safe(&self, record: &str) -> bool {
        self.repeat_safe && !self.is_one_shot(record)
    }

    pub fn coalesces(&self, record: &str) -> bool {
        let every = self.every_change.iter().any(|prefix| record.starts_with(prefix.as_str()));
        self.coalesce && !every && !self.is_one_shot(record)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredLimit {
    pub name: String,
    pub max: u32,
    pub window_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobRow {
    pub job: String,
    /// `delivered`, `dead`, `cancelled`, `unknown`, `waiting`, `calling`.
    pub state: String,
    pub attempts: u32,
    /// When the daemon recorded the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at_us: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub entries: Vec<Entry>,
}

impl History {
    pub fn new(declared: Declared) -> Self {
        History { entries: vec![Entry::Declared(declared)] }
    }

    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Adds the provider's view: the arrival log of a simulator. A last line that was cut short is left out.
    pub fn add_arrivals(&mut self, log: &Path) -> std::io::Result<()> {
        for line in BufReader::new(std::fs::File::open(log)?).lines() {
            if let Ok(arrival) = serde_json::from_str(&line?) {
                self.push(Entry::Arrived(arrival));
            }
        }
        Ok(())
    }

    /// One JSON line per entry. Empty lines and lines that begin with `#` say nothing.
    pub fn read(text: &str) -> Result<Self, String> {
        let says = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
        let entry = |line: &str| serde_json::from_str(line).map_err(|e| format!("{e}: {line}"));
        text.lines().filter(says).map(entry).collect::<Result<_, _>>().map(|entries| History { entries })
    }

    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = String::new();
        for entry in &self.entries {
            text += &serde_json::to_string(entry)?;
            text.push('\n');
        }
        std::fs::write(path, text)
    }
}
