//! The outbound stack against real sockets.
