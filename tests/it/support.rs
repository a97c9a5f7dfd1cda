//! What several tests share: the history and its checker, and daemons, providers, Redis servers and databases.

pub mod checker;
pub mod history;
pub mod load;
pub mod process;
pub mod redis;
pub mod servers;
