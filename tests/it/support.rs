//! What several tests share: the history and its checker, and daemons, providers and Redis servers as processes.

pub mod checker;
pub mod history;
pub mod load;
pub mod process;
pub mod redis;
