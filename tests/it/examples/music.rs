//! `examples/music-enforcement`: a run over four services that is killed three times loses nothing, repeats nothing whose
//! outcome it had recorded, says when it will be through, and can be taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use tidegate::simulator::Arrival;

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
/// `in_flight_max` of each service, and the tracks of one of its calls.
const WIRE: [(&str, usize, usize); 4] = [("spotify", 4, 25), ("apple", 4, 15), ("youtube", 10, 1), ("tidal", 4, 20)];
/// How well the end is foretold: to this share of what is left.
const FORETOLD: f64 = 0.1;
/// In this share of the answers.
const ANSWERS: f64 = 0.9;
/// It went first, and belongs to no run.
const URGENT: &str = "urgent-track";

#[test]
fn music_enforcement_survives_three_kills_and_is_taken_back() {
    let Ran { folder, said } = run("examples/music-enforcement/README.md", &[]);
    let (said, arrivals) = (plain(&said), arrivals(folder.path(), "arrivals.jsonl"));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let kills: Vec<i64> = read("kills.log").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(kills.len(), 3);

    each_track_is_out_once_and_back_once(&arrivals);
    what_goes_again_was_on_the_wire(&arrivals, &kills, &read("calls.jsonl"));
    the_urgent_track_goes_first(&arrivals, &read("progress.jsonl"));
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

    // What services say is heard: Apple counts down from 1,000.
    assert!(said.lines().any(|line| line.starts_with("apple/app ") && line.contains(" of 1,000")), "{said}");

    // Of all answers, those before the kills among them.
    let killed = progress(folder.path(), "progress.jsonl");
    foretold("of the run", &killed);
    let undone = progress(folder.path(), "undo.jsonl");
    foretold("of the undo", &undone);
    assert_eq!((killed.last().unwrap().delivered, killed.last().unwrap().dead), (TRACKS - GONE, GONE));
    assert_eq!(undone.last().unwrap().delivered, TRACKS - GONE);
}

/// A record of a call: the call, its id, and where it stands in it.
fn records(arrivals: &[Arrival]) -> impl Iterator<Item = (&Arrival, &str, usize)> {
    arrivals.iter().flat_map(|a| a.records.iter().enumerate().map(move |(at, id)| (a, id.as_str(), at)))
}

/// By the services' books: what changed, not what was sent.
fn each_track_is_out_once_and_back_once(arrivals: &[Arrival]) {
    let mut changes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (arrival, id, _) in records(arrivals).filter(|(a, _, at)| a.changed(*at)) {
        changes.entry(id).or_default().push(&arrival.method);
    }
    assert_eq!(changes.remove(URGENT), Some(vec!["DELETE"]));
    assert_eq!(changes.len(), TRACKS - GONE, "every track but those that are gone");
    let other: Vec<_> = changes.iter().filter(|(_, methods)| methods[..] != ["DELETE", "PUT"]).take(5).collect();
    assert!(other.is_empty(), "expected to be out once and back once: {other:?}");
}

/// A track that a service had taken was sent again only if nobody can have known that it had: its call was open at a kill.
fn what_goes_again_was_on_the_wire(arrivals: &[Arrival], kills: &[i64], journal: &str) {
    // By service and kill: the calls, and the tracks of them that went again.
    let mut lost: BTreeMap<(&str, usize), (BTreeSet<u64>, usize)> = BTreeMap::new();
    let mut first: BTreeMap<(&str, &str), &Arrival> = BTreeMap::new();
    for (arrival, id, at) in records(arrivals).filter(|(a, _, at)| a.took(*at)) {
        let Some(earlier) = first.insert((arrival.method.as_str(), id), arrival) else { continue };
        assert!(!arrival.changed(at), "{id} was out already");
        let near = |k: &&i64| (*k - ON_THE_WIRE_US.0..*k + ON_THE_WIRE_US.1).contains(&earlier.at_us);
        let kill = kills.iter().position(|k| near(&k));
        let kill =
            kill.unwrap_or_else(|| panic!("{id} was taken at {} and sent again, kills at {kills:?}", earlier.at_us));
        let service = WIRE.iter().find(|(name, ..)| earlier.path.starts_with(&format!("/{name}/"))).unwrap().0;
        let (calls, tracks) = lost.entry((service, kill)).or_default();
        calls.insert(earlier.number);
        *tracks += 1;
    }
    let crashed: Vec<Value> = journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let crashed: Vec<&Value> = crashed.iter().filter(|call: &&Value| call["ending"] == "ENDING_CRASHED").collect();
    for (service, in_flight, size) in WIRE {
        let of = crashed.iter().filter(|call| call["provider"] == service);
        let open: usize = of.map(|call| call["jobCount"].as_u64().unwrap() as usize).sum();
        let mut again = 0;
        for (at, (calls, tracks)) in lost.iter().filter(|((name, _), _)| *name == service) {
            assert!(calls.len() <= in_flight, "{at:?}: {} calls went again", calls.len());
            assert!(*tracks <= in_flight * size, "{at:?}: {tracks} tracks went again");
            again += tracks;
        }
        eprintln!("{service}: {again} of the {open} tracks on the wire at the kills were sent twice");
        assert!(again <= open, "{service}: {again} tracks went again, {open} were in calls that crashed");
    }
}

/// It is asked for while others wait for the same limit, and leaves before most of them.
fn the_urgent_track_goes_first(arrivals: &[Arrival], progress: &str) {
    let removed = |a: &&Arrival| a.method == "DELETE" && a.path.starts_with("/youtube/") && a.status == 200;
    let order: Vec<&str> = arrivals.iter().filter(removed).map(|a| a.records[0].as_str()).collect();
    let after = order.len() - order.iter().position(|id| *id == URGENT).unwrap();
    eprintln!("{after} tracks at YouTube left after the urgent one, of {}", order.len());
    assert!(after > 100, "{after} left after the urgent one, of {}\n{progress}", order.len());
}

/// One answer of a run.
struct Progress {
    /// Seconds since 1970, as `forecast`.
    asked: f64,
    forecast: Option<f64>,
    finished: Option<f64>,
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
                finished: run["finishTime"].as_str().map(seconds),
                delivered: count("delivered"),
                dead: count("dead"),
            }
        })
        .collect();
    assert!(seen.len() > 10, "{name}: {} answers", seen.len());
    assert!(seen.windows(2).all(|w| w[0].delivered <= w[1].delivered && w[0].dead <= w[1].dead), "{name}: {text}");
    seen
}

fn foretold(what: &str, seen: &[Progress]) {
    let ended = seen.last().unwrap().finished.expect("the last answer is about the end");
    let (mut good, mut all, mut told) = (0, 0, String::new());
    for p in seen.iter().filter(|p| p.asked < ended) {
        let left = ended - p.asked;
        let error = p.forecast.map_or(f64::INFINITY, |forecast| (forecast - ended).abs());
        all += 1;
        good += usize::from(error <= FORETOLD * left);
        told += &format!("{left:.1} s left: {error:.2} s off\n");
    }
    eprintln!("{what}: {good} of {all} answers foretold the end to {FORETOLD} of what was left");
    assert!(good as f64 >= ANSWERS * all as f64, "{what}: {good} of {all} answers were near enough:\n{told}");
}
