//! Records: sums and pages of a collection that holds a million of them, on SQLite and on a PostgreSQL of the bench's own.
//!
//! Aggregates are kept by every write, so what is asked here must not depend on the number of records. Next: `daemon`.

use std::time::Duration;

use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::super::exit::Error;
use super::super::output::Output;
use super::daemon::Daemon;
use super::servers::Servers;
use super::{Figure, percentiles, print};
use crate::clock::Clock;
use crate::grpc::pb;
use crate::grpc::pb::record_service_client::RecordServiceClient;

/// Records of one PutRecords call, and calls under way at one time.
const PORTION: u64 = 1_000;
const PORTIONS_AT_ONCE: u64 = 4;
/// Questions of each kind, one after the other.
const ASKED: u64 = 500;
/// Connections that ask for pages, each for one after the other.
const READERS: u64 = 8;
const STATUSES: [&str; 4] = ["open", "paid", "sent", "returned"];
const CUSTOMERS: u64 = 10_000;
/// Times 61 days: nearly as many groups times buckets as one window may read.
const SHOPS: u64 = 48;
/// Records are spread over so many days before now.
const DAYS: u64 = 60;
const DAY_SECONDS: u64 = 86_400;

type Records = RecordServiceClient<Channel>;

const DECLARED: &str = r#"
[collections.orders]
indexes = ["customer"]

[collections.orders.aggregates.by_status]
group_by = ["status"]
sum = ["amount"]
min_max = ["amount"]
time = "created_at"
bucket = "1d"

[collections.orders.aggregates.by_customer]
group_by = ["customer"]
sum = ["amount"]
order_by = "amount"

[collections.orders.aggregates.by_shop]
group_by = ["shop"]
sum = ["amount"]
order_by = "amount"
time = "created_at"
bucket = "1d"
"#;

#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub records: u32,
    /// How long each kind of page is read.
    pub length: Duration,
}

/// SQLite first; then PostgreSQL, which must be there unless `optional`.
pub async fn measure(size: Size, optional: bool, output: &Output) -> Result<Vec<Figure>, Error> {
    of_one("SQLite", None, size, output).await?;
    match Servers::start().await {
        Ok(servers) => of_one("PostgreSQL", Some(&servers), size, output).await?,
        Err(missing) if optional => output.say(&format!("left out: {missing}")),
        Err(missing) => return Err(missing),
    }
    Ok(Vec::new())
}

async fn of_one(store: &str, servers: Option<&Servers>, size: Size, output: &Output) -> Result<(), Error> {
    let records = u64::from(size.records) / PORTION * PORTION;
    let daemon = Daemon::start_on(servers, DECLARED).await?;
    let client = || RecordServiceClient::new(daemon.channel.clone()).max_decoding_message_size(16 << 20);
    output.say(&format!("{store}: putting {records} records ..."));
    let took = fill(&client(), &daemon.clock, records).await?;
    print(output, &Figure::rate(format!("{store}: PutRecords of 1,000, {PORTIONS_AT_ONCE} at once"), records, took))?;
    let name = |what: &str| format!("{store}, {records} records: {what}");
    for (what, request) in questions() {
        let times = aggregates(&client(), &daemon.clock, &request, records).await?;
        show(&name(what), times, output)?;
    }
    // A small run has not all of them.
    let customers = CUSTOMERS.min(records);
    for (what, customers, page) in [
        ("ListRecords, 50", None, 50),
        ("ListRecords, 1,000", None, 1_000),
        ("ListRecords, filtered, 50", Some(customers), 50),
    ] {
        let (rate, times) = pages(&daemon, size.length, page, customers).await?;
        print(output, &Figure::new(name(&format!("{what} a page, {READERS} readers")), rate, "/s"))?;
        show(&name(what), times, output)?;
    }
    print(output, &Figure::new(name("memory of the daemon"), daemon.memory_mb(), "MB"))?;
    daemon.stop().await;
    Ok(())
}

fn show(name: &str, times: Vec<Duration>, output: &Output) -> Result<(), Error> {
    let (p50, p99) = percentiles(times);
    print(output, &Figure::new(format!("{name}: p50"), p50, "ms"))?;
    print(output, &Figure::new(format!("{name}: p99"), p99, "ms"))
}

async fn fill(client: &Records, clock: &Clock, records: u64) -> Result<Duration, Error> {
    let (started, now) = (clock.steady(), clock.now().micros() as u64 / 1_000_000);
    let mut tasks = JoinSet::new();
    for lane in 0..PORTIONS_AT_ONCE {
        let mut client = client.clone();
        tasks.spawn(async move {
            for portion in (lane..records / PORTION).step_by(PORTIONS_AT_ONCE as usize) {
                let records = (portion * PORTION..(portion + 1) * PORTION).map(|n| record(n, now)).collect();
                client.put_records(pb::PutRecordsRequest { collection: "orders".to_owned(), records }).await?;
            }
            Ok::<(), Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|e| Error::failed(e.to_string()))??;
    }
    Ok(clock.steady().since(started))
}

fn record(n: u64, now: u64) -> pb::RecordSpec {
    let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let shop = (scattered >> 40) % SHOPS;
    let created_at = now - scattered % (DAYS * DAY_SECONDS);
    let data = format!(
        r#"{{"id":"o{n}","customer":"c{}","shop":"s{shop}","status":"{}","amount":{}.{:02},"created_at":{created_at}}}"#,
        n % CUSTOMERS,
        STATUSES[(scattered >> 32) as usize % STATUSES.len()],
        scattered >> 54,
        n % 100,
    );
    pb::RecordSpec { id: format!("o{n:09}"), data, expected_version: None }
}

fn questions() -> [(&'static str, pb::AggregateRecordsRequest); 4] {
    let ask = |aggregate: &str, days: i64, top| pb::AggregateRecordsRequest {
        collection: "orders".to_owned(),
        aggregate: aggregate.to_owned(),
        window: (days > 0).then_some(prost_types::Duration { seconds: days * DAY_SECONDS as i64, nanos: 0 }),
        top,
        ..Default::default()
    };
    [
        ("count, sum, min, max by status", ask("by_status", 0, 0)),
        ("the same in the last 30 days", ask("by_status", 30, 0)),
        ("the 5 shops of 48 that sold most in 60 days", ask("by_shop", DAYS as i64, 5)),
        ("the 5 customers of 10,000 who spent most", ask("by_customer", 0, 5)),
    ]
}

async fn aggregates(
    client: &Records,
    clock: &Clock,
    request: &pb::AggregateRecordsRequest,
    records: u64,
) -> Result<Vec<Duration>, Error> {
    let (mut client, mut times) = (client.clone(), Vec::with_capacity(ASKED as usize));
    for _ in 0..ASKED {
        let started = clock.steady();
        let answer = client.aggregate_records(request.clone()).await?.into_inner();
        times.push(clock.steady().since(started));
        if answer.groups.is_empty() {
            return Err(Error::failed(format!("{} of a full collection is empty", request.aggregate)));
        }
        // A quick answer counts if it is right: all groups over all time are all records.
        let counted: i64 = answer.groups.iter().map(|group| group.count).sum();
        if request.top == 0 && request.window.is_none() && counted != records as i64 {
            return Err(Error::failed(format!("expected {records} records in {}, got {counted}", request.aggregate)));
        }
    }
    Ok(times)
}

/// Pages one after the other by each reader, from the first on; or the first page of one of so many customers after the other.
async fn pages(
    daemon: &Daemon,
    length: Duration,
    page_size: i32,
    customers: Option<u64>,
) -> Result<(f64, Vec<Duration>), Error> {
    let mut readers = JoinSet::new();
    let started = daemon.clock.steady();
    for reader in 0..READERS {
        let (channel, clock) = (daemon.another_channel().await?, daemon.clock.clone());
        let mut client = RecordServiceClient::new(channel).max_decoding_message_size(16 << 20);
        readers.spawn(async move {
            let (mut times, mut asked, mut next) = (Vec::new(), 0, String::new());
            while clock.steady() < started + length {
                let customer = customers.map(|all| (reader + READERS * asked) % all);
                let filter = customer.map(|n| format!("customer = \"c{n}\"")).unwrap_or_default();
                // A token belongs to its filter.
                let page_token = if filter.is_empty() { std::mem::take(&mut next) } else { String::new() };
                let collection = "orders".to_owned();
                let request = pb::ListRecordsRequest { collection, filter, page_size, page_token };
                let sent = clock.steady();
                let page = client.list_records(request).await?.into_inner();
                times.push(clock.steady().since(sent));
                if page.records.is_empty() {
                    return Err(Error::failed("a page of a full collection is empty"));
                }
                (asked, next) = (asked + 1, page.next_page_token);
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = readers.join_next().await {
        times.extend(done.map_err(|e| Error::failed(e.to_string()))??);
    }
    Ok((times.len() as f64 / daemon.clock.steady().since(started).as_secs_f64(), times))
}
