//! The laws of the house, as tests: what the compiler does not enforce within one crate.
//!
//! Each law answers with the file, the line and what to do about it. The laws come from the map in `src/lib.rs`;
//! `tidy/source.rs` reads Rust well enough for them. Must never know: what the code does. Next: `tidy/rooms.rs`.

#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/source.rs"]
mod source;

use std::path::Path;

use source::{Source, files, rust_files};

/// Longest file. At 400 lines look again; at 500 split by responsibility.
const LINES_MAX: usize = 500;

/// Fails with all findings at once.
fn holds(law: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{law}\n  {}\n", findings.join("\n  "));
}

/// Sources of the crate and of its tests.
fn everything() -> Vec<Source> {
    ["src", "tests", "benches"].iter().flat_map(|root| rust_files(root)).collect()
}

/// Every place where one of `tokens` stands in code (not in comments, texts or unit tests), outside `except`.
fn places(tokens: &[&str], except: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in rust_files("src").iter().filter(|f| !except.contains(&f.path.as_str()) && !f.is_test()) {
        for (number, line) in file.code_without_tests().lines().enumerate() {
            for token in tokens.iter().filter(|t| line.contains(**t)) {
                findings.push(format!("{}:{}: {token}", file.path, number + 1));
            }
        }
    }
    findings
}

#[test]
fn every_file_begins_with_what_it_owns() {
    let bare = everything().into_iter().filter(|f| !f.text.starts_with("//!"));
    let findings = bare.map(|f| f.path).collect();
    holds("begin the file with `//!`: what it owns, what it must never know, where to read next", findings);
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let long = everything().into_iter().filter(|f| f.text.lines().count() > LINES_MAX);
    let findings = long.map(|f| format!("{}: {} lines", f.path, f.text.lines().count())).collect();
    holds("split the file by responsibility: at most 500 lines", findings);
}

#[test]
fn modules_are_named_after_their_file() {
    let findings = rust_files("src").into_iter().filter(|f| f.path.ends_with("/mod.rs")).map(|f| f.path).collect();
    holds("write foo.rs beside foo/, not foo/mod.rs", findings);
}

#[test]
fn time_comes_from_the_clock_alone() {
    let calls = ["SystemTime::now", "Instant::now", "Timestamp::now", "Zoned::now", "Utc::now", "clock_gettime"];
    holds("take a `Clock` and ask it: only src/clock.rs asks the system", places(&calls, &["src/clock.rs"]));
}

#[test]
fn tasks_are_born_under_the_supervisor() {
    let calls = ["tokio::spawn", "task::spawn(", "task::spawn_local", "Handle::current().spawn", "thread::spawn"];
    let law = "spawn it with the supervisor, a JoinSet or a TaskTracker: every task has an owner, a name, an end";
    holds(law, places(&calls, &["src/engine/supervisor.rs"]));
}

#[test]
fn nothing_panics_for_want_of_a_reason() {
    let law = "return an error, or say why it cannot fail: expect(\"...\")";
    holds(law, places(&[".unwrap()", ".unwrap_err()", "todo!(", "unimplemented!("], &[]));
}

#[test]
fn nothing_is_left_for_later_in_a_comment() {
    // Put together here, so that this file keeps the law too.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X:"].concat()];
    let mut findings = Vec::new();
    let roots =
        ["src", "tests", "benches", "proto", "migrations", "systemd", "scripts", "docs", "providers", "examples"];
    for (path, text) in roots.iter().flat_map(|root| files(root, &[])) {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.split(|c: char| !c.is_ascii_alphabetic() && c != ':').any(|w| w == mark)) {
                findings.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    holds("do it, or open an issue and say there what is missing", findings);
}

/// Queries that one database alone needs. Queries of one name serve one purpose, but not always in one way: SQLite's writer
/// remembers absolute counts and writes them down, PostgreSQL's many writers add differences.
const ALONE: &[(&str, &str, &[&str])] = &[
    ("src/store/sqlite", "final jobs stay in the table and leave its indexes", &["deliver_jobs"]),
    ("src/store/sqlite", "one writer counts the numbers itself", &["last_numbers", "save_meta"]),
    (
        "src/store/sqlite",
        "statements travel together anyway; a server is asked as few times as can be",
        &["begin_jobs", "insert_calls", "open_call_jobs", "save_flows", "save_tallies"],
    ),
    ("src/store/postgres", "the same, in fewer statements", &["begin_calls", "save_counts"]),
    ("src/store/sqlite", "one writer need not hold the first job of a key", &["key_in_use"]),
    (
        "src/store/postgres",
        "final jobs have tables of their own",
        &["finish_jobs", "finished_cores", "revive_jobs", "days"],
    ),
    ("src/store/postgres", "numbers come from sequences", &["draw_calls", "draw_turn", "insert_flows", "insert_run"]),
    (
        "src/store/postgres",
        "what a commit decides by must hold until its end",
        &[
            "fences",
            "heads",
            "keep_runs",
            "lock_collections",
            "lock_providers",
            "lock_schedule",
            "make_collections",
            "own_keys",
            "set_run",
            "share_keys",
            "take_run",
        ],
    ),
    ("src/store/postgres", "a lost connection leaves a commit in doubt", &["end_session", "fate"]),
    (
        "src/store/postgres",
        "several daemons share the work",
        &[
            "beat",
            "claim_partitions",
            "daemons",
            "forget_daemons",
            "make_partitions",
            "open_calls_of_daemon",
            "open_calls_of_nobody",
            "owned_partitions",
            "release_partitions",
        ],
    ),
];

#[test]
fn both_databases_have_the_same_queries_and_migrations() {
    let alone =
        |path: &str| ALONE.iter().any(|(root, _, names)| names.iter().any(|name| path == format!("{root}/{name}.sql")));
    let pairs = [("src/store/sqlite", "src/store/postgres"), ("migrations/sqlite", "migrations/postgres")];
    for (one, other) in pairs.into_iter().filter(|(one, other)| Path::new(one).exists() && Path::new(other).exists()) {
        let names = |root: &str| -> Vec<String> {
            files(root, &["sql"]).into_iter().map(|(path, _)| path[root.len() + 1..].to_owned()).collect()
        };
        let (ours, theirs) = (names(one), names(other));
        let only = |these: &[String], those: &[String], root: &str| -> Vec<String> {
            let lonely = these.iter().filter(|n| !those.contains(n) && !alone(&format!("{root}/{n}")));
            lonely.map(|n| format!("only in {root}: {n}")).collect()
        };
        let findings = [only(&ours, &theirs, one), only(&theirs, &ours, other)].concat();
        holds("write the sibling under the same name, or say in ALONE why there is none", findings);
    }
    // An exception that is none any more would hide the next one.
    let other = |root: &str| if root.ends_with("sqlite") { "src/store/postgres" } else { "src/store/sqlite" };
    let listed = ALONE.iter().flat_map(|(root, _, names)| names.iter().map(move |name| (*root, *name)));
    let stale = listed.filter(|(root, name)| {
        !Path::new(&format!("{root}/{name}.sql")).exists() || Path::new(&format!("{}/{name}.sql", other(root))).exists()
    });
    holds("take it out of ALONE", stale.map(|(root, name)| format!("{root}/{name}.sql")).collect());
}

#[test]
fn every_query_says_what_it_is_for() {
    let bare = ["src", "migrations"].iter().flat_map(|root| files(root, &["sql"]));
    let findings = bare.filter(|(_, text)| !text.starts_with("--")).map(|(path, _)| path).collect();
    holds("begin the file with `--`: purpose, the index it relies on, its sibling's difference", findings);
}
