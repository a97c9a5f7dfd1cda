//! Names and keys that users choose. Each type checks itself when built and is cheap to clone.

use std::fmt;
use std::sync::Arc;

/// Why a text cannot be used as a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("expected {what} of 1 to {max} bytes, got an empty text")]
    Empty { what: &'static str, max: usize },
    #[error("expected {what} of at most {max} bytes, got {got}")]
    TooLong { what: &'static str, max: usize, got: usize },
    #[error("expected {what} without control or direction-changing characters, got {found:?} at byte {at}")]
    Control { what: &'static str, found: char, at: usize },
    #[error(
        "expected {what} of lower-case letters, digits, '-' and '_' that starts with a letter, got {found:?} at byte {at}"
    )]
    Charset { what: &'static str, found: char, at: usize },
}

fn check_printable(what: &'static str, max: usize, empty_ok: bool, s: &str) -> Result<(), BadName> {
    if s.is_empty() && !empty_ok {
        return Err(BadName::Empty { what, max });
    }
    if s.len() > max {
        return Err(BadName::TooLong { what, max, got: s.len() });
    }
    // Direction overrides would let one id look like another on a screen.
    let hostile = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    match s.char_indices().find(|&(_, c)| hostile(c)) {
        Some((at, found)) => Err(BadName::Control { what, found, at }),
        None => Ok(()),
    }
}

fn check_word(what: &'static str, max: usize, s: &str) -> Result<(), BadName> {
    check_printable(what, max, false, s)?;
    let fits =
        |(i, c): (usize, char)| c.is_ascii_lowercase() || (i > 0 && (c.is_ascii_digit() || c == '-' || c == '_'));
    match s.char_indices().find(|&ic| !fits(ic)) {
        Some((at, found)) => Err(BadName::Charset { what, found, at }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(s: impl AsRef<str>) -> Result<Self, BadName> {
                let s = s.as_ref();
                let check: fn(&str) -> Result<(), BadName> = $check;
                check(s)?;
                Ok(Self(Arc::from(s)))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(from)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// Name of a provider: a word of at most 63 bytes.
    ProviderName, |s| check_word("a provider name", 63, s)
);
name!(
    /// Name of an operation of a provider: a word of at most 63 bytes.
    OperationName, |s| check_word("an operation name", 63, s)
);
name!(
    /// Name of a collection: a word of at most 63 bytes.
    CollectionName, |s| check_word("a collection name", 63, s)
);
name!(
    /// Name of a declared limit: a word of at most 63 bytes.
    LimitName, |s| check_word("a limit name", 63, s)
);
name!(
    /// Name of a schedule: a word of at most 63 bytes.
    ScheduleName, |s| check_word("a schedule name", 63, s)
);
name!(
    /// Name of an alert: a word of at most 63 bytes.
    AlertName, |s| check_word("an alert name", 63, s)
);
name!(
    /// Name of a webhook that comes in: a word of at most 63 bytes.
    WebhookName, |s| check_word("a webhook name", 63, s)
);
name!(
    /// A set of cached answers that are told apart from others: a word of at most 63 bytes. A provider's own is its name.
    Namespace, |s| check_word("a namespace", 63, s)
);
name!(
    /// A credential or customer id under a provider; "" is the provider's only account. At most 256 bytes.
    Account, |s| check_printable("an account", 256, true, s)
);
name!(
    /// Whose work it is, for fair turns; "" is the only tenant. At most 256 bytes.
    Tenant, |s| check_printable("a tenant", 256, true, s)
);
name!(
    /// Identity of the record a job is about. At most 512 bytes.
    Key, |s| check_printable("a key", 512, false, s)
);
name!(
    /// Caller-chosen identity of an enqueue, unique per tenant. At most 256 bytes.
    IdempotencyKey, |s| check_printable("an idempotency key", 256, false, s)
);

impl Default for Account {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_wrong_with_them() {
        let refused = |r: Result<ProviderName, BadName>| r.unwrap_err().to_string();
        assert_eq!(refused(ProviderName::new("")), "expected a provider name of 1 to 63 bytes, got an empty text");
        assert!(refused(ProviderName::new("a".repeat(64))).contains("at most 63 bytes, got 64"));
        assert!(refused(ProviderName::new("Crm")).contains("'C' at byte 0"));
        assert!(Key::new("user\0").unwrap_err().to_string().contains("'\\0' at byte 4"));
        assert!(Key::new("user\u{202e}").is_err());
        assert!(Account::new("").is_ok() && Key::new("ключ 7").is_ok());
    }
}
