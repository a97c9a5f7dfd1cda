//! What several tests share: the history and its checker, and daemons, providers, Redis servers and databases.

pub mod checker;
pub mod history;
pub mod load;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod servers;

/// Says that something is left out for want of a tool. Under `make test`, which installs the tools, that is a failure.
pub fn left_out(what: &str) {
    assert!(std::env::var("TIDEGATE_TOOLS").as_deref() != Ok("required"), "left out: {what}");
    eprintln!("left out: {what} (`make tools`)");
}
