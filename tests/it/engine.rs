//! The engine in virtual time, with its real actors and limiter, against a wire that answers as a test tells it to.
//!
//! Judged by what arrived at the other end. A restart is a kill in the middle of whatever goes on, and a new engine on
//! the same store. Next: `engine/stand.rs`.

mod by_key;
mod calls;
mod credentials;
mod fairness;
mod foretold;
mod headers;
mod learned;
mod life;
mod permits;
mod quota;
mod refusals;
mod search;
mod shaky;
mod stand;
mod trial;
mod turns;
mod waiting;
