//! The command line against a real daemon and a real simulator: exit codes, formats, refusals.
//!
//! `House` starts both on free ports and ends them. Must never know: gRPC. Next: `readme.rs`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

mod records;

const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

/// A program that is ended when the test is.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon and the provider that it calls.
struct House {
    folder: tempfile::TempDir,
    address: String,
    // Held open: a program whose output nobody takes would stop when the pipe is full.
    _daemon: (Running, BufReader<ChildStderr>),
    _provider: (Running, BufReader<ChildStdout>),
}

impl House {
    fn open() -> House {
        House::with(&[], "", "")
    }

    /// With flags for the simulator, and more for the daemon's file and the provider's.
    fn with(simulate: &[&str], config: &str, provider_more: &str) -> House {
        let folder = tempfile::tempdir().unwrap();
        let mut provider = command(folder.path())
            .args(["simulate", "--listen", "127.0.0.1:0", "--latency", "1ms", "--tail-share", "0"])
            .args(simulate)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(provider.stdout.take().unwrap());
        let base_url = line(&mut said);
        let provider = (Running(provider), said);
        std::fs::create_dir(folder.path().join("providers.d")).unwrap();
        std::fs::write(folder.path().join("tidegate.toml"), config).unwrap();
        declare(folder.path(), &base_url, provider_more);
        let mut daemon = command(folder.path())
            .args(["serve", "--config", "tidegate.toml"])
            .args(["--set", "server.listen=127.0.0.1:0", "--set", "http.listen=127.0.0.1:0"])
            .args(["--set", "server.socket=none", "--set", "log.level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(daemon.stderr.take().unwrap());
        // `tidegate: gRPC on 127.0.0.1:40001, HTTP on 127.0.0.1:40002`: jobs are accepted from here on.
        let listening = line(&mut said);
        let address = listening.split([' ', ',']).find(|word| word.starts_with("127.")).unwrap_or_default().to_owned();
        assert!(!address.is_empty(), "the daemon said: {listening}");
        House { folder, address, _daemon: (Running(daemon), said), _provider: provider }
    }

    fn run(&self, args: &[&str]) -> Output {
        command(self.folder.path()).env("TIDEGATE_ADDR", &self.address).args(args).output().unwrap()
    }

    /// Runs to a good end and gives what was printed.
    fn good(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
    }

    fn check(&self, args: &[&str], code: i32, said: &str) {
        check(&self.run(args), args, code, said);
    }
}

fn check(out: &Output, args: &[&str], code: i32, said: &str) {
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {out:?}");
    assert!(stderr.contains(said), "{args:?}: {said:?} is not in {stderr}");
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(TIDEGATE);
    command.current_dir(folder).env_remove("XDG_RUNTIME_DIR").env_remove("TIDEGATE_ADDR").stdin(Stdio::null());
    // Contexts of the person at this machine are none of ours.
    command.env("XDG_CONFIG_HOME", folder);
    command
}

fn line(from: &mut impl BufRead) -> String {
    let mut text = String::new();
    from.read_line(&mut text).unwrap();
    text.trim_end().to_owned()
}

fn declare(folder: &Path, base_url: &str, more: &str) {
    let text = format!(
        "[providers.crm]\nbase_url = \"{base_url}\"\nallow_private = true\n{more}\n\
         [providers.crm.operations.sync]\nrequest = \"PUT /users/{{key}}\"\nbody = \"{{payload}}\"\n"
    );
    std::fs::write(folder.join("providers.d/crm.toml"), text).unwrap();
}

#[test]
fn every_end_has_its_exit_code_and_one_clear_sentence() {
    let house = House::open();
    let done = house.good(&["enqueue", "crm/sync", "--key", "a", "-d", "{\"id\":\"a\"}", "--wait", "-o", "name"]);
    let later = house.good(&["enqueue", "crm/sync", "--key", "b", "--delay", "1h", "-o", "name"]);
    house.check(&["enqueue", "crm"], 2, "expected PROVIDER/OPERATION");
    house.check(&["enqueue", "crm/sync", "-d", "{nonsense"], 2, "expected a JSON document");
    house.check(&["enqueue", "crm/nothing"], 3, "nothing");
    house.check(&["jobs", "list", "--filter", "state ="], 2, "");
    house.check(&["jobs", "get", "019aa8c2-7d31-7123-8000-00000000002a"], 3, "no job");
    house.check(&["jobs", "wait", &later, "--timeout", "100ms"], 6, "the time was up");
    house.check(&["jobs", "edit", &done, "--priority", "urgent"], 8, "delivered");
    house.check(&["jobs", "cancel", "--filter", "key = \"b\""], 2, "--yes");
    house.check(&["jobs", "cancel", "01a3185c-cbf7-7000-8000-00000000ffff"], 3, "no job");
    house.good(&["jobs", "cancel", &later]);
    house.check(&["jobs", "wait", &later], 7, "did not end delivered");
    house.check(&["--addr", "127.0.0.1:1", "jobs", "list"], 5, "no daemon answers");
    house.check(&["check-config", "nothing.toml"], 78, "nothing.toml");
}

#[test]
fn data_goes_to_stdout_in_the_form_asked_for() {
    let house = House::open();
    let id = house.good(&["enqueue", "crm/sync", "--key", "a", "--delay", "1h", "--label", "team=x", "-o", "name"]);
    assert_eq!(house.good(&["jobs", "list", "--filter", "labels.team = \"x\"", "-o", "name"]), id);
    let json: serde_json::Value = serde_json::from_str(&house.good(&["jobs", "get", &id, "-o", "json"])).unwrap();
    assert_eq!((json["job"]["id"].as_str(), json["job"]["state"].as_str()), (Some(&*id), Some("JOB_STATE_WAITING")));
    let list: serde_json::Value = serde_json::from_str(&house.good(&["jobs", "list", "-o", "json"])).unwrap();
    assert_eq!(list["jobs"].as_array().map(Vec::len), Some(1));
    let table = house.good(&["jobs", "list"]);
    assert!(table.starts_with("ID") && table.contains(&id) && table.contains("crm/sync"), "{table}");
    assert!(house.good(&["jobs", "explain", &id]).contains("due"), "an explanation names the due time");
    assert!(house.good(&["providers", "status", "crm"]).starts_with("crm: 1 waiting"));
    assert!(house.good(&["workers"]).contains("synchronous"));
    let events = house.good(&["events", "tail", "--no-follow", "-o", "jsonl"]);
    assert!(events.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()) && events.contains(&id));
}

#[test]
fn a_wait_names_the_state_that_it_is_for() {
    let house = House::open();
    let args = ["enqueue", "crm/sync", "--key", "a", "--delay", "1h", "--wait=waiting", "-o", "name"];
    let id = house.good(&args);
    assert!(house.good(&["jobs", "get", &id]).contains("waiting"));
    let never = ["enqueue", "crm/sync", "--key", "b", "--delay", "1h", "--wait", "--timeout", "100ms"];
    house.check(&never, 6, "the time was up");
    house.check(&["enqueue", "crm/sync", "--wait=gone"], 2, "possible values");
}

#[test]
fn a_named_daemon_is_asked_without_its_address() {
    let house = House::open();
    let here = |args: &[&str]| command(house.folder.path()).args(args).output().unwrap();
    let named = |args: &[&str]| String::from_utf8(here(args).stdout).unwrap().trim_end().to_owned();
    assert_eq!(here(&["context", "set", "ours", &house.address]).status.code(), Some(0));
    check(&here(&["context", "use", "theirs"]), &["context", "use"], 3, "there are: ours");
    assert_eq!(here(&["context", "use", "ours"]).status.code(), Some(0));
    assert_eq!(named(&["context", "list", "-o", "name"]), "ours");
    assert_eq!(named(&["providers", "list", "-o", "name"]), "crm");
    // An address that is given goes before the context.
    check(&here(&["--addr", "127.0.0.1:1", "jobs", "list"]), &["jobs", "list"], 5, "no daemon answers");
    assert_eq!(here(&["context", "delete", "ours"]).status.code(), Some(0));
    assert_eq!(named(&["context", "list", "-o", "json"]), "{\n  \"contexts\": []\n}");
}

#[test]
fn what_is_watched_is_shown_again() {
    let house = House::open();
    let mut watch = command(house.folder.path())
        .env("TIDEGATE_ADDR", &house.address)
        .args(["providers", "list", "--watch", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(watch.stdout.take().unwrap());
    let _watch = Running(watch);
    assert_eq!((line(&mut said), line(&mut said)), ("crm".to_owned(), "crm".to_owned()));
}

#[test]
fn a_short_demo_loses_nothing_and_is_refused_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["demo", "--json", "--updates", "2000", "--users", "1500", "--window", "3"];
    let out = command(folder.path()).args(args).output().unwrap();
    check(&out, &args, 0, "provider: ");
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((report["lost"].as_u64(), report["refused"].as_u64()), (Some(0), Some(0)), "{report:#}");
    assert!(report["records_delivered"].as_u64() > Some(1_000), "{report:#}");
}

#[test]
fn the_manual_has_every_key_and_is_a_good_configuration_itself() {
    let folder = tempfile::tempdir().unwrap();
    let manual = command(folder.path()).args(["check-config", "--manual"]).output().unwrap();
    assert!(manual.status.success());
    std::fs::write(folder.path().join("tidegate.toml"), &manual.stdout).unwrap();
    std::fs::create_dir(folder.path().join("providers.d")).unwrap();
    let args = ["check-config", "tidegate.toml"];
    check(&command(folder.path()).args(args).output().unwrap(), &args, 0, "is good");
}

#[test]
fn a_profile_is_found_by_its_name_and_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| command(folder.path()).args(args).output().unwrap();
    let listed = String::from_utf8(run(&["init", "--list", "-o", "name"]).stdout).unwrap();
    assert!(listed.lines().count() >= 12 && listed.lines().any(|name| name == "github"), "{listed}");
    let table = String::from_utf8(run(&["init", "--list"]).stdout).unwrap();
    assert!(table.contains("GitHub REST API. Profile 3"), "{table}");
    let args = ["init", "--provider", "gitlab"];
    check(&run(&args), &args, 3, "tidegate init --list");
    let args = ["init", "--provider", "github", "--provider", "slack"];
    check(&run(&args), &args, 0, "name your credentials");
    check(&run(&args), &args, 8, "nothing was written");
    let args = ["check-config", "--without-secrets", "tidegate.toml"];
    check(&run(&args), &args, 0, "is good");
}

#[test]
fn a_run_is_fed_from_a_file_and_refused_lines_are_told_by_their_number() {
    let house = House::open();
    let lines = "{\"key\":\"a\",\"payload\":{\"id\":\"a\"}}\nnonsense\n{\"key\":\"b\",\"payload\":{\"id\":\"b\"}}\n";
    std::fs::write(house.folder.path().join("jobs.jsonl"), lines).unwrap();
    house.check(
        &["runs", "create", "jobs.jsonl", "--target", "crm/sync", "--wait"],
        1,
        "line 2: expected a JSON object",
    );
    let run = house.good(&["runs", "list", "-o", "name"]);
    let json: serde_json::Value = serde_json::from_str(&house.good(&["runs", "get", &run, "-o", "jsonl"])).unwrap();
    let (state, delivered) =
        (json["runs"][0]["state"].as_str().or(json["state"].as_str()), &json["counts"]["delivered"]);
    assert_eq!((state, delivered.as_str()), (Some("RUN_STATE_FINISHED"), Some("2")), "{json}");
}

#[test]
fn a_bad_reload_is_refused_with_every_mistake_and_changes_nothing() {
    let house = House::open();
    let before = house.good(&["providers", "get", "crm"]);
    let base_url = before.split('"').nth(1).unwrap_or_default().to_owned();
    declare(house.folder.path(), &base_url, "limts = [\"5/s\"]\nin_flight_max = 0");
    let args = ["reload"];
    let out = house.run(&args);
    check(&out, &args, 78, "nothing was changed");
    check(&out, &args, 78, "limts");
    check(&out, &args, 78, "expected a whole number from 1 to 4096, got 0");
    assert_eq!(house.good(&["providers", "get", "crm"]), before);
    declare(house.folder.path(), &base_url, "limits = [\"5/s\"]");
    assert!(house.good(&["reload"]).contains("crm"));
    assert!(house.good(&["limits", "list", "-o", "json"]).contains("5/1s"));
}

#[test]
fn the_doctor_finds_a_daemon_and_a_missing_secret() {
    let house = House::open();
    let out = house.run(&["doctor", "--config", "tidegate.toml", "-o", "json"]);
    let found: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).unwrap();
    let level = |check: &str| {
        let finding = found.iter().find(|f| f["check"] == check);
        finding.and_then(|f| f["level"].as_str()).unwrap_or("none").to_owned()
    };
    assert_eq!((level("configuration"), level("credentials"), level("store")), ("ok".into(), "ok".into(), "ok".into()));
    declare(house.folder.path(), "http://127.0.0.1:9", "auth = { bearer = { file = \"/nowhere/key\" } }");
    house.check(&["doctor", "--config", "tidegate.toml"], 1, "");
}

#[test]
fn the_call_log_is_listed_and_exported() {
    let house = House::open();
    house.good(&["enqueue", "crm/sync", "--key", "u1", "-d", "{}", "--wait"]);
    house.good(&["call", "crm/sync", "--key", "u2", "-d", "{}"]);
    let rows = |args: &[&str]| house.good(args).lines().map(str::to_owned).collect::<Vec<_>>();
    // The end of a call that is waited for is written after its answer was told.
    let listed = (0..200).map(|_| rows(&["calls", "list", "--filter", "status = 200"])).find(|rows| rows.len() == 3);
    let listed = listed.expect("two calls under a header");
    assert!(listed[0].starts_with("CALL") && listed[1].contains("crm/sync"), "{listed:?}");
    let exported = rows(&["calls", "export"]);
    let calls: Vec<serde_json::Value> = exported.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_jobs: Vec<i64> = calls.iter().map(|call| call["jobCount"].as_i64().unwrap_or(0)).collect();
    assert_eq!(of_jobs, [0, 1], "newest first: {exported:?}");
    assert!(calls.iter().all(|call| call["latency"].as_str().is_some_and(|l| l.ends_with('s'))), "{exported:?}");
    let id = calls[1]["id"].as_str().unwrap();
    assert!(house.good(&["calls", "get", id]).contains("crm/sync"));
    house.check(&["calls", "get", "999999"], 3, "no call 999999");
    house.check(&["calls", "list", "--filter", "state = DEAD"], 2, "no field");
}
