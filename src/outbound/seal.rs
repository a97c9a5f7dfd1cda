//! Sealing what is stored: AES-256-GCM with a key that is a secret by reference.
//!
//! A sealed text names its owner in what it authenticates, so a row that was moved to another owner does not open. Must
//! never know: where it is stored. Next: `token`.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use secrecy::{ExposeSecret, SecretString};

use crate::model::name::{Account, ProviderName};

/// First byte of a sealed text: the way it was sealed.
const FORM: u8 = 1;
const NONCE_BYTES: usize = 12;
const KEY_BYTES: usize = 32;

/// Prints nothing.
pub struct SealKey(RandomizedNonceKey);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(hidden)")
    }
}

impl SealKey {
    /// Of the text of `[secrets] key`: 32 bytes in base64 or hexadecimal.
    pub fn read(text: &SecretString) -> Result<SealKey, String> {
        let text = text.expose_secret().trim();
        let base64 = || base64::engine::general_purpose::STANDARD.decode(text).ok();
        let bytes = hexadecimal(text).or_else(base64).filter(|bytes| bytes.len() == KEY_BYTES);
        let key = bytes.and_then(|bytes| RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok());
        key.map(SealKey).ok_or_else(|| {
            format!("expected {KEY_BYTES} bytes in base64 or hexadecimal, as `openssl rand -base64 {KEY_BYTES}` prints")
        })
    }

    pub fn seal(&self, provider: &ProviderName, owner: &Account, plain: &[u8]) -> Result<Vec<u8>, String> {
        let mut body = plain.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(aad(provider, owner)), &mut body);
        let nonce = nonce.map_err(|_| "a token cannot be sealed".to_owned())?;
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + body.len());
        sealed.push(FORM);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// `None`: another key sealed it, or for another owner, or it was changed.
    pub fn open(&self, provider: &ProviderName, owner: &Account, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.strip_prefix(&[FORM])?.split_at_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let plain = self.0.open_in_place(nonce, Aad::from(aad(provider, owner)), &mut body).ok()?;
        Some(plain.to_vec())
    }
}

fn aad(provider: &ProviderName, owner: &Account) -> Vec<u8> {
    format!("tidegate token\0{provider}\0{owner}").into_bytes()
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    (0..KEY_BYTES).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<SealKey, String> {
        SealKey::read(&SecretString::from(text))
    }

    #[test]
    fn what_is_sealed_opens_for_its_owner_with_its_key_and_unchanged() {
        let (a, b) = (key(&"ab".repeat(32)).unwrap(), key(&format!("{}=", "A".repeat(43))).unwrap());
        let (crm, acct) = (ProviderName::new("crm").unwrap(), Account::new("acct-7").unwrap());
        let sealed = a.seal(&crm, &acct, b"canary").unwrap();
        assert_eq!(a.open(&crm, &acct, &sealed).unwrap(), b"canary");
        assert!(!sealed.windows(6).any(|w| w == b"canary"));
        assert_eq!(b.open(&crm, &acct, &sealed), None);
        assert_eq!(a.open(&crm, &Account::default(), &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(a.open(&crm, &acct, &changed), None, "byte {at}");
        }
        assert_eq!(a.open(&crm, &acct, &[]), None);
        assert_ne!(a.seal(&crm, &acct, b"canary").unwrap(), sealed, "every nonce is new");
    }

    #[test]
    fn a_key_that_is_none_is_refused_without_being_shown() {
        for bad in ["", "canary", &"ab".repeat(31), &"zz".repeat(32), &"é".repeat(32)] {
            let said = key(bad).unwrap_err();
            assert!(said.contains("32 bytes") && !said.contains("canary"), "{said}");
        }
    }
}
