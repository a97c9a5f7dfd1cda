//! What the journal keeps of a call beside its end: how long it took, what the provider said of its limits, and bodies
//! where the operation asks for them, without secrets and within a bound. Pure.
//!
//! Must never know: who sends, stores. Next: `model/call`, which carries it; `engine/caller/log`, which makes it.

use std::time::Duration;

use serde_json::Value;

/// Bytes kept of one body.
pub const BODY_BYTES_MAX: usize = 16 << 10;
/// Headers kept of one answer, and bytes of the value of one.
pub const HEADERS_MAX: usize = 16;
pub const HEADER_BYTES_MAX: usize = 256;
/// Names of fields that an operation may have hidden beside [`ALWAYS_HIDDEN`].
pub const REDACT_MAX: usize = 64;
/// Stands where something was hidden.
pub const HIDDEN: &str = "[hidden]";
/// Fields that are hidden whatever the operation says: compared without case, `-` and `_`.
const ALWAYS_HIDDEN: [&str; 9] =
    ["password", "passwd", "secret", "clientsecret", "token", "accesstoken", "refreshtoken", "apikey", "authorization"];

/// What was seen of a call on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// From the moment at which the call had its permits and its credential was asked for, to the end of the answer.
    pub latency: Duration,
    /// Headers of the answer that speak of limits, as they came.
    pub headers: Vec<(String, String)>,
    /// Only where the operation says so.
    pub bodies: Option<Bodies>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bodies {
    pub request: Kept,
    pub answer: Kept,
}

/// A body as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub text: String,
    /// Bytes on the wire.
    pub bytes: u64,
    /// The text is not all of it: cut at [`BODY_BYTES_MAX`], or left out because nobody can say what of it is secret.
    pub cut: bool,
}

/// An operation's wish to have bodies kept: names of fields to hide in them, folded by [`folded`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBodies {
    pub hide: Vec<String>,
}

/// A name of a field as names are compared: without case, `-` and `_`.
pub fn folded(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Does a header of this name (lower case) speak of limits?
fn of_limits(name: &str) -> bool {
    name == "retry-after" || name.contains("ratelimit") || name.contains("rate-limit")
}

/// The headers of an answer that speak of limits, and those that a declaration names. A value that is no text, or too
/// long, is cut to what is.
pub fn limit_headers(headers: &http::HeaderMap, named: &[&http::HeaderName]) -> Vec<(String, String)> {
    let said = headers.iter().filter(|(name, _)| of_limits(name.as_str()) || named.contains(name));
    let kept = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let mut text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        text.truncate(text.floor_char_boundary(HEADER_BYTES_MAX));
        (name.to_string(), text)
    };
    said.take(HEADERS_MAX).map(kept).collect()
}

impl LogBodies {
    /// What is kept of a body. `whole`: nothing of it is missing already. `secrets` takes the credential out of a text.
    ///
    /// JSON is read, its secret fields hidden, and then cut, so that no cut can split a secret. What only begins like
    /// JSON, a form, and any other text where the operation names fields to hide, is left out: only its size is kept.
    pub fn kept(&self, body: &[u8], whole: bool, content_type: &str, secrets: impl Fn(&str) -> String) -> Kept {
        let bytes = body.len() as u64;
        let left_out = || Kept { text: String::new(), bytes, cut: bytes > 0 };
        let Ok(text) = std::str::from_utf8(body) else { return left_out() };
        let text = secrets(text);
        let mut text = match serde_json::from_str::<Value>(&text) {
            Ok(mut value) => {
                self.hide_in(&mut value);
                // Once more: an escape of JSON may have kept a secret from being seen.
                secrets(&value.to_string())
            }
            Err(_) if self.hide.is_empty() && is_plain(&text, content_type) => text,
            Err(_) => return left_out(),
        };
        let end = text.floor_char_boundary(BODY_BYTES_MAX);
        let cut = end < text.len() || !whole;
        text.truncate(end);
        Kept { text, bytes, cut }
    }

    fn hide_in(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let name = folded(name);
                    if ALWAYS_HIDDEN.contains(&name.as_str()) || self.hide.contains(&name) {
                        *value = Value::String(HIDDEN.to_owned());
                    } else {
                        self.hide_in(value);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_in(item)),
            _ => {}
        }
    }
}

/// A text in which no field can be hidden because it has none.
fn is_plain(text: &str, content_type: &str) -> bool {
    let kind = content_type.to_ascii_lowercase();
    let fields = kind.contains("form") || kind.contains("json");
    !fields && !text.trim_start().starts_with(['{', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(rule: &LogBodies, body: &str, kind: &str) -> Kept {
        rule.kept(body.as_bytes(), true, kind, |text| text.replace("s3cret/x", HIDDEN))
    }

    fn rule(hide: &[&str]) -> LogBodies {
        LogBodies { hide: hide.iter().map(|name| folded(name)).collect() }
    }

    #[test]
    fn secret_fields_are_hidden_at_any_depth_and_in_any_spelling() {
        let body = r#"{"Api-Key":"a","user":[{"refresh_token":{"deep":"b"},"Card_Number":"c","name":"Ada"}]}"#;
        let text = kept(&rule(&["cardNumber"]), body, "application/json").text;
        assert_eq!(
            text,
            r#"{"Api-Key":"[hidden]","user":[{"refresh_token":"[hidden]","Card_Number":"[hidden]","name":"Ada"}]}"#
        );
    }

    #[test]
    fn a_credential_is_hidden_however_json_writes_it() {
        let text = kept(&rule(&[]), r#"{"echo":"s3cret\/x","plain":"s3cret/x"}"#, "application/json").text;
        assert_eq!(text, r#"{"echo":"[hidden]","plain":"[hidden]"}"#);
    }

    #[test]
    fn what_cannot_be_read_is_left_out_where_it_may_hold_a_secret() {
        let gone = |rule: &LogBodies, body: &str, kind: &str| {
            let kept = kept(rule, body, kind);
            assert_eq!((kept.text.as_str(), kept.bytes, kept.cut), ("", body.len() as u64, true), "{body}");
        };
        gone(&rule(&[]), r#"{"password":"hunter2"#, "application/json");
        gone(&rule(&[]), r#"{"password":"hunter2"}{"x":1}"#, "");
        gone(&rule(&[]), "password=hunter2", "application/x-www-form-urlencoded");
        gone(&rule(&["ssn"]), "<ssn>1</ssn>", "text/xml");
        assert_eq!(kept(&rule(&[]), "<p>Bad gateway</p>", "text/html").text, "<p>Bad gateway</p>");
        assert_eq!(kept(&rule(&[]), "", ""), Kept::default());
    }

    #[test]
    fn a_long_body_is_cut_at_a_character_after_its_secrets_are_gone() {
        let body = format!(r#"{{"a":"{}","token":"t"}}"#, "é".repeat(BODY_BYTES_MAX));
        let kept = kept(&rule(&[]), &body, "application/json");
        assert!(kept.cut && kept.text.len() <= BODY_BYTES_MAX && kept.text.len() > BODY_BYTES_MAX - 4);
        assert_eq!(kept.bytes, body.len() as u64);
    }

    #[test]
    fn the_headers_of_limits_are_kept_and_no_others() {
        let mut headers = http::HeaderMap::new();
        let names = [
            "Retry-After",
            "X-RateLimit-Remaining",
            "RateLimit",
            "RateLimit-Policy",
            "X-HubSpot-RateLimit-Daily",
            "X-Shop-Calls",
            "Set-Cookie",
            "Date",
        ];
        for name in names {
            headers.insert(http::HeaderName::try_from(name).unwrap(), "1".parse().unwrap());
        }
        headers.append("x-ratelimit-remaining", "é".repeat(400).parse().unwrap());
        let kept = limit_headers(&headers, &[&http::HeaderName::from_static("x-shop-calls")]);
        let mut names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "ratelimit",
                "ratelimit-policy",
                "retry-after",
                "x-hubspot-ratelimit-daily",
                "x-ratelimit-remaining",
                "x-ratelimit-remaining",
                "x-shop-calls"
            ]
        );
        assert!(kept.iter().all(|(_, value)| value.len() <= HEADER_BYTES_MAX));
    }
}
