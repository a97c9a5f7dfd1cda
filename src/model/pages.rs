//! Pages: how an operation that lists things is asked for one page after the other, and what an answer says of the next.
//!
//! A [`Page`] is the whole position: it is the payload of the job that fetches it, so a checkpoint is a job. Pure.
//! `pages/read.rs` takes answers apart. Must never know: who keeps the items. Next: `engine/collections`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::CollectionName;
use super::request::{Request, URL_BYTES_MAX};

mod read;

pub use read::{ITEMS_MAX, Items, read};

/// Pages of one pull at most: a provider that never ends must not be asked for ever.
pub const PAGES_MAX: u32 = 1_000_000;

/// As declared with an operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Pages {
    /// JSON pointer to the list of items; empty: the answer is the list.
    pub items: String,
    pub next: Next,
    /// Query parameter and value that set the size of a page.
    pub size: Option<(Option<String>, u32)>,
    /// Query parameter that asks for what changed since a mark.
    pub since: Option<String>,
    /// The first page is asked for with the ETag of the last pull.
    pub etag: bool,
}

/// How the next page is found.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// There is one page.
    None,
    /// The Link header with `rel="next"`, never to another origin.
    Link,
    /// A text or number in the body, sent back as query parameter `param`.
    Cursor { from: String, param: String },
    /// A page number as query parameter, from `first`.
    Number { param: String, first: u64 },
    /// The number of items before it as query parameter.
    Offset { param: String },
}

/// One page of a pull.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    pub collection: Arc<str>,
    /// Number of the pull.
    pub pull: i64,
    /// 0 for the first.
    pub page: u32,
    pub at: Position,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    First,
    Url(String),
    Cursor(String),
    Number(u64),
    Offset(u64),
}

/// The only member of a page job's payload, so that no other payload is taken for one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    tidegate_page: Page,
}

impl Page {
    pub fn first(collection: &CollectionName, pull: i64, since: Option<String>, etag: Option<String>) -> Page {
        Page { collection: collection.as_str().into(), pull, page: 0, at: Position::First, since, etag }
    }

    pub fn next(&self, at: Position) -> Page {
        Page { page: self.page + 1, at, ..self.clone() }
    }

    pub fn payload(&self) -> String {
        serde_json::to_string(&Envelope { tidegate_page: self.clone() }).expect("texts and numbers are JSON")
    }

    /// `None`: the payload is not of a page.
    pub fn of(payload: &str) -> Option<Page> {
        if !payload.starts_with("{\"tidegate_page\"") {
            return None;
        }
        serde_json::from_str::<Envelope>(payload).ok().map(|e| e.tidegate_page)
    }
}

impl Pages {
    /// Makes the operation's request one for this page.
    pub fn prepare(&self, page: &Page, request: &mut Request) -> Result<(), String> {
        if let Position::Url(url) = &page.at {
            let url: url::Url = url.parse().map_err(|e| format!("expected a URL of a page, got {url:?}: {e}"))?;
            if !same_origin(&url, &request.url) {
                return Err(other_origin(&url, &request.url));
            }
            request.url = url;
            return Ok(());
        }
        let mut add: Vec<(&str, String)> = Vec::new();
        if let Some((Some(param), size)) = &self.size {
            add.push((param, size.to_string()));
        }
        if let (Some(param), Some(since)) = (&self.since, &page.since) {
            add.push((param, since.clone()));
        }
        match (&self.next, &page.at) {
            (Next::Cursor { param, .. }, Position::Cursor(cursor)) => add.push((param, cursor.clone())),
            (Next::Number { param, first }, Position::First) => add.push((param, first.to_string())),
            (Next::Number { param, .. }, Position::Number(n)) => add.push((param, n.to_string())),
            (Next::Offset { param }, Position::First) => add.push((param, "0".to_owned())),
            (Next::Offset { param }, Position::Offset(n)) => add.push((param, n.to_string())),
            _ => {}
        }
        if !add.is_empty() {
            request.url.query_pairs_mut().extend_pairs(add);
        }
        if let (true, Position::First, Some(etag)) = (self.etag, &page.at, &page.etag) {
            let value = http::HeaderValue::from_str(etag).map_err(|_| format!("expected an ETag, got {etag:?}"))?;
            request.headers.insert(http::header::IF_NONE_MATCH, value);
        }
        match request.url.as_str().len() {
            n if n > URL_BYTES_MAX => Err(format!("expected a URL of at most {URL_BYTES_MAX} bytes, got {n}")),
            _ => Ok(()),
        }
    }
}

/// The later of two marks: numbers by their value, texts (as times of one zone) by their characters.
pub fn later_mark(a: Option<String>, b: Option<String>) -> Option<String> {
    let (Some(first), Some(second)) = (&a, &b) else { return a.or(b) };
    let numbers = first.parse::<f64>().ok().zip(second.parse::<f64>().ok());
    let second_wins = numbers.map_or(second > first, |(a, b)| b > a);
    if second_wins { b } else { a }
}

fn same_origin(a: &url::Url, b: &url::Url) -> bool {
    a.origin() == b.origin() && a.username().is_empty() && a.password().is_none()
}

/// A credential goes with every page, so nobody may send us elsewhere.
fn other_origin(to: &url::Url, of: &url::Url) -> String {
    let [of, to] = [of, to].map(|url| url.origin().ascii_serialization());
    format!("expected the next page at {of}, got a link to {to}; links to another origin are never followed")
}

#[cfg(test)]
mod tests;
