//! An answer, taken apart: its items byte for byte, and where the next page is. Must never know: what items mean.

use serde_json::value::RawValue;

use super::{Next, PAGES_MAX, Page, Pages, Position, other_origin, same_origin};
use crate::model::verdict::Answer;
use crate::model::walk;

/// Items of one page.
pub const ITEMS_MAX: usize = 10_000;

/// What a page holds.
#[derive(Debug, PartialEq)]
pub struct Items<'a> {
    /// Each the JSON text as it came.
    pub items: Vec<&'a str>,
    /// `None`: this was the last page.
    pub next: Option<Position>,
    pub etag: Option<String>,
    /// Nothing changed since the ETag that was sent.
    pub not_modified: bool,
}

/// Reads the answer to `page`, which was asked for at `url`. An error is one sentence: the page cannot be used.
pub fn read<'a>(pages: &Pages, page: &Page, url: &url::Url, answer: &'a Answer) -> Result<Items<'a>, String> {
    let etag = (pages.etag && page.page == 0).then(|| header(answer, "etag")).flatten();
    if answer.status == 304 {
        return Ok(Items { items: Vec::new(), next: None, etag, not_modified: true });
    }
    if answer.truncated {
        let got = answer.body.len();
        return Err(format!(
            "expected a whole page, got one cut off after {got} bytes; raise response_bytes_max or ask for smaller pages"
        ));
    }
    let list = at(&answer.body, &pages.items)?;
    let list = list.ok_or_else(|| format!("expected a list of items at {:?}, got nothing there", pages.items))?;
    let items: Vec<&RawValue> = serde_json::from_str(list.get())
        .map_err(|_| format!("expected a list of items at {:?}, got {}", pages.items, short(list.get())))?;
    if items.len() > ITEMS_MAX {
        return Err(format!("expected at most {ITEMS_MAX} items in a page, got {}", items.len()));
    }
    let items: Vec<&str> = items.into_iter().map(RawValue::get).collect();
    let next = next(pages, page, url, answer, items.len() as u64)?;
    if next.is_some() && page.page + 1 >= PAGES_MAX {
        return Err(format!("expected at most {PAGES_MAX} pages, and there are more"));
    }
    Ok(Items { items, next, etag, not_modified: false })
}

fn next(pages: &Pages, page: &Page, url: &url::Url, answer: &Answer, items: u64) -> Result<Option<Position>, String> {
    // A page that is not full is the last one, where the size is known.
    let full = pages.size.as_ref().map_or(items > 0, |(_, size)| items >= u64::from(*size));
    let next = match &pages.next {
        Next::None => None,
        Next::Link => match link(answer)? {
            None => None,
            Some(target) => {
                let to =
                    url.join(&target).map_err(|e| format!("expected a URL in the Link header, got {target:?}: {e}"))?;
                if !same_origin(&to, url) {
                    return Err(other_origin(&to, url));
                }
                if to == *url {
                    return Err("expected another page after this one, got a link to this one".to_owned());
                }
                Some(Position::Url(to.into()))
            }
        },
        Next::Cursor { from, .. } => match at(&answer.body, from)?.map(|raw| plain(raw.get())) {
            None => None,
            Some(cursor) if cursor.is_empty() || cursor == "null" || cursor == "false" => None,
            Some(cursor) if page.at == Position::Cursor(cursor.clone()) => {
                return Err("expected another page after this one, got its own cursor again".to_owned());
            }
            Some(cursor) => Some(Position::Cursor(cursor)),
        },
        Next::Number { first, .. } => full.then(|| match page.at {
            Position::Number(n) => Position::Number(n + 1),
            _ => Position::Number(first + 1),
        }),
        Next::Offset { .. } => full.then(|| match page.at {
            Position::Offset(n) => Position::Offset(n + items),
            _ => Position::Offset(items),
        }),
    };
    Ok(next)
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    answer.headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The target of `rel="next"`. Several header lines are one list (RFC 9110, 5.3).
fn link(answer: &Answer) -> Result<Option<String>, String> {
    let lines: Vec<&str> = answer.headers.get_all(http::header::LINK).iter().filter_map(|v| v.to_str().ok()).collect();
    let text = lines.join(", ");
    next_link(&text).ok_or_else(|| format!("expected a Link header as in RFC 8288, got {}", short(&text)))
}

/// Reads `<target>; name=value; name="value", ...` (RFC 8288). Outer `None`: it is none. Written by hand, because the
/// crates split at commas and semicolons that stand within a target or a quoted value.
fn next_link(text: &str) -> Option<Option<String>> {
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (target, after) = rest.strip_prefix('<')?.split_once('>')?;
        rest = after.trim_start();
        let mut is_next = None;
        while let Some(param) = rest.strip_prefix(';') {
            let end = param.find(['=', ';', ',']).unwrap_or(param.len());
            let name = param[..end].trim();
            rest = &param[end..];
            let mut value = String::new();
            if let Some(given) = rest.strip_prefix('=') {
                (value, rest) = param_value(given.trim_start())?;
            }
            if name.eq_ignore_ascii_case("rel") {
                // The first counts; one relation may have several names.
                is_next.get_or_insert(value.split_whitespace().any(|word| word.eq_ignore_ascii_case("next")));
            }
            rest = rest.trim_start();
        }
        if is_next == Some(true) {
            return Some(Some(target.trim().to_owned()));
        }
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    Some(None)
}

/// A value and what stands behind it.
fn param_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        return Some((text[..end].trim().to_owned(), &text[end..]));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[at + 1..])),
            c => value.push(c),
        }
    }
    None
}

fn plain(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
}

fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(60).collect::<String>())
}

/// The value at a JSON pointer, as it stands in the text.
fn at<'a>(json: &'a [u8], pointer: &str) -> Result<Option<&'a RawValue>, String> {
    let path: Vec<String> = pointer.split('/').skip(1).map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
    walk::down(json, &path).map_err(|e| {
        format!("expected JSON, got {}: {e}", short(&String::from_utf8_lossy(&json[..json.len().min(60)])))
    })
}
