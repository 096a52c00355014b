//! [`IndexedReaders`]: readers of data files that keep what is known of them, page indexes too.
//!
//! The engine's own keep footers only, and read a file's page index anew for every question that
//! can leave out pages by it. Files never change: once is enough.

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::object_store::ObjectStore;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::ops::Range;
use std::sync::Arc;

/// Makes readers of the data files of a store.
#[derive(Debug)]
pub(super) struct IndexedReaders(CachedParquetFileReaderFactory);

impl IndexedReaders {
    pub(super) fn new(store: Arc<dyn ObjectStore>, known: Arc<FileMetadataCache>) -> Self {
        Self(CachedParquetFileReaderFactory::new(store, known))
    }
}

impl ParquetFileReaderFactory for IndexedReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        footer_bytes: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let reader = self
            .0
            .create_reader(partition, file, footer_bytes, metrics)?;
        Ok(Box::new(Indexed(reader)))
    }
}

struct Indexed(Box<dyn AsyncFileReader + Send>);

impl AsyncFileReader for Indexed {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        // Ranges are read without asking for the file's length first.
        let read = self.0.get_byte_ranges(vec![range]);
        let one = |bytes: Vec<Bytes>| match <[Bytes; 1]>::try_from(bytes) {
            Ok([bytes]) => Ok(bytes),
            Err(bytes) => Err(ParquetError::General(format!(
                "{} ranges were read for one",
                bytes.len()
            ))),
        };
        read.map(move |bytes| bytes.and_then(one)).boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.0.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let options = options.cloned().unwrap_or_default();
        let options = options.with_page_index_policy(PageIndexPolicy::Optional);
        async move { self.0.get_metadata(Some(&options)).await }.boxed()
    }
}
