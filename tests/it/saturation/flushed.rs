//! Redis is flushed every two seconds under full load, and that changes nothing but times: no window above its number,
//! nothing sent twice, and what was waiting still uses the limits up.
//!
//! `TIDEGATE_FLUSH_SECONDS` is the window, and half of the time that Redis is flushed: 6 by default, 60 in full.

use std::time::Duration;

use super::{Stage, declaration, fill, findings, most_in_any};
use crate::torture::number;

const EVERY: Duration = Duration::from_secs(2);
/// A limit that is asked for all the time, so that every flush is met soon.
const TICKS: u64 = 5;
/// Part of the tightest limit that must be used in windows of a minute. In short ones a busy machine decides what is.
const USED_MIN: f64 = 0.99;

fn with_ticks(base_url: &str, window: u64) -> String {
    let ticks = format!(
        r#"
[providers.crm.operations.tick]
request = "POST /ticks/{{account}}"
body = "{{payload}}"
limits = [{{ name = "ticks", max = {TICKS}, per = "1s", scope = "account" }}]
"#
    );
    declaration(base_url, window) + &ticks
}

#[tokio::test(flavor = "multi_thread")]
async fn flushing_redis_every_two_seconds_changes_nothing_but_times() {
    let seconds = number("TIDEGATE_FLUSH_SECONDS", 6);
    let stage = Stage::start(|base_url| with_ticks(base_url, seconds)).await;
    fill(&stage.daemons[0], "tick", "steady", TICKS * (seconds * 3 + 30)).await;
    stage.fill(seconds, 4).await;
    let epoch = async || {
        let asked = sqlx::query_scalar::<_, i64>("select epoch from meta");
        asked.fetch_one(&mut stage.database.connect().await).await.unwrap()
    };
    let (before, flushes) = (epoch().await, (2 * seconds).div_ceil(EVERY.as_secs()) + 1);
    let mut ticks = tokio::time::interval(EVERY);
    for _ in 1..=flushes {
        ticks.tick().await;
        stage.redis.command(&["FLUSHALL"]);
    }
    let raised = (epoch().await - before).unsigned_abs();
    let seen = stage.end().await;
    eprintln!("{flushes} flushes, {raised} rebuilds");
    // One that comes in the middle of a rebuild is one with it; none is worth two.
    assert!((flushes / 2..=flushes).contains(&raised), "{raised} rebuilds for {flushes} flushes");
    let mut findings = findings(&seen, seconds, 1, if seconds >= 60 { USED_MIN } else { 0.0 });
    let steady = &seen.times[&("ticks".to_owned(), "steady".to_owned())];
    let most = most_in_any(steady, 1_000_000);
    if most > TICKS as usize {
        findings.push(format!("ticks: {most} in a second of {TICKS}"));
    }
    assert!(findings.is_empty(), "{findings:#?}");
}
