//! The daemon killed again and again under load: nothing acknowledged is lost, nothing is sent after its success, no
//! window is exceeded, and duplicates appear only where they are declared.
//!
//! 15 rounds by default, `TIDEGATE_TORTURE_ROUNDS` in full; `TIDEGATE_TORTURE_SEED` replays the choice of moments.

use std::path::Path;
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::simulator::Report;
use tidegate::simulator::dice::Dice;

use crate::support::checker::{Findings, check};
use crate::support::history::{Declared, DeclaredLimit, Entry, History, JobRow};
use crate::support::load::Load;
use crate::support::process::{Daemon, Place, Provider};

/// Windows of the torture: short, so that each is used many times between two kills.
const WINDOW: Duration = Duration::from_secs(2);
/// Batch calls, single calls, events and steps per window.
const LIMITS: [(&str, u32, &str); 4] = [
    ("batch", 10, "POST /users/batch"),
    ("single", 100, "PUT /users/*"),
    ("events", 100, "POST /events"),
    ("steps", 200, "PUT /steps/*"),
];
/// Jobs per second of the load: about half of what the limits allow.
const LOAD: f64 = 200.0;
/// How long a daemon lives before it is killed.
const LIFE_MS: (u64, u64) = (50, 700);
/// For the backlog to drain when the faults have stopped. A safety net: it takes a few seconds.
const DRAIN_MAX: Duration = Duration::from_secs(120);

/// The provider as the daemon knows it: the same limits.
pub fn declaration(base_url: &str) -> String {
    format!(
        r#"
[providers.crm]
base_url = "{base_url}"
allow_private = true
timeouts = {{ connect = "2s", first_byte = "5s", total = "5s" }}

[providers.crm.operations.sync_user]
request = "PUT /users/{{key}}"
body = "{{payload}}"
coalesce = "replace"
repeat = "always"
limits = [{{ name = "single", max = 100, per = "2s" }}]
retry = {{ base = "100ms", cap = "1s", attempts = 12 }}

[providers.crm.operations.sync_user.batch]
request = "POST /users/batch"
body = {{ users = "{{payloads}}" }}
size = 50
limits = [{{ name = "batch", max = 10, per = "2s" }}]
result = {{ each = "$.results[*]", key = "/id", failed_if = "/error" }}

[providers.crm.operations.log_step]
request = "PUT /steps/{{key}}"
body = "{{payload}}"
limits = [{{ name = "steps", max = 200, per = "2s" }}]
retry = {{ base = "100ms", cap = "1s", attempts = 12 }}

[providers.crm.operations.post_event]
request = "POST /events"
body = "{{payload}}"
limits = [{{ name = "events", max = 100, per = "2s" }}]
retry = {{ base = "100ms", cap = "1s", attempts = 12 }}
"#
    )
}

pub async fn provider(folder: &Path, faults: &[&str]) -> Provider {
    let limit = |(name, max, place)| format!("{name}=rolling:{max}/{}ms@{place}", WINDOW.as_millis());
    let limits: Vec<String> = LIMITS.into_iter().map(limit).collect();
    let mut flags = vec!["--latency", "5ms", "--tail", "100ms"];
    flags.extend(limits.iter().flat_map(|l| ["--limit", l.as_str()]));
    flags.extend(faults);
    Provider::start(&flags, &folder.join("arrivals.jsonl")).await
}

pub fn declared() -> Declared {
    let window_us = WINDOW.as_micros() as u64;
    let limit = |(name, max, _): (&str, u32, &str)| DeclaredLimit { name: name.to_owned(), max, window_us };
    Declared {
        limits: LIMITS.into_iter().map(limit).collect(),
        repeat_safe: true,
        coalesce: true,
        one_shot: vec!["e".to_owned()],
        every_change: vec!["s".to_owned()],
        attempts_max: 12,
        give_up_us: 5_000_000,
        // Three processes read one machine's clock; a busy machine may stamp late.
        skew_us: 50_000,
        drained: true,
    }
}

pub async fn judge(
    folder: &Path,
    daemon: Daemon,
    provider: Provider,
    entries: Vec<Entry>,
    drain_max: Duration,
) -> (Findings, Report) {
    let (history, report) = gather(folder, daemon, provider, entries, drain_max).await;
    (check(&history), report)
}

/// What was seen by all, brought together: waits for the drain, stops everybody, reads what the daemon has.
pub async fn gather(
    folder: &Path,
    daemon: Daemon,
    provider: Provider,
    entries: Vec<Entry>,
    drain_max: Duration,
) -> (History, Report) {
    let mut history = History::new(declared());
    history.entries.extend(entries);
    if let Err(left) = daemon.drained("crm", drain_max).await {
        eprintln!("not drained: {left:?}");
    }
    for job in daemon.all_jobs().await {
        history.push(Entry::Job(row(&job)));
    }
    if let Some(c) = daemon.counts("crm").await {
        let jobs = c.waiting + c.calling + c.unknown + c.delivered + c.dead + c.cancelled;
        history.push(Entry::Counted { jobs: jobs.try_into().expect("counts are not negative") });
    }
    daemon.stop().await;
    let report = provider.stop().await;
    history.add_arrivals(&folder.join("arrivals.jsonl")).unwrap();
    history.write(&folder.join("history.jsonl")).unwrap();
    (history, report)
}

fn row(job: &tidegate::grpc::pb::Job) -> JobRow {
    let state = job.state().as_str_name().trim_start_matches("JOB_STATE_").to_lowercase();
    let micros = |t: &prost_types::Timestamp| t.seconds * 1_000_000 + i64::from(t.nanos) / 1_000;
    JobRow {
        job: job.id.clone(),
        state,
        attempts: job.attempts.try_into().unwrap_or(0),
        finished_at_us: job.finish_time.as_ref().map(micros),
    }
}

/// Some milliseconds between two bounds.
pub fn between((least, most): (u64, u64), dice: &mut Dice) -> Duration {
    Duration::from_millis(least + dice.below(most - least))
}

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Keeps the folder of a run that went wrong.
pub fn conclude(folder: tempfile::TempDir, findings: &Findings, report: &Report, seed: u64) {
    eprintln!("seed {seed}: {findings}\n{report}");
    if !findings.violations.is_empty() {
        let kept = folder.keep();
        panic!("seed {seed}, kept in {}: {findings}", kept.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_repeated_or_overrun_when_the_daemon_is_killed_under_load() {
    let (rounds, seed) = (number("TIDEGATE_TORTURE_ROUNDS", 15), number("TIDEGATE_TORTURE_SEED", 1));
    let (folder, clock, mut dice) = (tempfile::tempdir().unwrap(), Clock::system(), Dice::new(seed));
    let provider =
        provider(folder.path(), &["--errors", "0.03", "--resets", "0.02", "--record-failures", "0.01"]).await;
    let place = Place::new(folder.path(), folder.path(), &declaration(&provider.base_url));
    let (load, mut entries) = (Load::start(seed, LOAD), Vec::new());
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds {
        let daemon = place.start().await;
        slowest = slowest.max(daemon.ready_after);
        load.daemon(Some(daemon.channel()));
        let life = Duration::from_millis(LIFE_MS.0 + dice.below(LIFE_MS.1 - LIFE_MS.0));
        tokio::time::sleep(life).await;
        entries.push(Entry::Killed { at_us: daemon.kill(&clock).await.0 });
        load.daemon(None);
    }
    let daemon = place.start().await;
    entries.extend(load.stop().await);
    let (findings, report) = judge(folder.path(), daemon, provider, entries, DRAIN_MAX).await;
    eprintln!("{rounds} rounds, slowest start {slowest:?}");
    assert_eq!(findings.kills as u64, rounds);
    assert!(findings.acked as u64 > 10 * rounds, "hardly any load: {findings}");
    assert!(findings.taken as u64 > 5 * rounds, "hardly anything was sent: {findings}");
    assert_eq!(report.refused as usize, findings.refused);
    conclude(folder, &findings, &report, seed);
}
