//! `tidegate init`: a configuration to begin with, which `check-config` accepts and the simulator answers.
//!
//! The texts stand beside this file, so that they read as what they become. Must never know: how they are read.
//! Next: `check_config.rs`.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::exit::{Error, Exit};
use super::output::Output;

/// What is written, by path below the folder.
pub const FILES: [(&str, &str); 2] = [
    ("tidegate.toml", include_str!("init/tidegate.toml")),
    ("providers.d/example.toml", include_str!("init/example.toml")),
];

/// Write a configuration to begin with: tidegate.toml and providers.d/example.toml, with comments.
///
/// The example provider is the simulator of this program. Nothing that exists is overwritten.
///
/// Example: `tidegate init /etc/tidegate`
#[derive(Clone, Debug, clap::Args)]
pub struct Init {
    /// The folder; it is made when it is not there.
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
}

impl Init {
    pub fn run(&self, output: &Output) -> Result<Exit, Error> {
        write(&self.folder)?;
        for (path, _) in FILES {
            output.line(&self.folder.join(path).display().to_string())?;
        }
        let file = self.folder.join(FILES[0].0);
        output.say(&format!("next: tidegate serve --config {}", file.display()));
        Ok(Exit::Done)
    }
}

fn write(folder: &Path) -> Result<(), Error> {
    if let Some((taken, _)) = FILES.iter().find(|(path, _)| folder.join(path).exists()) {
        let taken = folder.join(taken);
        return Err(Error::new(Exit::Conflict, format!("{} exists; nothing was written", taken.display()))
            .hint("name another folder, or move the file away"));
    }
    for (path, text) in FILES {
        let path = folder.join(path);
        let failed = |e: std::io::Error| Error::failed(format!("{} cannot be written: {e}", path.display()));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        // `create_new`: somebody may have been faster since the look above.
        let mut file = std::fs::File::options().write(true).create_new(true).open(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load};

    #[test]
    fn what_init_writes_is_accepted_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let options = LoadOptions { file: Some(folder.path().join("tidegate.toml")), ..LoadOptions::default() };
        let loaded = load(&options).unwrap_or_else(|problems| panic!("{problems}"));
        let names: Vec<String> = loaded.config.providers.iter().map(|d| d.provider.name.to_string()).collect();
        assert_eq!(names, ["example"]);
        let e = write(folder.path()).unwrap_err();
        assert_eq!(e.exit, Exit::Conflict);
        assert!(e.message.contains("tidegate.toml"), "{e}");
    }
}
