//! The description of the REST face: OpenAPI 3.1, made of the protos and their comments. `docs/openapi.json` is a copy of
//! it, held to it by a test. Must never know: HTTP servers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::rules::{Body, Rule, Rules, Segment};
use super::text::holds_json;
use crate::grpc::json::{commented, pool};

/// The whole document.
pub fn openapi() -> Value {
    let comments = Comments::read();
    let mut page = Page { comments: &comments, schemas: BTreeMap::new(), open: Vec::new() };
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let rules = Rules::read();
    let mut all: Vec<&Rule> = rules.all().collect();
    all.sort_by_key(|rule| (rule.template(), rule.verb.as_str().to_owned()));
    let mut services = BTreeSet::new();
    for rule in all {
        services.insert(rule.method.parent_service().full_name().to_owned());
        let operation = page.operation(rule);
        paths.entry(rule.template()).or_default().insert(rule.verb.as_str().to_ascii_lowercase(), operation);
    }
    page.close();
    let tags = services.iter().filter_map(|name| {
        let service = pool().get_service_by_name(name)?;
        let said = comments.of(&service.parent_file(), service.path());
        Some(json!({"name": service.name(), "description": said}))
    });
    let mut schemas = page.schemas;
    schemas.insert("Problem".to_owned(), problem());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The gRPC services of tidegate.v1 over plain HTTP with the proto's JSON: times are RFC 3339, \
                durations texts like \"90s\", 64-bit numbers texts, empty fields are left out. A field that holds JSON \
                (payload, result) is written as the JSON itself and taken as such or as a text. Streams are \
                server-sent events where the request accepts text/event-stream, else a line of JSON each.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
        },
        "servers": [{"url": "http://127.0.0.1:7071"}],
        "tags": tags.collect::<Vec<_>>(),
        "paths": paths,
        "components": {"schemas": schemas}
    })
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "What is wrong, as RFC 9457 has it. `reason` is for programs: UPPER_SNAKE_CASE, as in google.rpc.ErrorInfo.",
        "required": ["type", "title", "status", "detail", "reason"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "reason": {"type": "string"},
            "violations": {"type": "array", "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "description": {"type": "string"}}
            }},
            "resource": {
                "type": "object",
                "properties": {"type": {"type": "string"}, "name": {"type": "string"}}
            },
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
            "retryAfterSeconds": {"type": "number"}
        }
    })
}

struct Page<'a> {
    comments: &'a Comments,
    schemas: BTreeMap<String, Value>,
    /// Named and not yet described.
    open: Vec<Kind>,
}

impl Page<'_> {
    fn operation(&mut self, rule: &Rule) -> Value {
        let method = &rule.method;
        let said = self.comments.of(&method.parent_file(), method.path());
        let summary = said.split_inclusive(['.', ':']).next().unwrap_or_default().trim_end_matches(['.', ':']);
        let mut parameters: Vec<Value> = Vec::new();
        let in_path = rule.segments.iter().filter_map(|s| match s {
            Segment::Field(name) => Some(name.as_str()),
            Segment::Word(_) => None,
        });
        let in_path: Vec<&str> = in_path.collect();
        for name in &in_path {
            let field = method.input().get_field_by_name(name).expect("a test holds the rules to fields that exist");
            parameters.push(self.parameter(&field, "path"));
        }
        if rule.body != Body::Whole && !method.is_client_streaming() {
            for field in method.input().fields() {
                let in_body = matches!(&rule.body, Body::Field(name) if name == field.name());
                if !in_path.contains(&field.name()) && !in_body {
                    parameters.push(self.parameter(&field, "query"));
                }
            }
        }
        let mut operation = json!({
            "operationId": format!("{}_{}", method.parent_service().name(), method.name()),
            "tags": [method.parent_service().name()],
            "summary": summary,
            "description": said,
            "parameters": parameters,
            "responses": {
                "200": {"description": "Done.", "content": self.answer(rule)},
                "default": {"description": "Refused or failed.", "content": {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                }}
            }
        });
        let body = match &rule.body {
            Body::None => None,
            Body::Whole => Some(self.named(&method.input())),
            Body::Field(name) => method.input().get_field_by_name(name).map(|field| self.schema(&field)),
        };
        if let Some(schema) = body {
            let kind = if method.is_client_streaming() { "application/x-ndjson" } else { "application/json" };
            operation["requestBody"] = json!({"required": true, "content": {kind: {"schema": schema}}});
        }
        operation
    }

    fn answer(&mut self, rule: &Rule) -> Value {
        let schema = self.named(&rule.method.output());
        match rule.method.is_server_streaming() {
            true => json!({"application/x-ndjson": {"schema": schema}, "text/event-stream": {"schema": schema}}),
            false => json!({"application/json": {"schema": schema}}),
        }
    }

    fn parameter(&mut self, field: &FieldDescriptor, place: &str) -> Value {
        json!({
            "name": field.name(),
            "in": place,
            "required": place == "path",
            "description": self.comments.of_field(field),
            "schema": self.schema(field)
        })
    }

    /// Of a field, with its comment.
    fn schema(&mut self, field: &FieldDescriptor) -> Value {
        if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            let value = self.kind(&entry.map_entry_value_field());
            return json!({"type": "object", "additionalProperties": value});
        }
        let one = self.kind(field);
        if field.is_list() { json!({"type": "array", "items": one}) } else { one }
    }

    fn kind(&mut self, field: &FieldDescriptor) -> Value {
        match field.kind() {
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Double | Kind::Float => json!({"type": ["number", "string"]}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer"}),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({"type": "string", "format": "int64"}),
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64"}),
            Kind::String if holds_json(field) => json!({"description": "JSON, as it is."}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Message(message) => self.named(&message),
            Kind::Enum(of) => {
                self.note(of.full_name(), Kind::Enum(of.clone()));
                reference(of.full_name())
            }
        }
    }

    fn named(&mut self, message: &MessageDescriptor) -> Value {
        match message.full_name() {
            "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
            "google.protobuf.Duration" => json!({"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?s$"}),
            "google.protobuf.Struct" => json!({"type": "object"}),
            "google.protobuf.Value" => json!({}),
            "google.protobuf.FieldMask" => json!({"type": "string"}),
            "google.protobuf.BoolValue" => json!({"type": ["boolean", "null"]}),
            name => {
                self.note(name, Kind::Message(message.clone()));
                reference(name)
            }
        }
    }

    fn note(&mut self, name: &str, kind: Kind) {
        if !self.schemas.contains_key(short(name)) {
            self.schemas.insert(short(name).to_owned(), Value::Null);
            self.open.push(kind);
        }
    }

    /// Describes what was named, and what that names.
    fn close(&mut self) {
        while let Some(kind) = self.open.pop() {
            let (name, schema) = match kind {
                Kind::Message(message) => (message.full_name().to_owned(), self.message(&message)),
                Kind::Enum(of) => (of.full_name().to_owned(), self.choice(&of)),
                _ => continue,
            };
            self.schemas.insert(short(&name).to_owned(), schema);
        }
    }

    fn message(&mut self, message: &MessageDescriptor) -> Value {
        let mut properties = Map::new();
        for field in message.fields() {
            let mut schema = self.schema(&field);
            let said = self.comments.of_field(&field);
            if let (Some(schema), false) = (schema.as_object_mut(), said.is_empty()) {
                schema.insert("description".to_owned(), said.into());
            }
            properties.insert(field.json_name().to_owned(), schema);
        }
        let said = self.comments.of(&message.parent_file(), message.path());
        json!({"type": "object", "description": said, "properties": properties, "additionalProperties": false})
    }

    fn choice(&self, of: &EnumDescriptor) -> Value {
        let mut said = self.comments.of(&of.parent_file(), of.path());
        for value in of.values() {
            said += &format!("\n- `{}`: {}", value.name(), self.comments.of(&of.parent_file(), value.path()));
        }
        let names: Vec<String> = of.values().map(|value| value.name().to_owned()).collect();
        json!({"type": "string", "description": said, "enum": names})
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("tidegate.v1.").unwrap_or(name)
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", short(name))})
}

/// Leading comments by file and place.
struct Comments(HashMap<(String, Vec<i32>), String>);

impl Comments {
    fn read() -> Comments {
        let mut all = HashMap::new();
        for file in commented().file_descriptor_protos() {
            for place in file.source_code_info.iter().flat_map(|info| &info.location) {
                if let Some(text) = &place.leading_comments {
                    let lines: Vec<&str> = text.lines().map(str::trim).collect();
                    all.insert((file.name().to_owned(), place.path.clone()), lines.join(" ").trim().to_owned());
                }
            }
        }
        Comments(all)
    }

    fn of(&self, file: &FileDescriptor, path: &[i32]) -> String {
        self.0.get(&(file.name().to_owned(), path.to_vec())).cloned().unwrap_or_default()
    }

    fn of_field(&self, field: &FieldDescriptor) -> String {
        self.of(&field.parent_message().parent_file(), field.path())
    }
}
