//! Answers as JSON. The proto's own JSON, but that fields declared as `(tidegate.v1.json)` hold JSON and are written as
//! what they hold, byte for byte. Must never know: what a message means.

use std::collections::HashSet;
use std::sync::LazyLock;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, SerializeOptions};
use serde_json::Value;

use crate::grpc::json;

/// Full names of the fields that hold JSON. Read once: options are decoded anew each time they are asked for.
static HOLD_JSON: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let pool = json::pool();
    let option = pool.get_extension_by_name("tidegate.v1.json").expect("common.proto declares the option");
    let fields = pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    let hold = |field: &FieldDescriptor| field.options().get_extension(&option).as_bool() == Some(true);
    fields.filter(hold).map(|field| field.full_name().to_owned()).collect()
});

/// True for a text that is JSON itself, as a payload.
pub(super) fn holds_json(field: &FieldDescriptor) -> bool {
    HOLD_JSON.contains(field.full_name())
}

pub(super) fn write(message: &DynamicMessage) -> String {
    let tree = message
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
        .expect("a message of known types has a JSON form");
    let mut out = String::new();
    node(&tree, &message.descriptor(), &mut out);
    out
}

/// Where a watch goes on after this message.
pub(super) fn resume_token(message: &DynamicMessage) -> Option<String> {
    let token = message.get_field_by_name("resume_token")?;
    token.as_str().filter(|token| !token.is_empty()).map(str::to_owned)
}

/// A message. Those that JSON writes as something else than an object, as a time, are written as they are.
fn node(value: &Value, of: &MessageDescriptor, out: &mut String) {
    let Value::Object(fields) = value else { return plain(value, out) };
    if of.full_name().starts_with("google.protobuf.") {
        return plain(value, out);
    }
    out.push('{');
    for (n, (name, value)) in fields.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        plain(&Value::from(name.as_str()), out);
        out.push(':');
        match of.get_field_by_json_name(name) {
            Some(field) => member(value, &field, out),
            None => plain(value, out),
        }
    }
    out.push('}');
}

fn member(value: &Value, field: &FieldDescriptor, out: &mut String) {
    let kind = match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    };
    let one = |value: &Value, out: &mut String| match (&kind, value) {
        (Kind::Message(message), _) => node(value, message, out),
        (_, Value::String(text))
            if holds_json(field) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() =>
        {
            out.push_str(text);
        }
        _ => plain(value, out),
    };
    match value {
        Value::Array(items) if field.is_list() => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                one(item, out);
            }
            out.push(']');
        }
        Value::Object(entries) if field.is_map() => {
            out.push('{');
            for (n, (key, item)) in entries.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                plain(&Value::from(key.as_str()), out);
                out.push(':');
                one(item, out);
            }
            out.push('}');
        }
        value => one(value, out),
    }
}

fn plain(value: &Value, out: &mut String) {
    out.push_str(&value.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::pb;

    #[test]
    fn a_payload_is_written_as_what_it_is() {
        let big = r#"{"n":12345678901234567890123,"s":"a b"}"#;
        let spec = pb::JobSpec { provider: "crm".into(), payload: big.into(), ..Default::default() };
        let request = pb::EnqueueJobsRequest { jobs: vec![spec], request_id: r#""q""#.into(), ..Default::default() };
        let of = json::pool().get_message_by_name("tidegate.v1.EnqueueJobsRequest").unwrap();
        let mut message = DynamicMessage::new(of);
        message.transcode_from(&request).unwrap();
        let expected = format!(r#"{{"jobs":[{{"provider":"crm","payload":{big}}}],"requestId":"\"q\""}}"#);
        assert_eq!(write(&message), expected);
    }
}
