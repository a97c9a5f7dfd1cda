//! The command line: noun then verb, data on stdout, talk on stderr, one exit code per kind of end.
//!
//! One file per command group. Most commands are clients of the daemon's gRPC; `serve`, `demo` and `bench` run the
//! app; `init`, `check-config`, `doctor` and `simulate` need no daemon. The `--help` texts are the manual of the
//! command line. Must never know: SQL, the inside of the engine. Next: `cli/exit.rs`, then a group such as
//! `cli/jobs.rs`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub mod exit;
pub mod output;
pub mod simulate;

use exit::{Error, Exit};
use output::{Format, Output};

/// Tidegate owns your calls to other people's APIs: it stores them durably and lets them out as fast as each
/// provider's rate limits allow, and never faster.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true, max_term_width = 110, after_help = exit::HELP)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command understands.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// How to print data: `table` for people, `wide` with every column, `json` and `jsonl` as the proto's JSON,
    /// `name` as ids alone, one per line, to feed into another command.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a completion script for a shell. Example: `tidegate completions bash > /etc/bash_completion.d/tidegate`
    Completions {
        /// The shell to complete in.
        shell: clap_complete::Shell,
    },
    /// Print the version of this program. Example: `tidegate version -o json`
    Version,
}

/// Runs the command line and says how it ended. What went wrong is one clear sentence on stderr, and a next step.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // A reader that went away is no failure of ours.
            let _ = e.print();
            return if e.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let output = Output::new(cli.global.output);
    match run(cli, &output) {
        Ok(exit) => exit.into(),
        Err(e) => {
            output.error(&e);
            e.exit.into()
        }
    }
}

fn run(cli: Cli, output: &Output) -> Result<Exit, Error> {
    match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
            output.raw(&script)?;
        }
        Command::Version => match output.format {
            Format::Json | Format::Jsonl => {
                output.line(&serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }).to_string())?;
            }
            _ => output.line(concat!("tidegate ", env!("CARGO_PKG_VERSION")))?,
        },
    }
    Ok(Exit::Done)
}
