//! Every route of the OpenAPI file is walked: a real request that fits its schema, a real answer that fits, and a real
//! problem. A route that is new in the protos and has no step here fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tidegate::grpc::transcode::openapi;
use tidegate::simulator::{Faults, SimulatorConfig};

use super::{House, fits_schema, house_with};

mod steps;

/// What the walk needs of a daemon beside `crm/sync`.
const MORE: &str = r#"undo = "unsync"
[providers.crm.operations.unsync]
request = "DELETE /users/{key}"
[providers.crm.operations.note]
request = "POST /notes"
body = "{payload}"
[providers.crm.operations.read]
request = "GET /users/{key}"
cache = { ttl = "5m" }
[providers.crm.operations.list]
request = "GET /items"
pages = { items = "/data", next = "link", size = 10, size_param = "per_page" }
[collections.items]
indexes = ["status"]
[collections.items.pull]
operation = "crm/list"
[collections.users]
[collections.users.push]
operation = "crm/sync"
delete = "crm/unsync"
[collections.users.aggregates.by_team]
group_by = ["team"]
sum = ["points"]
"#;

/// How a watch is told to a browser.
const EVENTS: &str = "text/event-stream";

/// What a step hands in.
enum Body {
    None,
    Json(Value),
    /// A stream: a line each.
    Lines(Vec<Value>),
}

/// One verb and path of the file.
struct Route {
    verb: reqwest::Method,
    template: String,
    described: Value,
}

struct Walk {
    house: House,
    routes: BTreeMap<String, Route>,
    answered: BTreeSet<String>,
    refused: BTreeSet<String>,
    /// Problems with another reason than the one expected, told together at the end.
    others: Vec<String>,
}

/// An answer as it came: status, content type, and its lines, of a stream that goes on the first.
struct Came {
    status: u16,
    kind: String,
    lines: Vec<Value>,
}

impl Walk {
    async fn start() -> Walk {
        let lists = vec!["/items=link:25/10".parse().unwrap()];
        let provider = SimulatorConfig { lists, ..SimulatorConfig::default() };
        let mut routes = BTreeMap::new();
        for (template, verbs) in openapi()["paths"].as_object().unwrap() {
            for (verb, described) in verbs.as_object().unwrap() {
                let id = described["operationId"].as_str().unwrap().to_owned();
                let verb = verb.to_ascii_uppercase().parse().unwrap();
                let route = Route { verb, template: template.clone(), described: described.clone() };
                assert!(routes.insert(id, route).is_none(), "two routes of one name");
            }
        }
        let house = house_with(provider, MORE).await;
        Walk { house, routes, answered: BTreeSet::new(), refused: BTreeSet::new(), others: Vec::new() }
    }

    fn route(&self, id: &str) -> &Route {
        self.routes.get(id).unwrap_or_else(|| panic!("the file has no route {id}"))
    }

    /// `path` fills the template's fields in order; `query` is written out, with its question mark.
    async fn ask(&self, id: &str, path: &[&str], query: &str, body: &Body) -> Came {
        self.ask_as("*/*", id, path, query, body).await
    }

    async fn ask_as(&self, accept: &str, id: &str, path: &[&str], query: &str, body: &Body) -> Came {
        let route = self.route(id);
        let mut filled = route.template.clone();
        for value in path {
            let (from, to) = (filled.find('{').unwrap(), filled.find('}').unwrap());
            filled.replace_range(from..=to, value);
        }
        assert!(!filled.contains('{'), "{id}: {filled} is not all filled in");
        let request = self.house.client.request(route.verb.clone(), self.house.url(&(filled + query)));
        let request = request.header("accept", accept);
        let request = match body {
            Body::None => request,
            Body::Json(value) => request.header("content-type", "application/json").body(value.to_string()),
            Body::Lines(lines) => {
                let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
                request.header("content-type", "application/x-ndjson").body(lines.join("\n"))
            }
        };
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        // A watch goes on for ever; a stream that was fed ends.
        let watches = kind != "application/json" && status == 200 && !matches!(body, Body::Lines(_));
        let mut text = String::new();
        let mut pieces = response.bytes_stream();
        let patience = Duration::from_secs(30);
        while let Some(piece) = tokio::time::timeout(patience, pieces.next()).await.expect("the answer comes") {
            text += std::str::from_utf8(&piece.unwrap()).unwrap();
            if watches && text.contains('\n') && (kind != EVENTS || text.contains("\n\n")) {
                break;
            }
        }
        if kind == EVENTS {
            text = text.lines().filter_map(|line| line.strip_prefix("data:")).collect::<Vec<_>>().join("\n");
        }
        let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{id}: {e} in {line:?}"));
        let lines = if watches { text.lines().take(1).map(line).collect() } else { text.lines().map(line).collect() };
        Came { status, kind, lines }
    }

    /// A good answer, whose last line is returned.
    async fn good(&mut self, id: &str, path: &[&str], query: &str, body: Body) -> Value {
        let described = self.route(id).described.clone();
        let wanted = &described["requestBody"]["content"];
        match &body {
            Body::None => {}
            Body::Json(value) => fits_schema(id, &wanted["application/json"]["schema"], value),
            Body::Lines(lines) => {
                lines.iter().for_each(|line| fits_schema(id, &wanted["application/x-ndjson"]["schema"], line));
            }
        }
        let came = self.ask(id, path, query, &body).await;
        assert_eq!(came.status, 200, "{id}: {:?}", came.lines);
        let answers = &described["responses"]["200"]["content"];
        let schema = &answers[&came.kind]["schema"];
        assert!(schema.is_object(), "{id}: answered as {}, which the file does not have", came.kind);
        came.lines.iter().for_each(|line| fits_schema(id, schema, line));
        let last = came.lines.last().unwrap_or_else(|| panic!("{id}: an answer without a line")).clone();
        // An empty answer fits any schema; `Drain` counts calls on the wire, and there are none.
        let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let nothing_to_say = openapi()["components"]["schemas"][name]["properties"] == json!({});
        assert!(last != json!({}) || nothing_to_say || id == "AdminService_Drain", "{id}: an empty answer");
        if answers[EVENTS].is_object() && matches!(body, Body::None) {
            let came = self.ask_as(EVENTS, id, path, query, &body).await;
            assert_eq!((came.kind.as_str(), came.lines.len()), (EVENTS, 1), "{id}: {:?}", came.lines);
            fits_schema(id, &answers[EVENTS]["schema"], &came.lines[0]);
        }
        self.answered.insert(id.to_owned());
        last
    }

    /// A problem with this reason: in place of the answer, or as the last line of a stream that was begun.
    async fn bad(&mut self, id: &str, path: &[&str], query: &str, body: Body, reason: &str) {
        let came = self.ask(id, path, query, &body).await;
        let problem = came.lines.last().unwrap_or_else(|| panic!("{id}: no problem"));
        let content = &self.route(id).described["responses"]["default"]["content"]["application/problem+json"];
        fits_schema(id, &content["schema"], problem);
        if problem["reason"] != reason {
            self.others.push(format!("{id}: expected {reason}, got {problem}"));
        }
        if came.status == 200 {
            assert!(matches!(body, Body::Lines(_)), "{id}: a problem with status 200");
            assert_eq!(came.kind, "application/x-ndjson", "{id}");
        } else {
            assert_eq!(came.kind, "application/problem+json", "{id}");
            assert_eq!(problem["status"], came.status, "{id}");
        }
        self.refused.insert(id.to_owned());
    }

    /// Asks until the answer is as wanted.
    async fn until(&mut self, id: &str, path: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..600 {
            let came = self.ask(id, path, "", &Body::None).await;
            if came.status == 200 && wanted(&came.lines[0]) {
                return came.lines[0].clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{id} {path:?} does not become what is wanted")
    }

    async fn end(self) {
        self.house.app.stop().await;
        assert!(self.others.is_empty(), "{}", self.others.join("\n"));
        let all: BTreeSet<String> = self.routes.into_keys().collect();
        let without = |seen: &BTreeSet<String>| all.difference(seen).cloned().collect::<Vec<_>>();
        let (unanswered, unrefused) = (without(&self.answered), without(&self.refused));
        assert!(unanswered.is_empty(), "no answer of these was held to the file: {unanswered:?}");
        assert!(unrefused.is_empty(), "no problem of these was held to the file: {unrefused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_and_refuses_as_the_openapi_file_says() {
    let mut walk = Walk::start().await;
    steps::jobs(&mut walk).await;
    steps::runs(&mut walk).await;
    steps::calls(&mut walk).await;
    steps::records(&mut walk).await;
    steps::schedules(&mut walk).await;
    steps::providers(&mut walk).await;
    steps::daemon(&mut walk).await;
    walk.end().await;
}

/// The provider takes what it is sent and resets the connection, or no longer.
fn lose_answers(walk: &Walk, share: f64) {
    walk.house.provider.set_faults(Faults { reset_share: share, ..Faults::default() });
}
