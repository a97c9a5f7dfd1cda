//! The gRPC face against the real server over loopback: values, promises, watches, the server's own bounds.
//!
//! The engine is the real one on the reference store; only the wire to the provider is a stand-in. Next: `house`.

pub mod house;
mod jobs;
mod permits;
mod runs;
mod server;
mod values;
mod watch;
