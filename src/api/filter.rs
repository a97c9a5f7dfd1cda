//! The filter language of lists, watches and bulk actions: text in, [`Filter`] out, and back.
//!
//! ```text
//! filter     = or                              or  = and ("OR" and)*
//! and        = not ("AND" not)*                not = "NOT" not | "(" or ")" | comparison
//! comparison = field ("=" | "!=" | "<" | "<=" | ">" | ">=") value
//! field      = state | provider | operation | account | tenant | key | run_id | priority_class
//!            | attempts | last_status | create_time | due_time | labels.NAME | labels."any name"
//! value      = WORD | number | "text with \" and \\"
//! ```
//! Lists of calls have other fields: provider | operation | account | lane | ending | status | latency_ms | begin_time |
//! end_time.
//! `filter/read` makes tokens of the text, this file a tree of them. Must never know: stores, wires. Next:
//! `model/filter`, which says what the tree means.

use std::fmt;
use std::fmt::Write as _;

use super::error::Error;
use crate::clock::Timestamp;
use crate::model::call::{Ending, Lane};
use crate::model::filter::{Comparison, Field, Filter, Value};
use crate::model::flow::Class;
use crate::model::id::Id;
use crate::model::state::State;

pub(super) mod read;

use read::{Reader, Token};

/// Longest filter, bytes.
pub const FILTER_BYTES_MAX: usize = 4_096;
/// Most comparisons in a filter.
pub const COMPARISONS_MAX: usize = 64;
/// Deepest nesting of parentheses and NOTs.
pub const DEPTH_MAX: usize = 32;

/// What is wrong with a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFilter {
    /// Byte position in the text, from 0.
    pub at: usize,
    pub what: String,
}

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.what)
    }
}

impl From<BadFilter> for Error {
    fn from(bad: BadFilter) -> Self {
        Error::field("filter", "BAD_FILTER", &bad).with("position", bad.at.to_string())
    }
}

/// The tree of a filter of jobs. An empty text lets everything through.
pub fn parse(text: &str) -> Result<Filter, BadFilter> {
    parse_of(text, &FIELDS)
}

/// The same for a filter of calls.
pub fn parse_calls(text: &str) -> Result<Filter, BadFilter> {
    parse_of(text, &CALL_FIELDS)
}

fn parse_of(text: &str, fields: &'static [(&'static str, Field)]) -> Result<Filter, BadFilter> {
    if text.len() > FILTER_BYTES_MAX {
        let what = format!("expected at most {FILTER_BYTES_MAX} bytes, got {}", text.len());
        return Err(BadFilter { at: FILTER_BYTES_MAX, what });
    }
    let mut parser = Parser { reader: Reader::new(text), comparisons: 0, fields };
    if parser.reader.peek()?.1 == Token::End {
        return Ok(Filter::everything());
    }
    let filter = parser.any(0)?;
    match parser.reader.next()? {
        (_, Token::End) => Ok(filter),
        (at, other) => Err(BadFilter { at, what: format!("expected AND, OR or the end, got {other}") }),
    }
}

struct Parser<'a> {
    reader: Reader<'a>,
    comparisons: usize,
    fields: &'static [(&'static str, Field)],
}

impl Parser<'_> {
    fn any(&mut self, depth: usize) -> Result<Filter, BadFilter> {
        let mut parts = vec![self.all(depth)?];
        while self.reader.takes_word("OR")? {
            parts.push(self.all(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::Any(parts) })
    }

    fn all(&mut self, depth: usize) -> Result<Filter, BadFilter> {
        let mut parts = vec![self.not(depth)?];
        while self.reader.takes_word("AND")? {
            parts.push(self.not(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::All(parts) })
    }

    fn not(&mut self, depth: usize) -> Result<Filter, BadFilter> {
        let (at, _) = self.reader.peek()?;
        if depth > DEPTH_MAX {
            return Err(BadFilter { at, what: format!("expected at most {DEPTH_MAX} levels") });
        }
        if self.reader.takes_word("NOT")? {
            return Ok(Filter::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.reader.takes(&Token::Open)? {
            let inner = self.any(depth + 1)?;
            return match self.reader.next()? {
                (_, Token::Close) => Ok(inner),
                (at, other) => Err(BadFilter { at, what: format!("expected ')', got {other}") }),
            };
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Filter, BadFilter> {
        let (at, token) = self.reader.next()?;
        self.comparisons += 1;
        if self.comparisons > COMPARISONS_MAX {
            return Err(BadFilter { at, what: format!("expected at most {COMPARISONS_MAX} comparisons") });
        }
        let field = match token {
            Token::Word(word) => field(at, &word, self.fields)?,
            Token::Label(name) if has_labels(self.fields) => Field::Label(name),
            other => return Err(BadFilter { at, what: format!("expected a field, NOT or '(', got {other}") }),
        };
        let comparison = match self.reader.next()? {
            (_, Token::Compare(comparison)) => comparison,
            (at, other) => return Err(BadFilter { at, what: format!("expected = != < <= > or >=, got {other}") }),
        };
        let (at, token) = self.reader.next()?;
        let value = value(at, &field, token)?;
        let ordered = !matches!(field, Field::State | Field::Run | Field::Class | Field::Lane | Field::Ending);
        if !ordered && !matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
            return Err(BadFilter { at, what: format!("expected = or != with {}", Name(&field)) });
        }
        Ok(Filter::Is(field, comparison, value))
    }
}

/// Fields of jobs by name. Labels are apart.
const FIELDS: [(&str, Field); 12] = [
    ("state", Field::State),
    ("provider", Field::Provider),
    ("operation", Field::Operation),
    ("account", Field::Account),
    ("tenant", Field::Tenant),
    ("key", Field::Key),
    ("run_id", Field::Run),
    ("priority_class", Field::Class),
    ("attempts", Field::Attempts),
    ("last_status", Field::LastStatus),
    ("create_time", Field::CreateTime),
    ("due_time", Field::DueTime),
];

/// Fields of calls by name.
const CALL_FIELDS: [(&str, Field); 9] = [
    ("provider", Field::Provider),
    ("operation", Field::Operation),
    ("account", Field::Account),
    ("lane", Field::Lane),
    ("ending", Field::Ending),
    ("status", Field::Status),
    ("latency_ms", Field::Latency),
    ("begin_time", Field::BeginTime),
    ("end_time", Field::EndTime),
];

fn has_labels(fields: &[(&str, Field)]) -> bool {
    fields.iter().any(|(_, field)| *field == Field::State)
}

fn field(at: usize, word: &str, fields: &[(&str, Field)]) -> Result<Field, BadFilter> {
    if let Some((_, field)) = fields.iter().find(|(name, _)| *name == word) {
        return Ok(field.clone());
    }
    let near = fields.iter().map(|(name, _)| (strsim::damerau_levenshtein(name, word), *name)).min();
    let hint = match near {
        Some((distance, name)) if distance <= 2 => format!(", did you mean {name}?"),
        _ => {
            let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            let labels = if has_labels(fields) { " and labels.NAME" } else { "" };
            format!("; fields are {}{labels}", names.join(", "))
        }
    };
    Err(BadFilter { at, what: format!("no field {word:?}{hint}") })
}

fn value(at: usize, field: &Field, token: Token) -> Result<Value, BadFilter> {
    let text = match token {
        Token::Word(text) | Token::Text(text) => text,
        other => return Err(BadFilter { at, what: format!("expected a value for {}, got {other}", Name(field)) }),
    };
    let wanted = |what: &str| BadFilter { at, what: format!("expected {what} for {}, got {text:?}", Name(field)) };
    match field {
        Field::State => {
            let names = "WAITING, CALLING, DELIVERED, DEAD, CANCELLED or UNKNOWN";
            State::from_name(&text.to_ascii_lowercase()).map(Value::State).ok_or_else(|| wanted(names))
        }
        Field::Class => Class::from_name(&text.to_ascii_lowercase())
            .map(Value::Class)
            .ok_or_else(|| wanted("URGENT, NORMAL or BULK")),
        Field::Run => text.parse::<Id>().map(Value::Run).map_err(|_| wanted("the id of a run")),
        Field::Lane => {
            let lane = Lane::ALL.into_iter().find(|lane| lane.name().eq_ignore_ascii_case(&text));
            lane.map(Value::Lane).ok_or_else(|| wanted("SINGLE or BATCH"))
        }
        Field::Ending => {
            let name = text.replace('_', "-");
            let ending = Ending::ALL.into_iter().find(|ending| ending.name().eq_ignore_ascii_case(&name));
            ending.map(Value::Ending).ok_or_else(|| wanted("OPEN, NOT_SENT, ANSWERED, LOST or CRASHED"))
        }
        Field::Attempts | Field::LastStatus | Field::Status | Field::Latency => {
            text.parse().map(Value::Number).map_err(|_| wanted("a number"))
        }
        Field::CreateTime | Field::DueTime | Field::BeginTime | Field::EndTime => text
            .parse::<jiff::Timestamp>()
            .map(|t| Value::Time(Timestamp(t.as_microsecond())))
            .map_err(|_| wanted("a time like \"2026-11-22T05:00:00Z\"")),
        _ => Ok(Value::Text(text)),
    }
}

/// A field as the language writes it.
struct Name<'a>(&'a Field);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Field::Label(name) => write!(f, "labels.{}", quoted(name)),
            other => {
                let name = FIELDS.iter().chain(&CALL_FIELDS).find(|(_, field)| field == other).map(|(name, _)| *name);
                f.write_str(name.expect("all fields but labels stand in the table: a test walks through it"))
            }
        }
    }
}

/// The text of a filter: [`parse`] gives the same tree again.
pub fn to_text(filter: &Filter) -> String {
    let mut text = String::new();
    write_filter(&mut text, filter);
    text
}

fn write_filter(out: &mut String, filter: &Filter) {
    let list = |out: &mut String, parts: &[Filter], word: &str| {
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                let _ = write!(out, " {word} ");
            }
            let plain = matches!(part, Filter::Is(..) | Filter::Not(_));
            out.push_str(if plain { "" } else { "(" });
            write_filter(out, part);
            out.push_str(if plain { "" } else { ")" });
        }
    };
    match filter {
        Filter::All(parts) => list(out, parts, "AND"),
        Filter::Any(parts) => list(out, parts, "OR"),
        Filter::Not(part) => {
            out.push_str("NOT (");
            write_filter(out, part);
            out.push(')');
        }
        Filter::Is(field, comparison, value) => {
            let sign = read::sign(*comparison);
            let _ = match value {
                Value::Text(text) => write!(out, "{} {sign} {}", Name(field), quoted(text)),
                Value::Number(n) => write!(out, "{} {sign} {n}", Name(field)),
                Value::State(s) => write!(out, "{} {sign} {}", Name(field), s.name().to_ascii_uppercase()),
                Value::Class(c) => write!(out, "{} {sign} {}", Name(field), c.name().to_ascii_uppercase()),
                Value::Run(id) => write!(out, "{} {sign} \"{id}\"", Name(field)),
                Value::Lane(lane) => write!(out, "{} {sign} {}", Name(field), lane.name().to_ascii_uppercase()),
                Value::Ending(ending) => {
                    let name = ending.name().replace('-', "_").to_ascii_uppercase();
                    write!(out, "{} {sign} {name}", Name(field))
                }
                Value::Time(at) => write!(out, "{} {sign} \"{at}\"", Name(field)),
            };
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests;
