//! Credentials of a provider: the ways to show one, and those of single accounts.
//!
//! Must never know: the values of secrets. Next: `rules.rs` for references, `model/auth.rs` for what comes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::problem::{Found, Problem};
use super::provider::base_url;
use super::reader::{Reader, Unfit};
use super::rules::{HOW, header_name, secret};
use super::tree::{Node, Value};
use super::values::{self, expected};
use crate::model::auth::{Auth, ClientStyle, Grant, OAuth2, SecretRef};
use crate::model::name::Account;

/// Accounts with a credential of their own in one declaration; more go by a reference with `{account}`.
const ACCOUNTS_MAX: usize = 1_000;
/// Longest scope and audience of a token request, bytes.
const SCOPE_BYTES_MAX: usize = 4_096;

/// One of `{ bearer }`, `{ basic }`, `{ header }`, `{ query }`, `{ webhook }`, `{ oauth2 }`.
pub fn auth(found: &Found, node: &Node, allow_private: bool) -> Option<Auth> {
    let Value::Table(table) = &node.value else {
        // The value is not shown: it may be the secret itself.
        let said =
            format!("expected a table like auth = {{ bearer = {{ credential = \"x\" }} }}, got {}", node.value.kind());
        found.add(Problem::new(said).at(&node.at).help(HOW));
        return None;
    };
    let reader = Reader::new(found, &node.at, table);
    if table.len() != 1 {
        let said =
            format!("expected exactly one of bearer, basic, header, query, webhook and oauth2, got {}", table.len());
        found.add(Problem::new(said).at(&node.at));
    }
    let bearer = reader.node("bearer").and_then(|n| secret(found, n)).map(Auth::Bearer);
    let basic = reader.node("basic").and_then(|n| {
        let basic = Reader::of(found, n)?;
        let username = basic.need("username", "the user's name, in plain text", values::text).map(str::to_owned);
        let password = needed_secret(&basic, "password");
        basic.finish();
        Some(Auth::Basic { username: username?, password: password? })
    });
    let header = reader.node("header").and_then(|n| {
        let header = Reader::of(found, n)?;
        let name = header.need("name", "the header's name, as \"X-Api-Key\"", |n| header_name(values::text(n)?));
        let value = needed_secret(&header, "value");
        header.finish();
        Some(Auth::Header { name: name?, value: value? })
    });
    let query = reader.node("query").and_then(|n| {
        let query = Reader::of(found, n)?;
        let name = query.need("name", "the parameter's name, as \"api_key\"", values::filled).map(str::to_owned);
        let value = needed_secret(&query, "value");
        query.finish();
        Some(Auth::Query { name: name?, value: value? })
    });
    let webhook = reader.node("webhook").and_then(|n| secret(found, n)).map(Auth::Webhook);
    let oauth2 = reader.node("oauth2").and_then(|n| oauth2(found, n, allow_private)).map(Arc::new).map(Auth::OAuth2);
    reader.finish();
    bearer.or(basic).or(header).or(query).or(webhook).or(oauth2)
}

/// A reference that has to be there.
fn needed_secret(reader: &Reader<'_>, key: &'static str) -> Option<SecretRef> {
    if !reader.has(key) {
        reader.found.add(Problem::new(format!("expected the key `{key}` here")).at(reader.at).help(HOW));
    }
    reader.node(key).and_then(|n| secret(reader.found, n))
}

fn oauth2(found: &Found, node: &Node, allow_private: bool) -> Option<OAuth2> {
    let reader = Reader::of(found, node)?;
    let help = "where tokens are given out, as token_url = \"https://login.example.com/oauth/token\"";
    let token_url = reader.need("token_url", help, |n| base_url(n, allow_private));
    let grants = [("client_credentials", false), ("refresh_token", true)];
    let refreshes =
        reader.need("grant", "grant = \"client_credentials\" or \"refresh_token\"", values::choice(&grants));
    let client_id = reader.need("client_id", "the client's name, in plain text", values::filled).map(str::to_owned);
    let client_secret = reader.node("client_secret").map(|n| secret(found, n));
    let refresh_token = match (refreshes, reader.node("refresh_token")) {
        (Some(true), _) => needed_secret(&reader, "refresh_token"),
        (Some(false), Some(n)) => {
            let said = "a refresh_token goes with grant = \"refresh_token\"";
            found.add(Problem::new(said).at(&n.at).help("remove it, or change the grant"));
            None
        }
        _ => None,
    };
    if refreshes == Some(false) && client_secret.is_none() {
        let said = "expected the key `client_secret` here: client_credentials without one are no credentials";
        found.add(Problem::new(said).at(&node.at).help(HOW));
    }
    let styles = [("basic", ClientStyle::Basic), ("body", ClientStyle::Body)];
    let style = reader.get("style", values::choice(&styles)).unwrap_or(ClientStyle::Basic);
    let (scope, audience) = (reader.get("scope", parameter), reader.get("audience", parameter));
    reader.finish();
    let grant = match refreshes? {
        true => Grant::RefreshToken(refresh_token?),
        false => Grant::ClientCredentials,
    };
    let client_secret = match client_secret {
        Some(secret) => Some(secret?),
        None => None,
    };
    Some(OAuth2 { token_url: token_url?, grant, client_id: client_id?, client_secret, style, scope, audience })
}

fn parameter(node: &Node) -> Result<String, Unfit> {
    let text = values::filled(node)?;
    if text.len() > SCOPE_BYTES_MAX {
        return Err(expected(format_args!("at most {SCOPE_BYTES_MAX} bytes"), node));
    }
    Ok(text.to_owned())
}

/// `{ "acct-7" = { auth = { ... } } }`.
pub fn accounts(found: &Found, node: &Node, allow_private: bool) -> BTreeMap<Account, Auth> {
    let mut accounts = BTreeMap::new();
    let Some(reader) = Reader::of(found, node) else { return accounts };
    let entries = reader.entries();
    if entries.len() > ACCOUNTS_MAX {
        let said = format!("expected at most {ACCOUNTS_MAX} accounts, got {}", entries.len());
        let help = "put {account} into the reference: auth = { bearer = { credential = \"crm_{account}\" } }";
        found.add(Problem::new(said).at(&node.at).help(help));
    }
    for (name, entry) in entries.into_iter().take(ACCOUNTS_MAX) {
        let account = match name {
            "" => Err(Problem::new("expected the name of an account, got \"\": its credential is the provider's auth")),
            name => Account::new(name).map_err(|e| Problem::new(e.to_string())),
        };
        let account = reader.note(&entry.key_at, account);
        let Some(own) = Reader::of(found, &entry.node) else { continue };
        let help = "how the account shows who it is: auth = { bearer = { credential = \"x\" } }";
        let auth = own.need("auth", help, Ok).and_then(|n| auth(found, n, allow_private));
        own.finish();
        accounts.extend(account.zip(auth));
    }
    accounts
}
