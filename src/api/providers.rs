//! Providers: declare, list, pause, look at, try.
//!
//! Must never know: proto types. Next: [`crate::engine::status::ProviderStatus`]; `config/` reads declarations.

use std::sync::Arc;
use std::time::Duration;

use super::error::{Error, Result, VIOLATIONS_MAX, Violation};
use super::jobs::Page;
use super::{Api, page};
use crate::clock::Timestamp;
use crate::config::Problem;
use crate::config::provider::{self, SOURCE_BYTES_MAX};
use crate::engine::status::{ProviderStatus, TestReport};
use crate::model::name::ProviderName;
use crate::model::notify::is_reserved;
use crate::model::provider::Provider;
use crate::store::AppliedProvider;

/// Longest path of a test call, bytes.
pub const TEST_PATH_BYTES_MAX: usize = 2_048;
pub const WATCH_DEFAULT: Duration = Duration::from_secs(1);
const WATCH_MIN: Duration = Duration::from_millis(100);
const WATCH_MAX: Duration = Duration::from_secs(60);
/// The etag that demands that there is no declaration yet.
const ETAG_NONE: &str = "none";

/// A provider as it is shown.
#[derive(Clone, Debug)]
pub struct ProviderView {
    pub provider: Arc<Provider>,
    /// 0: not in force.
    pub revision: i64,
    /// Empty: not in force.
    pub etag: String,
    pub paused: bool,
    pub applied_at: Option<Timestamp>,
    pub actor: String,
    pub source: String,
}

/// A declaration to put in force.
#[derive(Clone, Debug, Default)]
pub struct Apply {
    pub source: String,
    pub validate_only: bool,
    /// Empty: replace whatever is there.
    pub etag: String,
}

impl Api {
    pub async fn apply_provider(&self, apply: Apply, actor: &str) -> Result<ProviderView> {
        let Apply { source, validate_only, etag } = apply;
        let provider = Arc::new(declared(&source)?);
        if is_reserved(provider.name.as_str()) {
            let said =
                format!("{} belongs to a [notify] of the daemon's configuration; change it there", provider.name);
            return Err(Error::field("source", "RESERVED_PROVIDER", said));
        }
        let expect = revision_of(&etag)?;
        if validate_only {
            return Ok(ProviderView {
                provider,
                revision: 0,
                etag: String::new(),
                paused: false,
                applied_at: None,
                actor: actor.to_owned(),
                source,
            });
        }
        let name = provider.name.clone();
        self.engine().apply_provider(provider, source, expect, actor).await?;
        self.provider(&name).await
    }

    pub async fn get_provider(&self, name: &str) -> Result<ProviderView> {
        self.provider(&parse_name(name)?).await
    }

    /// By name.
    pub async fn list_providers(&self, page_size: i32, page_token: &str) -> Result<Page<ProviderView>> {
        let list = page::fingerprint("providers", "");
        let from = usize::try_from(page::position(list, page_token)?.unwrap_or(0)).unwrap_or(0);
        let size = page::size(page_size)?;
        let applied = self.engine().store().providers().await?;
        let all = self.engine().providers();
        let items = all.iter().skip(from).take(size).map(|(p, revision, paused)| view(p, *revision, *paused, &applied));
        let next = (from + size < all.len()).then(|| page::token(list, (from + size) as i64));
        Ok(Page { items: items.collect(), next_page_token: next.unwrap_or_default() })
    }

    pub async fn delete_provider(&self, name: &str, force: bool, actor: &str) -> Result<()> {
        Ok(self.engine().delete_provider(&parse_name(name)?, force, actor).await?)
    }

    pub async fn pause_provider(&self, name: &str, paused: bool, actor: &str) -> Result<ProviderView> {
        let name = parse_name(name)?;
        self.engine().pause_provider(&name, paused, actor).await?;
        self.provider(&name).await
    }

    pub async fn provider_status(&self, name: &str) -> Result<ProviderStatus> {
        let name = parse_name(name)?;
        self.engine().provider_status(&name).await.ok_or_else(|| Error::not_found("provider", &name))
    }

    pub async fn reset_breaker(&self, name: &str, actor: &str) -> Result<ProviderStatus> {
        self.engine().reset_breaker(&parse_name(name)?, actor).await?;
        self.provider_status(name).await
    }

    /// One real call. Spends a permit of each limit of the provider.
    pub async fn test_provider(&self, name: &str, path: &str) -> Result<TestReport> {
        let name = parse_name(name)?;
        let odd = |c: char| c.is_control() || c.is_whitespace() || c == '#';
        let fits = path.is_empty() || path.starts_with('/') && !path.starts_with("//");
        if !fits || path.len() > TEST_PATH_BYTES_MAX || path.contains(odd) || path.split(['/', '?']).any(|s| s == "..")
        {
            let said = format!(
                "expected a path that begins with one '/', of at most {TEST_PATH_BYTES_MAX} bytes, without spaces, '..' \
                 or '#'"
            );
            return Err(Error::field("path", "BAD_PATH", said));
        }
        Ok(self.engine().test_provider(&name, path).await?)
    }

    async fn provider(&self, name: &ProviderName) -> Result<ProviderView> {
        let applied = self.engine().store().providers().await?;
        let all = self.engine().providers();
        let found = all.iter().find(|(provider, ..)| provider.name == *name);
        let (provider, revision, paused) = found.ok_or_else(|| Error::not_found("provider", name))?;
        Ok(view(provider, *revision, *paused, &applied))
    }
}

/// The one provider that a source declares. All problems are told at once, each with its place.
fn declared(source: &str) -> Result<Provider> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(Error::above_cap("source", "source_bytes_max", SOURCE_BYTES_MAX, source.len()));
    }
    let mut providers = provider::parse(source, "source").map_err(|problems| {
        let wrong = problems.iter().take(VIOLATIONS_MAX).map(|problem| Violation {
            field: "source".into(),
            reason: "BAD_DECLARATION",
            description: sentence(problem),
        });
        Error::fields(wrong.collect())
    })?;
    match (providers.pop(), providers.len()) {
        (Some(only), 0) => Ok(only),
        (last, others) => {
            let got = others + usize::from(last.is_some());
            let said = format!("expected exactly one provider, got {got}");
            Err(Error::field("source", "NOT_ONE_PROVIDER", said))
        }
    }
}

/// A problem on one line: place, what is wrong, what to do.
fn sentence(problem: &Problem) -> String {
    let place = problem.at.as_ref().map(|at| format!("{at}: ")).unwrap_or_default();
    let help = problem.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
    format!("{place}{}{help}", problem.message)
}

fn view(provider: &Arc<Provider>, revision: i64, paused: bool, applied: &[AppliedProvider]) -> ProviderView {
    let stored = applied.iter().find(|a| a.name == provider.name);
    ProviderView {
        provider: Arc::clone(provider),
        revision,
        etag: etag_of(revision),
        paused,
        applied_at: stored.map(|a| a.applied_at),
        actor: stored.map(|a| a.actor.clone()).unwrap_or_default(),
        source: stored.map(|a| a.source.clone()).unwrap_or_default(),
    }
}

fn etag_of(revision: i64) -> String {
    format!("r{revision}")
}

/// The revision that an etag demands; `None`: any.
fn revision_of(etag: &str) -> Result<Option<i64>> {
    match etag {
        "" => Ok(None),
        ETAG_NONE => Ok(Some(0)),
        text => match text.strip_prefix('r').and_then(|n| n.parse::<i64>().ok()) {
            Some(revision) if revision > 0 => Ok(Some(revision)),
            _ => Err(Error::field("etag", "BAD_ETAG", "expected the etag of an answer, or `none`")),
        },
    }
}

fn parse_name(name: &str) -> Result<ProviderName> {
    ProviderName::new(name).map_err(|e| Error::field("name", "BAD_NAME", e))
}

/// The time between two messages of a status watch.
pub fn watch_interval(asked: Option<Duration>) -> Result<Duration> {
    match asked.unwrap_or(WATCH_DEFAULT) {
        fits if (WATCH_MIN..=WATCH_MAX).contains(&fits) => Ok(fits),
        other => Err(Error::field("interval", "BAD_INTERVAL", format_args!("expected 100 ms to 60 s, got {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_names_the_revision_that_was_read() {
        assert_eq!(revision_of(&etag_of(7)).unwrap(), Some(7));
        assert_eq!(revision_of("").unwrap(), None);
        assert_eq!(revision_of("none").unwrap(), Some(0));
        assert_eq!(revision_of("7").unwrap_err().reason, "BAD_ETAG");
        assert_eq!(revision_of("r-1").unwrap_err().reason, "BAD_ETAG");
    }
}
