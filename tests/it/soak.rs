//! A daemon under steady load for days of its own time: what it stores turns over, and nothing grows for ever.
//!
//! Time is scaled where it can be: the wall clock is set a day ahead each minute, so that days of finished jobs are made
//! and dropped, and what is kept for a day (jobs, dead letters, events, runs, flows, idempotency keys) is kept for a
//! minute. On SQLite it is the daemon's clock. On PostgreSQL it is the database's, which a daemon takes over when it
//! starts: so it is started again each day. Ended calls are kept by the steady clock, which on SQLite nobody can set: for
//! a minute too, by configuration. PostgreSQL's vacuum looks each second in place of each minute, the least it can be set
//! to: at its own pace it would come once in a scaled day, and once is when the tables are largest.
//!
//! A day is over after so many jobs, which come at 200 a second: a minute, or more where the machine does something else
//! as well, so that each day holds the same. `TIDEGATE_SOAK_MINUTES` is how many there are; without it a short form shows
//! that days are made and everything flows.

use std::path::Path;
use std::time::Duration;

use tidegate::clock::Clock;

use crate::support::left_out;
use crate::support::process::{Daemon, Place, Provider, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Postgres;
use crate::torture::number;
use crate::torture_clock::{faked_clock, libfaketime, step};

mod load;
mod sizes;

use load::Load;
use sizes::Sizes;

const DAY_SECONDS: i64 = 86_400;
/// A day that is not over by then is stuck.
const DAY_MAX: Duration = Duration::from_secs(600);
/// What is compared with what comes later. By then everything has turned over a few times.
const WARM_MINUTES: usize = 5;
/// Growth that is allowed between the two.
const GROWTH_MAX: f64 = 1.10;
/// Below this a table is a few pages, and its size says nothing.
const SMALL_BYTES: u64 = 512 << 10;

const RETENTION: &str = "[retention]\nfinished = \"24h\"\ndead = \"24h\"\nevents = \"24h\"\ncalls = \"1m\"\n\n";

/// Wide enough for the load; the accounts are counted each, so that their limits come and go with them.
fn declaration(base_url: &str) -> String {
    format!(
        r#"{RETENTION}[providers.crm]
base_url = "{base_url}"
allow_private = true

[providers.crm.operations.sync]
request = "PUT /users/{{key}}"
body = "{{payload}}"
coalesce = "replace"
limits = [{{ name = "single", max = 60, per = "1s" }}]

[providers.crm.operations.sync.batch]
request = "POST /users/batch"
body = {{ users = "{{payloads}}" }}
size = 20
limits = [{{ name = "batch", max = 10, per = "1s" }}]
result = {{ each = "$.results[*]", key = "/id", failed_if = "/error" }}

[providers.crm.operations.step]
request = "PUT /steps/{{key}}"
body = "{{payload}}"
limits = [{{ name = "steps", max = 600, per = "10s", scope = "account" }}]
retry = {{ base = "200ms", cap = "2s", attempts = 8 }}

[providers.crm.operations.event]
request = "POST /events"
body = "{{payload}}"
repeat = "always"
limits = [{{ name = "events", max = 400, per = "1s" }}]
"#
    )
}

/// Jobs of a scaled day, and how many days.
fn days() -> (u64, usize, bool) {
    match number("TIDEGATE_SOAK_MINUTES", 0) {
        0 => (600, 3, false),
        minutes => (12_000, minutes as usize, true),
    }
}

async fn provider() -> Provider {
    let flags = ["--latency", "5ms", "--errors", "0.02", "--record-failures", "0.01", "--poison", "bad"];
    Provider::start(&flags, Path::new("/dev/null")).await
}

/// Lets days pass over the daemon under load, and looks at the sizes at the end of each. `again`: a day begins with a
/// start of the daemon.
async fn soak(
    place: &Place,
    again: bool,
    mut measure: impl AsyncFnMut(&Daemon) -> Sizes,
    mut set_clock: impl AsyncFnMut(i64),
) {
    let (day, count, long) = days();
    let mut daemon = place.start().await;
    let (load, mut seen) = (Load::start(daemon.channel()), Vec::new());
    for n in 1..=count {
        let is_over = async || (load.accepted() >= day * n as u64).then_some(());
        until(DAY_MAX, is_over).await.expect("the load is taken");
        let sizes = measure(&daemon).await;
        eprintln!("day {n}: {sizes}");
        seen.push(sizes);
        let ahead = DAY_SECONDS * n as i64;
        if !again {
            set_clock(ahead).await;
            continue;
        }
        load.daemon(None);
        assert!(daemon.stop().await, "expected a clean end:\n{}", place.log_tail());
        set_clock(ahead).await;
        daemon = place.start().await;
        load.daemon(Some(daemon.channel()));
    }
    let made = load.stop().await;
    let counts = daemon.drained("crm", Duration::from_secs(120)).await.expect("everything ends");
    let ended = counts.delivered + counts.dead;
    assert!(daemon.stop().await, "expected a clean end:\n{}", place.log_tail());
    eprintln!("{made} jobs made, {ended} delivered or dead, {} unknown", counts.unknown);
    assert_eq!((counts.unknown, counts.cancelled), (0, 0));
    assert!(ended as u64 >= made && counts.dead > 0, "{counts:?} of {made}");
    if long {
        let findings = Sizes::grown(&seen, WARM_MINUTES, GROWTH_MAX, SMALL_BYTES);
        assert!(findings.is_empty(), "after {WARM_MINUTES} minutes still growing: {findings:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn days_of_steady_load_do_not_make_postgres_grow() {
    let Some(library) = libfaketime() else { return left_out("the soak, as libfaketime is not installed") };
    let (folder, redis) = (tempfile::tempdir().unwrap(), RedisServer::start().await);
    let (database, provider) = (Postgres::with_a_clock(library), provider().await);
    database.set("autovacuum_naptime", "1s").await;
    let place = Place::shared(folder.path(), "d1", database.url(), &redis.url(), &declaration(&provider.base_url));
    let mut days = std::collections::BTreeSet::new();
    let measure = async |daemon: &Daemon| {
        let mut sizes = sizes::of_postgres(&mut database.connect().await, &mut days).await;
        sizes.add("(redis)", redis.number("memory", "used_memory"));
        sizes.add("(resident)", daemon.resident_bytes());
        sizes
    };
    let set_clock = async |seconds| {
        step(&database.clock(), seconds);
        let about = Clock::system().now() + Duration::from_secs(seconds.unsigned_abs());
        let there = until(Duration::from_secs(10), async || {
            let now = sqlx::query_scalar::<_, i64>("select extract(epoch from clock_timestamp())::bigint");
            let now = now.fetch_one(&mut database.connect().await).await.unwrap();
            (now >= about.0 / 1_000_000 - 10).then_some(())
        });
        there.await.expect("the clock of PostgreSQL is set");
    };
    soak(&place, true, measure, set_clock).await;
    assert!(days.len() >= self::days().1, "a day of finished jobs each: {days:?}");
    provider.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn days_of_steady_load_do_not_make_the_sqlite_file_grow() {
    let Some(library) = libfaketime() else { return left_out("the soak, as libfaketime is not installed") };
    let (folder, provider) = (tempfile::tempdir().unwrap(), provider().await);
    let mut place = Place::new(folder.path(), folder.path(), &declaration(&provider.base_url));
    let clock = folder.path().join("clock");
    place.env = faked_clock(library, &clock);
    let measure = async |daemon: &Daemon| {
        let mut sizes = Sizes::default();
        let bytes = |name| std::fs::metadata(folder.path().join(name)).map_or(0, |m| m.len());
        sizes.add("tidegate.db", bytes("tidegate.db"));
        sizes.add("tidegate.db-wal", bytes("tidegate.db-wal"));
        sizes.add("(resident)", daemon.resident_bytes());
        sizes
    };
    soak(&place, false, measure, async |seconds| step(&clock, seconds)).await;
    provider.stop().await;
}
