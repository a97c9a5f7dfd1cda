//! Which method a verb and a path mean: `google.api.http` of every method, read once.
//!
//! A path is segments, each a word or a field, and perhaps a `:verb` at its end. Words go before fields, and a path with a
//! verb before the same without: a record called `7:sync` is written `7%3Async`. Must never know: JSON, bodies.
//! Next: `fill`.

use http::Method;
use percent_encoding::percent_decode_str;
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};

use crate::grpc::json;

/// Which part of a request its body is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    /// No body.
    None,
    /// All that is neither in the path nor in the query.
    Whole,
    /// One field.
    Field(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Segment {
    Word(String),
    /// Name of the field that stands here.
    Field(String),
}

/// One verb and path of one method.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub method: MethodDescriptor,
    pub verb: Method,
    pub segments: Vec<Segment>,
    /// What follows the colon.
    pub action: Option<String>,
    pub body: Body,
}

/// Fields that a path gives: name and value, decoded.
pub(super) type PathFields<'a> = Vec<(&'a str, String)>;

/// Nothing there, or not with this verb.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    OtherPath,
    /// The verbs that the path has.
    OtherVerb(Vec<Method>),
}

#[derive(Debug)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    /// Of every method of `tidegate.v1`. The protos are ours: a rule that is none is a mistake of the build, which a
    /// test of this file would see first.
    pub fn read() -> Rules {
        let pool = json::pool();
        let http = pool.get_extension_by_name("google.api.http").expect("the protos import the annotation");
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let mut rules: Vec<Rule> = methods
            .filter_map(|method| {
                let options = method.options();
                let rule = options.has_extension(&http).then(|| options.get_extension(&http).into_owned())?;
                let Value::Message(rule) = rule else { return None };
                rule_of(method, &rule)
            })
            .collect();
        // The first that fits is taken: verbs of their own first, then the one with more words.
        let words = |r: &Rule| r.segments.iter().filter(|s| matches!(s, Segment::Word(_))).count();
        rules.sort_by_key(|r| (r.action.is_none(), std::cmp::Reverse(words(r))));
        Rules(rules)
    }

    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// The rule, and the fields that the path gives, decoded.
    pub fn find(&self, verb: &Method, path: &str) -> Result<(&Rule, PathFields<'_>), Wanted> {
        let mut others = Vec::new();
        for rule in &self.0 {
            let Some(fields) = rule.fits(path) else { continue };
            if rule.verb == *verb {
                return Ok((rule, fields));
            }
            others.push(rule.verb.clone());
        }
        others.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        others.dedup();
        Err(if others.is_empty() { Wanted::OtherPath } else { Wanted::OtherVerb(others) })
    }
}

impl Rule {
    fn fits(&self, path: &str) -> Option<PathFields<'_>> {
        let path = match &self.action {
            Some(action) => path.strip_suffix(action.as_str())?.strip_suffix(':')?,
            None => path,
        };
        let mut fields = Vec::new();
        let mut given = path.strip_prefix('/')?.split('/');
        for segment in &self.segments {
            let given = given.next()?;
            match segment {
                Segment::Word(word) if word == given => {}
                Segment::Word(_) => return None,
                Segment::Field(_) if given.is_empty() => return None,
                Segment::Field(name) => {
                    let decoded = percent_decode_str(given).decode_utf8().ok()?;
                    fields.push((name.as_str(), decoded.into_owned()));
                }
            }
        }
        given.next().is_none().then_some(fields)
    }

    /// As OpenAPI writes it.
    pub fn template(&self) -> String {
        let mut template = String::new();
        for segment in &self.segments {
            match segment {
                Segment::Word(word) => template.extend(["/", word]),
                Segment::Field(name) => template.extend(["/{", name, "}"]),
            }
        }
        if let Some(action) = &self.action {
            template.extend([":", action]);
        }
        template
    }
}

fn rule_of(method: MethodDescriptor, rule: &DynamicMessage) -> Option<Rule> {
    let text = |name: &str| match rule.get_field_by_name(name).map(|v| v.into_owned()) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let verbs = [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ];
    let (verb, path) = verbs.into_iter().find_map(|(name, verb)| Some((verb, text(name)?)))?;
    let (path, action) = match path.rsplit_once(':') {
        Some((path, action)) => (path.to_owned(), Some(action.to_owned())),
        None => (path, None),
    };
    let segment = |part: &str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
        Some(name) => Segment::Field(name.to_owned()),
        None => Segment::Word(part.to_owned()),
    };
    let segments = path.trim_start_matches('/').split('/').map(segment).collect();
    let body = match text("body").as_deref() {
        None => Body::None,
        Some("*") => Body::Whole,
        Some(field) => Body::Field(field.to_owned()),
    };
    Some(Rule { method, verb, segments, action, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(verb: Method, path: &str) -> (String, Vec<String>) {
        let rules = Rules::read();
        let (rule, fields) = rules.find(&verb, path).unwrap_or_else(|e| panic!("{verb} {path}: {e:?}"));
        (rule.method.name().to_owned(), fields.into_iter().map(|(_, value)| value).collect())
    }

    #[test]
    fn a_path_means_one_method() {
        assert_eq!(found(Method::POST, "/api/v1/jobs"), ("EnqueueJob".into(), vec![]));
        assert_eq!(found(Method::POST, "/api/v1/jobs:batch"), ("EnqueueJobs".into(), vec![]));
        assert_eq!(found(Method::GET, "/api/v1/jobs/x"), ("GetJob".into(), vec!["x".into()]));
        assert_eq!(found(Method::GET, "/api/v1/jobs/x:explain"), ("ExplainJob".into(), vec!["x".into()]));
        assert_eq!(found(Method::GET, "/api/v1/jobs/x%3Aexplain"), ("GetJob".into(), vec!["x:explain".into()]));
        assert_eq!(found(Method::GET, "/api/v1/providers/a%2Fb/status").1, ["a/b"]);
    }

    #[test]
    fn what_is_not_there_says_what_is() {
        let rules = Rules::read();
        let wanted = |verb, path| rules.find(&verb, path).map(|_| ()).unwrap_err();
        assert_eq!(wanted(Method::GET, "/api/v1/nothing"), Wanted::OtherPath);
        assert_eq!(wanted(Method::GET, "/api/v1/jobs/"), Wanted::OtherPath);
        assert_eq!(wanted(Method::GET, "/api/v1/jobs/%ff"), Wanted::OtherPath);
        assert_eq!(wanted(Method::DELETE, "/api/v1/jobs"), Wanted::OtherVerb(vec![Method::GET, Method::POST]));
    }

    /// A method that only gRPC has is a decision, and stands here.
    #[test]
    fn every_method_has_a_path_of_its_own_whose_fields_exist() {
        const GRPC_ONLY: [&str; 1] = ["tidegate.v1.WorkerService.Work"];
        let rules = Rules::read();
        let mut seen = std::collections::BTreeMap::new();
        for rule in rules.all() {
            let name = rule.method.full_name().to_owned();
            let place = format!("{} {}", rule.verb, rule.template());
            if let Some(other) = seen.insert(place.clone(), name.clone()) {
                panic!("{place} is {other} and {name}");
            }
            let input = rule.method.input();
            for segment in &rule.segments {
                if let Segment::Field(field) = segment {
                    assert!(input.get_field_by_name(field).is_some(), "{name} has no field {field}");
                }
            }
            if let Body::Field(field) = &rule.body {
                assert!(input.get_field_by_name(field).is_some(), "{name} has no field {field}");
            }
        }
        for service in json::pool().services().filter(|s| s.package_name() == "tidegate.v1") {
            for method in service.methods() {
                let named = seen.values().any(|name| name == method.full_name());
                assert!(named || GRPC_ONLY.contains(&method.full_name()), "{} has no path", method.full_name());
            }
        }
    }
}
