//! The services over plain HTTP: `google.api.http` in the protos says which verb and path a method has, and this room
//! calls it, in this process, with JSON in and JSON out.
//!
//! A service that is new in a proto is new in REST; nothing is written twice. `rules` reads the options, `fill` makes a
//! request of path, query and body, `text` writes JSON, `problem` the errors, `openapi` the description. Must never know:
//! what a method does, HTTP servers. Next: `rules`.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use http::uri::PathAndQuery;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::client::Grpc;
use tonic::service::Routes;
use tower::Layer;

use super::listener::Peer;
use super::meter::{Meter, Metered};
use super::server::{self, Limits, ServeError};
use crate::api::{Api, Error};

mod codec;
mod fill;
mod openapi;
mod problem;
mod rules;
mod text;

pub use openapi::openapi;
pub use problem::Problem;
pub use rules::Wanted;
use rules::{PathFields, Rule, Rules};

/// Calls services by verb, path and JSON. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Transcoder {
    rules: Arc<Rules>,
    grpc: Grpc<Metered<Routes>>,
}

/// A request as it came.
#[derive(Debug)]
pub struct Asked<'a> {
    pub from: SocketAddr,
    /// Without the question mark; empty when there is none.
    pub query: &'a str,
    /// W3C trace context, if the caller brought one.
    pub traceparent: Option<&'a str>,
    /// Where a watch goes on, as an EventSource sends it: taken for `resume_token` where the query has none.
    pub last_event_id: Option<&'a str>,
}

/// One message of a stream.
#[derive(Debug)]
pub struct Told {
    pub json: String,
    /// Where to go on after it, if the message says so.
    pub resume_token: Option<String>,
}

pub type Tell = Pin<Box<dyn Stream<Item = Result<Told, Problem>> + Send>>;

/// A method that was found, with what the path said.
#[derive(Debug)]
pub struct Found<'a> {
    rule: &'a Rule,
    path: PathFields<'a>,
}

impl Found<'_> {
    /// Reads a stream of messages rather than one.
    pub fn reads_stream(&self) -> bool {
        self.rule.method.is_client_streaming()
    }

    /// Answers with a stream of messages rather than one.
    pub fn tells_stream(&self) -> bool {
        self.rule.method.is_server_streaming()
    }
}

impl Transcoder {
    /// Over services of its own, which end their streams when `stop` is cancelled.
    pub async fn new(api: &Api, limits: &Limits, stop: &CancellationToken) -> Result<Self, ServeError> {
        let (_, routes) = server::routes(api, limits, stop).await?;
        let metered = Meter::new(api.clock().clone(), api.metrics().clone()).layer(routes);
        let grpc = Grpc::new(metered)
            .max_decoding_message_size(limits.encode_max)
            .max_encoding_message_size(limits.decode_max);
        Ok(Transcoder { rules: Arc::new(Rules::read()), grpc })
    }

    /// The method of a verb and a path, or what there is in its place.
    pub fn find<'a>(&'a self, verb: &http::Method, path: &'a str) -> Result<Found<'a>, Wanted> {
        self.rules.find(verb, path).map(|(rule, path)| Found { rule, path })
    }

    /// One request, one answer: JSON.
    pub async fn call(&self, found: &Found<'_>, asked: Asked<'_>, body: &str) -> Result<String, Problem> {
        let message = fill::request(found.rule, &found.path, asked.query, body)?;
        let (path, codec) = addressed(&found.rule.method);
        let mut grpc = self.ready().await?;
        let answer = grpc.unary(request(message, &asked), path, codec).await.map_err(Problem::from)?;
        Ok(text::write(answer.get_ref()))
    }

    /// One request, many answers.
    pub async fn watch(&self, found: &Found<'_>, asked: Asked<'_>, body: &str) -> Result<Tell, Problem> {
        let mut message = fill::request(found.rule, &found.path, asked.query, body)?;
        if let Some(token) = asked.last_event_id {
            fill::resume(&mut message, token);
        }
        let (path, codec) = addressed(&found.rule.method);
        let mut grpc = self.ready().await?;
        let answers = grpc.server_streaming(request(message, &asked), path, codec).await.map_err(Problem::from)?;
        Ok(tell(answers.into_inner()))
    }

    /// Many requests, one JSON text each, many answers. A text that is none ends the stream with a problem.
    pub async fn feed(
        &self,
        found: &Found<'_>,
        asked: Asked<'_>,
        texts: impl Stream<Item = Result<String, Problem>> + Send + 'static,
    ) -> Result<Tell, Problem> {
        // The stream that a service reads carries messages only: the first problem ends it and is told at the end.
        let (wrong, told) = tokio::sync::oneshot::channel();
        let mut wrong = Some(wrong);
        let rule = found.rule.clone();
        let path: Vec<(String, String)> = found.path.iter().map(|(f, v)| ((*f).to_owned(), v.clone())).collect();
        let messages = texts.map(move |text| {
            let path: Vec<(&str, String)> = path.iter().map(|(f, v)| (f.as_str(), v.clone())).collect();
            fill::request(&rule, &path, "", &text?)
        });
        let messages = messages.scan((), move |(), message| {
            let good = message.map_err(|problem| wrong.take().map(|wrong| wrong.send(problem))).ok();
            std::future::ready(good)
        });
        let (path, codec) = addressed(&found.rule.method);
        let mut grpc = self.ready().await?;
        let request = request(messages, &asked);
        let answers = grpc.streaming(request, path, codec).await.map_err(Problem::from)?;
        let last = futures_util::stream::once(told).filter_map(|told| std::future::ready(told.ok().map(Err)));
        Ok(Box::pin(tell(answers.into_inner()).chain(last)))
    }

    async fn ready(&self) -> Result<Grpc<Metered<Routes>>, Problem> {
        let mut grpc = self.grpc.clone();
        match grpc.ready().await {
            Ok(()) => Ok(grpc),
            Err(never) => match never {},
        }
    }
}

fn addressed(method: &MethodDescriptor) -> (PathAndQuery, codec::Json) {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path = path.parse().expect("names of services and methods are fit for a path");
    (path, codec::Json { answer: method.output() })
}

fn request<M>(message: M, asked: &Asked<'_>) -> Request<M> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Peer::Tcp(Some(asked.from)));
    if let Some(value) = asked.traceparent.and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert("traceparent", value);
    }
    request
}

fn tell(answers: tonic::Streaming<DynamicMessage>) -> Tell {
    Box::pin(answers.map(|answer| {
        let message = answer?;
        Ok(Told { json: text::write(&message), resume_token: text::resume_token(&message) })
    }))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        tonic::Status::from(error).into()
    }
}
