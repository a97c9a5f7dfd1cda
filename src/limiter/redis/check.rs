//! May this server hold limits? What its settings mean for the promise, for `doctor` and for the start.
//!
//! Must never know: limits. Next: docs/decisions/0020-one-hash-per-provider.md.

use std::time::Duration;

use super::link::{Link, LinkError};
use crate::clock::Timestamp;

const CLOCKS_APART: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Fine,
    /// The promise holds; something costs more than it must.
    Warning,
    /// The promise could break. Do not start.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub about: &'static str,
    /// What was found, and what to do.
    pub text: String,
}

fn finding(level: Level, about: &'static str, text: impl Into<String>) -> Finding {
    Finding { level, about, text: text.into() }
}

/// `now`: the wall time here.
pub(super) async fn findings(link: &dyn Link, now: Timestamp) -> Result<Vec<Finding>, LinkError> {
    let mut findings = Vec::new();
    for info in link.info("server").await? {
        findings.push(version(&info));
        findings.extend(clock(&info, now));
    }
    for info in link.info("replication").await? {
        if field(&info, "role").is_some_and(|role| role != "master") {
            let text = "this is a replica, and limits are written; name its primary";
            findings.push(finding(Level::Refused, "role", text));
        }
    }
    for policy in link.setting("maxmemory-policy").await? {
        findings.push(match policy.as_deref() {
            Some("noeviction") => finding(Level::Fine, "maxmemory-policy", "noeviction"),
            Some(other) => finding(
                Level::Refused,
                "maxmemory-policy",
                format!("{other}: counts may be thrown away while the server runs; set maxmemory-policy noeviction"),
            ),
            None => {
                finding(Level::Warning, "maxmemory-policy", "the server does not tell; make sure that it is noeviction")
            }
        });
    }
    for aof in link.setting("appendonly").await? {
        findings.push(match aof.as_deref() {
            Some("yes") => finding(Level::Fine, "appendonly", "yes"),
            _ => finding(
                Level::Warning,
                "appendonly",
                "off or unknown: after a restart all limits are rebuilt from the journal; set appendonly yes",
            ),
        });
    }
    Ok(findings)
}

fn version(info: &str) -> Finding {
    // Valkey tells the Redis version that it speaks for, and its own beside it.
    let redis = field(info, "redis_version").unwrap_or("unknown");
    let name = match field(info, "valkey_version") {
        Some(valkey) => format!("Valkey {valkey}"),
        None => format!("Redis {redis}"),
    };
    let major = redis.split('.').next().and_then(|m| m.parse::<u32>().ok()).unwrap_or(0);
    if major >= 7 {
        finding(Level::Fine, "version", name)
    } else {
        // Before 7 scripts outlive a restart, so a restart between two calls could go unnoticed.
        finding(Level::Refused, "version", format!("{name}: version 7 or later is needed"))
    }
}

/// Windows are counted by the server's clock alone, so a difference exceeds no limit; but one that is off may be set right
/// by a step, and a step forward ends windows early.
fn clock(info: &str, now: Timestamp) -> Option<Finding> {
    let there = Timestamp(field(info, "server_time_usec")?.parse().ok()?);
    let apart = there.since(now).max(now.since(there));
    let said = format!("its clock and this machine's are {:.1} s apart", apart.as_secs_f64());
    Some(match apart > CLOCKS_APART {
        true => finding(Level::Warning, "clock", format!("{said}: set both by NTP, which slews and does not step")),
        false => finding(Level::Fine, "clock", said),
    })
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
