//! What several tests share: the history and its checker, and daemons and providers as processes.

pub mod checker;
pub mod history;
pub mod load;
pub mod process;

/// Says that something is left out for want of a tool. Under `make test`, which installs the tools, that is a failure.
pub fn left_out(what: &str) {
    assert!(std::env::var("TIDEGATE_TOOLS").as_deref() != Ok("required"), "left out: {what}");
    eprintln!("left out: {what} (`make tools`)");
}
