//! What outlives a token's use: the token with its refresh token and its times, and what it was made of.
//!
//! As text it is only ever sealed. Must never know: keys, rows. Next: `seal`.

use std::sync::Arc;

use base64::Engine as _;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::credential::Credential;
use super::mark::Mark;
use crate::clock::Timestamp;
use crate::model::auth::{Grant, OAuth2};

#[derive(Clone, Debug)]
pub(super) struct KeptToken {
    pub version: i64,
    /// Of which declaration and which first refresh token it is a descendant.
    pub seed: [u8; 32],
    pub access: SecretString,
    /// The one to use next.
    pub refresh: Option<SecretString>,
    /// Steady times, which daemons that share a store share too.
    pub obtained_at: Timestamp,
    pub expires_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Text {
    seed: String,
    access: String,
    refresh: Option<String>,
    obtained_at: i64,
    expires_at: i64,
}

impl KeptToken {
    pub fn text(&self) -> Vec<u8> {
        let text = Text {
            seed: base64::engine::general_purpose::STANDARD.encode(self.seed),
            access: self.access.expose_secret().to_owned(),
            refresh: self.refresh.as_ref().map(|token| token.expose_secret().to_owned()),
            obtained_at: self.obtained_at.0,
            expires_at: self.expires_at.0,
        };
        serde_json::to_vec(&text).expect("texts and numbers are JSON")
    }

    /// `None`: no version of this program wrote it.
    pub fn read(text: &[u8], version: i64) -> Option<KeptToken> {
        let text: Text = serde_json::from_slice(text).ok()?;
        Some(KeptToken {
            version,
            seed: base64::engine::general_purpose::STANDARD.decode(text.seed).ok()?.try_into().ok()?,
            access: text.access.into(),
            refresh: text.refresh.map(SecretString::from),
            obtained_at: Timestamp(text.obtained_at),
            expires_at: Timestamp(text.expires_at),
        })
    }

    pub fn credential(&self, mark: Arc<Mark>) -> Result<Credential, String> {
        Credential::of_token(self.access.expose_secret(), mark)
    }
}

/// Tokens of one origin may stand for each other.
pub(super) fn origin(client: &OAuth2) -> [u8; 32] {
    let grant = match client.grant {
        Grant::ClientCredentials => "client_credentials",
        Grant::RefreshToken(_) => "refresh_token",
    };
    let parts = [
        client.token_url.as_str(),
        grant,
        &client.client_id,
        client.scope.as_deref().unwrap_or_default(),
        client.audience.as_deref().unwrap_or_default(),
    ];
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// A new first refresh token, as after authorizing anew, makes tokens of another line.
pub(super) fn seed(origin: &[u8; 32], first: Option<&SecretString>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(origin);
    hash.update(first.map_or("", |token| token.expose_secret()));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_after_it_was_text() {
        let kept = KeptToken {
            version: 7,
            seed: [3; 32],
            access: "canary-a".into(),
            refresh: Some("canary-r".into()),
            obtained_at: Timestamp(5),
            expires_at: Timestamp::NEVER,
        };
        let again = KeptToken::read(&kept.text(), 7).unwrap();
        assert_eq!(again.text(), kept.text());
        assert_eq!((again.version, again.expires_at), (7, Timestamp::NEVER));
        assert!(!format!("{kept:?}").contains("canary"));
        assert!(KeptToken::read(b"{}", 1).is_none());
    }
}
