//! A list filter as SQL: words of ours and bind parameters, never a value in the text.
//!
//! Every comparison is wrapped in `is true`, so that a missing value fails it and passes its negation, exactly as
//! [`Filter::passes`] has it. Both databases take the same words; only a label is reached in a way of its own.

use crate::model::filter::{Comparison, Field, Filter, Value};
use crate::model::state::State;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Bind {
    Text(String),
    Int(i64),
}

/// A field as a column, and the value to compare it with; `None`: kinds that cannot be compared. May bind first what the
/// column itself needs.
pub(super) type Columns<'c> = dyn Fn(&Field, &Value, &mut Vec<Bind>) -> Option<(&'static str, Bind)> + 'c;

/// `columns`: [`of_job`] or [`of_call`].
pub(super) fn condition(filter: &Filter, columns: &Columns<'_>, binds: &mut Vec<Bind>) -> String {
    match filter {
        Filter::All(parts) => joined(parts, " and ", "true", columns, binds),
        Filter::Any(parts) => joined(parts, " or ", "false", columns, binds),
        Filter::Not(part) => format!("not {}", condition(part, columns, binds)),
        Filter::Is(field, comparison, value) => comparing(field, *comparison, value, columns, binds),
    }
}

fn joined(parts: &[Filter], word: &str, empty: &str, columns: &Columns<'_>, binds: &mut Vec<Bind>) -> String {
    if parts.is_empty() {
        return empty.to_owned();
    }
    let parts: Vec<String> = parts.iter().map(|part| condition(part, columns, binds)).collect();
    format!("({})", parts.join(word))
}

fn comparing(
    field: &Field,
    comparison: Comparison,
    value: &Value,
    columns: &Columns<'_>,
    binds: &mut Vec<Bind>,
) -> String {
    let Some((column, bind)) = columns(field, value, binds) else {
        // Nothing passes.
        return "false".to_owned();
    };
    binds.push(bind);
    let sign = match comparison {
        Comparison::Equal => "=",
        Comparison::NotEqual => "<>",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    };
    format!("(({column} {sign} ?) is true)")
}

/// Fields of jobs. `label`: how the database looks up a label whose name is the parameter.
pub(super) fn of_job(label: &'static str) -> impl Fn(&Field, &Value, &mut Vec<Bind>) -> Option<(&'static str, Bind)> {
    move |field, value, binds| {
        Some(match (field, value) {
            (Field::State, Value::State(state)) => (STATE, Bind::Int(*state as i64)),
            (Field::Provider, Value::Text(text)) => ("f.provider", Bind::Text(text.clone())),
            (Field::Operation, Value::Text(text)) => ("f.operation", Bind::Text(text.clone())),
            (Field::Account, Value::Text(text)) => ("f.account", Bind::Text(text.clone())),
            (Field::Tenant, Value::Text(text)) => ("f.tenant", Bind::Text(text.clone())),
            (Field::Key, Value::Text(text)) => ("j.key", Bind::Text(text.clone())),
            (Field::Run, Value::Run(run)) => ("f.run", Bind::Int(run.seq)),
            (Field::Class, Value::Class(class)) => ("j.class", Bind::Int(*class as i64)),
            (Field::Attempts, Value::Number(n)) => ("j.attempts", Bind::Int(*n)),
            (Field::LastStatus, Value::Number(n)) => ("j.last_status", Bind::Int(*n)),
            (Field::CreateTime, Value::Time(time)) => ("j.created_at", Bind::Int(time.0)),
            (Field::DueTime, Value::Time(time)) => ("j.due_at", Bind::Int(time.0)),
            (Field::Label(name), Value::Text(text)) => {
                binds.push(Bind::Text(name.clone()));
                (label, Bind::Text(text.clone()))
            }
            _ => return None,
        })
    }
}

/// Fields of calls.
pub(super) fn of_call(field: &Field, value: &Value, _: &mut Vec<Bind>) -> Option<(&'static str, Bind)> {
    Some(match (field, value) {
        (Field::Provider, Value::Text(text)) => ("c.provider", Bind::Text(text.clone())),
        (Field::Operation, Value::Text(text)) => ("c.operation", Bind::Text(text.clone())),
        (Field::Account, Value::Text(text)) => ("c.account", Bind::Text(text.clone())),
        (Field::Lane, Value::Lane(lane)) => ("c.lane", Bind::Int(*lane as i64)),
        (Field::Ending, Value::Ending(ending)) => ("c.ending", Bind::Int(*ending as i64)),
        (Field::Status, Value::Number(n)) => ("c.status", Bind::Int(*n)),
        // Whole milliseconds of microseconds: both databases divide whole numbers so.
        (Field::Latency, Value::Number(n)) => ("(c.latency / 1000)", Bind::Int(*n)),
        (Field::BeginTime, Value::Time(time)) => ("c.begun_at", Bind::Int(time.0)),
        (Field::EndTime, Value::Time(time)) => ("c.ended_at", Bind::Int(time.0)),
        _ => return None,
    })
}

/// Numbers the bare parameters of a query from `first` on, with the database's `sign` before the number.
pub(super) fn number_parameters(text: &str, first: usize, sign: char) -> String {
    let mut numbered = String::with_capacity(text.len() + 16);
    let mut next = first;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '?' && !chars.peek().is_some_and(char::is_ascii_digit) {
            numbered.push(sign);
            numbered.push_str(&next.to_string());
            next += 1;
        } else {
            numbered.push(c);
        }
    }
    numbered
}

/// The state's number (order of [`State`]) from the place.
const STATE: &str = "(case j.place when 3 then 1 when 4 then 5 when 5 then 2 when 6 then 3 when 7 then 4 else 0 end)";

const _: () = assert!(
    State::Waiting as u8 == 0
        && State::Calling as u8 == 1
        && State::Delivered as u8 == 2
        && State::Dead as u8 == 3
        && State::Cancelled as u8 == 4
        && State::Unknown as u8 == 5
);
