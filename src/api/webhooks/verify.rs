//! Who sent a message: its signature, over the bytes as they came, and the time that was signed. Pure.
//!
//! The signature is looked at first, so that only who holds the secret learns anything more. Must never know: what a
//! message starts. Next: `outbound/signature`.

use base64::Engine as _;
use http::HeaderMap;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::model::webhook::{Scheme, Webhook};
use crate::outbound::SigningKey;

/// Signatures of one message that are looked at; senders add one per secret.
const SIGNATURES_MAX: usize = 16;

/// A message whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// Stands for the message; nobody without the secret can give it another one.
    pub id: String,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("expected a signature of this message by one of the webhook's secrets")]
    Signature,
    #[error(
        "expected a time within the webhook's tolerance; it was signed too long ago, or its clock is ahead of ours"
    )]
    Time,
}

impl Refused {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Refused::Signature => "BAD_SIGNATURE",
            Refused::Time => "STALE_TIMESTAMP",
        }
    }
}

pub(super) fn verify(
    webhook: &Webhook,
    keys: &[SigningKey],
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Signed, Refused> {
    let (id, time) = match webhook.scheme {
        Scheme::Standard => standard(keys, headers, body)?,
        Scheme::GitHub => return github(keys, headers, body),
        Scheme::Stripe => stripe(keys, headers, body)?,
    };
    let time: u64 = time.parse().map_err(|_| Refused::Time)?;
    let now = u64::try_from(now.millis() / 1_000).unwrap_or_default();
    if now.abs_diff(time) > webhook.tolerance.as_secs() {
        return Err(Refused::Time);
    }
    Ok(Signed { id })
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, Refused> {
    headers.get(name).and_then(|value| value.to_str().ok()).ok_or(Refused::Signature)
}

/// Has any of the keys made any of the signatures?
fn any_made(keys: &[SigningKey], parts: &[&[u8]], signatures: impl Iterator<Item = Vec<u8>>) -> Result<(), Refused> {
    let signatures: Vec<Vec<u8>> = signatures.take(SIGNATURES_MAX).collect();
    let made = keys.iter().any(|key| signatures.iter().any(|signature| key.has_signed(parts, signature)));
    made.then_some(()).ok_or(Refused::Signature)
}

/// The signed id, and the signed time as it was written.
fn standard<'h>(keys: &[SigningKey], headers: &'h HeaderMap, body: &[u8]) -> Result<(String, &'h str), Refused> {
    let (id, time) = (text(headers, "webhook-id")?, text(headers, "webhook-timestamp")?);
    // A dot would let what was signed be divided otherwise.
    if id.is_empty() || id.contains('.') || time.contains('.') {
        return Err(Refused::Signature);
    }
    let listed = text(headers, "webhook-signature")?.split(' ').filter_map(|one| one.strip_prefix("v1,"));
    let signatures = listed.filter_map(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    any_made(keys, &[id.as_bytes(), b".", time.as_bytes(), b".", body], signatures)?;
    Ok((id.to_owned(), time))
}

/// The delivery id is not signed, so what stands for the message is its content.
fn github(keys: &[SigningKey], headers: &HeaderMap, body: &[u8]) -> Result<Signed, Refused> {
    let listed = text(headers, "x-hub-signature-256")?.strip_prefix("sha256=").and_then(bytes);
    any_made(keys, &[body], listed.into_iter())?;
    Ok(Signed { id: content(body) })
}

/// The event's id: a repeated try has another time, and so another signature.
fn stripe<'h>(keys: &[SigningKey], headers: &'h HeaderMap, body: &[u8]) -> Result<(String, &'h str), Refused> {
    let pairs = || headers.get("stripe-signature").and_then(|v| v.to_str().ok()).unwrap_or_default().split(',');
    let values = |name: &'static str| pairs().filter_map(move |pair| pair.trim().strip_prefix(name));
    let time = values("t=").next().ok_or(Refused::Signature)?;
    any_made(keys, &[time.as_bytes(), b".", body], values("v1=").filter_map(bytes))?;
    let event: Option<Value> = serde_json::from_slice(body).ok();
    let id = event.as_ref().and_then(|event| event.get("id")?.as_str()).map(str::to_owned);
    Ok((id.unwrap_or_else(|| content(body)), time))
}

fn content(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of hexadecimal digits.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests;
