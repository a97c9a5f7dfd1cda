//! Reading the configuration again: all of it is checked first, then it is applied; or nothing is, and it says why.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use crate::api;
use crate::api::webhooks::{Webhooks, arm};
use crate::config::{self, Config, LoadOptions};
use crate::engine::supervisor::BEAT_EVERY;
use crate::engine::{EngineError, Handle};
use crate::store::Refusal;

/// Reloads one at a time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reload(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handle: Handle,
    webhooks: Webhooks,
    options: LoadOptions,
    current: Mutex<Config>,
}

/// What a reload did, a sentence each.
#[derive(Clone, Debug, Default)]
pub struct Reloaded {
    pub changes: Vec<String>,
    /// Settings that changed in the files and take effect with the next start.
    pub after_restart: Vec<String>,
}

impl Reloaded {
    fn told(self) -> Vec<String> {
        self.changes.into_iter().chain(self.after_restart).collect()
    }
}

fn told(error: ReloadError) -> Vec<String> {
    match error {
        ReloadError::Config(problems) => problems.iter().map(ToString::to_string).collect(),
        ReloadError::Secret(said) => vec![said],
        ReloadError::Apply(e) => vec![e.to_string()],
    }
}

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{0}")]
    Config(config::Problems),
    #[error("{0}")]
    Secret(String),
    #[error("{0}")]
    Apply(#[from] EngineError),
}

impl Reload {
    pub fn new(handle: Handle, webhooks: Webhooks, options: LoadOptions, current: Config) -> Self {
        Reload(Arc::new(Inner { handle, webhooks, options, current: Mutex::new(current) }))
    }

    /// Does what the edges ask for, one reload after the other, until the daemon stops.
    pub fn answer_from(&self, asked: mpsc::Receiver<api::reload::Reload>) {
        let (reload, asked) = (self.clone(), Arc::new(Mutex::new(asked)));
        self.0.handle.supervisor().actor("reload", Default::default(), move |beat| {
            let (reload, asked) = (reload.clone(), asked.clone());
            async move {
                let mut asked = asked.lock().await;
                loop {
                    beat.beat();
                    tokio::select! {
                        () = beat.stop.cancelled() => return Ok(()),
                        request = asked.recv() => match request {
                            Some(request) => request.answer(reload.run().await.map(Reloaded::told).map_err(told)),
                            None => return Ok(()),
                        },
                        () = tokio::time::sleep(BEAT_EVERY) => {}
                    }
                }
            }
        });
    }

    /// Reads and applies everything again, or changes nothing.
    pub async fn run(&self) -> Result<Reloaded, ReloadError> {
        let mut current = self.0.current.lock().await;
        let fresh = config::load(&self.0.options).map_err(ReloadError::Config)?.config;
        let handle = &self.0.handle;
        let mut done = Reloaded::default();
        let changed: Vec<_> =
            fresh.providers.iter().filter(|d| !current.providers.iter().any(|c| c.source == d.source)).collect();
        // Everything that could be refused is tried before anything is put in force.
        for d in &changed {
            handle.try_connect(&d.provider)?;
        }
        let armed = arm(&fresh.webhooks, handle.clock()).map_err(ReloadError::Secret)?;
        for d in changed {
            let actor = format!("file {}", d.origin);
            let revision = handle.apply_provider(d.provider.clone(), d.source.clone(), None, &actor).await?;
            done.changes.push(format!("provider {} is at revision {revision}", d.provider.name));
        }
        if current.notify != fresh.notify {
            // Between those that are to send from now on and those that are to send no more.
            handle.subscriptions().replace(fresh.notify.clone());
            done.changes.push(format!("{} subscriptions are declared", fresh.notify.len()));
        }
        if current.alerts != fresh.alerts {
            handle.alerts().replace(fresh.alerts.clone());
            done.changes.push(format!("{} alerts are declared", fresh.alerts.len()));
        }
        let kept: BTreeSet<_> = fresh.providers.iter().map(|d| d.provider.name.clone()).collect();
        for gone in current.providers.iter().filter(|d| !kept.contains(&d.provider.name)) {
            let name = &gone.provider.name;
            done.changes.push(match handle.delete_provider(name, false, "reload").await {
                Ok(()) => format!("provider {name} is gone"),
                Err(EngineError::Refused(Refusal::ProviderBusy { jobs, .. })) => {
                    format!("provider {name} is kept until its {jobs} jobs are done or it is deleted with force")
                }
                Err(e) => return Err(e.into()),
            });
        }
        let text = |config: &Config| config.collections.iter().map(|c| format!("{c:?}")).collect::<Vec<_>>();
        if text(&current) != text(&fresh) {
            handle.collections().replace(fresh.collections.iter().cloned());
            done.changes.push(format!("{} collections are declared", fresh.collections.len()));
        }
        self.0.webhooks.replace(armed);
        if current.webhooks != fresh.webhooks {
            done.changes.push(format!("{} webhooks are declared", fresh.webhooks.len()));
        }
        for schedule in fresh.schedules.iter().filter(|s| !current.schedules.contains(s)) {
            if super::declare_schedule(handle, schedule).await? {
                done.changes.push(format!("schedule {} is in force", schedule.name));
            }
        }
        let kept: BTreeSet<_> = fresh.schedules.iter().map(|s| s.name.clone()).collect();
        for gone in current.schedules.iter().filter(|s| !kept.contains(&s.name)) {
            match handle.delete_schedule(&gone.name, "reload").await {
                Ok(()) | Err(EngineError::Refused(Refusal::NoSchedule(_))) => {
                    done.changes.push(format!("schedule {} is gone", gone.name));
                }
                Err(e) => return Err(e.into()),
            }
        }
        for (what, same) in [
            ("server", current.server == fresh.server),
            ("http", current.http == fresh.http),
            ("store", current.store == fresh.store),
            ("engine", current.engine == fresh.engine),
            ("retention", current.retention == fresh.retention),
            ("log", current.log == fresh.log),
            ("secrets", current.secrets == fresh.secrets),
            ("telemetry", current.telemetry == fresh.telemetry),
        ] {
            if !same {
                done.after_restart.push(format!("[{what}] takes effect with the next start"));
            }
        }
        *current = fresh;
        Ok(done)
    }
}
