//! What the compiler made of `proto/tidegate/v1`, and the descriptors it was made from.
//!
//! Nothing is written by hand here. Next: `grpc::convert`.

#![allow(clippy::all, clippy::pedantic, missing_docs)]

tonic::include_proto!("tidegate.v1");

/// All of `tidegate.v1` and what it imports, as a serialized `FileDescriptorSet` with the comments: for reflection and the
/// description of the REST face.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate.v1.bin"));

/// The same without comments, for JSON: decoded, they would stay in memory and nobody would read them.
pub const BARE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate.v1.bare.bin"));
