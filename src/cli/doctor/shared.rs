//! The servers that daemons share: do they answer, and may they hold jobs and limits?
//!
//! Must never know: how findings are shown.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::{Finding, Level};
use crate::app::reveal;
use crate::clock::Clock;
use crate::config::Address;
use crate::limiter::RedisLimiter;
use crate::limiter::redis::{Level as RedisLevel, Settings};
use crate::store::postgres::{PgOptions, PgStore};

/// Clocks of the servers and of this machine that differ by more than this are worth a look: windows are counted by Redis
/// alone, but due times are wall times of the daemons.
const CLOCKS_APART: Duration = Duration::from_secs(1);

/// Schema, durability and clock of the database, which is looked at and left as it is.
pub async fn postgres(address: &Address) -> Finding {
    let failed = |said: String| Finding::new("store", Level::Fail, said);
    let url = match reveal(address) {
        Ok(url) => url,
        Err(e) => return failed(e.to_string()),
    };
    let look = match PgStore::look(PgOptions::new(url.expose_secret())).await {
        Ok(look) => look,
        Err(e) => return failed(e.to_string()),
    };
    let known = look.schema_known;
    let schema = match look.schema {
        None => format!("no schema yet, a start makes {known}"),
        Some(schema) if schema > known => {
            let said = format!("expected schema {known} or older, got {schema}");
            return failed(format!(
                "{}: {said}; install the version of tidegate that wrote it, or a newer one",
                look.kind
            ));
        }
        Some(schema) if schema < known => format!("schema {schema}, a start of this version brings it to {known}"),
        Some(schema) => format!("schema {schema}"),
    };
    let said = format!("{}, read back: {}; {schema}", look.kind, look.durability);
    let shared = look.now;
    let here = Clock::system().now();
    let apart = shared.since(here).max(here.since(shared));
    if apart > CLOCKS_APART {
        let said =
            format!("{said}; its clock and this machine's are {:.1} s apart: set both by NTP", apart.as_secs_f64());
        return Finding::new("store", Level::Warn, said);
    }
    Finding::new("store", Level::Ok, said)
}

/// Eviction, persistence and role of Redis.
pub async fn redis(address: &Address, ca_file: Option<&PathBuf>) -> Vec<Finding> {
    let failed = |said: String| vec![Finding::new("limiter", Level::Fail, said)];
    let url = match reveal(address) {
        Ok(url) => url,
        Err(e) => return failed(e.to_string()),
    };
    let settings = Settings { ca_file: ca_file.cloned(), ..Settings::default() };
    let limiter = match RedisLimiter::connect(url.expose_secret(), Clock::system(), settings) {
        Ok(limiter) => limiter,
        Err(e) => return failed(e.to_string()),
    };
    match limiter.check().await {
        Err(e) => failed(e.to_string()),
        Ok(found) => {
            let level = |level| match level {
                RedisLevel::Fine => Level::Ok,
                RedisLevel::Warning => Level::Warn,
                RedisLevel::Refused => Level::Fail,
            };
            let told =
                found.into_iter().map(|f| Finding::new("limiter", level(f.level), format!("{}: {}", f.about, f.text)));
            told.collect()
        }
    }
}
