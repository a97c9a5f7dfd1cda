//! Limits and planning from outside: the guarantee under fire, shared test vectors, the tide in virtual time.

mod exact;
mod factory;
mod guarantee;
pub use guarantee::most_in_any_window;
mod lanes;
mod loss;
mod redis;
mod same;
mod structured;
mod suite;
mod tide;
mod utilisation;
mod vectors;
mod world;
