//! Where a command's words go: data to stdout, talk to stderr, colour and animation on a terminal only.
//!
//! JSON is always the proto's JSON, so that a script written against the wire works on the command line. Must never
//! know: what is printed. Next: any command group.

use std::io::{ErrorKind, IsTerminal, Write};

use super::exit::Error;

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// All columns, exact times.
    Wide,
    /// One JSON document, indented.
    Json,
    /// One JSON document per line.
    Jsonl,
    /// Ids or names alone, one per line.
    Name,
}

/// The two streams of a command and how to use them.
#[derive(Clone, Debug)]
pub struct Output {
    pub format: Format,
    /// Colour on stderr and stdout. Off when `NO_COLOR` is set or stdout is no terminal.
    pub color: bool,
    /// Live progress on stderr.
    pub live: bool,
}

impl Output {
    pub fn new(format: Format) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Output {
            format,
            color: !plain && !dumb && std::io::stdout().is_terminal(),
            live: !dumb && std::io::stderr().is_terminal(),
        }
    }

    /// Writes one line of data.
    pub fn line(&self, text: &str) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        quiet(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()))
    }

    /// Writes data as it is.
    pub fn raw(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        quiet(out.write_all(bytes).and_then(|()| out.flush()))
    }

    /// Says something to the person at the terminal.
    pub fn say(&self, text: &str) {
        // Nobody listens any more: nothing to be done about it.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    pub fn error(&self, e: &Error) {
        self.say(&format!("tidegate: {}", e.message));
        if let Some(hint) = &e.hint {
            self.say(&format!("  next: {hint}"));
        }
    }
}

/// A reader that went away (`| head`) has seen what it wanted.
fn quiet(result: std::io::Result<()>) -> Result<(), Error> {
    match result {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}
