//! Page sizes and page tokens. A token is opaque to clients and bound to the list and the filter it came from.
//!
//! Must never know: what the positions mean. Next: `api/jobs`, which pages through jobs by sequence number.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::error::{Error, Result};
use crate::store::PAGE_MAX;

/// Entries of a page when the client does not say.
pub const PAGE_DEFAULT: usize = 50;
/// Form of the token; another one is refused.
const FORM: u8 = 1;
const FORM_TEXT: u8 = 2;
const TOKEN_BYTES: usize = 1 + 8 + 8;

/// The page size to use: 0 means the default, more than the most is taken as the most.
pub fn size(asked: i32) -> Result<usize> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE_DEFAULT),
        Ok(n) => Ok(n.min(PAGE_MAX)),
        Err(_) => {
            Err(Error::field("page_size", "BAD_PAGE_SIZE", format_args!("expected 0 to {PAGE_MAX}, got {asked}")))
        }
    }
}

/// Stands for a list and its filter within tokens.
pub fn fingerprint(list: &str, filter: &str) -> [u8; 8] {
    let digest = Sha256::new().chain_update(list).chain_update([0]).chain_update(filter).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    first
}

/// A token that goes on at `position`.
pub fn token(list: [u8; 8], position: i64) -> String {
    let mut bytes = Vec::with_capacity(TOKEN_BYTES);
    bytes.push(FORM);
    bytes.extend(list);
    bytes.extend(position.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The position in a token; `None` for the empty one, which is the first page.
pub fn position(list: [u8; 8], token: &str) -> Result<Option<i64>> {
    if token.is_empty() {
        return Ok(None);
    }
    let bad = || Error::field("page_token", "BAD_PAGE_TOKEN", "expected the next_page_token of an answer, unchanged");
    if token.len() > 64 {
        return Err(bad());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    if bytes.len() != TOKEN_BYTES || bytes[0] != FORM {
        return Err(bad());
    }
    if bytes[1..9] != list {
        let said = "expected a token that was made for this list and filter; begin again without one";
        return Err(Error::field("page_token", "PAGE_TOKEN_OF_OTHER_FILTER", said));
    }
    let position: [u8; 8] = bytes[9..].try_into().map_err(|_| bad())?;
    Ok(Some(i64::from_be_bytes(position)))
}

/// A token that goes on behind a text, for lists in the order of texts.
pub fn text_token(list: [u8; 8], text: &str) -> String {
    URL_SAFE_NO_PAD.encode([&[FORM_TEXT][..], &list, text.as_bytes()].concat())
}

/// The text in a token; `None` for the empty one, which is the first page.
pub fn text_position(list: [u8; 8], token: &str) -> Result<Option<String>> {
    if token.is_empty() {
        return Ok(None);
    }
    let bad = || Error::field("page_token", "BAD_PAGE_TOKEN", "expected the next_page_token of an answer, unchanged");
    if token.len() > 1_024 {
        return Err(bad());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    if bytes.len() < 9 || bytes[0] != FORM_TEXT {
        return Err(bad());
    }
    if bytes[1..9] != list {
        let said = "expected a token that was made for this list and filter; begin again without one";
        return Err(Error::field("page_token", "PAGE_TOKEN_OF_OTHER_FILTER", said));
    }
    String::from_utf8(bytes[9..].to_vec()).map(Some).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_bound_to_its_list_and_filter() {
        let dead = fingerprint("jobs", "state = DEAD");
        let made = token(dead, -7);
        assert_eq!(position(dead, &made).unwrap(), Some(-7));
        let other = position(fingerprint("jobs", ""), &made).unwrap_err();
        assert_eq!(other.reason, "PAGE_TOKEN_OF_OTHER_FILTER");
        assert_eq!(position(fingerprint("runs", "state = DEAD"), &made).unwrap_err().reason, other.reason);
    }

    #[test]
    fn sizes_are_defaulted_capped_and_never_negative() {
        assert_eq!(size(0).unwrap(), 50);
        assert_eq!(size(7).unwrap(), 7);
        assert_eq!(size(i32::MAX).unwrap(), 1_000);
        assert_eq!(size(-1).unwrap_err().more.violations[0].field, "page_size");
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_a_clear_refusal(s in ".{0,80}") {
            if let Err(e) = position(fingerprint("jobs", ""), &s) {
                prop_assert_eq!(&e.more.violations[0].field, "page_token");
            }
        }
    }
}
