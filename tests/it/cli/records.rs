//! `tidegate records`, `schedules` and `runs undo` against a real daemon: tables, JSON, refusals and how each ends.

use serde_json::Value;

use super::House;

const COLLECTIONS: &str = r#"
[collections.orders]
indexes = ["status"]
[collections.orders.push]
operation = "crm/sync"
watch = ["status"]
[collections.orders.aggregates.by_status]
group_by = ["status"]
sum = ["amount"]
min_max = ["amount"]

[collections.items]
[collections.items.pull]
operation = "crm/list_items"
"#;

/// Stands in the provider's own table, so what is a table of its own comes last.
const OPERATIONS: &str = r#"
[providers.crm.operations.list_items]
request = "GET /items"
pages = { items = "/data", next = "link", size = 10, size_param = "per_page" }
[providers.crm.operations.remove]
request = "DELETE /users/{key}"
undo = "sync"
"#;

fn house() -> House {
    House::with(&["--list", "/items=link:25/10"], COLLECTIONS, OPERATIONS)
}

impl House {
    fn json(&self, args: &[&str]) -> Value {
        let text = self.good(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
    }

    /// The cells of a table's lines, the header first.
    fn cells(&self, args: &[&str]) -> Vec<Vec<String>> {
        let text = self.good(args);
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }
}

#[test]
fn records_are_put_listed_summed_and_deleted() {
    let house = house();
    let put = |id: &str, data: &str| house.good(&["records", "put", "orders", id, "-d", data]);
    assert!(put("o1", r#"{"status":"open","amount":2.5}"#).starts_with("changed o1 version 1 "), "a push is named");
    put("o2", r#"{"status":"open","amount":4}"#);
    put("o3", r#"{"status":"paid","amount":1}"#);
    assert_eq!(put("o3", r#"{"amount":1,"status":"paid"}"#), "unchanged o3 version 1");
    let list = ["records", "list", "orders", "--filter", "status = open"];
    let cells = house.cells(&list);
    assert_eq!((cells[0][0].as_str(), cells.len()), ("ID", 3), "{cells:?}");
    assert_eq!([&cells[1][0], &cells[2][0]], ["o1", "o2"]);
    let json = house.json(&list);
    let record = &json["records"][0];
    assert_eq!((record["id"].as_str(), record["version"].as_str()), (Some("o1"), Some("1")), "{json}");
    let sums = house.cells(&["records", "aggregate", "orders", "by_status"]);
    assert_eq!(sums[0].join(" "), "STATUS COUNT SUM AMOUNT MIN AMOUNT MAX AMOUNT");
    assert_eq!([sums[1].join(" "), sums[2].join(" ")], ["open 2 6.5 2.5 4", "paid 1 1 1 1"]);
    let json = house.json(&["records", "aggregate", "orders", "by_status", "--top", "1"]);
    assert_eq!(json["groups"].as_array().map(Vec::len), Some(1), "{json}");
    assert_eq!(json["groups"][0]["measures"][0]["sum"].as_str(), Some("6.5"), "{json}");
    house.good(&["records", "delete", "orders", "o2", "--expect", "1"]);
    assert_eq!(house.good(&["records", "list", "orders", "-o", "name"]), "o1\no3");

    house.check(&["records", "get", "orders", "o2"], 3, "no record orders/o2");
    house.check(&["records", "list", "nothing"], 3, "no collection nothing");
    house.check(&["records", "list", "orders", "--filter", "amount = 1"], 2, "declared are [status]");
    house.check(&["records", "put", "orders", "o4", "-d", "[1]"], 2, "expected");
    house.check(&["records", "put", "orders", "o1", "-d", "{}", "--expect", "7"], 8, "version");
    house.check(&["records", "aggregate", "orders", "by_day"], 2, "declared are [by_status]");
    house.check(&["records", "aggregate", "orders", "by_status", "--window", "1d"], 2, "has no time");
    house.check(&["records", "pull", "orders"], 8, "pull");
}

#[test]
fn a_pull_is_waited_for_and_shown_with_its_collection() {
    let house = house();
    let said = house.good(&["records", "pull", "items", "--wait"]);
    assert!(said.contains("of items is done") && said.contains("25 items, 25 changed"), "{said}");
    let cells = house.cells(&["records", "collections"]);
    let items = cells.iter().find(|cells| cells[0] == "items").unwrap_or_else(|| panic!("{cells:?}"));
    assert_eq!((items[1].as_str(), items.last().map(String::as_str)), ("25", Some("crm/list_items")), "{cells:?}");
    let json = house.json(&["records", "collections"]);
    let all = json["collections"].as_array().unwrap();
    let items = all.iter().find(|collection| collection["name"] == "items").unwrap();
    assert_eq!(items["pull"]["state"].as_str(), Some("PULL_STATE_DONE"), "{json}");
    house.check(&["records", "pull", "nothing"], 3, "no collection nothing");
}

#[test]
fn a_schedule_is_made_changed_run_held_and_forgotten() {
    let house = house();
    let schedule = |verb: &'static str, cron: &'static str| {
        ["schedules", verb, "nightly", "--cron", cron, "--zone", "Europe/Berlin", "--job", "crm/sync", "--key", "n"]
    };
    house.good(&schedule("create", "0 3 * * *"));
    house.check(&schedule("create", "0 3 * * *"), 8, "is there already");
    house.good(&schedule("update", "30 3 * * *"));
    let json = house.json(&["schedules", "get", "nightly"]);
    let spec = &json["schedules"][0]["spec"];
    assert_eq!((spec["cron"].as_str(), spec["zone"].as_str()), (Some("30 3 * * *"), Some("Europe/Berlin")), "{json}");
    house.good(&["schedules", "run", "nightly"]);
    let run = house.json(&["schedules", "get", "nightly"])["schedules"][0]["lastRunId"].clone();
    assert!(
        house.good(&["runs", "get", run.as_str().unwrap()]).contains("nightly"),
        "the run that was started is named"
    );
    assert!(house.good(&["schedules", "pause", "nightly"]).contains("paused"));
    let list = house.good(&["schedules", "list"]);
    assert!(list.starts_with("NAME") && list.contains("crm/sync") && list.contains("paused"), "{list}");
    assert!(!house.good(&["schedules", "resume", "nightly"]).contains("paused"));
    house.good(&["schedules", "delete", "nightly"]);
    house.check(&["schedules", "list"], 0, "no schedules");
    for verb in ["get", "pause", "resume", "run", "delete"] {
        house.check(&["schedules", verb, "nightly"], 3, "no schedule nightly");
    }
    house.check(&schedule("create", "61 * * * *"), 2, "61");
    house.check(
        &["schedules", "create", "x", "--cron", "@daily", "--job", "crm/nothing"],
        2,
        "has no operation nothing",
    );
    house.check(&["schedules", "create", "x", "--cron", "@daily"], 2, "--job");
}

#[test]
fn a_run_is_taken_back_once_it_has_ended_and_only_when_that_was_meant() {
    let house = house();
    std::fs::write(house.folder.path().join("jobs.jsonl"), "{\"key\":\"a\"}\n{\"key\":\"b\"}\n").unwrap();
    let create = ["runs", "create", "jobs.jsonl", "--target", "crm/remove", "-o", "name"];
    let open = house.good(&[&create[..], &["--keep-open"]].concat());
    house.check(&["runs", "undo", &open, "--yes"], 8, "let it end");
    let run = house.good(&[&create[..], &["--wait"]].concat());
    house.check(&["runs", "undo", &run, "--dry-run"], 0, "2 delivered jobs will be undone");
    // Nobody sits at the terminal of a test.
    house.check(&["runs", "undo", &run], 2, "nobody can be asked");
    let json = house.json(&["runs", "undo", &run, "--yes"]);
    let undone = &json["runs"][0];
    assert_eq!((undone["undoOfRunId"].as_str(), undone["jobCount"].as_str()), (Some(&*run), Some("2")), "{json}");
    let again = house.good(&["runs", "undo", &run, "--yes", "-o", "name"]);
    assert_eq!(Some(&*again), undone["id"].as_str(), "asked again it is the same run");
    let table = house.good(&["runs", "undo", &run, "--yes"]);
    assert!(table.starts_with("ID") && table.contains(&again), "{table}");
    house.check(&["runs", "undo", &again, "--dry-run"], 8, "crm/sync");
    house.check(&["runs", "undo", "019aa8c2-7d31-7123-8000-00000000002a", "--yes"], 3, "no run");
}
