//! Ids that a question names: the archive's index knows where their events lie.

use annals_archive::Position;
use annals_archive::reader::Archive;
use annals_core::{EventSet, Result};
use annals_lake::rows::{ID, POSITION, SOURCE};
use annals_lake::table::DataFile;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, col, lit};
use std::sync::Arc;

/// Most events looked up for one table; beyond, files are pruned by what else is asked.
const LISTED_MAX: usize = 1000;
/// Most ledger entries that row groups are pruned by one by one.
const POSITIONS_MAX: usize = 20;

/// Where the only events lie that a question can be after.
#[derive(Debug)]
pub(super) struct Places {
    /// Which they are.
    pub(super) events: Arc<EventSet>,
    /// The ledger entries that have them, ascending.
    positions: Vec<Position>,
}

impl Places {
    /// Looks up the ids that filters name; `None` where they name none, or where only reading
    /// everything could tell.
    pub(super) async fn find(
        filters: &[Expr],
        archive: &Archive,
        until: Position,
    ) -> Result<Option<Self>> {
        let Some(events) = listed(filters) else {
            return Ok(None);
        };
        let events = Arc::new(events);
        let Some(located) = archive.look_up_all(&events).await? else {
            return Ok(None);
        };
        let positions = located.locations().map(|location| location.position);
        let mut positions: Vec<_> = positions.filter(|position| *position <= until).collect();
        positions.dedup();
        Ok(Some(Self { events, positions }))
    }

    /// Whether a file can have one of them.
    pub(super) fn may_be_in(&self, file: &DataFile) -> bool {
        let Some((first, last)) = file.stats.numbers(POSITION) else {
            return true;
        };
        let at = |position: i64| {
            self.positions
                .partition_point(|p| p.0.cast_signed() < position)
        };
        at(first) < at(last.saturating_add(1))
    }

    /// What is true of their rows.
    pub(super) fn predicate(&self) -> Option<Expr> {
        let value = |position: &Position| lit(position.0.cast_signed());
        let (first, last) = (self.positions.first()?, self.positions.last()?);
        Some(match self.positions.len() {
            ..=POSITIONS_MAX => {
                col(POSITION).in_list(self.positions.iter().map(value).collect(), false)
            }
            _ => col(POSITION).between(value(first), value(last)),
        })
    }
}

/// The events that filters, all of which hold, leave; `None` for any number.
fn listed(filters: &[Expr]) -> Option<EventSet> {
    let texts = |column| filters.iter().find_map(|filter| texts_of(filter, column));
    let ids = texts(ID)?;
    let sources = texts(SOURCE);
    if ids.len() * sources.as_ref().map_or(1, Vec::len) > LISTED_MAX {
        return None;
    }
    let mut events = EventSet::new();
    for id in ids {
        // What no list takes (an empty id) is left to the scan.
        match &sources {
            Some(sources) => {
                for source in sources {
                    events.insert(source, id).ok()?;
                }
            }
            None => _ = events.insert_id(id).ok()?,
        }
    }
    Some(events)
}

/// The values that a column can have where a filter holds; `None` for any.
fn texts_of<'a>(filter: &'a Expr, column: &str) -> Option<Vec<&'a str>> {
    let is_column = |expr: &Expr| matches!(expr, Expr::Column(c) if c.name == column);
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Eq if is_column(left) => Some(vec![text_of(right)?]),
            Operator::Eq if is_column(right) => Some(vec![text_of(left)?]),
            Operator::And => texts_of(left, column).or_else(|| texts_of(right, column)),
            Operator::Or => {
                let mut texts = texts_of(left, column)?;
                texts.extend(texts_of(right, column)?);
                Some(texts)
            }
            _ => None,
        },
        Expr::InList(list) if !list.negated && is_column(&list.expr) => {
            list.list.iter().map(text_of).collect()
        }
        _ => None,
    }
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}
