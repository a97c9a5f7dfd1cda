//! The command line: noun then verb, data on stdout, talk on stderr, one exit code per kind of end.
//!
//! One file per command group. Most commands are clients of the daemon's gRPC; `serve`, `demo` and `bench` run the
//! app; `init`, `check-config`, `doctor` and `simulate` need no daemon. The `--help` texts are the manual of the
//! command line. Must never know: SQL, the inside of the engine. Next: `cli/exit.rs`, then a group such as
//! `cli/jobs.rs`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub mod admin;
pub mod again;
pub mod args;
pub mod bench;
pub mod call;
pub mod calls;
pub mod check_config;
pub mod cluster;
pub mod connect;
pub mod context;
pub mod demo;
pub mod doctor;
pub mod enqueue;
pub mod exit;
pub mod init;
pub mod jobs;
pub mod limits;
pub mod output;
pub mod providers;
pub mod records;
pub mod runs;
pub mod schedules;
pub mod serve;
pub mod show;
pub mod simulate;

use connect::Daemon;
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
    /// Where the daemon listens: http://host:port, or unix:/path. Default: the context in use, else the daemon's socket
    /// if it is there, else http://127.0.0.1:7070.
    #[arg(long, global = true, env = "TIDEGATE_ADDR", value_name = "ADDRESS")]
    pub addr: Option<String>,
}

/// Commands that ask the daemon.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Hand in one job. An id on stdout means that the job is durable.
    ///
    /// Example: `tidegate enqueue crm/sync_user --key user:7 -d '{"name":"Ada"}' --wait`
    Enqueue(enqueue::Enqueue),
    /// Find jobs, watch them, call them off, bring them back.
    #[command(subcommand)]
    Jobs(jobs::Verb),
    /// Sets of jobs with shared progress, forecast, pause and cancel.
    #[command(subcommand)]
    Runs(runs::Verb),
    /// JSON records of collections, and the pulls and pushes behind them.
    #[command(subcommand)]
    Records(records::Verb),
    /// The log of all calls: what was asked, how long it took, what came back.
    #[command(subcommand)]
    Calls(calls::Verb),
    /// Make one call now and print its answer: limited like all others, and cached where the operation says so.
    ///
    /// Example: `tidegate call github/list_repos --key acme`
    Call(call::Call),
    /// Answers that are kept for callers who wait.
    #[command(subcommand)]
    Cache(call::CacheVerb),
    /// What starts by itself, and when.
    #[command(subcommand)]
    Schedules(schedules::Verb),
    /// Third-party APIs: declare them, see how they stand, hold them back, try them.
    #[command(subcommand)]
    Providers(providers::Verb),
    /// What holds the work back, and until when.
    #[command(subcommand)]
    Limits(limits::Verb),
    /// Breakers, which stop calls to a provider that fails.
    #[command(subcommand)]
    Breakers(limits::BreakerVerb),
    /// Dead letters: jobs that gave up.
    #[command(subcommand)]
    Dead(admin::DeadVerb),
    /// What happened, in one increasing sequence.
    #[command(subcommand)]
    Events(admin::EventsVerb),
    /// The daemon: version, store, programs that take jobs, and its supervised tasks with the reasons of their restarts.
    ///
    /// Example: `tidegate workers -o wide`
    Workers {
        #[command(flatten)]
        again: again::Again,
    },
    /// Read the configuration files again and put them in force, whole or not at all. Ends with 78, and nothing has
    /// changed, when they are wrong.
    ///
    /// Example: `tidegate reload`
    Reload,
    /// Stop accepting jobs and releasing calls; calls on the wire may end. A restart ends it.
    ///
    /// Example: `tidegate drain --yes`
    Drain {
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Ask(Ask),
    Serve(serve::Args),
    Demo(demo::Args),
    Simulate(simulate::SimulateArgs),
    Bench(bench::Args),
    Init(init::Init),
    CheckConfig(check_config::CheckConfig),
    Doctor(doctor::Doctor),
    /// Names for daemons, and which one to talk to.
    #[command(subcommand)]
    Context(context::Verb),
    /// Print a completion script for a shell.
    ///
    /// Example: `tidegate completions bash > /etc/bash_completion.d/tidegate`
    Completions {
        /// The shell to complete in.
        shell: clap_complete::Shell,
    },
    /// Print the version of this program.
    ///
    /// Example: `tidegate version -o json`
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
        Command::Ask(ask) => return client(ask, &cli.global, output),
        Command::Serve(args) => return threaded(serve::run(args, output)),
        Command::Demo(args) => return threaded(demo::run(args, output)),
        Command::Bench(args) => return threaded(bench::run(args, output)),
        Command::Simulate(args) => return threaded(simulate::run(args, output)),
        Command::Init(init) => return init.run(output),
        Command::CheckConfig(check) => return check.run(output),
        Command::Doctor(doctor) => return threaded(doctor.run(cli.global.addr.as_deref(), output)),
        Command::Context(verb) => return context::run(verb, output),
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

/// Runs a command that serves: on as many threads as there are cores.
fn threaded(command: impl Future<Output = Result<Exit, Error>>) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}

/// Runs a command that asks the daemon. One thread is enough for one connection.
fn client(ask: Ask, global: &Global, output: &Output) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let in_use = if global.addr.is_none() { context::address_in_use()? } else { None };
    let result = runtime.block_on(async {
        let daemon = &Daemon::connect(global.addr.as_deref().or(in_use.as_deref())).await?;
        match ask {
            Ask::Enqueue(enqueue) => enqueue.run(daemon, output).await,
            Ask::Jobs(verb) => jobs::run(verb, daemon, output).await,
            Ask::Runs(verb) => runs::run(verb, daemon, output).await,
            Ask::Records(verb) => records::run(verb, daemon, output).await,
            Ask::Calls(verb) => calls::run(verb, daemon, output).await,
            Ask::Call(call) => call.run(daemon, output).await,
            Ask::Cache(verb) => call::cache(verb, daemon, output).await,
            Ask::Schedules(verb) => schedules::run(verb, daemon, output).await,
            Ask::Providers(verb) => providers::run(verb, daemon, output).await,
            Ask::Limits(verb) => limits::run(verb, daemon, output).await,
            Ask::Breakers(verb) => limits::breakers(verb, daemon, output).await,
            Ask::Dead(verb) => admin::dead(verb, daemon, output).await,
            Ask::Events(verb) => admin::events(verb, daemon, output).await,
            Ask::Workers { again } => again.show(output, async || admin::workers(daemon, output).await).await,
            Ask::Reload => admin::reload(daemon, output).await,
            Ask::Drain { yes } => admin::drain(yes, daemon, output).await,
        }
    });
    // A thread that still reads stdin must not hold the process.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_verb(command: &clap::Command, path: &str, visit: &mut impl FnMut(&str, &clap::Command)) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            match sub.has_subcommands() {
                true => every_verb(sub, &path, visit),
                false => visit(&path, sub),
            }
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example_of_itself() {
        every_verb(&Cli::command(), "tidegate", &mut |path, command| {
            let about = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let shown = format!("{about}{after}");
            assert!(
                shown.split_once("Example: ").is_some_and(|(_, e)| e.contains(path)),
                "{path}: end the doc with an example of its use"
            );
        });
    }

    #[test]
    fn every_option_says_what_it_is_for() {
        every_verb(&Cli::command(), "tidegate", &mut |path, command| {
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{path}: {} has no help", arg.get_id());
            }
        });
    }
}
