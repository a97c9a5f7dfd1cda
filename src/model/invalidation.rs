//! Which cached answers are to be thrown away. Must never know: how they are kept.

use super::name::Namespace;

/// Longest key or prefix, bytes: that of a URL.
pub const KEY_BYTES_MAX: usize = 8 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Which {
    pub namespace: Namespace,
    pub keys: Keys,
}

/// A key is what the provider's base URL is followed by: path and query, as `/users/octocat?page=2`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    Exactly(String),
    /// Those that begin with it; "" is all of the namespace.
    Beginning(String),
}

impl Which {
    pub fn holds(&self, key: &str) -> bool {
        match &self.keys {
            Keys::Exactly(text) => text == key,
            Keys::Beginning(prefix) => key.starts_with(prefix.as_str()),
        }
    }
}
