//! Where a command's words go: data to stdout, talk to stderr, colour and animation on a terminal only.
//!
//! JSON is always the proto's JSON, so that a script written against the wire works on the command line. Must never
//! know: what is printed. Next: any command group.

use std::io::{ErrorKind, IsTerminal, Write};

use super::exit::{Error, Exit};
use super::show::Rows;
use crate::grpc::json;

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

    /// Writes a message as JSON when that is asked for; `false`: the caller shows it in its own way.
    pub fn message(&self, name: &str, message: &impl prost::Message) -> Result<bool, Error> {
        match self.format {
            Format::Json => self.line(&json::to_json(name, message, true))?,
            Format::Jsonl => self.line(&json::to_json(name, message, false))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Writes one message of a stream as one line of JSON.
    pub fn json_line(&self, name: &str, message: &impl prost::Message) -> Result<(), Error> {
        self.line(&json::to_json(name, message, false))
    }

    /// Writes a list in the form asked for. `names`: the message's name and the list's name in JSON.
    pub fn list<M: prost::Message>(
        &self,
        names: (&str, &str),
        items: &[M],
        id: impl Fn(&M) -> String,
        table: impl FnOnce(&[M], bool) -> Rows,
    ) -> Result<(), Error> {
        let (item, plural) = names;
        match self.format {
            Format::Table | Format::Wide if items.is_empty() => {
                self.say(&format!("no {plural}"));
                Ok(())
            }
            Format::Table => self.line(&table(items, false).text()),
            Format::Wide => self.line(&table(items, true).text()),
            Format::Name => items.iter().try_for_each(|m| self.line(&id(m))),
            Format::Jsonl => items.iter().try_for_each(|m| self.json_line(item, m)),
            Format::Json => {
                let parts: Vec<String> =
                    items.iter().map(|m| json::to_json(item, m, true).replace('\n', "\n    ")).collect();
                let body =
                    if parts.is_empty() { String::new() } else { format!("\n    {}\n  ", parts.join(",\n    ")) };
                self.line(&format!("{{\n  \"{plural}\": [{body}]\n}}"))
            }
        }
    }

    /// Says something to the person at the terminal.
    pub fn say(&self, text: &str) {
        // Nobody listens any more: nothing to be done about it.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    pub fn error(&self, e: &Error) {
        if e.exit == Exit::Done {
            return;
        }
        self.say(&format!("tidegate: {}", e.message));
        e.details.iter().for_each(|detail| self.say(&format!("  {detail}")));
        if let Some(hint) = &e.hint {
            self.say(&format!("  next: {hint}"));
        }
    }
}

/// A reader that went away (`| head`) has seen what it wanted: the command ends, and well.
fn quiet(result: std::io::Result<()>) -> Result<(), Error> {
    result.map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => Error::new(Exit::Done, ""),
        _ => e.into(),
    })
}
