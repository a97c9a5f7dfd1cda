//! Tests of the tests: every planted bug must be caught, by the test named here and for the reason named here.
//!
//! In a build with the feature `mutants` (`scripts/torture.sh`) each test runs another test of this very binary again
//! with one bug alive, and wants to see it fail. In every build the table must name each bug that the sources plant.

/// A planted bug, the test that catches it, and the word that its failure must contain.
#[derive(Debug)]
struct Planted {
    bug: &'static str,
    test: &'static str,
    because: &'static str,
}

const LIMITS: &str = "torture_limits::no_window_is_exceeded_whatever_the_delays_and_restarts";
const KILLS: &str = "torture::nothing_is_lost_repeated_or_overrun_when_the_daemon_is_killed_under_load";
const POWER: &str = "powercut::what_was_acknowledged_survives_the_loss_of_power";
const LATE: &str = "store::calls::sqlite::a_late_success_is_adopted_unless_something_newer_began";

const PLANTED: &[Planted] = &[
    Planted { bug: "grant-anchor", test: LIMITS, because: "WindowExceeded" },
    Planted { bug: "off-by-one-window", test: LIMITS, because: "WindowExceeded" },
    Planted { bug: "window-too-short", test: LIMITS, because: "WindowExceeded" },
    Planted { bug: "ack-before-commit", test: KILLS, because: "Lost" },
    Planted { bug: "batch-failure-ignored", test: KILLS, because: "Phantom" },
    Planted { bug: "coalesce-keeps-old", test: KILLS, because: "Phantom" },
    Planted { bug: "forgotten-seed", test: KILLS, because: "WindowExceeded" },
    Planted { bug: "library-retry", test: KILLS, because: "UnknownRepeated" },
    Planted { bug: "order-ignored", test: KILLS, because: "OrderBroken" },
    Planted { bug: "retry-unknown", test: KILLS, because: "UnknownRepeated" },
    Planted { bug: "settle-unsent", test: KILLS, because: "WindowExceeded" },
    Planted { bug: "no-fencing", test: LATE, because: "panicked" },
    Planted { bug: "no-fsync", test: POWER, because: "Lost" },
];

/// Names in `mutant::on("...")` anywhere under `src/`.
fn planted_in_the_sources() -> std::collections::BTreeSet<String> {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut bugs = std::collections::BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(path).unwrap();
                let names = text.split("mutant::on(\"").skip(1).filter_map(|rest| rest.split('"').next());
                bugs.extend(names.map(str::to_owned));
            }
        }
    }
    bugs
}

#[test]
fn every_planted_bug_has_a_test_that_catches_it() {
    let named: std::collections::BTreeSet<String> = PLANTED.iter().map(|p| p.bug.to_owned()).collect();
    assert_eq!(planted_in_the_sources(), named);
    for p in PLANTED {
        assert!(p.test.contains("::") && !p.because.is_empty(), "{}: name its test and its reason", p.bug);
    }
}

#[cfg(feature = "mutants")]
mod alive {
    use std::process::Command;

    use super::PLANTED;

    /// A bug that shows only at certain moments gets several tries, each with another seed.
    const TRIES: u64 = 4;

    fn is_caught(bug: &str) {
        let planted = PLANTED.iter().find(|p| p.bug == bug).expect("the table names it");
        let mut said = String::new();
        for seed in 1..=TRIES {
            let mut again = Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", planted.test, "--nocapture"]).env("TIDEGATE_MUTANT", bug);
            let done = again.env("TIDEGATE_TORTURE_SEED", seed.to_string()).output().unwrap();
            said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
            if said.contains("skipped:") {
                panic!("{bug}: its test cannot run here, so nothing shows that it is caught: {said}");
            }
            if !done.status.success() && said.contains(planted.because) {
                return;
            }
        }
        panic!("{bug} was not caught by {} in {TRIES} tries; it said:\n{said}", planted.test);
    }

    macro_rules! caught {
        ($($name:ident: $bug:literal),* $(,)?) => {
            $(#[test]
            fn $name() {
                is_caught($bug);
            })*

            #[test]
            fn no_bug_is_left_out() {
                assert_eq!([$($bug),*].len(), PLANTED.len());
            }
        };
    }

    caught! {
        counting_from_the_grant_is_caught: "grant-anchor",
        one_call_too_many_is_caught: "off-by-one-window",
        freeing_a_slot_too_early_is_caught: "window-too-short",
        an_ack_before_the_commit_is_caught: "ack-before-commit",
        ignoring_a_failed_record_is_caught: "batch-failure-ignored",
        coalescing_into_the_old_payload_is_caught: "coalesce-keeps-old",
        forgetting_the_journal_at_start_is_caught: "forgotten-seed",
        a_retry_in_the_transport_is_caught: "library-retry",
        overtaking_within_a_key_is_caught: "order-ignored",
        repeating_what_is_unknown_is_caught: "retry-unknown",
        giving_spent_permits_back_is_caught: "settle-unsent",
        a_zombie_that_writes_is_caught: "no-fencing",
        a_missing_fsync_is_caught: "no-fsync",
    }
}
