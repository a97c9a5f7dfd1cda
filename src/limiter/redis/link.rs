//! All that the limiter wants of a Redis client: run a script, read what the server says about itself, notice a new
//! connection. Another client than `fred` is another implementation of [`Link`], a day's work. Must never know: limits.
//! Next: `fred.rs` implements it.

use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;

/// A Lua script. Called by its hash; sent as text only to a server that does not know it.
#[derive(Debug)]
pub struct Script {
    pub name: &'static str,
    pub text: &'static str,
    /// As the first server that loaded it said.
    pub(super) hash: OnceLock<String>,
}

impl Script {
    pub const fn new(name: &'static str, text: &'static str) -> Self {
        Script { name, text, hash: OnceLock::new() }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// Surely nothing happened.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The request left, no answer came: it may have happened or may yet happen.
    #[error("the answer was lost: {0}")]
    Lost(String),
    /// The server does not know the script: it is new, or somebody flushed its scripts. Nothing happened.
    #[error("the server does not know the script")]
    NoScript,
    /// The server said no; nothing was written.
    #[error("refused: {0}")]
    Refused(String),
}

#[async_trait]
pub trait Link: Send + Sync + std::fmt::Debug {
    /// Runs a script that answers with one byte string. `load`: sends the text, so that the server knows it from now on.
    async fn run(&self, script: &Script, load: bool, keys: &[Bytes], args: Vec<Bytes>) -> Result<Bytes, LinkError>;
    /// A section of `INFO`, once per server that holds keys, in an order that does not change.
    async fn info(&self, section: &str) -> Result<Vec<String>, LinkError>;
    /// A setting, once per server that holds keys. `None`: the server does not tell.
    async fn setting(&self, name: &str) -> Result<Vec<Option<String>>, LinkError>;
    /// Counts connections made so far. 0: none yet.
    fn generation(&self) -> u64;
    /// Returns when [`Link::generation`] is another than this.
    async fn changed(&self, generation: u64) -> u64;
    fn is_up(&self) -> bool;
}
