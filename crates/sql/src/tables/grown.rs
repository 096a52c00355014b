//! [`GrownMaps`]: columns of older files whose maps hold messages that gained fields since.
//!
//! The engine's own adapter gives structs and lists of older files the columns of newer ones, by
//! name; values of maps it would cast, and cannot. Here they are given them too. All else is left
//! to the engine's.

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, StructArray, new_null_array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::functions::core::getfield::GetFieldFunc;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapter, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Makes the adapters of files.
#[derive(Debug)]
pub(super) struct GrownMaps;

impl PhysicalExprAdapterFactory for GrownMaps {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let mut known = Vec::with_capacity(table.fields().len());
        let mut grown = Vec::new();
        for field in table.fields() {
            let of_file = file.field_with_name(field.name()).ok();
            match of_file.filter(|of_file| has_grown(of_file.data_type(), field.data_type())) {
                Some(of_file) => {
                    known.push(Arc::new(of_file.clone()));
                    grown.push(field.clone());
                }
                None => known.push(field.clone()),
            }
        }
        let known = Arc::new(Schema::new(known));
        let rest = DefaultPhysicalExprAdapter::new(known, file.clone());
        Ok(match grown.is_empty() {
            true => Arc::new(rest),
            false => Arc::new(Adapter { grown, file, rest }),
        })
    }
}

/// Whether there is a map in a type whose values differ.
fn has_grown(file: &DataType, table: &DataType) -> bool {
    use DataType::{List, Map, Struct};
    match (file, table) {
        (Map(file, _), Map(table, _)) => match (file.data_type(), table.data_type()) {
            (Struct(file), Struct(table)) => {
                let types = file.iter().zip(table);
                types
                    .into_iter()
                    .any(|(f, t)| !f.data_type().equals_datatype(t.data_type()))
            }
            _ => false,
        },
        (List(file), List(table)) => has_grown(file.data_type(), table.data_type()),
        (Struct(file), Struct(table)) => file.iter().any(|of_file| {
            let of_table = table.iter().find(|field| field.name() == of_file.name());
            of_table.is_some_and(|t| has_grown(of_file.data_type(), t.data_type()))
        }),
        _ => false,
    }
}

#[derive(Debug)]
struct Adapter {
    /// The columns that have such maps, as the table has them.
    grown: Vec<FieldRef>,
    file: SchemaRef,
    rest: DefaultPhysicalExprAdapter,
}

impl PhysicalExprAdapter for Adapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let own = expr.transform_down(|expr| {
            let read = match self.field_access(&expr)? {
                Some(read) => Some(read),
                None => self.column(&expr),
            };
            Ok(match read {
                Some(read) => Transformed::new(read, true, TreeNodeRecursion::Jump),
                None => Transformed::no(expr),
            })
        });
        self.rest.rewrite(own.data()?)
    }
}

impl Adapter {
    /// One of the columns.
    fn column(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        let (field, column) = self.grown_column(expr)?;
        Some(Arc::new(Grown {
            expr: column,
            field,
        }))
    }

    fn grown_column(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
    ) -> Option<(FieldRef, Arc<dyn PhysicalExpr>)> {
        let name = expr.downcast_ref::<Column>()?.name();
        let field = self.grown.iter().find(|field| field.name() == name)?;
        let column = Column::new_with_schema(name, &self.file).ok()?;
        Some((field.clone(), Arc::new(column)))
    }

    /// A field of one of the columns: of the file only that is read, not the column whole.
    fn field_access(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let Some(access) = ScalarFunctionExpr::try_downcast_func::<GetFieldFunc>(expr.as_ref())
        else {
            return Ok(None);
        };
        let Some((source, keys)) = access.args().split_first() else {
            return Ok(None);
        };
        let Some((field, column)) = self.grown_column(source) else {
            return Ok(None);
        };
        let Some(wanted) = field_at(&field, keys) else {
            return Ok(None);
        };
        let of_file = Arc::new(self.file.field_with_name(field.name())?.clone());
        let Some(of_file) = field_at(&of_file, keys) else {
            let null = ScalarValue::Null.cast_to(wanted.data_type())?;
            return Ok(Some(Arc::new(Literal::new(null))));
        };
        let mut args = vec![column];
        args.extend(keys.iter().cloned());
        let read: Arc<dyn PhysicalExpr> = Arc::new(ScalarFunctionExpr::try_new(
            Arc::new(access.fun().clone()),
            args,
            &self.file,
            Arc::new(access.config_options().clone()),
        )?);
        Ok(Some(match of_file == wanted {
            true => read,
            false => Arc::new(Grown {
                expr: read,
                field: wanted,
            }),
        }))
    }
}

/// The field at a path of structs; `None` if there is none.
fn field_at(of: &FieldRef, keys: &[Arc<dyn PhysicalExpr>]) -> Option<FieldRef> {
    let mut field = of;
    for key in keys {
        let DataType::Struct(fields) = field.data_type() else {
            return None;
        };
        let name = key.downcast_ref::<Literal>()?.value();
        let name = name.try_as_str().flatten()?;
        field = fields.iter().find(|field| field.name() == name)?;
    }
    Some(field.clone())
}

/// What an expression gives, in the columns of a field.
#[derive(Debug, Clone, Eq)]
struct Grown {
    expr: Arc<dyn PhysicalExpr>,
    field: FieldRef,
}

// Not derived: https://github.com/rust-lang/rust/issues/78808
impl PartialEq for Grown {
    fn eq(&self, other: &Self) -> bool {
        self.expr.eq(&other.expr) && self.field.eq(&other.field)
    }
}

impl Hash for Grown {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expr.hash(state);
        self.field.hash(state);
    }
}

impl fmt::Display for Grown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grown({})", self.expr)
    }
}

impl PhysicalExpr for Grown {
    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(self.field.clone())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let values = self.expr.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(ColumnarValue::Array(grow(&values, self.field.data_type())?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.expr]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let [expr] = &children[..] else {
            return exec_err!("it has one child");
        };
        Ok(Arc::new(Self {
            expr: expr.clone(),
            field: self.field.clone(),
        }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.fmt_sql(f)
    }
}

/// Values with the fields of a type: those they have, by name, the others null.
fn grow(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if values.data_type() == to {
        return Ok(values.clone());
    }
    Ok(match (values.data_type(), to) {
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let values = values.as_struct();
            let columns = fields
                .iter()
                .map(|field| match values.column_by_name(field.name()) {
                    Some(column) => grow(column, field.data_type()),
                    None => Ok(new_null_array(field.data_type(), values.len())),
                });
            let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
            let nulls = values.nulls().cloned();
            let (fields, len) = (fields.clone(), values.len());
            Arc::new(StructArray::try_new_with_length(
                fields, columns, nulls, len,
            )?)
        }
        (DataType::List(_), DataType::List(element)) => {
            let lists = values.as_list::<i32>();
            let elements = grow(lists.values(), element.data_type())?;
            let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
            Arc::new(ListArray::try_new(
                element.clone(),
                offsets,
                elements,
                nulls,
            )?)
        }
        (DataType::Map(..), DataType::Map(entry, sorted)) => {
            let maps = values.as_map();
            let entries = grow_entries(maps.entries(), entry)?;
            let (offsets, nulls) = (maps.offsets().clone(), maps.nulls().cloned());
            Arc::new(MapArray::try_new(
                entry.clone(),
                offsets,
                entries,
                nulls,
                *sorted,
            )?)
        }
        _ => cast(values, to)?,
    })
}

/// Keys and values; what they are called is of no matter.
fn grow_entries(entries: &StructArray, to: &Field) -> Result<StructArray> {
    let DataType::Struct(fields) = to.data_type() else {
        return exec_err!("a map's entries are no structs");
    };
    let columns = entries.columns().iter().zip(fields);
    let columns = columns.map(|(column, field)| grow(column, field.data_type()));
    let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
    Ok(StructArray::try_new(
        fields.clone(),
        columns,
        entries.nulls().cloned(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Int32Array, StringArray};
    use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
    use datafusion::arrow::datatypes::Fields;

    fn map_of(values: Fields) -> DataType {
        let entry = Fields::from(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Struct(values), true),
        ]);
        let entry = Field::new("key_value", DataType::Struct(entry), false);
        DataType::Map(Arc::new(entry), false)
    }

    fn country() -> Field {
        Field::new("country", DataType::Utf8, true)
    }

    fn city() -> Field {
        Field::new("city", DataType::Int32, true)
    }

    /// Three maps: one of two entries, null, an empty one.
    fn maps() -> ArrayRef {
        let DataType::Map(entry, _) = map_of(vec![country()].into()) else {
            unreachable!()
        };
        let DataType::Struct(fields) = entry.data_type() else {
            unreachable!()
        };
        let country = StringArray::from(vec![Some("SE"), None]);
        let homes = StructArray::from(vec![(Arc::new(self::country()), Arc::new(country) as _)]);
        let keys = Arc::new(StringArray::from(vec!["a", "b"]));
        let entries = StructArray::new(fields.clone(), vec![keys, Arc::new(homes)], None);
        let offsets = OffsetBuffer::new(vec![0, 2, 2, 2].into());
        let nulls = NullBuffer::from(vec![true, false, true]);
        Arc::new(MapArray::new(
            entry.clone(),
            offsets,
            entries,
            Some(nulls),
            false,
        ))
    }

    #[test]
    fn a_message_in_a_map_is_given_the_fields_it_has_not() {
        let to = map_of(vec![country(), city()].into());
        let grown = grow(&maps(), &to).unwrap();
        assert_eq!(grown.data_type(), &to);
        let grown = grown.as_map();
        assert_eq!((grown.value_length(0), grown.value_length(2)), (2, 0));
        assert!(grown.is_null(1));
        let homes = grown.values().as_struct();
        assert_eq!(homes.column(0).as_string::<i32>().value(0), "SE");
        assert!(homes.column(0).is_null(1));
        assert_eq!(
            homes.column(1).as_ref(),
            &Int32Array::from(vec![None, None])
        );
    }

    #[test]
    fn only_files_whose_maps_differ_need_more_than_the_engine_does() {
        #[track_caller]
        fn check(file: DataType, table: DataType, expected: bool) {
            assert_eq!(has_grown(&file, &table), expected);
            let list = |of: &DataType| {
                let element = Field::new("element", of.clone(), true);
                let list = Field::new("list", DataType::List(Arc::new(element)), true);
                DataType::Struct(vec![list].into())
            };
            assert_eq!(has_grown(&list(&file), &list(&table)), expected);
        }
        let (old, new) = (vec![country()], vec![country(), city()]);
        check(map_of(old.clone().into()), map_of(new.clone().into()), true);
        check(
            map_of(new.clone().into()),
            map_of(new.clone().into()),
            false,
        );
        check(
            DataType::Struct(old.into()),
            DataType::Struct(new.into()),
            false,
        );
        check(DataType::Utf8, DataType::Utf8, false);
    }
}
