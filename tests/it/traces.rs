//! Traces from a client through the daemon to a provider, as a collector sees them that speaks OTLP over gRPC.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{post, put};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::support::process::Place;

/// Takes everything that is exported.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let all = request.into_inner().resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        self.0.lock().unwrap().extend(all);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// The `traceparent` of every request, with its path.
type Seen = Arc<Mutex<Vec<(&'static str, Option<String>)>>>;

fn note(seen: &Seen, path: &'static str, headers: &HeaderMap) {
    let parent = headers.get("traceparent").map(|v| v.to_str().unwrap().to_owned());
    seen.lock().unwrap().push((path, parent));
}

/// A provider that takes everything and remembers what it was told of traces.
async fn provider(seen: Seen) -> String {
    let single = put(|State(seen): State<Seen>, headers: HeaderMap| async move { note(&seen, "single", &headers) });
    let batch = post(|State(seen): State<Seen>, headers: HeaderMap| async move { note(&seen, "batch", &headers) });
    let router = Router::new().route("/users/{id}", single).route("/users/batch", batch).with_state(seen);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(tidegate::http::serve(router, listener, Default::default(), Default::default()));
    format!("http://{at}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn text(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|a| a.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(n) => Some(n.to_string()),
        other => Some(format!("{other:?}")),
    }
}

/// A client's trace: its number names trace and span.
fn parent(n: u32) -> String {
    format!("00-{n:032x}-{n:016x}-01")
}

fn job(operation: &str, key: u32, traceparent: String) -> pb::JobSpec {
    pb::JobSpec {
        provider: "crm".to_owned(),
        operation: operation.to_owned(),
        key: format!("k{key}"),
        payload: format!(r#"{{"id":"k{key}"}}"#),
        traceparent,
        ..pb::JobSpec::default()
    }
}

#[tokio::test]
async fn a_trace_goes_from_the_client_over_the_call_to_the_provider() {
    let (collector, seen) = (Collector::default(), Seen::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let otlp = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    tokio::spawn(server.serve_with_incoming(incoming));
    let base_url = provider(seen.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let declaration = format!(
        r#"
[telemetry]
otlp = "http://{otlp}"

[providers.crm]
base_url = "{base_url}"
allow_private = true
propagate_trace = true

[providers.crm.operations.single]
request = "PUT /users/{{key}}"
body = "{{payload}}"

[providers.crm.operations.many.batch]
request = "POST /users/batch"
body = {{ users = "{{payloads}}" }}
size = 10
"#
    );
    let place = Place::new(folder.path(), folder.path(), &declaration);
    let daemon = place.start().await;
    let mut jobs = JobServiceClient::new(daemon.channel());

    // The trace comes with the request's metadata, ...
    let mut request = Request::new(pb::EnqueueJobRequest {
        job: Some(job("single", 1, String::new())),
        ..pb::EnqueueJobRequest::default()
    });
    request.metadata_mut().insert("traceparent", parent(0xa1).parse().unwrap());
    let mut ids = vec![jobs.enqueue_job(request).await.unwrap().into_inner().job_id];
    // ... or with each job, and a batch serves them all.
    let specs = (2..7).map(|n| job("many", n, parent(0xb0 + n))).collect();
    let request = pb::EnqueueJobsRequest { jobs: specs, ..pb::EnqueueJobsRequest::default() };
    for result in jobs.enqueue_jobs(request).await.unwrap().into_inner().results {
        let Some(pb::enqueue_result::Result::Enqueued(done)) = result.result else { panic!("expected a job") };
        ids.push(done.job_id);
    }
    let request = pb::WaitJobsRequest { job_ids: ids, ..pb::WaitJobsRequest::default() };
    assert!(jobs.wait_jobs(request).await.unwrap().into_inner().done);
    drop(jobs);
    assert!(daemon.stop().await, "{}", place.log_tail());

    let spans = collector.0.lock().unwrap().clone();
    let names: BTreeSet<&str> = spans.iter().map(|s| s.name.as_str()).collect();
    // Ours alone: nothing of the libraries below, or the exporter would trace itself.
    assert_eq!(names, BTreeSet::from(["enqueue job", "enqueue jobs", "call", "PUT", "POST"]));
    let one = |name: &str| spans.iter().find(|s| s.name == name).unwrap();
    let (sent, put) = (one("enqueue job"), one("PUT"));
    assert_eq!(hex(&sent.trace_id), format!("{:032x}", 0xa1));
    assert_eq!(hex(&sent.parent_span_id), format!("{:016x}", 0xa1));
    assert_eq!(sent.kind(), SpanKind::Producer);
    let call = spans.iter().find(|s| s.span_id == put.parent_span_id).unwrap();
    assert_eq!((call.name.as_str(), text(call, "lane").as_deref()), ("call", Some("single")));
    assert_eq!((&call.trace_id, &call.parent_span_id), (&sent.trace_id, &sent.span_id));
    assert_eq!((call.kind(), put.kind()), (SpanKind::Consumer, SpanKind::Client));
    assert_eq!(put.trace_id, sent.trace_id);
    assert_eq!(text(put, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(text(put, "server.address").as_deref(), Some("127.0.0.1"));

    // Every job's trace is linked from a batch's own, whether it took one batch or two.
    let batches = spans.iter().filter(|s| text(s, "lane").as_deref() == Some("batch"));
    let linked: BTreeSet<String> = batches.clone().flat_map(|b| &b.links).map(|l| hex(&l.trace_id)).collect();
    assert_eq!(linked, (2..7u32).map(|n| format!("{:032x}", 0xb0 + n)).collect());
    assert!(batches.clone().all(|b| !linked.contains(&hex(&b.trace_id)) && b.parent_span_id.is_empty()));

    // And the provider may go on from the request's span.
    let told = seen.lock().unwrap().clone();
    let expected = |s: &Span| Some(format!("00-{}-{}-01", hex(&s.trace_id), hex(&s.span_id)));
    assert!(told.contains(&("single", expected(put))), "{told:?}");
    for post in spans.iter().filter(|s| s.name == "POST") {
        assert!(told.contains(&("batch", expected(post))), "{told:?}");
    }
    assert_eq!(told.iter().filter(|(path, _)| *path == "batch").count(), batches.count());
}

#[tokio::test]
async fn without_a_collector_the_clients_trace_reaches_the_provider_as_it_came() {
    let seen = Seen::default();
    let base_url = provider(seen.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let declaration = format!(
        "[providers.crm]\nbase_url = \"{base_url}\"\nallow_private = true\npropagate_trace = true\n\
         [providers.crm.operations.single]\nrequest = \"PUT /users/{{key}}\"\n"
    );
    let place = Place::new(folder.path(), folder.path(), &declaration);
    let daemon = place.start().await;
    let mut jobs = JobServiceClient::new(daemon.channel());
    let request = pb::EnqueueJobRequest { job: Some(job("single", 1, parent(7))), ..pb::EnqueueJobRequest::default() };
    let id = jobs.enqueue_job(request).await.unwrap().into_inner().job_id;
    let request = pb::WaitJobsRequest { job_ids: vec![id], ..pb::WaitJobsRequest::default() };
    assert!(jobs.wait_jobs(request).await.unwrap().into_inner().done);
    assert_eq!(*seen.lock().unwrap(), [("single", Some(parent(7)))]);
    drop(jobs);
    assert!(daemon.stop().await);
}
