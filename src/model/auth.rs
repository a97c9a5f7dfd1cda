//! How a provider knows who calls: the declared ways, and which credential an account uses.
//!
//! Nothing here is secret: values are references, resolved when a call is made. `{account}` in a reference stands for
//! the job's account. Must never know: values of secrets, HTTP. Next: `outbound/credentials`.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use super::name::Account;
use super::provider::Provider;

/// The header of a signed message's id.
pub const WEBHOOK_ID: &str = "webhook-id";
/// Stands for the account in a reference.
pub const ACCOUNT: &str = "{account}";
/// Longest account that may stand in the name of a secret, bytes.
const ACCOUNT_BYTES_MAX: usize = 128;

/// Where a secret comes from. The value is never in the config and never printed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// A systemd credential: a file in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    File(PathBuf),
    Env(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    None,
    Bearer(SecretRef),
    Basic {
        username: String,
        password: SecretRef,
    },
    Header {
        name: http::HeaderName,
        value: SecretRef,
    },
    /// In the query of every request; the URL is then a secret too.
    Query {
        name: String,
        value: SecretRef,
    },
    /// Signs each request by Standard Webhooks: id, time and body. The id is the job's, in the idempotency header.
    Webhook(SecretRef),
    /// A token from a token endpoint (RFC 6749), sent as bearer (RFC 6750).
    OAuth2(Arc<OAuth2>),
}

/// A client of a token endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2 {
    /// Without user, query and fragment.
    pub token_url: url::Url,
    pub grant: Grant,
    pub client_id: String,
    /// `None`: a public client.
    pub client_secret: Option<SecretRef>,
    pub style: ClientStyle,
    pub scope: Option<String>,
    pub audience: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    ClientCredentials,
    /// The first one; the endpoint may replace it with each use.
    RefreshToken(SecretRef),
}

/// Where the client's secret stands in a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientStyle {
    /// In `Authorization: Basic`.
    Basic,
    /// In the form.
    Body,
}

impl SecretRef {
    fn text(&self) -> Cow<'_, str> {
        match self {
            SecretRef::Credential(text) | SecretRef::Env(text) => Cow::Borrowed(text),
            SecretRef::File(path) => path.to_string_lossy(),
        }
    }

    /// Does it name the account?
    pub fn is_per_account(&self) -> bool {
        self.text().contains(ACCOUNT)
    }

    /// With the account put in. An account that could lead elsewhere is refused.
    pub fn of_account(&self, account: &Account) -> Result<SecretRef, String> {
        if !self.is_per_account() {
            return Ok(self.clone());
        }
        let name = account.as_str();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
        if name.is_empty() || name.len() > ACCOUNT_BYTES_MAX || name.starts_with('.') || !name.chars().all(plain) {
            return Err(format!(
                "account {name:?} cannot stand in the name of a secret: expected 1 to {ACCOUNT_BYTES_MAX} letters, \
                 digits and ._@+- that do not begin with '.'"
            ));
        }
        let filled = self.text().replace(ACCOUNT, name);
        Ok(match self {
            SecretRef::Credential(_) => SecretRef::Credential(filled),
            SecretRef::Env(_) => SecretRef::Env(filled),
            SecretRef::File(_) => SecretRef::File(filled.into()),
        })
    }
}

impl Auth {
    /// All that it refers to.
    pub fn secrets(&self) -> Vec<&SecretRef> {
        match self {
            Auth::None => Vec::new(),
            Auth::Bearer(secret)
            | Auth::Basic { password: secret, .. }
            | Auth::Header { value: secret, .. }
            | Auth::Query { value: secret, .. }
            | Auth::Webhook(secret) => vec![secret],
            Auth::OAuth2(client) => {
                let token = match &client.grant {
                    Grant::RefreshToken(token) => Some(token),
                    Grant::ClientCredentials => None,
                };
                client.client_secret.iter().chain(token).collect()
            }
        }
    }

    /// Has each account a credential of its own?
    pub fn is_per_account(&self) -> bool {
        self.secrets().into_iter().any(SecretRef::is_per_account)
    }

    /// With the account put into every reference.
    pub fn of_account(&self, account: &Account) -> Result<Auth, String> {
        Ok(match self {
            Auth::None => Auth::None,
            Auth::Bearer(secret) => Auth::Bearer(secret.of_account(account)?),
            Auth::Basic { username, password } => {
                Auth::Basic { username: username.clone(), password: password.of_account(account)? }
            }
            Auth::Header { name, value } => Auth::Header { name: name.clone(), value: value.of_account(account)? },
            Auth::Query { name, value } => Auth::Query { name: name.clone(), value: value.of_account(account)? },
            Auth::Webhook(secret) => Auth::Webhook(secret.of_account(account)?),
            Auth::OAuth2(client) => {
                let grant = match &client.grant {
                    Grant::ClientCredentials => Grant::ClientCredentials,
                    Grant::RefreshToken(token) => Grant::RefreshToken(token.of_account(account)?),
                };
                let client_secret = client.client_secret.as_ref().map(|s| s.of_account(account)).transpose()?;
                Auth::OAuth2(Arc::new(OAuth2 { grant, client_secret, ..OAuth2::clone(client) }))
            }
        })
    }
}

impl Provider {
    /// Whose credential an account's calls carry: its own, or the provider's, which goes by the name of "".
    pub fn credential_of(&self, account: &Account) -> Account {
        let own = self.accounts.contains_key(account) || self.auth.is_per_account();
        if own { account.clone() } else { Account::default() }
    }

    /// The way of an account, every reference resolved.
    pub fn auth_of(&self, account: &Account) -> Result<Auth, String> {
        self.accounts.get(account).unwrap_or(&self.auth).of_account(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_in_a_reference_leads_to_its_own_secret_and_never_elsewhere() {
        let template = SecretRef::File("/run/tokens/{account}".into());
        let of = |account: &str| template.of_account(&Account::new(account).unwrap());
        assert_eq!(of("acct-7").unwrap(), SecretRef::File("/run/tokens/acct-7".into()));
        for bad in ["", "../shadow", "a/b", ".hidden", "a b", "ключ", &"a".repeat(129)] {
            assert!(of(bad).unwrap_err().contains("cannot stand in the name of a secret"), "{bad}");
        }
        let shared = SecretRef::Env("TOKEN".into());
        assert_eq!(shared.of_account(&Account::new("../x").unwrap()).unwrap(), shared);
    }
}
