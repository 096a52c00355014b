//! Payloads against their columns: tables for each rule, and a second opinion for all of them.

mod cell;
mod differential;
mod evolution;
mod known;
mod limits;
mod malformed;
mod mapping;
mod messages;
mod numbers;
mod oracle;
mod schemas;

use annals_core::schema::Catalog;
use prost_reflect::MessageDescriptor;

/// The message `t.v1.M` of a file with this content after its head.
fn message(content: &str) -> MessageDescriptor {
    let source = format!("syntax = \"proto3\";\n{IMPORTS}package t.v1;\n{content}");
    compile(&source).get("t.v1.M").expect("it defines M")
}

/// Every file of `google.protobuf` there are columns for.
const IMPORTS: &str = "\
    import \"google/protobuf/any.proto\"; import \"google/protobuf/duration.proto\";\n\
    import \"google/protobuf/empty.proto\"; import \"google/protobuf/field_mask.proto\";\n\
    import \"google/protobuf/struct.proto\"; import \"google/protobuf/timestamp.proto\";\n\
    import \"google/protobuf/wrappers.proto\";\n";

fn compile(source: &str) -> Catalog {
    match Catalog::from_files([("t.proto", source)]) {
        Ok(catalog) => catalog,
        Err(error) => panic!("{error}\n{source}"),
    }
}
