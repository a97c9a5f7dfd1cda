//! The conformance suite of `tidegate::store::Store`: every store passes the same tests.

mod factory;
mod smoke;
