//! Documents that change when told to: what a GET is answered with, validators and freshness as declared, 304 where the
//! asker has the present version.
//!
//! Must never know: limits. Next: `server`, which lays this over its answers.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};

/// How GETs are answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Documents {
    /// With an `ETag`.
    pub etag: bool,
    /// With a `Last-Modified`: a day earlier for each version less.
    pub last_modified: bool,
    /// As `Cache-Control`; empty: none.
    pub cache_control: String,
    /// A request that is answered with 304 spends no limit, as at GitHub.
    pub unchanged_is_free: bool,
}

/// The version of all of them.
#[derive(Debug, Default)]
pub struct Version(AtomicU64);

/// What a GET is told.
#[derive(Debug)]
pub struct Told {
    pub status: u16,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

/// Version 0 was changed then: 2026-01-01.
const FIRST: u64 = 1_767_225_600;
const DAY: u64 = 86_400;

impl Version {
    /// All documents change.
    pub fn bump(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Documents {
    /// Will a GET with these headers be answered with 304, and spend nothing for it?
    pub fn is_free(&self, version: &Version, asked: &HeaderMap) -> bool {
        self.unchanged_is_free && self.tell(version, "", asked).status == 304
    }

    /// `path` with its query.
    pub fn tell(&self, version: &Version, path: &str, asked: &HeaderMap) -> Told {
        let version = version.0.load(Ordering::Relaxed);
        let etag = format!("\"v{version}\"");
        let changed = std::time::UNIX_EPOCH + std::time::Duration::from_secs(FIRST + version * DAY);
        let modified = httpdate::fmt_http_date(changed);
        let mut headers = Vec::new();
        let mut line =
            |name: HeaderName, value: &str| headers.extend(HeaderValue::from_str(value).ok().map(|v| (name, v)));
        if self.etag {
            line(header::ETAG, &etag);
        }
        if self.last_modified {
            line(header::LAST_MODIFIED, &modified);
        }
        if !self.cache_control.is_empty() {
            line(header::CACHE_CONTROL, &self.cache_control);
        }
        let text = |name| asked.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        // An If-None-Match speaks alone where there is one.
        let same = match (text(header::IF_NONE_MATCH), text(header::IF_MODIFIED_SINCE)) {
            (Some(tags), _) => self.etag && tags.split(',').any(|tag| tag.trim() == etag),
            (None, Some(since)) => self.last_modified && since == modified,
            (None, None) => false,
        };
        match same {
            true => Told { status: 304, headers, body: Bytes::new() },
            false => {
                let body = serde_json::json!({ "path": path, "version": version });
                Told { status: 200, headers, body: body.to_string().into() }
            }
        }
    }
}
