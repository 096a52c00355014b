//! [`HistoryTable`]: one scan over the lake's files, united with the tail.
//!
//! The table format says which files there are; reading them is the engine's own Parquet source,
//! which prunes row groups and pages, and reads of a nested payload only the leaves asked for.

use super::counted::RowCounts;
use super::counting::CountingStore;
use super::grown::GrownMaps;
use super::known::statistics_of;
use super::lookup::Places;
use super::prune::prune;
use super::readers::IndexedReaders;
use super::tail::Tail;
use crate::history::ScanCounters;
use annals_archive::Position;
use annals_lake::layout::DATE;
use annals_lake::rows::{POSITION, TIME};
use annals_lake::table::DataFile;
use annals_lake::{BucketStore, Converted};
use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::memory::DataSourceExec;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DataFusionError, Result, ScalarValue, Statistics, ToDFSchema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, col, lit};
use datafusion::object_store::{ObjectMeta, ObjectStore, path::Path};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::union::UnionExec;
use std::cmp::Reverse;
use std::sync::Arc;

/// The address of the bucket's store within the engine.
const STORE: &str = "annals://bucket";
/// Bytes at a file's end that are read with the first request: its footer, mostly.
const FOOTER_BYTES: usize = 64 << 10;

/// A table of history at one position.
#[derive(Debug)]
pub(super) struct HistoryTable {
    converted: Option<Converted>,
    /// Columns of the files, and the date.
    schema: SchemaRef,
    file_schema: SchemaRef,
    tail: Tail,
    position: Position,
    counts: Option<RowCounts>,
    counters: Arc<ScanCounters>,
}

impl HistoryTable {
    /// `counts`: how many rows it has, where that is known.
    pub(super) fn new(
        converted: Option<Converted>,
        file_schema: SchemaRef,
        tail: Tail,
        position: Position,
        counts: Option<RowCounts>,
        counters: &Arc<ScanCounters>,
    ) -> Self {
        let mut fields: Vec<_> = file_schema.fields().iter().cloned().collect();
        fields.push(date_field());
        Self {
            converted,
            schema: Arc::new(Schema::new(fields)),
            file_schema,
            tail,
            position,
            counts,
            counters: counters.clone(),
        }
    }

    /// How many rows it has, by type and day.
    pub(super) fn counts(&self) -> Option<&RowCounts> {
        self.counts.as_ref()
    }

    /// The files that can matter, in no order.
    fn files(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Result<Vec<DataFile>> {
        let Some(converted) = &self.converted else {
            return Ok(Vec::new());
        };
        let files = converted.table.files().map_err(external)?;
        match predicate {
            Some(predicate) => prune(&files, predicate, &self.schema),
            None => Ok(files.to_vec()),
        }
    }

    /// A scan of files.
    fn scan_files(
        &self,
        state: &dyn Session,
        files: Vec<DataFile>,
        projection: Option<&Vec<usize>>,
        predicate: Option<Arc<dyn PhysicalExpr>>,
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(converted) = self.converted.as_ref().filter(|_| !files.is_empty()) else {
            return Ok(None);
        };
        self.counters.add_files(files.len() as u64);
        let store: Arc<dyn ObjectStore> =
            Arc::new(BucketStore::new(converted.table.bucket().clone()));
        let address = ObjectStoreUrl::parse(STORE)?;
        let runtime = state.runtime_env();
        runtime.register_object_store(address.as_ref(), store.clone());
        let counted = Arc::new(CountingStore {
            store,
            counters: self.counters.clone(),
        });
        let cache = runtime.cache_manager.get_file_metadata_cache();
        let readers = Arc::new(IndexedReaders::new(counted, cache));
        let table_schema = TableSchema::builder(self.file_schema.clone())
            .with_table_partition_cols(vec![date_field()])
            .build();
        let mut source = ParquetSource::new(table_schema)
            .with_table_parquet_options(state.table_options().parquet.clone())
            .with_parquet_file_reader_factory(readers)
            .with_metadata_size_hint(FOOTER_BYTES);
        if let Some(predicate) = predicate {
            source = source.with_predicate(predicate);
        }
        let statistics = self.statistics_of(&files);
        let groups = groups_of(
            converted,
            files,
            &self.file_schema,
            state.config().target_partitions(),
        )?;
        let config = FileScanConfigBuilder::new(address, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(GrownMaps)))
            .build();
        Ok(Some(DataSourceExec::from_data_source(config)))
    }

    fn statistics_of(&self, files: &[DataFile]) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.schema);
        let rows = files.iter().map(|file| file.stats.num_records).sum::<u64>();
        let bytes = files.iter().map(|file| file.len).sum::<u64>();
        statistics.num_rows = Precision::Exact(rows as usize);
        statistics.total_byte_size = Precision::Inexact(bytes as usize);
        statistics
    }

    /// Rows after the pinned position are left out: the lake may have come further since.
    fn until_position(
        &self,
        state: &dyn Session,
        files: Vec<DataFile>,
        projection: Option<&Vec<usize>>,
        predicate: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let until = col(POSITION).lt_eq(lit(self.position.0.cast_signed()));
        let until = self.physical(state, &until)?;
        let Some(all) = self.scan_files(state, files, None, predicate, None)? else {
            return Ok(None);
        };
        let filtered: Arc<dyn ExecutionPlan> = Arc::new(FilterExec::try_new(until, all)?);
        project(filtered, projection).map(Some)
    }

    fn physical(&self, state: &dyn Session, filter: &Expr) -> Result<Arc<dyn PhysicalExpr>> {
        let schema = self.schema.clone().to_dfschema()?;
        state.create_physical_expr(filter.clone(), &schema)
    }
}

#[async_trait]
impl TableProvider for HistoryTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // Files and row groups are pruned by them; rows are filtered by the engine.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let places = self.tail.places(filters).await.map_err(external)?;
        let narrowed = places.as_ref().and_then(Places::predicate);
        let pruning = filters
            .iter()
            .filter(|filter| !has_subquery(filter))
            .cloned()
            .chain(narrowed);
        let predicate = conjunction(pruning)
            .map(|filter| self.physical(state, &filter))
            .transpose()?;
        let mut files = self.files(predicate.as_ref())?;
        if let Some(places) = &places {
            files.retain(|file| places.may_be_in(file));
        }
        let ahead = self
            .converted
            .as_ref()
            .is_some_and(|c| c.position > self.position);
        let lake = match ahead {
            true => self.until_position(state, files, projection, predicate)?,
            false => self.scan_files(state, files, projection, predicate, limit)?,
        };
        let listed = places.as_ref().map(|places| &places.events);
        let tail = self.tail.stream(&self.schema, listed, &self.counters);
        let mut parts: Vec<Arc<dyn ExecutionPlan>> = lake.into_iter().collect();
        if let Some(tail) = tail {
            let schema = self.schema.clone();
            let tail =
                StreamingTableExec::try_new(schema, vec![tail], projection, [], false, limit)?;
            parts.push(Arc::new(tail));
        }
        match parts.len() {
            0 => project(Arc::new(EmptyExec::new(self.schema.clone())), projection),
            1 => Ok(parts.remove(0)),
            _ => UnionExec::try_new(parts),
        }
    }
}

fn date_field() -> Arc<Field> {
    Arc::new(Field::new(DATE, DataType::Date32, true))
}

/// Files in as many groups as are read at a time, the newest first: who asks for the newest rows
/// need not read the others.
fn groups_of(
    converted: &Converted,
    mut files: Vec<DataFile>,
    schema: &SchemaRef,
    groups: usize,
) -> Result<Vec<FileGroup>> {
    let newest = |file: &DataFile| file.stats.times(TIME).map(|(_, max)| max);
    files.sort_by_cached_key(|file| (Reverse(newest(file)), file.path.clone()));
    let groups = groups.clamp(1, files.len());
    let mut grouped: Vec<Vec<PartitionedFile>> = vec![Vec::new(); groups];
    for (at, file) in files.into_iter().enumerate() {
        let name = format!("{}/{}", converted.table.folder(), file.path);
        let location = Path::parse(name)?;
        let mut partitioned = PartitionedFile::new_from_meta(ObjectMeta {
            location,
            last_modified: Default::default(),
            size: file.len,
            e_tag: None,
            version: None,
        });
        partitioned.partition_values = vec![ScalarValue::Date32(Some(file.date.0))];
        grouped[at % groups]
            .push(partitioned.with_statistics(Arc::new(statistics_of(&file, schema))));
    }
    Ok(grouped.into_iter().map(FileGroup::new).collect())
}

fn project(
    plan: Arc<dyn ExecutionPlan>,
    projection: Option<&Vec<usize>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(projection) = projection else {
        return Ok(plan);
    };
    let schema = plan.schema();
    let columns = projection.iter().map(|&at| {
        let name = schema.field(at).name().clone();
        let column = datafusion::physical_expr::expressions::Column::new(&name, at);
        (Arc::new(column) as Arc<dyn PhysicalExpr>, name)
    });
    let columns: Vec<_> = columns.collect();
    Ok(Arc::new(ProjectionExec::try_new(columns, plan)?))
}

fn has_subquery(filter: &Expr) -> bool {
    let inner = |expr: &Expr| {
        Ok(matches!(
            expr,
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_)
        ))
    };
    filter.exists(inner).unwrap_or(true)
}

fn external(error: annals_core::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
