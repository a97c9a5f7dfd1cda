//! `[notify.NAME]`, made into a [`Subscription`] and the provider that sends its notices.
//!
//! The provider is written as TOML like any other, because that is what the store keeps and other daemons read. Must never
//! know: the values of secrets, when a notice is sent. Next: `model/notify.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::DeclaredProvider;
use super::explain::inline;
use super::problem::{Found, Problem};
use super::provider::{self, base_url};
use super::reader::{Reader, Unfit, unknown};
use super::rules;
use super::tree::{Entry, Node};
use super::values::{self, expected};
use crate::model::name::ProviderName;
use crate::model::notify::{OPERATION, Occasion, PREFIX, Subscription, is_reserved};
use crate::model::provider::SecretRef;

/// Subscriptions of one daemon: each end of a job is held against all of them.
const SUBSCRIPTIONS_MAX: usize = 100;
/// Providers that one subscription names.
const PROVIDERS_MAX: usize = 1_000;
/// Tries over twelve hours, which a receiver may be away.
const RETRY: &str = "{ attempts = 20, base = \"5s\", cap = \"1h\" }";

/// A subscription with its provider.
#[derive(Debug)]
pub struct Declared {
    pub subscription: Subscription,
    pub provider: DeclaredProvider,
    pub secret: SecretRef,
}

pub fn read_all(found: &Found, node: &Node) -> Vec<Declared> {
    let Some(reader) = Reader::of(found, node) else { return Vec::new() };
    let entries = reader.entries();
    if entries.len() > SUBSCRIPTIONS_MAX {
        found.add(expected(format_args!("at most {SUBSCRIPTIONS_MAX} subscriptions"), node));
    }
    entries.into_iter().take(SUBSCRIPTIONS_MAX).filter_map(|(name, entry)| read(found, name, entry)).collect()
}

/// Names that only subscriptions may have.
pub fn names_are_free(found: &Found, providers: &[DeclaredProvider], node: &Node) {
    for declared in providers.iter().filter(|declared| is_reserved(declared.provider.name.as_str())) {
        let said =
            format!("expected a provider name that does not begin with {PREFIX:?}: got {}", declared.provider.name);
        found.add(Problem::new(said).at(&node.at).help("such providers belong to [notify.NAME]"));
    }
}

fn read(found: &Found, name: &str, entry: &Entry) -> Option<Declared> {
    let before = found.count();
    let reader = Reader::of(found, &entry.node)?;
    let provider = ProviderName::new(format!("{PREFIX}{name}")).map_err(|e| Problem::new(e.to_string()));
    let provider = reader.note(&entry.key_at, provider);
    let allow_private = reader.get("allow_private", values::boolean).unwrap_or(false);
    let help = "where notices go, as url = \"https://ops.example.com/hooks\"";
    let url = reader.need("url", help, |n| base_url(n, allow_private));
    let secret_at = reader.need("secret", "what they are signed with, as secret = { credential = \"ops_hook\" }", Ok);
    let secret = secret_at.and_then(|n| rules::secret(found, n));
    if let Some(node) = secret_at.filter(|_| secret.as_ref().is_some_and(SecretRef::is_per_account)) {
        found.add(Problem::new("expected no {account}: a notice has none").at(&node.at));
    }
    let help = "what is told, as on = [\"job.dead\", \"run.finished\"]";
    let on = reader.need("on", help, occasions).unwrap_or_default();
    let providers = reader.get("providers", names).unwrap_or_default();
    let beside: Vec<String> = ["limits", "timeouts", "breaker", "in_flight_max"]
        .into_iter()
        .filter_map(|key| Some(format!("{key} = {}\n", inline(reader.node(key)?))))
        .collect();
    let retry = reader.node("retry").map_or_else(|| RETRY.to_owned(), inline);
    reader.finish();
    let (provider, url, secret) = (provider?, url?, secret?);
    let source = format!(
        "[providers.{provider}]\nbase_url = \"{}\"\nallow_private = {allow_private}\nauth = {{ webhook = {} }}\n{}\
         [providers.{provider}.operations.{OPERATION}]\nrequest = \"POST {}\"\nbody = \"{{payload}}\"\n\
         idempotency = {{ header = \"webhook-id\", life = \"30d\" }}\nretry = {retry}\n\
         retry_if = [{{ status = \"400-409\" }}, {{ status = \"411-499\" }}]\nkeep_bytes = 0\n",
        &url[..url::Position::BeforePath],
        secret_at.map(inline).unwrap_or_default(),
        beside.concat(),
        url.path(),
    );
    let origin = entry.key_at.to_string();
    let made = match provider::parse(&source, &format!("[notify.{name}]")) {
        Ok(made) => made.into_iter().next()?,
        Err(problems) => {
            problems.iter().for_each(|problem| found.add(problem.clone()));
            return None;
        }
    };
    let subscription = Subscription { provider, on, providers };
    let provider = DeclaredProvider { provider: Arc::new(made), source, origin };
    (found.count() == before).then_some(Declared { subscription, provider, secret })
}

fn occasions(node: &Node) -> Result<BTreeSet<Occasion>, Unfit> {
    let mut on = BTreeSet::new();
    for item in values::list(node)? {
        let name = values::text(item)?;
        let known = Occasion::ALL.into_iter().find(|occasion| occasion.name() == name);
        let what = || unknown("occasion", name, Occasion::ALL.iter().map(|occasion| occasion.name())).at(&item.at);
        on.insert(known.ok_or_else(what)?);
    }
    if on.is_empty() { Err(expected("at least one occasion", node)) } else { Ok(on) }
}

fn names(node: &Node) -> Result<BTreeSet<ProviderName>, Unfit> {
    let items = values::list(node)?;
    if items.is_empty() || items.len() > PROVIDERS_MAX {
        return Err(expected(format_args!("1 to {PROVIDERS_MAX} providers"), node));
    }
    let name = |n| ProviderName::new(values::text(n)?).map_err(|e| Problem::new(e.to_string()).at(&node.at));
    items.iter().map(name).collect()
}
