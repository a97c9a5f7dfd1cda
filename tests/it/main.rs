//! The one integration binary: every test links once. One `mod` line per subject, in the order of the rooms.
mod checker;
mod config_files;
mod hostile;
mod mutants;
mod outbound;
mod limits;
mod powercut;
mod simulator;
mod store;
mod support;
mod torture;
mod torture_limits;
