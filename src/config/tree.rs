//! A TOML document as a tree in which every key and value knows where it stands; and laying one over another.
//!
//! Must never know: what the keys mean. Next: `reader.rs`, which walks it.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::problem::{At, Found, Problem, Source};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub at: At,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    /// As written: sizes are checked by who reads it.
    Integer(i128),
    Float(f64),
    Boolean(bool),
    /// As written.
    Time(String),
    List(Vec<Node>),
    Table(Table),
}

pub type Table = BTreeMap<String, Entry>;

#[derive(Clone, Debug)]
pub struct Entry {
    pub key_at: At,
    pub node: Node,
}

impl Value {
    /// For "got ...".
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Time(_) => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// Reads a document. All syntax errors are added to `found`; what could be read is returned all the same.
pub fn parse(source: &Arc<Source>, found: &Found) -> Table {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    for error in errors {
        let at = At { source: source.clone(), span: error.span().unwrap_or(0..0) };
        found.add(Problem::new(error.message().trim().to_owned()).at(&at));
    }
    table_of(table.get_ref(), source)
}

fn table_of(table: &DeTable<'_>, source: &Arc<Source>) -> Table {
    let at = |span| At { source: source.clone(), span };
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let node = node_of(value.get_ref(), at(value.span()), source);
        let key: &toml::Spanned<std::borrow::Cow<'_, str>> = key;
        (key.get_ref().to_string(), Entry { key_at: at(key.span()), node })
    };
    table.iter().map(entry).collect()
}

fn node_of(value: &DeValue<'_>, at: At, source: &Arc<Source>) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => match i128::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Integer(n),
            Err(_) => Value::Float(f64::NAN),
        },
        DeValue::Float(n) => Value::Float(n.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(t) => Value::Time(t.to_string()),
        DeValue::Array(items) => {
            let node = |item: &toml::Spanned<DeValue<'_>>| {
                node_of(item.get_ref(), At { source: source.clone(), span: item.span() }, source)
            };
            Value::List(items.iter().map(node).collect())
        }
        DeValue::Table(table) => Value::Table(table_of(table, source)),
    };
    Node { at, value }
}

/// Lays `over` over `under`: tables are joined, everything else is replaced.
pub fn lay_over(under: &mut Table, over: Table) {
    for (key, entry) in over {
        let Entry { key_at, node } = entry;
        match (under.get_mut(&key).map(|below| &mut below.node.value), node.value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                under.insert(key, Entry { key_at, node: Node { at: node.at, value } });
            }
        }
    }
}

/// A tree of one leaf, for a setting that comes from the environment or a flag. The text is read as a TOML value when
/// it is one, and as plain text when not. `path` has at least one part.
pub fn single(path: &[String], name: &str, text: &str) -> Table {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let at = At { source: source.clone(), span: 0..text.len() };
    let mut node = match DeValue::parse(text) {
        Ok(value) if !value.get_ref().is_table() => node_of(value.get_ref(), at.clone(), &source),
        _ => Node { at: at.clone(), value: Value::Text(text.to_owned()) },
    };
    for key in path.iter().skip(1).rev() {
        let table = Table::from([(key.clone(), Entry { key_at: at.clone(), node })]);
        node = Node { at: at.clone(), value: Value::Table(table) };
    }
    Table::from([(path[0].clone(), Entry { key_at: at, node })])
}

/// As JSON, for request bodies. Members keep the order of the file.
pub fn json(node: &Node) -> Result<serde_json::Value, Problem> {
    Ok(match &node.value {
        Value::Text(text) | Value::Time(text) => serde_json::Value::String(text.clone()),
        Value::Boolean(b) => (*b).into(),
        Value::Integer(n) => match (i64::try_from(*n), u64::try_from(*n)) {
            (Ok(n), _) => n.into(),
            (_, Ok(n)) => n.into(),
            _ => return Err(Problem::new(format!("expected a number of at most 64 bits, got {n}")).at(&node.at)),
        },
        Value::Float(n) => match serde_json::Number::from_f64(*n) {
            Some(n) => serde_json::Value::Number(n),
            None => return Err(Problem::new("expected a number that JSON can write").at(&node.at)),
        },
        Value::List(items) => serde_json::Value::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Value::Table(table) => {
            let mut members: Vec<(&String, &Entry)> = table.iter().collect();
            members.sort_by_key(|(_, entry)| entry.key_at.span.start);
            let pairs = members.into_iter().map(|(key, entry)| Ok((key.clone(), json(&entry.node)?)));
            serde_json::Value::Object(pairs.collect::<Result<_, Problem>>()?)
        }
    })
}
