//! The tables of types: opened when first needed, their columns, how far each has come.

use super::Schemas;
use crate::lake::mark_of;
use crate::layout::TableName;
use crate::rows::PAYLOAD;
use crate::state::{SchemaConflict, State, TypeState};
use crate::table::Table;
use annals_archive::{Ledger, Position};
use annals_columns::Shape;
use annals_core::{ErrorKind, Result};
use arrow_schema::{DataType, Fields};
use std::collections::HashMap;
use std::sync::Arc;

/// The tables of types that were needed so far.
#[derive(Debug)]
pub(super) struct TypeTables {
    bus: String,
    /// As of the events' table's position; `None` where that is not known.
    state: Option<State>,
    open: HashMap<String, TypeTable>,
}

/// A type's table.
#[derive(Debug, Clone)]
pub(super) struct TypeTable {
    pub(super) table: Table,
    /// Up to where it has rows.
    pub(super) position: Position,
    /// Why it was made anew, if it was just now.
    pub(super) reset: Option<String>,
    shape: Option<Arc<Shape>>,
}

impl TypeTables {
    pub(super) fn new(bus: &str) -> Self {
        Self {
            bus: bus.to_owned(),
            state: Some(State::default()),
            open: HashMap::new(),
        }
    }

    pub(super) fn set_state(&mut self, state: Option<State>) {
        self.state = state;
    }

    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    pub(super) fn forget_shapes(&mut self) {
        self.open.values_mut().for_each(|open| open.shape = None);
    }

    /// What the state says of a type; `None` if its table was never made.
    pub(super) fn known(&self, event_type: &str) -> Option<&TypeState> {
        self.state.as_ref()?.types.get(event_type)
    }

    /// Whether what the state says can be relied on.
    pub(super) fn is_known(&self) -> bool {
        self.state.is_some()
    }

    /// The table of a type; one that is damaged or has lost commits is made anew, empty.
    pub(super) async fn open(
        &mut self,
        ledger: &Ledger,
        event_type: &str,
    ) -> Result<&mut TypeTable> {
        if !self.open.contains_key(event_type) {
            let opened = self.find(ledger, event_type).await?;
            self.open.insert(event_type.to_owned(), opened);
        }
        Ok(self
            .open
            .get_mut(event_type)
            .expect("it was just put there"))
    }

    /// The columns of a type's payload: those its table has, and those its schema adds.
    pub(super) async fn shape(
        &mut self,
        ledger: &Ledger,
        event_type: &str,
        schemas: &Schemas,
    ) -> Result<Option<Arc<Shape>>> {
        let Some(descriptor) = schemas.catalog.get(event_type) else {
            return Ok(None);
        };
        let open = self.open(ledger, event_type).await?;
        if let Some(shape) = &open.shape {
            return Ok(Some(shape.clone()));
        }
        let (shape, conflicts) = Shape::merge(&payload_fields(&open.table), &descriptor)?;
        let shape = Arc::new(shape);
        open.shape = Some(shape.clone());
        let state = self.state.get_or_insert_default();
        let known = state.types.entry(event_type.to_owned()).or_default();
        for conflict in conflicts {
            let conflict = SchemaConflict {
                field: conflict.path,
                column: conflict.existing,
                changed_to: conflict.new,
                revision_before: known.revision,
                revision: schemas.revision,
            };
            let same = |other: &SchemaConflict| {
                other.field == conflict.field && other.changed_to == conflict.changed_to
            };
            if !known.conflicts.iter().any(same) {
                tracing::warn!(
                    event_type,
                    field = conflict.field,
                    column = conflict.column,
                    changed_to = conflict.changed_to,
                    before = conflict.revision_before,
                    revision = conflict.revision,
                    "a schema does not agree with the column there is"
                );
                known.conflicts.push(conflict);
            }
        }
        known.revision = schemas.revision;
        Ok(Some(shape))
    }

    /// Notes how far a type's table has come.
    pub(super) fn advance(&mut self, event_type: &str, table: Table, position: Position) {
        if let Some(open) = self.open.get_mut(event_type) {
            (open.table, open.position, open.reset) = (table, position, None);
        }
        let state = self.state.get_or_insert_default();
        let known = state.types.entry(event_type.to_owned()).or_default();
        known.position = known.position.max(position.0);
    }

    /// The state once the events' table has come to a position.
    pub(super) fn state_at(&mut self, position: Position) -> &State {
        let state = self.state.get_or_insert_default();
        state.position = position.0;
        state
    }

    async fn find(&self, ledger: &Ledger, event_type: &str) -> Result<TypeTable> {
        let name = TableName::of_type(event_type)?;
        let (mut table, mut reset) = open_or_reset(ledger, name.clone()).await?;
        let mark = table.mark(&mark_of(&self.bus)).await?.unwrap_or(0);
        let known = self.known(event_type).map_or(0, |known| known.position);
        if mark < known {
            reset = Some(format!(
                "it has lost commits: it stands at ledger entry {mark}, not at {known}"
            ));
            table = Table::reset(ledger.bucket().clone(), ledger.bus(), name).await?;
        }
        Ok(TypeTable {
            position: Position(if reset.is_some() { 0 } else { mark }),
            table,
            reset,
            shape: None,
        })
    }

    /// Notes that a type has a table, with or without rows: it is complete where the events'
    /// table is.
    pub(super) fn note(&mut self, event_type: &str) {
        let state = self.state.get_or_insert_default();
        state.types.entry(event_type.to_owned()).or_default();
    }

    /// Notes that a table that was made anew has its history.
    pub(super) fn settle(&mut self, event_type: &str) {
        self.note(event_type);
        if let Some(open) = self.open.get_mut(event_type) {
            open.reset = None;
        }
    }

    /// Makes a type's table anew, empty.
    pub(super) async fn reset(&mut self, ledger: &Ledger, event_type: &str) -> Result<TableName> {
        self.open.remove(event_type);
        let name = TableName::of_type(event_type)?;
        Table::reset(ledger.bucket().clone(), ledger.bus(), name.clone()).await?;
        Ok(name)
    }
}

/// Opens a table. Of one that is damaged the checkpoints go first: the commits tell the same. One
/// that is still damaged then is made anew, empty, and the reason told.
pub(super) async fn open_or_reset(
    ledger: &Ledger,
    name: TableName,
) -> Result<(Table, Option<String>)> {
    let (bucket, bus) = (ledger.bucket(), ledger.bus());
    let open = || Table::open(bucket.clone(), bus, name.clone());
    match open().await {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            tracing::error!(table = %name, %error, "a table is damaged: read without checkpoints");
        }
        opened => return opened.map(|table| (table, None)),
    }
    Table::drop_checkpoints(bucket, bus, &name).await?;
    match open().await {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            tracing::error!(table = %name, %error, "a table is damaged, making it anew");
            let table = Table::reset(bucket.clone(), bus, name).await?;
            Ok((table, Some(error.to_string())))
        }
        opened => opened.map(|table| (table, None)),
    }
}

/// The columns a table's payload has.
pub fn payload_fields(table: &Table) -> Fields {
    let schema = table.schema();
    let payload = schema
        .as_ref()
        .and_then(|s| s.field_with_name(PAYLOAD).ok());
    match payload.map(|field| field.data_type()) {
        Some(DataType::Struct(fields)) => fields.clone(),
        _ => Fields::empty(),
    }
}
