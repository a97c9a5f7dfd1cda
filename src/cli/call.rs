//! `tidegate call PROVIDER/OP` and `tidegate cache`: an answer at once, limited and cached.
//!
//! Must never know: how answers are kept. Next: `schedules.rs`.

use std::time::Duration;

use clap::Subcommand;

use super::args::{self, Priority, Target};
use super::connect::Daemon;
use super::exit::{Error, Exit};
use super::output::{Format, Output};
use super::show;
use crate::grpc::pb;
use crate::grpc::pb::invalidate_cache_request::Which;

#[derive(Debug, clap::Args)]
pub struct Call {
    /// What to call, as `github/list_repos`: a provider and an operation with a single lane.
    #[arg(value_parser = args::target, value_name = "PROVIDER/OP")]
    target: Target,
    /// The payload, for `{payload}` in templates: a JSON text, `@file`, or `-` for stdin. Default: null.
    #[arg(short, long, value_name = "JSON")]
    data: Option<String>,
    /// For `{key}` in templates.
    #[arg(long)]
    key: Option<String>,
    /// Credential or customer id under the provider; cached answers are one account's own.
    #[arg(long)]
    account: Option<String>,
    /// For `{tenant}` in templates.
    #[arg(long)]
    tenant: Option<String>,
    /// Which reserves of the limits it may use.
    #[arg(long, value_enum, default_value_t = Priority::Urgent)]
    priority: Priority,
    /// How long to wait for the limits at most, up to 5m.
    #[arg(long, default_value = "30s", value_parser = args::duration, value_name = "TIME")]
    wait: Duration,
    /// Where its answer is cached, a word. Default: the provider's name.
    #[arg(long, value_name = "WORD")]
    namespace: Option<String>,
    /// Do not take a cached answer.
    #[arg(long)]
    fresh: bool,
    /// Print status and headers too, on stderr.
    #[arg(short, long)]
    include: bool,
}

impl Call {
    pub async fn run(self, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
        let text = |value: Option<String>| value.unwrap_or_default();
        let request = pb::CallRequest {
            provider: self.target.provider,
            operation: self.target.operation,
            account: text(self.account),
            tenant: text(self.tenant),
            key: text(self.key),
            payload: self.data.as_deref().map(args::payload).transpose()?.unwrap_or_default(),
            priority_class: self.priority.proto(),
            max_wait: Some(args::proto_duration(self.wait)),
            namespace: text(self.namespace),
            fresh: self.fresh,
        };
        let answer = daemon.calls().call(request).await?.into_inner();
        let exit = if (200..400).contains(&answer.status) { Exit::Done } else { Exit::Failed };
        if output.message("CallResponse", &answer)? {
            return Ok(exit);
        }
        let cache = show::word(answer.cache().as_str_name(), "CACHE_STATUS_");
        if self.include {
            output.say(&format!("{} ({cache})", answer.status));
            answer.headers.iter().for_each(|h| output.say(&format!("{}: {}", h.name, h.value)));
        } else if exit == Exit::Failed {
            output.say(&format!("the provider answered with status {}", answer.status));
        }
        output.raw(&answer.body)?;
        if answer.truncated {
            output.say("the answer was cut");
        }
        Ok(exit)
    }
}

#[derive(Debug, Subcommand)]
pub enum CacheVerb {
    /// Throw cached answers away, on every daemon.
    ///
    /// Example: `tidegate cache invalidate github --prefix /orgs/`
    Invalidate {
        /// Whose answers: the provider's name unless calls said otherwise.
        namespace: String,
        /// The one path and query behind the base URL, as `/users/octocat?page=2`.
        #[arg(long, value_name = "PATH")]
        key: Option<String>,
        /// All whose path and query begin so.
        #[arg(long, value_name = "PATH", conflicts_with = "key")]
        prefix: Option<String>,
        /// All of the namespace.
        #[arg(long, conflicts_with_all = ["key", "prefix"])]
        all: bool,
    },
}

pub async fn cache(verb: CacheVerb, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let CacheVerb::Invalidate { namespace, key, prefix, all } = verb;
    let which = match (key, prefix) {
        (Some(key), _) => Which::Key(key),
        (None, Some(prefix)) => Which::Prefix(prefix),
        (None, None) if all => Which::Prefix(String::new()),
        (None, None) => return Err(Error::usage("say which answers: --key, --prefix or --all".to_owned())),
    };
    let request = pb::InvalidateCacheRequest { namespace, which: Some(which) };
    let answer = daemon.calls().invalidate_cache(request).await?.into_inner();
    if !output.message("InvalidateCacheResponse", &answer)? && output.format != Format::Name {
        output.line(&format!("{} answers", answer.count))?;
    }
    Ok(Exit::Done)
}
