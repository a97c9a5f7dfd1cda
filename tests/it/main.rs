//! The one integration binary: every test links once. One `mod` line per subject, in the order of the rooms.
mod checker;
mod cli;
mod config_files;
mod grpc;
mod hostile;
mod limits;
mod mutants;
mod outbound;
mod powercut;
mod readme;
mod simulation;
mod simulator;
mod store;
mod support;
mod systemd;
mod torture;
mod torture_limits;
