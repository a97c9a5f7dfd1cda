//! Small runs of `tidegate bench`: every figure is printed and none is empty. How large they are is for a release build on a
//! quiet machine to say, never for a test. Next: `cli.rs`.

use std::process::{Command, Stdio};

/// What a run printed: name, number, unit.
fn figures(args: &[&str]) -> Vec<(String, f64, String)> {
    let out =
        Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("bench").args(args).stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{args:?}: {out:?}");
    let read = |line: &str| {
        let (rest, unit) = line.rsplit_once(' ').unwrap();
        let (name, value) = rest.trim_end().rsplit_once(' ').unwrap();
        (name.trim_end().to_owned(), value.parse().unwrap(), unit.to_owned())
    };
    String::from_utf8(out.stdout).unwrap().lines().map(read).collect()
}

fn check(figures: &[(String, f64, String)], names: &[&str], unit: &str) {
    for name in names {
        let of_name: Vec<f64> = figures.iter().filter(|(n, _, u)| n.contains(name) && u == unit).map(|f| f.1).collect();
        assert!(!of_name.is_empty(), "no figure {name} in {unit} among {figures:?}");
        assert!(of_name.iter().all(|value| *value > 0.0), "{name}: {of_name:?}");
    }
}

#[test]
fn cached_calls_are_timed_from_when_they_were_due() {
    let found = figures(&["call", "--seconds", "1"]);
    check(&found, &["answered"], "/s");
    check(&found, &["from when it was due: p50", "from when it was due: p99", "the bench itself was late"], "ms");
}

#[test]
fn records_are_asked_for_every_aggregate_and_page_on_both_databases() {
    let found = figures(&["records", "--records", "2000", "--seconds", "1"]);
    for store in ["SQLite", "PostgreSQL"] {
        let of_store: Vec<_> = found.iter().filter(|(name, ..)| name.starts_with(store)).cloned().collect();
        check(&of_store, &["PutRecords", "ListRecords, 50 a page", "ListRecords, filtered, 50 a page"], "/s");
        let asked =
            ["count, sum, min, max by status: p99", "last 30 days: p99", "shops", "customers", "ListRecords, 50: p99"];
        check(&of_store, &asked, "ms");
    }
}
