//! `tidegate context`: names for daemons, so that one need not remember their addresses.
//!
//! Kept in `$XDG_CONFIG_HOME/tidegate/contexts.toml` (`~/.config/tidegate`). `--addr` and `TIDEGATE_ADDR` go before the
//! context in use. Must never know: what is asked of a daemon. Next: `connect.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::connect;
use super::exit::{Error, Exit};
use super::output::{Format, Output};
use super::show::Rows;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the daemons that have a name; the one in use is marked.
    ///
    /// Example: `tidegate context list`
    List,
    /// Give a daemon a name, or a named one a new address.
    ///
    /// Example: `tidegate context set staging unix:/run/staging/tidegate.sock`
    Set {
        /// Its name.
        name: String,
        /// Where it listens: http://host:port, host:port, or unix:/path.
        address: String,
    },
    /// Talk to this daemon from now on; `-` goes back to the one of this machine.
    ///
    /// Example: `tidegate context use staging`
    Use {
        /// Its name, or `-`.
        name: String,
    },
    /// Forget a name.
    ///
    /// Example: `tidegate context delete staging`
    Delete {
        /// The name.
        name: String,
    },
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Contexts {
    current: Option<String>,
    contexts: BTreeMap<String, String>,
}

/// The address of the context in use, if there is one.
pub fn address_in_use() -> Result<Option<String>, Error> {
    let Some(path) = file() else { return Ok(None) };
    let known = read(&path)?;
    let Some(name) = known.current else { return Ok(None) };
    known.contexts.get(&name).cloned().map(Some).ok_or_else(|| unknown(&name, &known.contexts))
}

pub fn run(verb: Verb, output: &Output) -> Result<Exit, Error> {
    let path =
        file().ok_or_else(|| Error::failed("expected HOME or XDG_CONFIG_HOME to be set: contexts live there"))?;
    let mut known = read(&path)?;
    match verb {
        Verb::List => return list(&known, output),
        Verb::Set { name, address } => {
            if name.is_empty() || name == "-" || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
                return Err(Error::usage(format!("expected a name of letters, digits, - _ and ., got {name:?}")));
            }
            known.contexts.insert(name, connect::address(Some(&address)));
        }
        Verb::Use { name } if name == "-" => known.current = None,
        Verb::Use { name } => {
            if !known.contexts.contains_key(&name) {
                return Err(unknown(&name, &known.contexts));
            }
            output.say(&format!("talking to {name} at {}", known.contexts[&name]));
            known.current = Some(name);
        }
        Verb::Delete { name } => {
            if known.contexts.remove(&name).is_none() {
                return Err(unknown(&name, &known.contexts));
            }
            known.current.take_if(|current| *current == name);
        }
    }
    write(&path, &known)?;
    Ok(Exit::Done)
}

fn list(known: &Contexts, output: &Output) -> Result<Exit, Error> {
    let is_used = |name: &String| known.current.as_ref() == Some(name);
    match output.format {
        Format::Json | Format::Jsonl => {
            let contexts = known.contexts.iter();
            let all: Vec<_> = contexts
                .map(|(name, address)| serde_json::json!({"name": name, "address": address, "current": is_used(name)}))
                .collect();
            match output.format {
                Format::Json => output.line(&format!("{:#}", serde_json::json!({ "contexts": all })))?,
                _ => all.iter().try_for_each(|one| output.line(&one.to_string()))?,
            }
        }
        Format::Name => known.contexts.keys().try_for_each(|name| output.line(name))?,
        Format::Table | Format::Wide if known.contexts.is_empty() => output.say("no contexts"),
        Format::Table | Format::Wide => {
            let mut rows = Rows::new(&["NAME", "ADDRESS", "IN USE"]);
            for (name, address) in &known.contexts {
                rows.add([name.clone(), address.clone(), if is_used(name) { "yes" } else { "" }.to_owned()]);
            }
            output.line(&rows.text())?;
        }
    }
    Ok(Exit::Done)
}

fn unknown(name: &str, known: &BTreeMap<String, String>) -> Error {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    let there = if names.is_empty() { "there is none".to_owned() } else { format!("there are: {}", names.join(", ")) };
    Error::new(Exit::NotFound, format!("no context {name:?}; {there}"))
        .hint("name one with `tidegate context set NAME ADDRESS`, or `tidegate context use -`")
}

fn file() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(config.join("tidegate/contexts.toml"))
}

fn read(path: &Path) -> Result<Contexts, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text)
            .map_err(|e| Error::new(Exit::BadConfig, format!("{} cannot be read: {}", path.display(), e.message()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
        Err(e) => Err(Error::failed(format!("{} cannot be read: {e}", path.display()))),
    }
}

/// Whole or not at all: a file beside it takes its place.
fn write(path: &Path, known: &Contexts) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::failed(format!("{} cannot be written: {e}", path.display()));
    let text = toml::to_string(known).map_err(|e| Error::failed(e.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let fresh = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    std::fs::write(fresh.path(), text).map_err(failed)?;
    fresh.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}
