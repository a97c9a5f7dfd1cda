//! Resume tokens: the store's epoch, a position in the event log, and what the watch was about. Opaque to clients.
//!
//! Must never know: events. Next: `api/watch`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::api::error::{Code, Error, Result};

/// Form of the token; another one is refused.
const FORM: u8 = 1;
const TOKEN_BYTES: usize = 1 + 8 + 8 + 8;

/// What all tokens of a watch share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) struct Stamp {
    /// Stands for the kind of watch and its filter.
    pub list: [u8; 8],
    /// Changes when the store may have forgotten what it had acknowledged, as after a restore.
    pub epoch: i64,
}

impl Stamp {
    /// A token that goes on after `sequence`.
    pub(in crate::api) fn token(&self, sequence: i64) -> String {
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.push(FORM);
        bytes.extend(self.list);
        bytes.extend(self.epoch.to_be_bytes());
        bytes.extend(sequence.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position in a token; `None` for the empty one.
    pub(in crate::api) fn read(&self, token: &str) -> Result<Option<i64>> {
        if token.is_empty() {
            return Ok(None);
        }
        let bad = || {
            Error::field("resume_token", "BAD_RESUME_TOKEN", "expected the resume token of an earlier watch, unchanged")
        };
        if token.len() > 64 {
            return Err(bad());
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
        if bytes.len() != TOKEN_BYTES || bytes[0] != FORM {
            return Err(bad());
        }
        if bytes[1..9] != self.list {
            let said = "expected a token that was made for this watch; begin again without one";
            return Err(Error::field("resume_token", "RESUME_TOKEN_OF_OTHER_FILTER", said));
        }
        let number = |range: std::ops::Range<usize>| -> Result<i64> {
            Ok(i64::from_be_bytes(bytes[range].try_into().map_err(|_| bad())?))
        };
        let (epoch, sequence) = (number(9..17)?, number(17..25)?);
        if sequence < 0 {
            return Err(bad());
        }
        if epoch != self.epoch {
            let said = "the store is of another epoch; take a snapshot and go on from there";
            return Err(Error::new(Code::OutOfRange, "RESUME_TOKEN_EXPIRED", said));
        }
        Ok(Some(sequence))
    }

    /// Adds the earliest usable token to an error that says which event is the first.
    pub(in crate::api) fn with_earliest(&self, error: Error) -> Error {
        let first = error.more.metadata.iter().find(|(key, _)| *key == "earliest_sequence");
        match first.and_then(|(_, value)| value.parse::<i64>().ok()) {
            Some(first) => error.with("earliest_resume_token", self.token((first - 1).max(0))),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAMP: Stamp = Stamp { list: [7; 8], epoch: 3 };

    #[test]
    fn a_token_is_bound_to_its_watch_and_to_the_epoch() {
        let token = STAMP.token(41);
        assert_eq!(STAMP.read(&token).unwrap(), Some(41));
        assert_eq!(STAMP.read("").unwrap(), None);
        let other = Stamp { list: [8; 8], ..STAMP }.read(&token).unwrap_err();
        assert_eq!(other.reason, "RESUME_TOKEN_OF_OTHER_FILTER");
        let later = Stamp { epoch: 4, ..STAMP }.read(&token).unwrap_err();
        assert_eq!((later.code, later.reason), (Code::OutOfRange, "RESUME_TOKEN_EXPIRED"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_a_clear_refusal(s in ".{0,80}") {
            let _ = STAMP.read(&s);
        }
    }
}
