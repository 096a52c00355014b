//! An event as columns: the type mapping, Protobuf wire to Arrow.
