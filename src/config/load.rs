//! Laying defaults, files, environment and flags over one another, and reading the result.
//!
//! Must never know: what single keys mean. Next: `server.rs`, `provider.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::alerts;
use super::collection;
use super::explain;
use super::file;
use super::notify;
use super::problem::{At, Found, Problem, Problems, Source};
use super::reader::Reader;
use super::tree::{self, Entry, Table, Value};
use super::values;
use super::{Address, Config, DEFAULT_TOML, DeclaredProvider, Limiter, Store, provider, schedules, server, webhooks};
use crate::model::provider::{Auth, SecretRef};

/// Variables that are settings begin so; the rest of the name are the keys, with two underlines between.
pub const ENV_PREFIX: &str = "TIDEGATE__";

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The configuration file; `None`: defaults alone.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Flags as key and value, as `("server.listen", "127.0.0.1:0")`. The last layer.
    pub flags: Vec<(String, String)>,
    pub secrets: SecretCheck,
}

impl LoadOptions {
    /// With the environment of this process.
    pub fn from_process(file: Option<PathBuf>) -> Self {
        let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        LoadOptions { file, env: env.collect(), ..LoadOptions::default() }
    }
}

/// Whether the places that secrets are named to be in are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretCheck {
    /// A secret that is not there is a problem. For the daemon.
    #[default]
    Required,
    /// For checking on another machine than the daemon's.
    Skipped,
}

/// A checked configuration that can tell where each setting came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// What is allowed and will surprise, a sentence each.
    pub warnings: Vec<String>,
    tree: Table,
}

impl Loaded {
    /// Every setting in force as `key = value  # origin`. Secrets are references.
    pub fn explain(&self) -> String {
        explain::explain(&self.tree)
    }
}

/// Reads everything. All problems come back together.
pub fn load(options: &LoadOptions) -> Result<Loaded, Problems> {
    let found = Found::default();
    let mut tree = parse("default", DEFAULT_TOML, &found);
    if let Some(path) = &options.file {
        layer(&mut tree, path, &found);
    }
    for (name, text) in options.env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)) {
        let keys: Vec<String> = name[ENV_PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        tree::lay_over(&mut tree, tree::single(&keys, &format!("environment {name}"), text));
    }
    for (key, text) in &options.flags {
        let keys: Vec<String> = key.split('.').map(str::to_owned).collect();
        tree::lay_over(&mut tree, tree::single(&keys, &format!("--{key}"), text));
    }
    providers_folder(&mut tree, options, &found);
    let config = read(&tree, options, &found);
    found.or(config).and_then(|config| match config {
        Some(config) => {
            let look = |secret: &SecretRef| match options.secrets {
                SecretCheck::Required => missing(secret, options),
                SecretCheck::Skipped => None,
            };
            let warnings = super::warnings::warnings(&config, look);
            Ok(Loaded { config, warnings, tree })
        }
        // Something is missing although nothing was noted: only possible when a reader forgot to say so.
        None => Err(Problems::new(vec![Problem::new("the configuration cannot be read")])),
    })
}

fn parse(name: &str, text: &str, found: &Found) -> Table {
    tree::parse(&Arc::new(Source { name: name.to_owned(), text: text.to_owned() }), found)
}

fn layer(tree: &mut Table, path: &Path, found: &Found) -> Option<()> {
    let source = file::read(path).map_err(|problem| found.add(problem)).ok()?;
    tree::lay_over(tree, tree::parse(&source, found));
    Some(())
}

/// Adds `providers.d/*.toml`. A provider is declared in one place only.
fn providers_folder(tree: &mut Table, options: &LoadOptions, found: &Found) {
    let Some(entry) = tree.get("providers_dir") else { return };
    let at = entry.node.at.clone();
    let Ok(named) = values::text(&entry.node).map(PathBuf::from) else { return };
    // Beside the file that is read; without a file only where it was asked for by name.
    let by_default = at.source.name == "default";
    let folder = match options.file.as_deref().and_then(Path::parent) {
        Some(beside) => beside.join(&named),
        None if by_default => return,
        None => named,
    };
    let files = match file::folder(&folder) {
        Ok(Some(files)) => files,
        Ok(None) if by_default => return,
        Ok(None) => return found.add(Problem::new(format!("there is no folder {}", folder.display())).at(&at)),
        Err(problem) => return found.add(problem),
    };
    for path in files {
        let Some(source) = file::read(&path).map_err(|problem| found.add(problem)).ok() else { continue };
        for (key, entry) in tree::parse(&source, found) {
            if key != "providers" {
                let said = format!("expected only [providers.NAME] in {}, got `{key}`", folder.display());
                found.add(Problem::new(said).at(&entry.key_at).help("daemon settings belong into tidegate.toml"));
                continue;
            }
            declare(tree, entry, found);
        }
    }
}

fn declare(tree: &mut Table, entry: Entry, found: &Found) {
    let slot = tree.entry("providers".to_owned());
    match (slot, entry.node.value) {
        (std::collections::btree_map::Entry::Vacant(slot), value) => {
            let node = tree::Node { at: entry.node.at, value };
            slot.insert(Entry { key_at: entry.key_at, node });
        }
        (std::collections::btree_map::Entry::Occupied(mut slot), Value::Table(added)) => {
            let Value::Table(known) = &mut slot.get_mut().node.value else { return };
            for (name, entry) in added {
                if let Some(first) = known.get(&name) {
                    let problem = Problem::new(format!("the provider `{name}` is declared twice")).at(&entry.key_at);
                    found.add(problem.also(&first.key_at, "the first one"));
                } else {
                    known.insert(name, entry);
                }
            }
        }
        (_, _) => found.add(Problem::new("expected tables [providers.NAME]").at(&entry.node.at)),
    }
}

fn read(tree: &Table, options: &LoadOptions, found: &Found) -> Option<Config> {
    let source = Arc::new(Source { name: "default".to_owned(), text: String::new() });
    let at = At { source, span: 0..0 };
    let reader = Reader::new(found, &at, tree);
    let server = server::server(&reader, &options.env);
    let http = server::http(&reader);
    let store = server::store(&reader, &options.env);
    let limiter = server::limiter(&reader);
    let cluster = server::cluster(&reader);
    if let (Some(store), Some(limiter)) = (&store, &limiter) {
        server::fits(&reader, store, limiter);
    }
    if options.secrets == SecretCheck::Required {
        let urls = [
            (
                "store",
                store.as_ref().and_then(|s| match s {
                    Store::Postgres { url, .. } => Some(url),
                    _ => None,
                }),
            ),
            (
                "limiter",
                limiter.as_ref().and_then(|l| match l {
                    Limiter::Redis { url, .. } => Some(url),
                    _ => None,
                }),
            ),
        ];
        for (section, url) in urls {
            if let (Some(Address::Secret(secret)), Some(node)) = (url, reader.node(section)) {
                reference_leads_somewhere(secret, &node.at, options, found);
            }
        }
    }
    let engine = server::engine(&reader);
    let retention = server::retention(&reader);
    let log = server::log(&reader);
    let telemetry = server::telemetry(&reader);
    let secrets = server::secrets(&reader);
    if options.secrets == SecretCheck::Required
        && let (Some(key), Some(node)) = (secrets.as_ref().and_then(|s| s.key.as_ref()), reader.node("secrets"))
    {
        reference_leads_somewhere(key, &node.at, options, found);
    }
    reader.get("providers_dir", values::filled);
    let declared = reader.node("providers").map(|node| provider::read_all(found, node)).unwrap_or_default();
    let providers = declared.into_iter().map(|(checked, entry)| {
        if options.secrets == SecretCheck::Required {
            secret_is_there(&checked.auth, entry, options, found);
        }
        let file = &entry.key_at.source.text;
        // Settings of a provider may also come from the environment; then the tree alone knows all of them.
        let source = provider::source_of(file, checked.name.as_str())
            .filter(|_| all_from(&entry.node, &entry.key_at.source))
            .unwrap_or_else(|| explain::provider_toml(checked.name.as_str(), entry));
        DeclaredProvider { provider: Arc::new(checked), source, origin: entry.key_at.to_string() }
    });
    let mut providers: Vec<DeclaredProvider> = providers.collect();
    if let Some(node) = reader.node("providers") {
        notify::names_are_free(found, &providers, node);
    }
    let mut subscriptions = Vec::new();
    if let Some(node) = reader.node("notify") {
        for declared in notify::read_all(found, node) {
            if options.secrets == SecretCheck::Required {
                reference_leads_somewhere(&declared.secret, &node.at, options, found);
            }
            subscriptions.push(declared.subscription);
            providers.push(declared.provider);
        }
    }
    let collections = reader.node("collections").map(|node| collection::read_all(found, node)).unwrap_or_default();
    let schedules = reader.node("schedules").map(|node| schedules::read_all(found, node)).unwrap_or_default();
    if let (Some(node), 0) = (reader.node("schedules"), found.count()) {
        schedules::check_pulls(found, node, &schedules, &collections);
    }
    let webhooks = reader.node("webhooks").map(|node| webhooks::read_all(found, node)).unwrap_or_default();
    if let Some(node) = reader.node("webhooks") {
        if found.count() == 0 {
            webhooks::check_targets(found, node, &webhooks, &providers, &collections);
        }
        for secret in webhooks.iter().flat_map(|webhook| &webhook.secrets) {
            if options.secrets == SecretCheck::Required {
                reference_leads_somewhere(secret, &node.at, options, found);
            }
        }
    }
    let alerts = reader.node("alerts").map(|node| alerts::read_all(found, node)).unwrap_or_default();
    if let (Some(node), 0) = (reader.node("alerts"), found.count()) {
        alerts::check_targets(found, node, &alerts, &providers);
    }
    reader.finish();
    Some(Config {
        server: server?,
        http: http?,
        store: store?,
        limiter: limiter?,
        cluster: cluster?,
        engine: engine?,
        retention: retention?,
        log: log?,
        telemetry: telemetry?,
        secrets: secrets?,
        providers,
        collections,
        schedules,
        webhooks,
        notify: subscriptions,
        alerts,
    })
}

fn all_from(node: &tree::Node, source: &Arc<Source>) -> bool {
    Arc::ptr_eq(&node.at.source, source)
        && match &node.value {
            Value::Table(table) => table.values().all(|entry| all_from(&entry.node, source)),
            Value::List(items) => items.iter().all(|item| all_from(item, source)),
            _ => true,
        }
}

/// The provider's own secrets. Those of single accounts are looked for when a call needs them: one that is missing
/// holds the jobs of that account, and nobody else's.
fn secret_is_there(auth: &Auth, entry: &Entry, options: &LoadOptions, found: &Found) {
    let at = match &entry.node.value {
        Value::Table(table) => table.get("auth").map_or(&entry.key_at, |auth| &auth.node.at),
        _ => &entry.key_at,
    };
    for reference in auth.secrets().into_iter().filter(|reference| !reference.is_per_account()) {
        reference_leads_somewhere(reference, at, options, found);
    }
}

/// The reference's name is shown, its value never read.
fn reference_leads_somewhere(reference: &SecretRef, at: &At, options: &LoadOptions, found: &Found) {
    if let Some(missing) = missing(reference, options) {
        let help = "put the secret there, or check without secrets";
        found.add(Problem::new(format!("a secret is missing: {missing}")).at(at).help(help));
    }
}

fn missing(reference: &SecretRef, options: &LoadOptions) -> Option<String> {
    match reference {
        SecretRef::Env(name) => (!options.env.contains_key(name)).then(|| format!("the variable {name} is not set")),
        SecretRef::File(path) => (!path.is_file()).then(|| format!("there is no file {}", path.display())),
        SecretRef::Credential(name) => match options.env.get("CREDENTIALS_DIRECTORY") {
            Some(folder) => {
                let there = Path::new(folder).join(name).is_file();
                (!there).then(|| format!("there is no credential {name:?} in $CREDENTIALS_DIRECTORY"))
            }
            None => Some(format!("credential {name:?}: $CREDENTIALS_DIRECTORY is not set; systemd sets it")),
        },
    }
}
