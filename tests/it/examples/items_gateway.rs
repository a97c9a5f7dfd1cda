//! `examples/items-gateway`: a killed pull leaves what an undisturbed one does, reads ask nobody, sums are right.

use std::collections::BTreeMap;

use super::{arrivals, plain};
use crate::readme::{Ran, run};

const ORDERS: u64 = 20_000;

#[test]
fn items_gateway_resumes_a_killed_pull_and_answers_from_what_it_has() {
    let Ran { folder, said } = run("examples/items-gateway/README.md", &[]);
    let (said, arrivals) = (plain(&said), arrivals(folder.path(), "arrivals.jsonl"));
    let done = "50 pages, 5,000 items, 5,000 changed, 0 deleted, 0 not taken";
    assert!(said.contains(&format!("pull 1 of items is done, which was running already: {done}")), "{said}");
    assert!(said.contains(&format!("pull 1 of items is done: {done}")), "{said}");

    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let (resumed, undisturbed) = (read("resumed.jsonl"), read("undisturbed.jsonl"));
    assert_eq!(resumed.lines().count(), 5_000);
    assert!(resumed == undisturbed, "a killed pull left something else than an undisturbed one");
    assert!(!resumed.contains("Time\""), "the times were to be left out: {}", resumed.lines().next().unwrap());

    let unchanged = "50 pages, 5,000 items, 0 changed, 0 deleted, 0 not taken";
    assert!(said.contains(&format!("pull 2 of items is done, which was running already: {unchanged}")), "{said}");

    // Three pulls, and one page twice at most.
    let pages = arrivals.iter().filter(|a| a.path == "/posts").count();
    assert!((150..=151).contains(&pages), "{pages} pages were fetched for 150");
    assert!(said.contains(&format!("\n\"arrivals\": {},\n", pages - 100)), "as the page counts: {said}");
    let singles = arrivals.iter().filter(|a| a.path == "/posts/7").count();
    assert_eq!(singles, 2, "of three calls one was answered from the cache");
    assert!(said.contains("\n\"times\": 2"), "{said}");
    let cached: Vec<&str> = said.lines().filter(|l| l.starts_with("200 (")).collect();
    assert_eq!(cached, ["200 (miss)", "200 (hit)", "200 (miss)"]);
    assert_eq!(arrivals.len(), pages + singles, "nothing else was asked");
    assert!(arrivals.iter().all(|a| a.status == 200), "no call is refused for a limit");

    // Reads, health.
    assert!(
        said.contains(r#""id":"i0000003""#) && said.contains(r#""data":{"id":"i0000007","name":"Item 7""#),
        "{said}"
    );
    assert!(said.contains("\nready") && said.contains("tidegate_attempts_total{"), "{said}");
    sums(&said);
}

/// The same sums as of the orders that the script put.
fn sums(said: &str) {
    // In cents.
    let mut spent: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for n in 1..=ORDERS {
        let (count, cents) = spent.entry(n * n % 200).or_default();
        (*count, *cents) = (*count + 1, *cents + (n % 90 + 10) * 100 + n % 100);
    }
    let mut first: Vec<(u64, u64, u64)> = spent.into_iter().map(|(id, (count, cents))| (cents, count, id)).collect();
    first.sort_unstable_by(|a, b| b.cmp(a));
    let listed: Vec<&str> =
        said.lines().skip_while(|line| !line.starts_with("CUSTOMER COUNT")).skip(1).take(5).collect();
    assert_eq!(listed.len(), 5, "{said}");
    for (line, (cents, count, _)) in listed.iter().zip(&first) {
        let cells: Vec<String> = line.split(' ').map(|cell| cell.replace(',', "")).collect();
        // Customers who spent the same may stand in either order.
        let (seen_count, sum): (u64, f64) = (cells[1].parse().unwrap(), cells[2].parse().unwrap());
        assert_eq!((seen_count, (sum * 100.0).round() as u64), (*count, *cents), "{line}");
    }
    let by_status: u64 = ["open", "paid", "sent", "returned"]
        .iter()
        .map(|status| {
            let line = said.lines().find(|line| line.starts_with(&format!("{status} "))).unwrap();
            line.split(' ').nth(1).unwrap().replace(',', "").parse::<u64>().unwrap()
        })
        .sum();
    // A half of 60 days, and the day in which the window begins.
    assert!((ORDERS / 2..=ORDERS * 32 / 60).contains(&by_status), "{by_status} orders of the last 30 days");
}
