//! Showing the settings in force, with where each came from.
//!
//! Must never know: values of secrets; a tree holds only references.

use super::tree::{Entry, Node, Table, Value};

/// `key = value  # origin`, one line per setting, in the order of the alphabet.
pub fn explain(tree: &Table) -> String {
    let mut lines = Vec::new();
    for (key, entry) in tree {
        leaves(key_text(key), &entry.node, &mut lines);
    }
    let width = lines.iter().map(|(setting, _)| setting.chars().count()).max().unwrap_or(0).min(60);
    let line = |(setting, origin): (String, String)| format!("{setting:width$}  # {origin}\n");
    lines.into_iter().map(line).collect()
}

fn leaves(path: String, node: &Node, lines: &mut Vec<(String, String)>) {
    match &node.value {
        Value::Table(table) if !table.is_empty() => {
            for (key, entry) in table {
                leaves(format!("{path}.{}", key_text(key)), &entry.node, lines);
            }
        }
        _ => {
            let name = &node.at.source.name;
            let origin = match name.as_str() {
                "default" => "default".to_owned(),
                other if other.starts_with("environment ") || other.starts_with("--") => other.to_owned(),
                _ => node.at.to_string(),
            };
            lines.push((format!("{path} = {}", inline(node)), origin));
        }
    }
}

/// A provider's table as TOML of its own. Keys keep the order of the file, since bodies do; comments are gone.
pub fn provider_toml(name: &str, entry: &Entry) -> String {
    let mut out = String::new();
    headed(&format!("providers.{}", key_text(name)), &entry.node, "operations", &mut out);
    out
}

/// `[path]` with its settings on one line each; the tables of `apart` get headings of their own.
fn headed(path: &str, node: &Node, apart: &str, out: &mut String) {
    out.push_str(&format!("[{path}]\n"));
    let Value::Table(table) = &node.value else { return };
    let (tables, plain): (Vec<_>, Vec<_>) =
        in_order(table).into_iter().partition(|(key, e)| *key == apart && matches!(e.node.value, Value::Table(_)));
    for (key, entry) in plain {
        out.push_str(&format!("{} = {}\n", key_text(key), inline(&entry.node)));
    }
    for (key, entry) in tables {
        match (&entry.node.value, apart) {
            (Value::Table(operations), "operations") => {
                for (name, operation) in in_order(operations) {
                    headed(&format!("{path}.operations.{}", key_text(name)), &operation.node, "batch", out);
                }
            }
            _ => headed(&format!("{path}.{}", key_text(key)), &entry.node, "", out),
        }
    }
}

fn in_order(table: &Table) -> Vec<(&String, &Entry)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(_, entry)| entry.key_at.span.start);
    entries
}

/// A value on one line.
pub fn inline(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => toml::Value::String(text.clone()).to_string(),
        Value::Integer(n) => n.to_string(),
        Value::Float(n) => toml::Value::Float(*n).to_string(),
        Value::Boolean(b) => b.to_string(),
        Value::Time(t) => t.clone(),
        Value::List(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => {
            let member = |(key, entry): (&String, &Entry)| format!("{} = {}", key_text(key), inline(&entry.node));
            format!("{{ {} }}", in_order(table).into_iter().map(member).collect::<Vec<_>>().join(", "))
        }
    }
}

fn key_text(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_owned() } else { toml::Value::String(key.to_owned()).to_string() }
}
