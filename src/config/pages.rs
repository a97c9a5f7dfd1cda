//! `pages = { ... }` of an operation: how its list is asked for page by page. Must never know: how pages are read.

use super::problem::{Found, Problem};
use super::reader::Reader;
use super::rules;
use super::tree::Node;
use super::values;
use crate::model::pages::{ITEMS_MAX, Next, Pages};

#[derive(Clone, Copy, PartialEq)]
enum Way {
    None,
    Link,
    Cursor,
    Number,
    Offset,
}

const WAYS: [(&str, Way); 5] =
    [("none", Way::None), ("link", Way::Link), ("cursor", Way::Cursor), ("page", Way::Number), ("offset", Way::Offset)];

pub fn read(found: &Found, node: &Node) -> Option<Pages> {
    let before = found.count();
    let reader = Reader::of(found, node)?;
    let items = reader.get("items", rules::pointer).unwrap_or_default();
    let help = "how the next page is found: next = \"link\", \"cursor\", \"page\", \"offset\" or \"none\"";
    let way = reader.need("next", help, values::choice(&WAYS));
    let param = |default: &str| reader.get("param", values::filled).unwrap_or(default).to_owned();
    let next = match way {
        None => Next::None,
        Some(Way::None) => Next::None,
        Some(Way::Link) => Next::Link,
        Some(Way::Cursor) => {
            let from = reader.need("from", "where the cursor stands in an answer: from = \"/next\"", rules::pointer);
            Next::Cursor { from: from.unwrap_or_default(), param: param("cursor") }
        }
        Some(Way::Number) => {
            let first = reader.get("first", values::whole(0..=1)).unwrap_or(1u32);
            Next::Number { param: param("page"), first: u64::from(first) }
        }
        Some(Way::Offset) => Next::Offset { param: param("offset") },
    };
    let size = reader.get("size", values::whole(1..=ITEMS_MAX as u32));
    let size_param = reader.get("size_param", values::filled).map(str::to_owned);
    if let (Some(_), None) = (&size_param, size) {
        let problem = Problem::new("expected the key `size` beside `size_param`").at(reader.at);
        found.add(problem.help("say how many items a page has: size = 100"));
    }
    let made = Pages {
        items,
        next,
        size: size.map(|size| (size_param, size)),
        since: reader.get("since", values::filled).map(str::to_owned),
        etag: reader.get("etag", values::boolean).unwrap_or(false),
    };
    reader.finish();
    (found.count() == before).then_some(made)
}
