//! One exchange with a token endpoint: the form that goes out, and what its answer means (RFC 6749, sections 4.4, 5, 6).
//!
//! The request goes through the same stack as every call: guard, deadlines, bounds, no redirects; it spends no limit of
//! the provider. Secrets are read for each exchange, so a new one counts at once. Must never know: who waits for the
//! token, where it is kept. Next: `token`.

use std::time::Duration;

use base64::Engine as _;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tower::ServiceExt;
use url::form_urlencoded;

use super::stack::Stack;
use super::{Request, secret};
use crate::model::auth::{ClientStyle, Grant, OAuth2};
use crate::model::verdict::{Answer, Failure};

/// Largest answer of a token endpoint, bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest wait that an endpoint may ask for.
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// Longest life of a token that is believed.
const LIFE_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Errors that trying again does not mend.
const FOR_GOOD: [&str; 6] = [
    "invalid_grant",
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
];

/// What the endpoint gave out.
#[derive(Debug)]
pub(super) struct Granted {
    pub access: SecretString,
    /// `None`: it did not say.
    pub life: Option<Duration>,
    /// Takes the place of the refresh token that was used.
    pub refresh: Option<SecretString>,
}

/// Why there is no token. Carries no secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub reason: String,
    pub for_good: bool,
    /// The endpoint asked for so long a pause.
    pub wait: Option<Duration>,
}

impl Fault {
    pub fn passing(reason: impl Into<String>) -> Fault {
        Fault { reason: reason.into(), for_good: false, wait: None }
    }
}

/// Asks for a token; `refresh` is the refresh token to use, if the grant needs one.
pub(super) async fn exchange(client: &OAuth2, stack: &Stack, refresh: Option<&SecretString>) -> Result<Granted, Fault> {
    let client_secret = client.client_secret.as_ref().map(secret::resolve).transpose().map_err(Fault::passing)?;
    let request = request(client, client_secret.as_ref(), refresh).map_err(Fault::passing)?;
    match stack.clone().oneshot(request).await {
        Ok(answer) => read(&answer, [client_secret.as_ref(), refresh]),
        Err(Failure { reason, .. }) => {
            Err(Fault::passing(format!("the token endpoint {} does not answer: {reason}", place(client))))
        }
    }
}

fn place(client: &OAuth2) -> String {
    client.token_url.origin().ascii_serialization()
}

fn request(
    client: &OAuth2,
    client_secret: Option<&SecretString>,
    refresh: Option<&SecretString>,
) -> Result<Request, String> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    match (&client.grant, refresh) {
        (Grant::ClientCredentials, _) => form.append_pair("grant_type", "client_credentials"),
        (Grant::RefreshToken(_), Some(token)) => {
            form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token.expose_secret())
        }
        (Grant::RefreshToken(_), None) => return Err("expected a refresh token, got none".to_owned()),
    };
    for (name, value) in [("scope", &client.scope), ("audience", &client.audience)] {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    match (client.style, client_secret) {
        (ClientStyle::Basic, Some(secret)) => {
            // Both encoded as in a form, so that a colon in the name cannot move the border (section 2.3.1).
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encoded(&client.client_id), encoded(secret.expose_secret()));
            let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
            let mut value = HeaderValue::from_str(&basic).map_err(|_| "the client's secret does not fit".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        (ClientStyle::Body, Some(secret)) => {
            form.append_pair("client_id", &client.client_id).append_pair("client_secret", secret.expose_secret());
        }
        (_, None) => {
            form.append_pair("client_id", &client.client_id);
        }
    }
    let body = form.finish().into();
    Ok(Request { method: http::Method::POST, url: client.token_url.clone(), headers, body })
}

#[derive(Deserialize)]
struct Body {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
    refresh_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// What the answer means. `secrets` were sent, and are not told again.
fn read(answer: &Answer, secrets: [Option<&SecretString>; 2]) -> Result<Granted, Fault> {
    let body: Option<Body> = serde_json::from_slice(&answer.body).ok();
    let status = answer.status;
    let Some(body) = body else {
        let said = format!("expected JSON from the token endpoint, got status {status} with something else");
        return Err(Fault { wait: asked_wait(answer), ..Fault::passing(said) });
    };
    match body {
        Body { access_token: Some(access), token_type, expires_in, refresh_token, .. }
            if (200..300).contains(&status) && !access.is_empty() =>
        {
            if let Some(other) = token_type.filter(|kind| !kind.eq_ignore_ascii_case("bearer")) {
                let shown: String = other.chars().filter(char::is_ascii_graphic).take(20).collect();
                return Err(Fault::passing(format!("expected a token of type Bearer, got {shown:?}")));
            }
            let refresh = refresh_token.filter(|token| !token.is_empty()).map(SecretString::from);
            Ok(Granted { access: access.into(), life: expires_in.as_ref().and_then(seconds), refresh })
        }
        Body { error: Some(error), error_description, .. } => {
            let error: String = error.chars().filter(char::is_ascii_graphic).take(60).collect();
            let for_good = FOR_GOOD.contains(&error.as_str()) && (400..500).contains(&status);
            let why = error_description.map(|text| shown(&text, secrets)).filter(|text| !text.is_empty());
            let why = why.map(|text| format!(" ({text})")).unwrap_or_default();
            let then = if for_good { "; mend the credential, then reset the breaker" } else { "" };
            let reason = format!("the token endpoint refused with status {status}: {error}{why}{then}");
            Err(Fault { reason, for_good, wait: asked_wait(answer) })
        }
        _ => {
            let said = format!("expected a token from the token endpoint, got status {status} without one");
            Err(Fault { wait: asked_wait(answer), ..Fault::passing(said) })
        }
    }
}

/// The endpoint's own words, short and without what was sent to it.
fn shown(text: &str, secrets: [Option<&SecretString>; 2]) -> String {
    let telltale = secrets.into_iter().flatten().any(|secret| text.contains(secret.expose_secret()));
    if telltale {
        return "its words name a secret".to_owned();
    }
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// A number, or a text that is one, as some endpoints send.
fn seconds(value: &serde_json::Value) -> Option<Duration> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    (number.is_finite() && number > 0.0).then(|| Duration::from_secs_f64(number.min(LIFE_MAX.as_secs_f64())))
}

fn asked_wait(answer: &Answer) -> Option<Duration> {
    if !matches!(answer.status, 429 | 503) {
        return None;
    }
    let text = answer.headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(|seconds| Duration::from_secs(seconds).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::auth::SecretRef;

    fn client(grant: Grant, style: ClientStyle) -> OAuth2 {
        OAuth2 {
            token_url: "https://login.example/token".parse().unwrap(),
            grant,
            client_id: "me:too".into(),
            client_secret: Some(SecretRef::Env("X".into())),
            style,
            scope: Some("a b".into()),
            audience: None,
        }
    }

    fn answered(status: u16, body: &str) -> Result<Granted, Fault> {
        let answer = Answer {
            status,
            headers: HeaderMap::new(),
            body: body.to_owned().into(),
            truncated: false,
            received_at: Timestamp::ZERO,
        };
        read(&answer, [Some(&SecretString::from("canary-client")), Some(&SecretString::from("canary-refresh"))])
    }

    #[test]
    fn the_form_is_as_the_standard_has_it() {
        let secret = SecretString::from("p&ss");
        let basic = request(&client(Grant::ClientCredentials, ClientStyle::Basic), Some(&secret), None).unwrap();
        assert_eq!(basic.body, "grant_type=client_credentials&scope=a+b");
        let pair = base64::engine::general_purpose::STANDARD.encode("me%3Atoo:p%26ss");
        assert_eq!(basic.headers[AUTHORIZATION], format!("Basic {pair}"));
        assert!(!format!("{basic:?}").contains(&pair));
        let grant = Grant::RefreshToken(SecretRef::Env("R".into()));
        let refresh = SecretString::from("r/1");
        let body = request(&client(grant, ClientStyle::Body), Some(&secret), Some(&refresh)).unwrap();
        assert_eq!(
            body.body,
            "grant_type=refresh_token&refresh_token=r%2F1&scope=a+b&client_id=me%3Atoo&client_secret=p%26ss"
        );
        assert!(!body.headers.contains_key(AUTHORIZATION));
    }

    #[test]
    fn what_is_granted_is_read_in_all_its_forms() {
        for (life, expected) in
            [("3600", Some(3_600)), ("\"60\"", Some(60)), ("-1", None), ("null", None), ("[]", None)]
        {
            let granted =
                answered(200, &format!(r#"{{"access_token":"t","token_type":"bearer","expires_in":{life}}}"#));
            assert_eq!(granted.unwrap().life, expected.map(Duration::from_secs), "{life}");
        }
        let rotated = answered(200, r#"{"access_token":"t","refresh_token":"r2"}"#).unwrap();
        assert_eq!(rotated.refresh.unwrap().expose_secret(), "r2");
    }

    #[test]
    fn what_is_refused_for_good_says_so_and_no_words_of_the_endpoint_tell_a_secret() {
        let bad = answered(400, r#"{"error":"invalid_grant","error_description":"Token canary-refresh is revoked"}"#);
        let bad = bad.unwrap_err();
        assert!(bad.for_good && bad.reason.contains("invalid_grant") && bad.reason.contains("reset the breaker"));
        assert!(!bad.reason.contains("canary"), "{}", bad.reason);
        for (status, body) in [
            (503, "{}"),
            (500, r#"{"error":"invalid_grant"}"#),
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (200, "<html>"),
            (200, r#"{"access_token":""}"#),
            (302, ""),
            (200, r#"{"access_token":"t","token_type":"mac"}"#),
        ] {
            assert!(!answered(status, body).unwrap_err().for_good, "{status} {body}");
        }
    }
}
