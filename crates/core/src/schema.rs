//! Schemas: types from `.proto` files, JSON to and from Protobuf.
