//! A token endpoint beside the provider: gives out tokens that end, rotates refresh tokens, misbehaves on request, and
//! knows which calls carry a token that is good.
//!
//! Pure: time goes in. Its requests are no arrivals, since they spend no limit. Must never know: sockets. Next: `server`.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Tokens that are good at one time; the oldest is forgotten first.
const GOOD_MAX: usize = 1_000;

/// How tokens are given out, and what calls must show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenRules {
    /// Where tokens are given out.
    pub path: String,
    pub client_id: String,
    pub client_secret: String,
    /// The first refresh token; "": only client_credentials.
    pub refresh_token: String,
    /// How long an access token is good.
    #[serde(with = "super::config::text")]
    pub life: Duration,
    /// Every refresh token is good for one use.
    pub rotates: bool,
    /// Secrets that calls may show in place of a token: as bearer, as password, in any header, or in the query.
    pub keys: Vec<String>,
    /// Tokens begin so.
    pub prefix: String,
    /// How long an answer takes.
    #[serde(with = "super::config::text")]
    pub latency: Duration,
    pub fault: TokenFault,
}

impl Default for TokenRules {
    fn default() -> Self {
        TokenRules {
            path: "/oauth/token".to_owned(),
            client_id: "tidegate".to_owned(),
            client_secret: "client-secret".to_owned(),
            refresh_token: "first-refresh-token".to_owned(),
            life: Duration::from_secs(3_600),
            rotates: true,
            keys: Vec::new(),
            prefix: "sim".to_owned(),
            latency: Duration::from_millis(20),
            fault: TokenFault::None,
        }
    }
}

/// How the endpoint misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenFault {
    #[default]
    None,
    /// 503.
    Unavailable,
    /// 400 `invalid_grant`, whose words repeat what was sent.
    InvalidGrant,
    /// 200 with something that is no token.
    Garbage,
    /// Tokens that look good, with which every call is refused.
    Useless,
}

/// What the endpoint did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReport {
    /// Requests for a token.
    pub asked: u64,
    /// Tokens given out.
    pub given: u64,
    /// Refresh tokens that came a second time.
    pub reused: u64,
    /// Calls without a good token.
    pub refused_calls: u64,
}

#[derive(Debug)]
pub struct Tokens {
    rules: TokenRules,
    good: BTreeMap<u64, (String, Timestamp)>,
    refresh: String,
    used: Vec<String>,
    pub report: TokenReport,
}

impl Tokens {
    pub fn new(rules: TokenRules) -> Self {
        let refresh = rules.refresh_token.clone();
        Tokens { rules, good: BTreeMap::new(), refresh, used: Vec::new(), report: TokenReport::default() }
    }

    pub fn rules(&self) -> &TokenRules {
        &self.rules
    }

    pub fn set_fault(&mut self, fault: TokenFault) {
        self.rules.fault = fault;
    }

    /// As if all tokens had ended at this moment. Refresh tokens stay good.
    pub fn revoke(&mut self) {
        self.good.clear();
    }

    /// Answers a request for a token: status and JSON.
    pub fn ask(&mut self, now: Timestamp, authorization: Option<&str>, form: &[u8]) -> (u16, String) {
        self.report.asked += 1;
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(form).into_owned().collect();
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let refused = |error: &str, words: &str| {
            (400, serde_json::json!({ "error": error, "error_description": words }).to_string())
        };
        match self.rules.fault {
            TokenFault::None | TokenFault::Useless => {}
            TokenFault::Unavailable => return (503, "{}".to_owned()),
            TokenFault::Garbage => return (200, "<html>welcome</html>".to_owned()),
            TokenFault::InvalidGrant => {
                let words = format!("{} of {}", field("refresh_token"), field("client_secret"));
                return refused("invalid_grant", &words);
            }
        }
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encoded(&self.rules.client_id), encoded(&self.rules.client_secret));
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let in_body = field("client_id") == self.rules.client_id && field("client_secret") == self.rules.client_secret;
        if authorization != Some(&*basic) && !in_body {
            let (_, body) = refused("invalid_client", "the client is not known");
            return (401, body);
        }
        match field("grant_type") {
            "client_credentials" => {}
            "refresh_token" if field("refresh_token") == self.refresh && !self.refresh.is_empty() => {}
            "refresh_token" => {
                self.report.reused += u64::from(self.used.iter().any(|used| used == field("refresh_token")));
                return refused("invalid_grant", "the refresh token is not good");
            }
            _ => return refused("unsupported_grant_type", ""),
        }
        self.report.given += 1;
        let number = self.report.given;
        let access = format!("{}-access-{number}", self.rules.prefix);
        if self.rules.fault != TokenFault::Useless {
            self.good.insert(number, (access.clone(), now + self.rules.life));
        }
        if self.good.len() > GOOD_MAX {
            self.good.pop_first();
        }
        let mut answer = serde_json::json!({
            "access_token": access, "token_type": "Bearer", "expires_in": self.rules.life.as_secs_f64(),
        });
        if field("grant_type") == "refresh_token" && self.rules.rotates {
            let next = format!("{}-refresh-{number}", self.rules.prefix);
            self.used.push(std::mem::replace(&mut self.refresh, next));
            answer["refresh_token"] = self.refresh.clone().into();
        }
        (200, answer.to_string())
    }

    /// Does a call show a good token or key?
    pub fn knows(&mut self, now: Timestamp, headers: &http::HeaderMap, query: Option<&str>) -> bool {
        let is_key = |text: &str| self.rules.keys.iter().any(|key| key == text);
        let shown: Vec<&str> = headers.values().filter_map(|value| value.to_str().ok()).collect();
        let bearers = || shown.iter().filter_map(|value| value.strip_prefix("Bearer "));
        let good = bearers().any(|token| self.good.values().any(|(known, until)| known == token && now < *until));
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let known = good
            || bearers().any(is_key)
            || shown.iter().any(|s| is_key(s))
            || pairs.into_iter().any(|(_, v)| is_key(&v));
        self.report.refused_calls += u64::from(!known);
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(s)
    }

    fn refresh(tokens: &mut Tokens, with: &str) -> (u16, String) {
        let form =
            format!("grant_type=refresh_token&refresh_token={with}&client_id=tidegate&client_secret=client-secret");
        tokens.ask(at(0), None, form.as_bytes())
    }

    fn shows(tokens: &mut Tokens, now: i64, token: &str) -> bool {
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        tokens.knows(at(now), &headers, None)
    }

    #[test]
    fn a_rotated_refresh_token_is_good_once_and_an_access_token_for_its_life() {
        let mut tokens = Tokens::new(TokenRules { life: Duration::from_secs(10), ..TokenRules::default() });
        assert_eq!(refresh(&mut tokens, "first-refresh-token").0, 200);
        assert!(shows(&mut tokens, 9, "sim-access-1") && !shows(&mut tokens, 10, "sim-access-1"));
        assert_eq!(refresh(&mut tokens, "first-refresh-token").0, 400);
        assert_eq!(refresh(&mut tokens, "sim-refresh-1").0, 200);
        assert_eq!((tokens.report.given, tokens.report.reused, tokens.report.refused_calls), (2, 1, 1));
        tokens.revoke();
        assert!(!shows(&mut tokens, 0, "sim-access-2"));
    }

    #[test]
    fn keys_are_taken_in_headers_and_in_the_query() {
        let mut tokens = Tokens::new(TokenRules { keys: vec!["k/1".into()], ..TokenRules::default() });
        assert!(shows(&mut tokens, 0, "k/1") && !shows(&mut tokens, 0, "k/2"));
        assert!(tokens.knows(at(0), &http::HeaderMap::new(), Some("a=b&api_key=k%2F1")));
    }
}
