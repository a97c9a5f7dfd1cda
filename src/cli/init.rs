//! `tidegate init`: a configuration to begin with, which `check-config` accepts, with an example provider that the simulator
//! answers or with profiles of real ones.
//!
//! The texts stand beside this file, so that they read as what they become. Must never know: how they are read.
//! Next: `init/profiles.rs`.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::exit::{Error, Exit};
use super::output::{Format, Output};
use super::show::Rows;

pub mod profiles;

/// The settings of the daemon.
const SETTINGS: (&str, &str) = ("tidegate.toml", include_str!("init/tidegate.toml"));
/// The provider of whoever names none.
const EXAMPLE: (&str, &str) = ("providers.d/example.toml", include_str!("init/example.toml"));

/// Write a configuration to begin with: tidegate.toml and a provider, with comments.
///
/// The provider is the simulator of this program, or what `--provider` names: profiles of known APIs, with the sources of
/// their numbers. Nothing that exists is overwritten; a profile may be added to a tidegate.toml that is there.
///
/// Example: `tidegate init /etc/tidegate --provider github`
#[derive(Clone, Debug, clap::Args)]
pub struct Init {
    /// The folder; it is made when it is not there.
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
    /// A profile in place of the example. May be given many times.
    #[arg(long = "provider", value_name = "NAME")]
    providers: Vec<String>,
    /// List the profiles that there are, and write nothing.
    #[arg(long, conflicts_with = "providers")]
    list: bool,
}

impl Init {
    pub fn run(&self, output: &Output) -> Result<Exit, Error> {
        if self.list {
            return list(output);
        }
        for path in self.write()? {
            output.line(&path.display().to_string())?;
        }
        if !self.providers.is_empty() {
            output.say("next: name your credentials and look at the numbers, then `tidegate check-config`");
        }
        output.say(&format!("next: tidegate serve --config {}", self.folder.join(SETTINGS.0).display()));
        Ok(Exit::Done)
    }

    /// All or nothing, as far as can be seen beforehand. Returns what was written.
    fn write(&self) -> Result<Vec<PathBuf>, Error> {
        let mut files: Vec<(String, &str)> = Vec::new();
        // Whoever adds a profile has settings already, or gets them.
        if self.providers.is_empty() || !self.folder.join(SETTINGS.0).exists() {
            files.push((SETTINGS.0.to_owned(), SETTINGS.1));
        }
        if self.providers.is_empty() {
            files.push((EXAMPLE.0.to_owned(), EXAMPLE.1));
        }
        for name in &self.providers {
            let text = profiles::find(name).ok_or_else(|| {
                Error::new(Exit::NotFound, format!("there is no profile {name:?}"))
                    .hint("`tidegate init --list` shows those that there are")
            })?;
            files.push((format!("providers.d/{name}.toml"), text));
        }
        if let Some((taken, _)) = files.iter().find(|(path, _)| self.folder.join(path).exists()) {
            let taken = self.folder.join(taken);
            return Err(Error::new(Exit::Conflict, format!("{} exists; nothing was written", taken.display()))
                .hint("name another folder, or move the file away"));
        }
        files.into_iter().map(|(path, text)| write(&self.folder.join(path), text)).collect()
    }
}

fn write(path: &Path, text: &str) -> Result<PathBuf, Error> {
    let failed = |e: std::io::Error| Error::failed(format!("{} cannot be written: {e}", path.display()));
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    // `create_new`: somebody may have been faster since the look before.
    let mut file = std::fs::File::options().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(path.to_owned())
}

fn list(output: &Output) -> Result<Exit, Error> {
    match output.format {
        Format::Name => profiles::PROFILES.iter().try_for_each(|(name, _)| output.line(name))?,
        Format::Json | Format::Jsonl => {
            let named =
                |(name, text): &(&str, &str)| serde_json::json!({ "name": name, "title": profiles::title(text) });
            let all: Vec<serde_json::Value> = profiles::PROFILES.iter().map(named).collect();
            output.line(&serde_json::json!({ "profiles": all }).to_string())?;
        }
        _ => {
            let mut rows = Rows::new(&["NAME", "WHAT"]);
            profiles::PROFILES
                .iter()
                .for_each(|(name, text)| rows.add([(*name).to_owned(), profiles::title(text).to_owned()]));
            output.line(&rows.text())?;
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, SecretCheck, load};

    fn init(folder: &Path, providers: &[&str]) -> Result<Vec<PathBuf>, Error> {
        let providers = providers.iter().map(|name| (*name).to_owned()).collect();
        Init { folder: folder.to_owned(), providers, list: false }.write()
    }

    fn loaded(folder: &Path) -> Vec<String> {
        let file = Some(folder.join("tidegate.toml"));
        // Those of the profiles are not on this machine.
        let options = LoadOptions { file, secrets: SecretCheck::Skipped, ..LoadOptions::default() };
        let loaded = load(&options).unwrap_or_else(|problems| panic!("{problems}"));
        loaded.config.providers.iter().map(|d| d.provider.name.to_string()).collect()
    }

    #[test]
    fn what_init_writes_is_accepted_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), &[]).unwrap();
        assert_eq!(loaded(folder.path()), ["example"]);
        let e = init(folder.path(), &[]).unwrap_err();
        assert_eq!(e.exit, Exit::Conflict);
        assert!(e.message.contains("tidegate.toml"), "{e}");
    }

    #[test]
    fn every_profile_is_accepted_and_added_to_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<&str> = profiles::PROFILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(init(folder.path(), &names[..1]).unwrap().len(), 2);
        assert_eq!(init(folder.path(), &names[1..]).unwrap().len(), names.len() - 1, "the settings were there");
        let mut found = loaded(folder.path());
        found.sort();
        assert_eq!(found, names);
        assert_eq!(init(folder.path(), &["github"]).unwrap_err().exit, Exit::Conflict);
        assert_eq!(init(folder.path(), &["gitlab"]).unwrap_err().exit, Exit::NotFound);
    }
}
