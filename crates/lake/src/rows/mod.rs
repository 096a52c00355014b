//! Events as rows. docs/formats/lake.md.
//!
//! ```text
//!  Envelope ──► EventRows ──► the table of all events: envelope, place, JSON payload
//!           └─► TypeRows  ──► a type's table: who and when, and the payload's columns
//! ```

mod attributes;
mod envelope;
mod events;
mod multiset;
mod typed;

pub use attributes::Envelope;
pub use events::EventRows;
pub use multiset::RowsHash;
pub use typed::TypeRows;

use arrow_schema::{DataType, Field, TimeUnit};

/// Column: the ledger entry an event lies in.
pub const POSITION: &str = "position";
/// Column: its place in the order of arrival within the entry.
pub const ORDINAL: &str = "ordinal";
/// Column: when it was archived.
pub const ARCHIVED_AT: &str = "archived_at";
/// Column: the id.
pub const ID: &str = "id";
/// Column: the source.
pub const SOURCE: &str = "source";
/// Column: the type; in the table of all events.
pub const TYPE: &str = "type";
/// Column: the entity.
pub const SUBJECT: &str = "subject";
/// Column: when it happened.
pub const TIME: &str = "time";
/// Column: version of the entity.
pub const ENTITY_VERSION: &str = "entityversion";
/// Column: the payload; in the tables of types.
pub const PAYLOAD: &str = "payload";
/// Column: the payload as it came, where it is JSON; in the table of all events.
pub const PAYLOAD_JSON: &str = "payload_json";
/// Column: why there is no payload; in the tables of types.
pub const DECODE_ERROR: &str = "decode_error";

/// Digits of an unsigned 64-bit number.
const U64_DIGITS: u8 = 20;

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn decimal() -> DataType {
    DataType::Decimal128(U64_DIGITS, 0)
}

/// A column; all may be null, as readers of older files see nulls in newer columns.
fn column(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}
