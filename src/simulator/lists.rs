//! Lists that are read page by page: items with ids, in four ways of paging, with `updated_since`, ETag and deletes.
//!
//! An item's `updated` is the revision of the list at which it changed last, so a mark is a number. Must never know:
//! limits. Next: `server`, which asks here for what answers a GET.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use serde::{Deserialize, Serialize};

/// Items of one list at the start.
pub const ITEMS_MAX: usize = 1_000_000;
/// Items of one page.
pub const PAGE_MAX: usize = 10_000;

/// A declared list, as `/users=link:5000/100`: path, way of paging, items at the start, items of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRule {
    pub path: String,
    pub way: Way,
    pub items: usize,
    pub page: usize,
    #[serde(default)]
    pub shape: Shape,
}

/// How a list speaks: JSON pointers into its answer, and names of query parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shape {
    /// Where the items stand; "": the whole answer is the list.
    pub items: String,
    /// Where the cursor of the next page stands. Not below the first step of `items`.
    pub next: String,
    /// The parameter that says which page; "": `page`, `cursor` or `offset`.
    pub at: String,
    /// The parameter that says how many items.
    pub size: String,
    /// The parameter that leaves out what did not change since.
    pub since: String,
}

impl Default for Shape {
    fn default() -> Self {
        let [items, next, at, size, since] = ["/data", "/next", "", "per_page", "updated_since"].map(str::to_owned);
        Shape { items, next, at, size, since }
    }
}

impl Shape {
    fn body(&self, items: &str, next: &str) -> String {
        if self.items.is_empty() {
            return items.to_owned();
        }
        // `"paging":{"next":{"after":...}}` of `/paging/next/after`.
        let field = |pointer: &str, value: &str| {
            let steps: Vec<&str> = pointer.split('/').skip(1).collect();
            format!("\"{}\":{value}{}", steps.join("\":{\""), "}".repeat(steps.len().saturating_sub(1)))
        };
        format!("{{{},{}}}", field(&self.items, items), field(&self.next, next))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// `Link: </users?page=2>; rel="next"`.
    Link,
    /// `"next"` in the body, sent back as `cursor`.
    Cursor,
    /// `page`, from 1.
    Page,
    /// `offset`.
    Offset,
    /// A Link to another host: what nobody should follow.
    Away,
}

impl FromStr for ListRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("expected a list like /users=link:5000/100, got {text:?}");
        let (path, rest) = text.split_once('=').ok_or_else(bad)?;
        let (way, sizes) = rest.split_once(':').ok_or_else(bad)?;
        let (items, page) = sizes.split_once('/').ok_or_else(bad)?;
        let way = match way {
            "link" => Way::Link,
            "cursor" => Way::Cursor,
            "page" => Way::Page,
            "offset" => Way::Offset,
            "away" => Way::Away,
            _ => return Err(bad()),
        };
        let rule = ListRule {
            path: path.to_owned(),
            way,
            items: items.parse().map_err(|_| bad())?,
            page: page.parse().map_err(|_| bad())?,
            shape: Shape::default(),
        };
        let sound = path.starts_with('/') && rule.items <= ITEMS_MAX && (1..=PAGE_MAX).contains(&rule.page);
        if sound { Ok(rule) } else { Err(bad()) }
    }
}

/// What answers a GET of a list.
#[derive(Debug, PartialEq)]
pub struct ListAnswer {
    pub status: u16,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

#[derive(Debug)]
struct List {
    rule: ListRule,
    /// By id: revision of its last change and JSON.
    items: BTreeMap<String, (u64, String)>,
    revision: u64,
}

/// All lists of a simulator.
#[derive(Debug, Default)]
pub struct Lists(Vec<List>);

impl Lists {
    pub fn new(rules: &[ListRule]) -> Lists {
        let list = |rule: &ListRule| {
            let mut list = List { rule: rule.clone(), items: BTreeMap::new(), revision: 0 };
            for n in 1..=rule.items {
                let status = ["open", "paid", "sent"][n % 3];
                let fields = format!(r#""name":"Item {n}","status":"{status}","amount":{}.{}"#, n % 100, n % 10);
                list.put(&format!("i{n:07}"), &fields);
            }
            list
        };
        Lists(rules.iter().map(list).collect())
    }

    /// Puts an item: `fields` is the inside of its JSON object but for `id` and `updated`. False: there is no such list.
    pub fn put(&mut self, path: &str, id: &str, fields: &str) -> bool {
        let found = self.0.iter_mut().find(|list| list.rule.path == path);
        found.map(|list| list.put(id, fields)).is_some()
    }

    /// False: there is no such item.
    pub fn delete(&mut self, path: &str, id: &str) -> bool {
        let Some(list) = self.0.iter_mut().find(|list| list.rule.path == path) else { return false };
        list.revision += 1;
        list.items.remove(id).is_some()
    }

    /// `None`: the request reads no list.
    pub fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<ListAnswer> {
        let list = self.0.iter().find(|list| list.rule.path == uri.path())?;
        (method == Method::GET).then(|| list.answer(uri.query().unwrap_or(""), headers))
    }
}

impl List {
    fn put(&mut self, id: &str, fields: &str) {
        self.revision += 1;
        let (id_text, updated) = (serde_json::Value::from(id), self.revision);
        let json = format!(r#"{{"id":{id_text},{fields},"updated":{updated}}}"#);
        self.items.insert(id.to_owned(), (updated, json));
    }

    fn answer(&self, query: &str, headers: &HeaderMap) -> ListAnswer {
        let pairs: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let number = |name: &str| pairs.get(name).and_then(|text| text.parse::<u64>().ok());
        let etag = format!("\"r{}\"", self.revision);
        let etag_line = HeaderValue::from_str(&etag).expect("a number in quotes is visible ASCII");
        let mut lines = vec![(header::ETAG, etag_line)];
        if headers.get(header::IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == etag.as_bytes()) {
            return ListAnswer { status: 304, headers: lines, body: Bytes::new() };
        }
        let (rule, shape) = (&self.rule, &self.rule.shape);
        let size = number(&shape.size).map_or(self.rule.page, |n| (n as usize).clamp(1, PAGE_MAX));
        let since = number(&shape.since).unwrap_or(0);
        let at = match (shape.at.as_str(), rule.way) {
            ("", Way::Link | Way::Page | Way::Away) => "page",
            ("", Way::Cursor) => "cursor",
            ("", Way::Offset) => "offset",
            (named, _) => named,
        };
        let skip = match rule.way {
            Way::Link | Way::Page | Way::Away => (number(at).unwrap_or(1).max(1) as usize - 1).saturating_mul(size),
            Way::Cursor | Way::Offset => number(at).unwrap_or(0) as usize,
        };
        let found: Vec<&str> =
            self.items.values().filter(|(updated, _)| *updated > since).map(|(_, json)| json.as_str()).collect();
        let page: Vec<&str> = found.iter().skip(skip).take(size).copied().collect();
        let more = skip + page.len() < found.len();
        let mut next = "null".to_owned();
        if more {
            let mut target = format!("{}?{at}={}", rule.path, skip / size + 2);
            for name in [&shape.size, &shape.since] {
                if let Some(n) = number(name) {
                    let _ = write!(target, "&{name}={n}");
                }
            }
            let link = match self.rule.way {
                Way::Link => Some(format!("<{target}>; rel=\"next\"")),
                Way::Away => Some(format!("<http://127.0.0.1:9{target}>; rel=\"next\"")),
                _ => None,
            };
            lines.extend(link.and_then(|link| Some((header::LINK, HeaderValue::from_str(&link).ok()?))));
            if self.rule.way == Way::Cursor {
                next = format!("\"{}\"", skip + page.len());
            }
        }
        let body = shape.body(&format!("[{}]", page.join(",")), &next);
        ListAnswer { status: 200, headers: lines, body: body.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(lists: &Lists, uri: &str) -> ListAnswer {
        lists.answer(&Method::GET, &uri.parse().unwrap(), &HeaderMap::new()).unwrap()
    }

    fn ids(answer: &ListAnswer) -> Vec<String> {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        body["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn pages_hold_every_item_once_and_a_mark_leaves_out_what_is_older() {
        let mut lists = Lists::new(&["/a=link:5/2".parse().unwrap(), "/b=cursor:5/2".parse().unwrap()]);
        let second = ask(&lists, "/a?page=2");
        assert_eq!(ids(&second), ["i0000003", "i0000004"]);
        assert_eq!(second.headers[1].1, "</a?page=3>; rel=\"next\"");
        assert_eq!(ask(&lists, "/a?page=3").headers.len(), 1);
        assert!(ask(&lists, "/b?cursor=2").body.ends_with(br#""next":"4"}"#));
        assert!(lists.put("/a", "i0000001", r#""name":"new""#) && lists.delete("/a", "i0000002"));
        assert_eq!(ids(&ask(&lists, "/a?updated_since=5")), ["i0000001"]);
        assert_eq!(ids(&ask(&lists, "/a?per_page=9")), ["i0000001", "i0000003", "i0000004", "i0000005"]);
    }

    #[test]
    fn a_list_speaks_as_its_api_does() {
        let named = |items: &str, next: &str, at: &str, size: &str| Shape {
            items: items.into(),
            next: next.into(),
            at: at.into(),
            size: size.into(),
            ..Shape::default()
        };
        let list = |text: &str, shape| ListRule { shape, ..text.parse().unwrap() };
        let lists = Lists::new(&[
            list("/a=cursor:5/2", named("/results", "/paging/next/after", "after", "limit")),
            list("/b=link:5/2", named("", "/next", "_page", "_limit")),
        ]);
        let first = ask(&lists, "/a?limit=3");
        assert!(first.body.starts_with(br#"{"results":[{"id":"i0000001""#), "{first:?}");
        assert!(first.body.ends_with(br#"],"paging":{"next":{"after":"3"}}}"#), "{first:?}");
        assert!(ask(&lists, "/a?after=4&limit=3").body.ends_with(br#"{"after":null}}}"#));
        let bare = ask(&lists, "/b?_page=2&_limit=2");
        assert!(bare.body.starts_with(br#"[{"id":"i0000003""#) && bare.body.ends_with(b"}]"), "{bare:?}");
        assert_eq!(bare.headers[1].1, "</b?_page=3&_limit=2>; rel=\"next\"");
    }

    #[test]
    fn an_unchanged_list_is_not_told_again() {
        let mut lists = Lists::new(&["/a=page:1/2".parse().unwrap()]);
        let etag = ask(&lists, "/a").headers[0].1.clone();
        let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, etag)]);
        let status = |lists: &Lists| lists.answer(&Method::GET, &"/a".parse().unwrap(), &headers).unwrap().status;
        assert_eq!(status(&lists), 304);
        lists.put("/a", "x", r#""n":1"#);
        assert_eq!(status(&lists), 200);
    }

    #[test]
    fn a_list_is_declared_in_one_word() {
        assert_eq!("/u=offset:7/3".parse::<ListRule>().unwrap().way, Way::Offset);
        for bad in ["/u", "/u=link", "/u=link:1", "/u=up:1/1", "u=link:1/1", "/u=link:1/0", "/u=link:9999999/1"] {
            assert!(bad.parse::<ListRule>().unwrap_err().contains(bad), "{bad}");
        }
    }
}
