//! The examples do what their READMEs say: the commands are run as they stand there (`readme.rs`), and what they left is
//! judged here by what the simulated provider saw.

use std::io::{BufRead, BufReader};
use std::path::Path;

use tidegate::simulator::Arrival;

use crate::support::redis::RedisServer;
use crate::support::servers::Database;

mod github;
mod items_gateway;
mod music;
mod orders;
mod user_sync;

/// The provider's log, in the order of arrival.
fn arrivals(folder: &Path, log: &str) -> Vec<Arrival> {
    let lines = BufReader::new(std::fs::File::open(folder.join(log)).unwrap()).lines();
    let mut found: Vec<Arrival> = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    found.sort_by_key(|arrival| (arrival.at_us, arrival.number));
    found
}

/// What the tables of a page say, with blanks of any length taken as one.
fn plain(said: &str) -> String {
    said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

/// Runs `check` with the settings of a daemon on a PostgreSQL and a Redis of its own.
async fn on_servers(check: impl FnOnce(&[(&str, String)]) + Send + 'static) {
    let (database, redis) = (Database::bare().await, RedisServer::start().await);
    let env = [
        ("TIDEGATE__STORE__KIND", "postgres".to_owned()),
        ("TIDEGATE__STORE__URL", database.url()),
        ("TIDEGATE__LIMITER__KIND", "redis".to_owned()),
        ("TIDEGATE__LIMITER__URL", redis.url()),
    ];
    tokio::task::spawn_blocking(move || check(&env)).await.unwrap();
}
