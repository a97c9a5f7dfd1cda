//! What several tests share: the history and its checker, and daemons and providers as processes, databases.

pub mod checker;
pub mod history;
pub mod load;
pub mod process;
pub mod servers;
