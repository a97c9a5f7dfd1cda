//! Limits and planning from outside: the guarantee under fire, shared test vectors, the tide in virtual time.

mod exact;
mod guarantee;
mod lanes;
mod tide;
mod utilisation;
mod vectors;
mod world;
