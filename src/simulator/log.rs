//! The arrival log: one JSON line per request, to a file and, bounded, in memory. The provider's side of a history.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Bytes gathered before a write, beside the regular flush.
const BUFFER_BYTES: usize = 256 * 1024;

/// One request as the provider saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Steady microseconds at which the head was read.
    pub at_us: i64,
    /// From 1, in the order of arrival.
    pub number: u64,
    pub method: String,
    pub path: String,
    /// Names of the limits that counted it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// Value of the account header; a digest where that header is a credential.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub account: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Ids of the records, in the order of the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<String>,
    /// Their versions, where the body has any; as long as `records`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Option<i64>>,
    /// Positions of the records that were refused by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<u32>,
    /// Positions of the records of a set that were so already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchanged: Vec<u32>,
    /// The first 8 bytes of the body's SHA-256, hexadecimal; empty when the body never came whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body_hash: String,
    /// The status decided on; 0 when the body never came whole, so that nothing took effect.
    pub status: u16,
    /// `silence` or `reset`: it took effect, but the answer was withheld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
}

impl Arrival {
    /// Did the provider take the record at this position?
    pub fn took(&self, position: usize) -> bool {
        (200..300).contains(&self.status) && !self.failed.contains(&u32::try_from(position).unwrap_or(u32::MAX))
    }

    /// Did something change by it? Only a set tells the difference.
    pub fn changed(&self, position: usize) -> bool {
        self.took(position) && !self.unchanged.contains(&u32::try_from(position).unwrap_or(u32::MAX))
    }
}

/// Of the records that are marked.
pub fn positions(marks: &[bool]) -> Vec<u32> {
    marks.iter().zip(0..).filter(|(marked, _)| **marked).map(|(_, position)| position).collect()
}

#[derive(Debug)]
pub struct Log {
    file: Option<Mutex<BufWriter<File>>>,
    kept: Mutex<VecDeque<Arrival>>,
    keep_max: usize,
}

impl Log {
    /// Appends to `path`, so that a log may span several runs.
    pub fn open(path: Option<&Path>, keep_max: usize) -> io::Result<Self> {
        let open = |p| File::options().create(true).append(true).open(p);
        let file = path.map(open).transpose()?;
        let file = file.map(|f| Mutex::new(BufWriter::with_capacity(BUFFER_BYTES, f)));
        Ok(Log { file, kept: Mutex::default(), keep_max })
    }

    /// False: nobody would read an arrival, so none need be made.
    pub fn is_on(&self) -> bool {
        self.file.is_some() || self.keep_max > 0
    }

    pub fn write(&self, arrival: Arrival) {
        if let Some(file) = &self.file {
            let mut line = serde_json::to_vec(&arrival).expect("an arrival always serializes");
            line.push(b'\n');
            if let Err(e) = locked(file).write_all(&line) {
                tracing::error!(error = %e, "the arrival log cannot be written");
            }
        }
        if self.keep_max > 0 {
            let mut kept = locked(&self.kept);
            if kept.len() == self.keep_max {
                kept.pop_front();
            }
            kept.push_back(arrival);
        }
    }

    /// In the order in which they were judged.
    pub fn kept(&self) -> Vec<Arrival> {
        locked(&self.kept).iter().cloned().collect()
    }

    pub fn forget_kept(&self) {
        locked(&self.kept).clear();
    }

    pub fn flush(&self) {
        if let Some(file) = &self.file
            && let Err(e) = locked(file).flush()
        {
            tracing::error!(error = %e, "the arrival log cannot be flushed");
        }
    }
}

/// A panic while counting leaves the counts as they are: better than none.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
