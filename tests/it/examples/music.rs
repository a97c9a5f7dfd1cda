//! `examples/music-enforcement`: a run over four services that is killed three times loses nothing, repeats nothing whose
//! outcome it had recorded, says when it will be through, and can be taken back.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{arrivals, plain};
use crate::readme::{Ran, run};

const TRACKS: usize = 10_000;
/// Those that no service takes out.
const GONE: usize = 5;
/// Service, calls, and in how many microseconds.
const LIMITS: [(&str, usize, i64); 4] = [
    ("spotify", 100, 5_000_000),
    ("apple", 1_000, 300_000_000),
    ("youtube", 100, 5_000_000),
    ("tidal", 200, 5_000_000),
];
/// A call that was on the wire when the daemon was killed had arrived so long before, or arrived so long after: its answer
/// takes half a second at most, its recording a moment.
const ON_THE_WIRE_US: (i64, i64) = (1_500_000, 500_000);
/// How well the end is foretold: to this share of what is left, or to [`NEAR_S`] where less than ten times that is left.
const FORETOLD: f64 = 0.1;
const NEAR_S: f64 = 0.5;
/// In this share of the answers.
const ANSWERS: f64 = 0.9;

#[test]
fn music_enforcement_survives_three_kills_and_is_taken_back() {
    let Ran { folder, said } = run("examples/music-enforcement/README.md", &[]);
    let (said, arrivals) = (plain(&said), arrivals(folder.path(), "arrivals.jsonl"));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let kills: Vec<i64> = read("kills.log").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(kills.len(), 3);

    // What became of each track.
    let mut times: BTreeMap<&str, (Vec<i64>, Vec<i64>)> = BTreeMap::new();
    for arrival in &arrivals {
        for (_, id) in arrival.records.iter().enumerate().filter(|(at, _)| arrival.took(*at)) {
            let (removed, saved) = times.entry(id.as_str()).or_default();
            if arrival.method == "DELETE" { removed.push(arrival.at_us) } else { saved.push(arrival.at_us) }
        }
    }
    assert_eq!(times.len(), TRACKS - GONE, "every track but those that are gone was removed");
    let on_the_wire = |at: i64| kills.iter().any(|k| (k - ON_THE_WIRE_US.0..k + ON_THE_WIRE_US.1).contains(&at));
    let mut twice = 0;
    for (id, (removed, saved)) in &times {
        assert_eq!(saved.len(), 1, "{id} was restored once");
        assert!(removed.iter().all(|at| *at < saved[0]), "{id} was restored at the end");
        let (_, earlier) = removed.split_last().expect("removed before it was restored");
        assert!(earlier.iter().all(|at| on_the_wire(*at)), "{id} was removed at {removed:?}, kills at {kills:?}");
        twice += usize::from(!earlier.is_empty());
    }
    eprintln!("{twice} of {TRACKS} tracks were on the wire at a kill and went again");

    for (limit, max, per_us) in LIMITS {
        let counted = arrivals.iter().filter(|a| a.limits.iter().any(|l| l == limit));
        let times: Vec<i64> = counted.map(|a| a.at_us).collect();
        let most = (0..times.len()).map(|i| times[i..].partition_point(|at| *at < times[i] + per_us)).max().unwrap();
        assert!(most <= max, "{limit}: {most} in a window of {max}");
    }
    assert!(arrivals.iter().all(|a| [200, 401, 422].contains(&a.status)), "no call is refused for a limit");

    // One refresh for all calls that found the token ended; the daemon's restarts cost none.
    assert!(arrivals.iter().any(|a| a.status == 401), "the token was to end under calls");
    assert!(said.contains("\"given\": 2,") && said.contains("\"reused\": 0,"), "{said}");
    assert!(said.contains(&format!("{} delivered jobs will be undone", "9,995")), "{said}");

    let killed = progress(folder.path(), "progress.jsonl");
    let last_start = kills[2] as f64 / 1e6 + 1.5;
    foretold("after the last kill", killed.iter().filter(|p| p.asked > last_start), killed.last().unwrap().asked);
    let undone = progress(folder.path(), "undo.jsonl");
    foretold("of the undo", undone.iter(), undone.last().unwrap().asked);
    assert_eq!((killed.last().unwrap().delivered, killed.last().unwrap().dead), (TRACKS - GONE, GONE));
    assert_eq!(undone.last().unwrap().delivered, TRACKS - GONE);
}

/// One answer of a run.
struct Progress {
    /// Seconds since 1970, as `forecast`.
    asked: f64,
    forecast: Option<f64>,
    delivered: usize,
    dead: usize,
}

/// Progress never goes backwards.
fn progress(folder: &Path, name: &str) -> Vec<Progress> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    let seconds = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond() as f64 / 1e6;
    let seen: Vec<Progress> = text
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let run = &line["run"];
            let count = |name: &str| run["counts"][name].as_str().map_or(0, |n| n.parse().unwrap());
            Progress {
                asked: line["asked"].as_f64().unwrap(),
                forecast: run["forecastFinishTime"].as_str().map(seconds),
                delivered: count("delivered"),
                dead: count("dead"),
            }
        })
        .collect();
    assert!(seen.len() > 10, "{name}: {} answers", seen.len());
    assert!(seen.windows(2).all(|w| w[0].delivered <= w[1].delivered && w[0].dead <= w[1].dead), "{name}: {text}");
    seen
}

fn foretold<'a>(what: &str, seen: impl Iterator<Item = &'a Progress>, ended: f64) {
    let (mut good, mut all, mut told) = (0, 0, String::new());
    for p in seen.filter(|p| p.asked < ended) {
        let left = ended - p.asked;
        let error = p.forecast.map_or(f64::INFINITY, |forecast| (forecast - ended).abs());
        all += 1;
        good += usize::from(error <= (FORETOLD * left).max(NEAR_S));
        told += &format!("{left:.1} s left: {error:.2} s off\n");
    }
    eprintln!("{what}: {good} of {all} answers foretold the end to {FORETOLD} of what was left");
    assert!(good as f64 >= ANSWERS * all as f64, "{what}: {good} of {all} answers were near enough:\n{told}");
}
