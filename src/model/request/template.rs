//! The `{name}` language of paths, queries and headers: variables, `{{` and `}}`, nothing else.
//!
//! Which variables exist depends on the [`Site`], so a declaration that asks for one that can never be there is refused
//! when it is checked. What can only be known per job (a key, a field of the payload) is refused when rendered, and the
//! job with it. Must never know: JSON bodies (see `body.rs`), HTTP.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::RenderError;
use crate::model::job::ClaimedJob;
use crate::model::name::{Account, Tenant};

/// All but RFC 3986 "unreserved": what is left can neither end a segment nor begin a query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Longest template text, bytes.
pub const TEMPLATE_BYTES_MAX: usize = 64 * 1024;

/// A text with variables, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Variable(Variable),
}

/// A name between braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    Key,
    Account,
    Tenant,
    JobId,
    /// The payload, or the member of it that the path leads to; numbers index arrays.
    Payload(Vec<String>),
    /// Payloads of all jobs of a batch.
    Payloads,
    /// Keys of all jobs of a batch.
    Keys,
}

/// Where a template stands; decides which variables it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// Headers of every call of a provider: `{account}` only, since both lanes send them.
    Provider,
    /// `{key}`, `{account}`, `{tenant}`, `{job_id}`, `{payload}`, `{payload.a.b}`.
    Single,
    /// `{payloads}`, `{keys}`, `{account}`. Jobs of several tenants share a batch, so there is no `{tenant}`.
    Batch,
    /// `{payload}`, `{payload.a.b}` of a message that came in.
    Webhook,
}

/// Where a text goes; decides how a variable's value is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// One segment of a path. Never empty.
    Segment,
    Query,
    /// No line ends, no control characters.
    Header,
    /// The inside of a JSON string.
    JsonText,
    /// A name, which checks itself.
    Name,
}

/// What the variables stand for in one call.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub account: &'a Account,
    pub tenant: &'a Tenant,
    pub jobs: &'a [ClaimedJob],
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    #[error("unknown variable {{{name}}}: expected one of {}", .known.join(", "))]
    Unknown { name: String, known: Vec<&'static str> },
    #[error("{{{name}}} cannot be used {place}: {why}")]
    Misplaced { name: String, place: &'static str, why: &'static str },
    #[error("expected '}}' after {0:?}, got the end of the text; write '{{{{' for a brace")]
    Unclosed(String),
    #[error("expected a '{{' before '}}' at byte {0}; write '}}}}' for a brace")]
    Unopened(usize),
    #[error("expected a text of at most {TEMPLATE_BYTES_MAX} bytes, got {0}")]
    TooLong(usize),
    #[error("expected {{payload}} with names like {{payload.user.id}}, got {{{0}}}")]
    BadPath(String),
    #[error("{0}")]
    Body(String),
}

impl Site {
    fn known(self) -> Vec<&'static str> {
        match self {
            Site::Provider => vec!["{account}"],
            Site::Single => vec!["{key}", "{account}", "{tenant}", "{job_id}", "{payload}", "{payload.field}"],
            Site::Batch => vec!["{payloads}", "{keys}", "{account}"],
            Site::Webhook => vec!["{payload}", "{payload.field}"],
        }
    }

    fn place(self) -> &'static str {
        match self {
            Site::Provider => "in a header of the provider",
            Site::Single => "on the single lane",
            Site::Batch => "on the batch lane",
            Site::Webhook => "in what a webhook starts",
        }
    }

    fn variable(self, name: &str) -> Result<Variable, BadTemplate> {
        let variable = match name {
            "key" => Variable::Key,
            "account" => Variable::Account,
            "tenant" => Variable::Tenant,
            "job_id" => Variable::JobId,
            "payload" => Variable::Payload(Vec::new()),
            "payloads" => Variable::Payloads,
            "keys" => Variable::Keys,
            _ => match name.strip_prefix("payload.") {
                Some(path) if path.split('.').all(|s| !s.is_empty()) => {
                    Variable::Payload(path.split('.').map(str::to_owned).collect())
                }
                Some(_) => return Err(BadTemplate::BadPath(name.to_owned())),
                None => return Err(BadTemplate::Unknown { name: name.to_owned(), known: self.known() }),
            },
        };
        let why = match (&variable, self) {
            (Variable::Payload(_), Site::Webhook) => None,
            (_, Site::Webhook) => Some("only the message is there; write {payload.field}"),
            (Variable::Account, _) => None,
            (Variable::Payloads | Variable::Keys, Site::Batch) => None,
            (Variable::Payloads, _) => Some("it needs a batch; write {payload}"),
            (Variable::Keys, _) => Some("it needs a batch; write {key}"),
            (_, Site::Single) => None,
            (Variable::Payload(_), Site::Batch) => Some("a batch has many; write {payloads}"),
            (Variable::Key, Site::Batch) => Some("a batch has many; write {keys}"),
            (Variable::Tenant, Site::Batch) => Some("jobs of several tenants share a batch"),
            (_, Site::Batch) => Some("a batch carries many jobs"),
            (_, Site::Provider) => Some("both lanes send it; declare it with the operation"),
        };
        match why {
            Some(why) => Err(BadTemplate::Misplaced { name: name.to_owned(), place: self.place(), why }),
            None => Ok(variable),
        }
    }
}

impl Template {
    pub fn parse(source: &str, site: Site) -> Result<Template, BadTemplate> {
        let parts = parts(source, site)?;
        let whole = |v: &Variable| matches!(v, Variable::Payloads) || *v == Variable::Payload(Vec::new());
        if let Some(variable) = parts.iter().filter_map(Part::variable).find(|v| whole(v)) {
            let why = "it is a JSON document; only a body can carry it";
            let name = variable.name();
            return Err(BadTemplate::Misplaced { name, place: "in a path, query or header", why });
        }
        Ok(Template { source: source.to_owned(), parts })
    }

    /// A text without variables.
    pub fn literal(text: &str) -> Template {
        let source = text.replace('{', "{{").replace('}', "}}");
        Template { source, parts: vec![Part::Text(text.to_owned())] }
    }

    /// The text as declared.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn uses(&self, variable: &Variable) -> bool {
        self.parts.iter().filter_map(Part::variable).any(|v| v == variable)
    }

    /// The declared text between the variables, unescaped.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|p| if let Part::Text(t) = p { Some(t.as_str()) } else { None })
    }

    pub fn text(&self, facts: &Facts<'_>, into: Into) -> Result<String, RenderError> {
        let mut out = String::new();
        self.text_into(&mut out, facts, into)?;
        Ok(out)
    }

    pub fn text_into(&self, out: &mut String, facts: &Facts<'_>, into: Into) -> Result<(), RenderError> {
        for part in &self.parts {
            match part {
                // A path's literal text is checked when declared and goes out as it is; a query's was decoded.
                Part::Text(text) if into == Into::Query => encode_into(out, text),
                Part::Text(text) => out.push_str(text),
                Part::Variable(variable) => variable.text_into(out, facts, into)?,
            }
        }
        Ok(())
    }
}

impl Part {
    pub(super) fn variable(&self) -> Option<&Variable> {
        if let Part::Variable(v) = self { Some(v) } else { None }
    }
}

/// Splits a text at its variables.
pub(super) fn parts(source: &str, site: Site) -> Result<Vec<Part>, BadTemplate> {
    if source.len() > TEMPLATE_BYTES_MAX {
        return Err(BadTemplate::TooLong(source.len()));
    }
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = source;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(BadTemplate::Unopened(source.len() - rest.len() + at));
        }
        let Some((name, after)) = after.split_once('}') else {
            return Err(BadTemplate::Unclosed(rest[at..].chars().take(40).collect()));
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(Part::Variable(site.variable(name)?));
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

impl Variable {
    pub fn name(&self) -> String {
        match self {
            Variable::Key => "key".to_owned(),
            Variable::Account => "account".to_owned(),
            Variable::Tenant => "tenant".to_owned(),
            Variable::JobId => "job_id".to_owned(),
            Variable::Payload(path) if path.is_empty() => "payload".to_owned(),
            Variable::Payload(path) => format!("payload.{}", path.join(".")),
            Variable::Payloads => "payloads".to_owned(),
            Variable::Keys => "keys".to_owned(),
        }
    }

    /// The value as text, escaped for its place.
    pub(super) fn text_into(&self, out: &mut String, facts: &Facts<'_>, into: Into) -> Result<(), RenderError> {
        let mut put = |job: usize, value: &str| escape_into(out, self, job, value, into);
        match self {
            Variable::Account => put(0, facts.account.as_str()),
            Variable::Tenant => put(0, facts.tenant.as_str()),
            Variable::Key => put(0, key_of(facts, 0)?),
            Variable::JobId => put(0, &one(facts)?.id.to_string()),
            Variable::Payload(path) => put(0, &scalar(one(facts)?, path)?),
            Variable::Payloads => {
                let mut json = String::new();
                self.json_into(&mut json, facts)?;
                put(0, &json)
            }
            Variable::Keys => {
                for job in 0..facts.jobs.len() {
                    let key = key_of(facts, job)?;
                    if job > 0 {
                        out.push(',');
                    }
                    escape_into(out, self, job, key, into)?;
                }
                Ok(())
            }
        }
    }

    /// The value as a JSON document.
    pub(super) fn json_into(&self, out: &mut String, facts: &Facts<'_>) -> Result<(), RenderError> {
        match self {
            Variable::Account => push_json_text(out, facts.account.as_str()),
            Variable::Tenant => push_json_text(out, facts.tenant.as_str()),
            Variable::Key => push_json_text(out, key_of(facts, 0)?),
            Variable::JobId => push_json_text(out, &one(facts)?.id.to_string()),
            Variable::Payload(path) => out.push_str(member(one(facts)?, path)?),
            Variable::Payloads => {
                out.reserve(facts.jobs.iter().map(|j| j.payload.len() + 1).sum::<usize>() + 2);
                out.push('[');
                for (i, job) in facts.jobs.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    out.push_str(&job.payload);
                }
                out.push(']');
            }
            Variable::Keys => {
                out.push('[');
                for job in 0..facts.jobs.len() {
                    if job > 0 {
                        out.push(',');
                    }
                    push_json_text(out, key_of(facts, job)?);
                }
                out.push(']');
            }
        }
        Ok(())
    }
}

fn one<'a>(facts: &Facts<'a>) -> Result<&'a ClaimedJob, RenderError> {
    facts.jobs.first().ok_or_else(|| RenderError { job: 0, reason: "expected a job, got an empty call".to_owned() })
}

fn key_of<'a>(facts: &Facts<'a>, job: usize) -> Result<&'a str, RenderError> {
    match facts.jobs.get(job).and_then(|j| j.key.as_ref()) {
        Some(key) => Ok(key.as_str()),
        None => Err(RenderError {
            job,
            reason: "the request needs the job's key, and the job has none: give it a key".to_owned(),
        }),
    }
}

fn escape_into(out: &mut String, variable: &Variable, job: usize, value: &str, into: Into) -> Result<(), RenderError> {
    let unfit = |what: &str| {
        let reason = format!("{{{}}} {what}", variable.name());
        Err(RenderError { job, reason })
    };
    match into {
        Into::Segment if value.is_empty() => return unfit("stands in the path and is empty"),
        Into::Segment | Into::Query => encode_into(out, value),
        Into::Header => {
            // A line end would begin a header of the caller's choosing.
            if let Some(c) = value.chars().find(|c| c.is_control() || !c.is_ascii()) {
                return unfit(&format!("stands in a header and contains {c:?}: only visible ASCII can be sent there"));
            }
            out.push_str(value);
        }
        Into::JsonText => push_json_inside(out, value),
        Into::Name => out.push_str(value),
    }
    Ok(())
}

pub(super) fn encode_into(out: &mut String, value: &str) {
    out.extend(utf8_percent_encode(value, ENCODED));
}

fn push_json_text(out: &mut String, value: &str) {
    out.push('"');
    push_json_inside(out, value);
    out.push('"');
}

/// Escapes like serde_json does, without the quotes.
pub(super) fn push_json_inside(out: &mut String, value: &str) {
    if value.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push_str(value);
        return;
    }
    let quoted = serde_json::to_string(value).expect("a text always has a JSON form");
    out.push_str(&quoted[1..quoted.len() - 1]);
}

/// The text of the member that `path` leads to, as it stands in the payload.
fn member<'a>(job: &'a ClaimedJob, path: &[String]) -> Result<&'a str, RenderError> {
    let mut at: &str = &job.payload;
    for (depth, name) in path.iter().enumerate() {
        let shown = || format!("payload.{}", path[..=depth].join("."));
        let found = Member(name).deserialize(&mut serde_json::Deserializer::from_str(at));
        at = match found {
            Ok(Some(raw)) => raw.get(),
            Ok(None) => {
                return Err(RenderError {
                    job: 0,
                    reason: format!("the request needs {}, and it is not there", shown()),
                });
            }
            Err(e) => return Err(RenderError { job: 0, reason: format!("cannot read {}: {e}", shown()) }),
        };
    }
    Ok(at)
}

/// The member as plain text: a text without its quotes, a number or boolean as written.
fn scalar<'a>(job: &'a ClaimedJob, path: &[String]) -> Result<Cow<'a, str>, RenderError> {
    let raw = member(job, path)?;
    let unfit = |what: &str| {
        let shown = Variable::Payload(path.to_vec()).name();
        RenderError { job: 0, reason: format!("expected a text, number or boolean at {shown}, got {what}") }
    };
    match raw.trim_start().as_bytes().first() {
        // The whole payload inside a JSON text: any document may stand there.
        _ if path.is_empty() => Ok(Cow::Borrowed(raw)),
        Some(b'"') => serde_json::from_str(raw).map(Cow::Owned).map_err(|e| unfit(&e.to_string())),
        Some(b'{') => Err(unfit("an object")),
        Some(b'[') => Err(unfit("an array")),
        Some(b'n') => Err(unfit("null")),
        _ => Ok(Cow::Borrowed(raw.trim())),
    }
}

/// Finds one member of an object or array without reading the rest into memory.
struct Member<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;
    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object or array with {:?}", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == self.0 {
                // Of doubled members the last one counts, as in most readers of JSON.
                found = Some(map.next_value::<&'de RawValue>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let index = self.0.parse::<usize>().ok();
        let mut found = None;
        let mut i = 0;
        while let Some(raw) = seq.next_element::<&'de RawValue>()? {
            if Some(i) == index {
                found = Some(raw);
            }
            i += 1;
        }
        Ok(found)
    }
}
