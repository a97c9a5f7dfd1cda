//! `examples/items-gateway`: a killed pull leaves what an undisturbed one does, reads ask nobody, an alert comes and goes, sums
//! are those that a recount of all orders makes. On SQLite, and on PostgreSQL and Redis.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{arrivals, on_servers, plain};
use crate::readme::{Ran, run};

const ORDERS: usize = 20_000;
const PAGES: usize = 50;

#[test]
fn items_gateway_resumes_a_killed_pull_and_answers_from_what_it_has() {
    check(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_gateway_resumes_a_killed_pull_on_postgresql_and_redis() {
    on_servers(check).await;
}

fn check(env: &[(&str, String)]) {
    let Ran { folder, said } = run("examples/items-gateway/README.md", env);
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

    // Of four pulls the API saw each page once, and of the one that was killed one page twice at most.
    let pages = arrivals.iter().filter(|a| a.path == "/posts" && a.status == 200).count();
    assert!((4 * PAGES..=4 * PAGES + 1).contains(&pages), "{pages} pages were fetched for {}", 4 * PAGES);
    assert!(said.contains(&format!("\n\"arrivals\": {},\n", pages - 3 * PAGES)), "as the page counts: {said}");
    // While the API was down, the alert was raised, and cleared when it was back.
    assert!(said.contains(&format!("pull 3 of items is done, which was running already: {unchanged}")), "{said}");
    assert!(arrivals.iter().any(|a| a.status == 503), "the API was down");
    let (raised, cleared) = (said.find("alert-raised").unwrap(), said.find("alert-cleared").unwrap());
    assert!(raised < cleared, "{said}");
    assert!(said.contains(r#"tidegate_alert_raised{alert="posts_down",provider="jsonplaceholder"} 1"#), "{said}");
    assert!(said.lines().any(|l| l.starts_with('{') && l.contains("alert raised")), "a line of JSON: {said}");

    let singles = arrivals.iter().filter(|a| a.path == "/posts/7").count();
    assert_eq!(singles, 2, "of three calls one was answered from the cache");
    assert!(said.contains("\n\"times\": 2"), "{said}");
    let cached: Vec<&str> = said.lines().filter(|l| l.starts_with("200 (")).collect();
    assert_eq!(cached, ["200 (miss)", "200 (hit)", "200 (miss)"]);
    assert!(arrivals.iter().all(|a| a.path == "/posts" || a.path == "/posts/7"), "nothing else was asked");
    assert!(arrivals.iter().all(|a| a.status == 200 || a.status == 503), "no call is refused for a limit");

    // Reads, a watch, health.
    assert!(
        said.contains(r#""id":"i0000003""#) && said.contains(r#""data":{"id":"i0000007","name":"Item 7""#),
        "{said}"
    );
    assert!(said.lines().any(|l| l.starts_with("data:") && l.contains(r#""collection":"items""#)), "{said}");
    assert!(said.contains("\nready") && said.contains("tidegate_attempts_total{"), "{said}");
    // The command line writes a document as a text.
    let order = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        serde_json::from_str(record["data"].as_str().unwrap()).unwrap()
    };
    let orders: Vec<Value> = read("orders.jsonl").lines().map(order).collect();
    assert_eq!(orders.len(), ORDERS);
    let answer = |name: &str| serde_json::from_str::<Value>(&read(name)).unwrap();
    let (by_status, by_customer) = (answer("by_status.json"), answer("by_customer.json"));
    let start: jiff::Timestamp = by_status["startTime"].as_str().unwrap().parse().unwrap();
    let statuses = recount(&orders, "status", start.as_second());
    assert_eq!((sums(&by_status), statuses.len()), (statuses.clone(), 4));
    let of_the_window: u64 = statuses.values().map(|(count, _)| count).sum();
    // A half of 60 days, and the day in which the window begins.
    let window = ORDERS as u64 / 2..=ORDERS as u64 * 32 / 60;
    assert!(window.contains(&of_the_window), "{of_the_window} orders of the last 30 days");
    let customers = recount(&orders, "customer", 0);
    assert_eq!(sums(&by_customer), customers);
    first_five(&said, &customers);
}

/// Count and sum in cents, by group.
type Sums = BTreeMap<String, (u64, u64)>;

/// Of every order since then, one by one.
fn recount(orders: &[Value], field: &str, since: i64) -> Sums {
    let mut sums = Sums::new();
    for data in orders {
        if data["created_at"].as_i64().unwrap() >= since {
            let (count, cents) = sums.entry(data[field].as_str().unwrap().to_owned()).or_default();
            (*count, *cents) = (*count + 1, *cents + in_cents(data["amount"].as_f64().unwrap()));
        }
    }
    sums
}

fn in_cents(amount: f64) -> u64 {
    (amount * 100.0).round() as u64
}

/// As they were answered. A group is the JSON of its values.
fn sums(answer: &Value) -> Sums {
    let group = |group: &Value| {
        let text = group["group"].as_str().unwrap();
        let values: Value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
        let name = values.as_array().map_or(&values, |values| &values[0]).as_str().unwrap().to_owned();
        let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
        (name, (number(&group["count"]) as u64, in_cents(number(&group["measures"][0]["sum"]))))
    };
    answer["groups"].as_array().unwrap().iter().map(group).collect()
}

/// The table of those who spent most.
fn first_five(said: &str, customers: &Sums) {
    let mut most: Vec<(u64, u64)> = customers.values().map(|(count, cents)| (*cents, *count)).collect();
    most.sort_unstable_by(|a, b| b.cmp(a));
    let listed: Vec<&str> =
        said.lines().skip_while(|line| !line.starts_with("CUSTOMER COUNT")).skip(1).take(5).collect();
    assert_eq!(listed.len(), 5, "{said}");
    for (line, (cents, count)) in listed.iter().zip(&most) {
        let cells: Vec<String> = line.split(' ').map(|cell| cell.replace(',', "")).collect();
        // Customers who spent the same may stand in either order.
        assert_eq!((in_cents(cells[2].parse().unwrap()), cells[1].parse().unwrap()), (*cents, *count), "{line}");
    }
}
