//! A request made of path, query and body.
//!
//! The query may name any field that is not in the path, nested ones with dots (`job.key`), repeated ones again and again;
//! names as in the proto or as in its JSON. Unknown names are refused, with the nearest that there is. Must never know:
//! what a field means. Next: `text`, the way back.

use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::problem::Problem;
use super::rules::{Body, Rule};
use super::text::holds_json;
use crate::api::Error;

/// Parameters of one query.
const PARAMETERS_MAX: usize = 1_000;

pub(super) fn request(
    rule: &Rule,
    path: &[(&str, String)],
    query: &str,
    body: &str,
) -> Result<DynamicMessage, Problem> {
    let of = rule.method.input();
    let mut root = body_of(rule, &of, body)?;
    for (n, (name, value)) in url::form_urlencoded::parse(query.as_bytes()).enumerate() {
        if n == PARAMETERS_MAX {
            let said = format!("expected at most {PARAMETERS_MAX} parameters in the query");
            return Err(Error::field("query", "TOO_MANY_PARAMETERS", said).into());
        }
        set(&mut root, &of, &name, &value)?;
    }
    for (name, value) in path {
        let field = of.get_field_by_name(name).expect("a test holds the rules to fields that exist");
        let text = scalar(&field, name, value)?;
        match root.insert(field.json_name().to_owned(), text.clone()) {
            Some(other) if other != text => {
                let said = format!("expected {text} as in the path, got {other}");
                return Err(Error::field(*name, "PATH_AND_BODY_DIFFER", said).into());
            }
            _ => {}
        }
    }
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(of, Value::Object(root), &options).map_err(|e| not_this(&e))
}

/// Sets the resume token, where the request has one and the query gave none.
pub(super) fn resume(message: &mut DynamicMessage, token: &str) {
    if message.get_field_by_name("resume_token").is_some_and(|now| now.as_str() == Some("")) {
        message.set_field_by_name("resume_token", prost_reflect::Value::String(token.to_owned()));
    }
}

fn not_this(e: &serde_json::Error) -> Problem {
    Error::new(crate::api::Code::InvalidArgument, "BAD_JSON", format!("the request is not what is expected: {e}"))
        .into()
}

fn body_of(rule: &Rule, of: &MessageDescriptor, text: &str) -> Result<Map<String, Value>, Problem> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    if rule.body == Body::None {
        return Err(Error::field("body", "NO_BODY_EXPECTED", "expected no body; use the path and the query").into());
    }
    let mut value: Value = serde_json::from_str(text).map_err(|e| not_this(&e))?;
    match &rule.body {
        Body::Field(name) => {
            let field = of.get_field_by_name(name).expect("a test holds the rules to fields that exist");
            unfold(&mut value, &field);
            Ok(Map::from_iter([(field.json_name().to_owned(), value)]))
        }
        _ => match value {
            Value::Object(mut map) => {
                unfold_all(&mut map, of);
                Ok(map)
            }
            other => Err(Error::field("body", "BAD_JSON", format!("expected an object, got {}", what(&other))).into()),
        },
    }
}

fn what(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Objects and arrays that stand for the text of a field that holds JSON become that text, all the way down; names become
/// those of JSON, so that a field is not given twice under two names.
fn unfold_all(map: &mut Map<String, Value>, of: &MessageDescriptor) {
    if of.full_name().starts_with("google.protobuf.") {
        return;
    }
    for (name, mut value) in std::mem::take(map) {
        let field = of.get_field_by_json_name(&name).or_else(|| of.get_field_by_name(&name));
        let name = match &field {
            Some(field) => {
                unfold(&mut value, field);
                field.json_name().to_owned()
            }
            None => name,
        };
        map.insert(name, value);
    }
}

fn unfold(value: &mut Value, field: &FieldDescriptor) {
    let kind = match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    };
    let one = |value: &mut Value| match (&kind, &mut *value) {
        (Kind::Message(of), Value::Object(map)) => unfold_all(map, of),
        (Kind::String, Value::Object(_) | Value::Array(_)) if holds_json(field) => *value = value.to_string().into(),
        _ => {}
    };
    match value {
        Value::Array(items) if field.is_list() => items.iter_mut().for_each(one),
        Value::Object(entries) if field.is_map() => entries.values_mut().for_each(one),
        value => one(value),
    }
}

/// One parameter of the query.
fn set(root: &mut Map<String, Value>, of: &MessageDescriptor, name: &str, text: &str) -> Result<(), Problem> {
    let (head, rest) = name.split_once('.').map_or((name, None), |(head, rest)| (head, Some(rest)));
    let field = of.get_field_by_name(head).or_else(|| of.get_field_by_json_name(head));
    let field = field.ok_or_else(|| unknown(of, name))?;
    let slot = field.json_name().to_owned();
    match (field.kind(), rest) {
        (Kind::Message(entry), Some(key)) if field.is_map() => {
            let value = scalar(&entry.map_entry_value_field(), name, text)?;
            object(root, slot).insert(key.to_owned(), value);
        }
        (Kind::Message(inner), Some(rest)) if !field.is_list() => set(object(root, slot), &inner, rest, text)?,
        (_, Some(_)) => return Err(unknown(of, name)),
        (_, None) if field.is_list() => {
            let value = scalar(&field, name, text)?;
            match root.entry(slot).or_insert_with(|| Value::Array(Vec::new())) {
                Value::Array(items) => items.push(value),
                other => *other = value,
            }
        }
        (_, None) => {
            root.insert(slot, scalar(&field, name, text)?);
        }
    }
    Ok(())
}

fn object(root: &mut Map<String, Value>, slot: String) -> &mut Map<String, Value> {
    let entry = root.entry(slot).or_insert_with(|| Value::Object(Map::new()));
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    entry.as_object_mut().expect("made an object above")
}

fn unknown(of: &MessageDescriptor, name: &str) -> Problem {
    let known: Vec<String> = of.fields().map(|field| field.name().to_owned()).collect();
    let near = known.iter().map(|k| (strsim::damerau_levenshtein(k, name), k)).min();
    let near = near.filter(|(distance, _)| *distance <= 3).map(|(_, k)| format!("; did you mean {k}?"));
    let said = format!("expected one of {}{}", known.join(", "), near.unwrap_or_default());
    Error::field(name, "UNKNOWN_PARAMETER", said).into()
}

/// A text of the path or the query as the JSON that its field is read from. Texts are fit for most kinds: 64-bit numbers,
/// enums, times, durations.
fn scalar(field: &FieldDescriptor, name: &str, text: &str) -> Result<Value, Problem> {
    let wrong = |what: &str| Error::field(name, "BAD_VALUE", format!("expected {what}, got {text:?}")).into();
    match field.kind() {
        Kind::Bool => text.parse().map(Value::Bool).map_err(|_| wrong("true or false")),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Uint32 | Kind::Fixed32 => {
            text.parse::<i64>().map(Value::from).map_err(|_| wrong("a whole number"))
        }
        Kind::Double | Kind::Float => text.parse::<f64>().map(Value::from).map_err(|_| wrong("a number")),
        Kind::Enum(of) if text.parse::<i32>().is_err() && of.get_value_by_name(text).is_none() => {
            let names: Vec<String> = of.values().map(|v| v.name().to_owned()).collect();
            Err(wrong(&format!("one of {}", names.join(", "))))
        }
        _ => Ok(Value::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::transcode::rules::Rules;

    fn filled(verb: &str, path: &str, query: &str, body: &str) -> Result<String, String> {
        let rules = Rules::read();
        let (rule, fields) = rules.find(&verb.parse().unwrap(), path).unwrap();
        let message = request(rule, &fields, query, body).map_err(|problem| problem.json)?;
        Ok(super::super::text::write(&message))
    }

    #[test]
    fn path_query_and_body_make_one_request() {
        let got = filled("GET", "/api/v1/jobs", "page_size=7&filter=state%20%3D%20DEAD&view=VIEW_FULL", "").unwrap();
        assert_eq!(got, r#"{"filter":"state = DEAD","pageSize":7,"view":"VIEW_FULL"}"#);
        let body = r#"{"provider":"crm","operation":"ping","payload":{"a":[1,{"b":null}]}}"#;
        let got = filled("POST", "/api/v1/jobs", "requestId=r1&validate_only=true&job.labels.team=x", body).unwrap();
        let job = r#""job":{"provider":"crm","operation":"ping","payload":{"a":[1,{"b":null}]},"labels":{"team":"x"}}"#;
        assert_eq!(got, format!(r#"{{{job},"requestId":"r1","validateOnly":true}}"#));
        let got = filled("PATCH", "/api/v1/jobs/j1", "", r#"{"job_id":"j1","due_time":"2026-01-01T00:00:00Z"}"#);
        assert_eq!(got.unwrap(), r#"{"jobId":"j1","dueTime":"2026-01-01T00:00:00Z"}"#);
    }

    #[test]
    fn what_does_not_fit_says_what_would() {
        let check = |verb, path, query, body, said: &str| {
            let problem = filled(verb, path, query, body).unwrap_err();
            assert!(problem.contains(said), "{verb} {path}?{query} {body}: {problem}");
        };
        check("GET", "/api/v1/jobs", "pagesize=7", "", "did you mean page_size?");
        check("GET", "/api/v1/jobs", "page_size=many", "", "expected a whole number");
        check("GET", "/api/v1/jobs", "view=ALL", "", "VIEW_FULL");
        check("GET", "/api/v1/jobs", "page_size=99999999999", "", "the request is not what is expected");
        check("GET", "/api/v1/jobs", "filter.x=1", "", "UNKNOWN_PARAMETER");
        check("GET", "/api/v1/jobs", "", "{}", "NO_BODY_EXPECTED");
        check("POST", "/api/v1/jobs:batch", "", "[1]", "expected an object, got an array");
        check("POST", "/api/v1/jobs:batch", "", "{\"jobs\":", "EOF");
        check("POST", "/api/v1/jobs:batch", "", r#"{"jbs":[]}"#, "jbs");
        check("PATCH", "/api/v1/jobs/j1", "", r#"{"jobId":"j2"}"#, "PATH_AND_BODY_DIFFER");
    }
}
