//! The checker, checked: each hand-made history in `tests/history/` breaks the promises named in its first line, and
//! the checker must say exactly that.

use tidegate::simulator::{Latency, Simulator, SimulatorConfig};

use crate::support::checker::{Kind, check};
use crate::support::history::{Declared, DeclaredLimit, Entry, History};

/// `# expect: Lost Duplicated`, or `# expect: nothing`.
fn expected(text: &str) -> Vec<String> {
    let first = text.lines().next().and_then(|l| l.strip_prefix("# expect:")).expect("the first line names the kinds");
    let mut kinds: Vec<String> = first.split_whitespace().filter(|w| *w != "nothing").map(str::to_owned).collect();
    kinds.sort();
    kinds
}

#[test]
fn every_bad_history_is_caught_for_what_is_wrong_with_it() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/history");
    let (mut files, mut seen) = (0, std::collections::BTreeSet::new());
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|e| e != "jsonl") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let history = History::read(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let findings = check(&history);
        let mut kinds: Vec<String> = findings.kinds().iter().map(|k| format!("{k:?}")).collect();
        kinds.sort();
        assert_eq!(kinds, expected(&text), "{}: {findings}", path.display());
        seen.extend(kinds);
        files += 1;
    }
    assert!(files >= 18, "only {files} histories were found");
    assert_eq!(seen.len(), 12, "a kind of violation has no history that shows it: {seen:?}");
}

#[test]
fn a_history_survives_its_text_form() {
    let text = include_str!("../history/good-crash.jsonl");
    let history = History::read(text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.jsonl");
    history.write(&path).unwrap();
    assert_eq!(History::read(&std::fs::read_to_string(&path).unwrap()).unwrap(), history);
}

#[test]
fn declared_duplicates_and_recovered_changes_are_counted_and_allowed() {
    let findings = check(&History::read(include_str!("../history/good-crash.jsonl")).unwrap());
    findings.assert_clean();
    assert_eq!((findings.duplicated_declared, findings.recovered, findings.kills), (1, 1, 1));
    assert_eq!(findings.windows, [("single".to_owned(), String::new(), 2, 2)]);
}

#[tokio::test]
async fn the_provider_view_is_the_arrival_log_of_the_simulator() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("arrivals.jsonl");
    let config = SimulatorConfig { latency: Latency::none(), log: Some(log.clone()), ..SimulatorConfig::default() };
    let simulator = Simulator::start(config.limit("all=rolling:1/1h").unwrap()).await.unwrap();
    let client = reqwest::Client::new();
    for version in [2, 1] {
        let url = format!("{}/users/u1", simulator.base_url());
        client.put(url).body(format!(r#"{{"id":"u1","n":{version}}}"#)).send().await.unwrap();
    }
    simulator.stop().await;
    let limits = vec![DeclaredLimit { name: "all".to_owned(), max: 1, window_us: 3_600_000_000 }];
    let mut history = History::new(Declared { limits, ..Declared::default() });
    for version in [1, 2] {
        history.push(Entry::Tried { record: "u1".to_owned(), version });
    }
    history.add_arrivals(&log).unwrap();
    let findings = check(&history);
    assert_eq!(findings.kinds(), [Kind::WindowExceeded, Kind::OrderBroken].into(), "{findings}");
    assert_eq!((findings.recovered, findings.refused), (1, 1));
}
