//! The generated messages of the CloudEvents Protobuf format, `io.cloudevents.v1`.
//!
//! Generated from `proto/` by `cargo xtask codegen`; attributes are a sorted map, so that encoding
//! is deterministic.

#![allow(missing_docs, reason = "generated")]

include!("gen/io.cloudevents.v1.rs");
