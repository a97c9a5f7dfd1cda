//! Signatures of webhooks, those that come and those that go: HMAC-SHA256 under a key that is a secret.
//!
//! Must never know: headers, what is signed. Next: `api/webhooks/verify`, which reads what came.

use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;

/// What Standard Webhooks puts before a secret.
const PREFIX: &str = "whsec_";
/// Standard Webhooks asks for 24 to 64 bytes; shorter keys can be guessed.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Cheap to clone; prints nothing.
#[derive(Clone)]
pub struct SigningKey(Arc<hmac::Key>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(hidden)")
    }
}

impl SigningKey {
    /// The text itself, as GitHub and Stripe have it.
    pub fn plain(text: &str) -> SigningKey {
        SigningKey(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())))
    }

    /// `whsec_` and 24 to 64 bytes in base64, as Standard Webhooks has it. The error never shows the text.
    pub fn standard(text: &str) -> Result<SigningKey, String> {
        let said = || format!("expected {PREFIX} and 24 to 64 bytes in base64, as `openssl rand -base64 32` prints");
        let text = text.trim();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text));
        let bytes = bytes.ok().filter(|bytes| KEY_BYTES.contains(&bytes.len())).ok_or_else(said)?;
        Ok(SigningKey(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes))))
    }

    /// The signature of the parts, one after the other.
    pub fn sign(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.0);
        parts.iter().for_each(|part| context.update(part));
        context.sign().as_ref().to_vec()
    }

    /// Compares in constant time.
    pub fn has_signed(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.sign(parts), signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_standard_webhooks_is_base64_of_enough_bytes_and_never_shown() {
        assert!(SigningKey::standard("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").is_ok());
        for bad in ["", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64 at all, but long enough for it", "x"] {
            let said = SigningKey::standard(bad).unwrap_err();
            assert!(bad.len() < 8 || !said.contains(bad), "{said}");
        }
    }
}
