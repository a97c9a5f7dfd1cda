//! `tidegate limits` and `tidegate breakers`: what holds the work back, and until when.
//!
//! Must never know: how limits are counted. Next: `providers.rs`.

use clap::Subcommand;

use super::again::Again;
use super::connect::Daemon;
use super::exit::{Error, Exit};
use super::output::Output;
use super::providers::{all, sentence, status_of};
use super::show::{self, Rows, Times};
use crate::grpc::pb;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List every limit with what is used, on the wire, and free.
    ///
    /// Example: `tidegate limits list crm`
    List {
        /// Only limits of this provider.
        provider: Option<String>,
        #[command(flatten)]
        again: Again,
    },
    /// Say when each provider's backlog is through, and which limit decides it.
    ///
    /// Example: `tidegate limits forecast`
    Forecast {
        /// Only this provider.
        provider: Option<String>,
        #[command(flatten)]
        again: Again,
    },
}

#[derive(Debug, Subcommand)]
pub enum BreakerVerb {
    /// List the breakers of all providers, and of credentials that do not work.
    ///
    /// Example: `tidegate breakers list`
    List {
        #[command(flatten)]
        again: Again,
    },
    /// Close the breaker of a provider by hand.
    ///
    /// Example: `tidegate breakers reset crm`
    Reset {
        /// Name of the provider.
        provider: String,
    },
}

pub async fn run(verb: Verb, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let (provider, again, rows): (_, _, fn(&[pb::ProviderStatus], bool) -> Rows) = match verb {
        Verb::List { provider, again } => (provider, again, table),
        Verb::Forecast { provider, again } => (provider, again, forecast),
    };
    let look = async || {
        let statuses = statuses(provider.clone(), daemon).await?;
        output.list(("ProviderStatus", "statuses"), &statuses, |s| s.name.clone(), rows)?;
        Ok(Exit::Done)
    };
    again.show(output, look).await
}

pub async fn breakers(verb: BreakerVerb, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let again = match verb {
        BreakerVerb::List { again } => again,
        BreakerVerb::Reset { provider } => return reset(provider, daemon, output).await,
    };
    let look = async || {
        let statuses = statuses(None, daemon).await?;
        output.list(("ProviderStatus", "statuses"), &statuses, |s| s.name.clone(), breaker_table)?;
        Ok(Exit::Done)
    };
    again.show(output, look).await
}

async fn reset(provider: String, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let request = pb::ResetBreakerRequest { name: provider.clone() };
    let breaker = daemon.providers().reset_breaker(request).await?.into_inner().breaker.unwrap_or_default();
    if !output.message("Breaker", &breaker)? {
        output.say(&format!("the breaker of {provider} is {}", state(&breaker)));
    }
    Ok(Exit::Done)
}

async fn statuses(provider: Option<String>, daemon: &Daemon) -> Result<Vec<pb::ProviderStatus>, Error> {
    let names = match provider {
        Some(name) => vec![name],
        None => all(daemon).await?.into_iter().map(|p| p.name).collect(),
    };
    let mut found = Vec::new();
    for name in names {
        found.push(status_of(&name, daemon).await?);
    }
    Ok(found)
}

/// One row per limit.
pub fn table(statuses: &[pb::ProviderStatus], wide: bool) -> Rows {
    let times = Times::new(wide);
    let mut header =
        vec!["LIMIT", "DECLARED", "USED", "IN FLIGHT", "FREE", "MAX", "NEXT FREE", "BLOCKED UNTIL", "PROVIDER SAYS"];
    if wide {
        header.push("KEY");
    }
    let mut rows = Rows::new(&header);
    for status in statuses {
        for limit in &status.limits {
            let mut cells = vec![
                format!("{}/{}", status.name, limit.name),
                declared_text(limit),
                show::count(limit.used),
                show::count(limit.in_flight),
                show::count(limit.free),
                show::count(limit.max),
                times.show(limit.next_free_time.as_ref()),
                times.show(limit.blocked_until_time.as_ref()),
                limit.told.as_ref().map(|told| told_text(told, times)).unwrap_or_default(),
            ];
            if wide {
                cells.push(limit.key.clone());
            }
            rows.add(cells);
        }
    }
    rows
}

/// `100/1s, learned 24`.
fn declared_text(limit: &pb::LimitStatus) -> String {
    let learned = limit.refused_at_max.map(|_| format!(", learned {}", show::count(limit.max)));
    format!("{}{}", limit.declared, learned.unwrap_or_default())
}

/// `4,987 of 5,000, more in 12m`.
fn told_text(told: &pb::ToldLimit, times: Times) -> String {
    let left = told.remaining.map_or_else(|| "?".to_owned(), show::count);
    let of = told.max.map(|max| format!(" of {}", show::count(max))).unwrap_or_default();
    let reset = told.reset_time.as_ref().map(|at| format!(", more {}", times.show(Some(at)))).unwrap_or_default();
    format!("{left}{of}{reset}")
}

fn forecast(statuses: &[pb::ProviderStatus], wide: bool) -> Rows {
    let mut rows = Rows::new(&["PROVIDER", "WAITING", "SENDING/S", "ALLOWED/S", "THROUGH", "BOUND BY", "SENTENCE"]);
    let times = Times::new(wide);
    for s in statuses {
        rows.add([
            s.name.clone(),
            show::count(s.counts.unwrap_or_default().waiting),
            format!("{:.2}", s.sending_per_second),
            s.allowed_per_second.map(|a| format!("{a:.2}")).unwrap_or_default(),
            times.show(s.drain_time.as_ref()),
            s.bound_by.clone(),
            sentence(s),
        ]);
    }
    rows
}

fn breaker_table(statuses: &[pb::ProviderStatus], wide: bool) -> Rows {
    let times = Times::new(wide);
    let mut rows = Rows::new(&["PROVIDER", "BREAKER", "FAILURES", "OPENED", "NEXT PROBE", "LAST ERROR"]);
    for status in statuses {
        let breaker = status.breaker.clone().unwrap_or_default();
        rows.add([
            status.name.clone(),
            state(&breaker),
            breaker.failures_in_a_row.to_string(),
            times.show(breaker.open_time.as_ref()),
            times.show(breaker.probe_time.as_ref()),
            breaker.last_error.clone(),
        ]);
        for credential in &status.credentials {
            let breaker = credential.breaker.clone().unwrap_or_default();
            let whose = if credential.account.is_empty() { "(own credential)" } else { &credential.account };
            rows.add([
                format!("{}/{whose}", status.name),
                state(&breaker),
                breaker.failures_in_a_row.to_string(),
                times.show(breaker.open_time.as_ref()),
                times.show(breaker.probe_time.as_ref()),
                breaker.last_error.clone(),
            ]);
        }
    }
    rows
}

fn state(breaker: &pb::Breaker) -> String {
    show::word(breaker.state().as_str_name(), "STATE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_providers_own_numbers_stand_in_the_last_column() {
        let told =
            |reset_time| pb::ToldLimit { max: Some(5_000), remaining: Some(4_987), reset_time, heard_time: None };
        let limit = pb::LimitStatus { name: "core".into(), told: Some(told(None)), ..Default::default() };
        let status = pb::ProviderStatus { name: "github".into(), limits: vec![limit.clone()], ..Default::default() };
        let shown = table(&[status], false).text();
        assert!(shown.lines().next().unwrap().ends_with("PROVIDER SAYS"), "{shown}");
        assert!(shown.ends_with("4,987 of 5,000"), "{shown}");
        let learned = pb::LimitStatus { declared: "100/1s".into(), max: 24, refused_at_max: Some(34), ..limit };
        assert_eq!(declared_text(&learned), "100/1s, learned 24");
        let reset_time = Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 });
        let text = told_text(&told(reset_time), Times::new(true));
        assert_eq!(text, "4,987 of 5,000, more 2027-01-15T08:00:00Z");
    }
}
