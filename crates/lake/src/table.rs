//! [`Table`]: a Delta table in the bucket. docs/formats/lake.md.
//!
//! A table answers which files there are, of which days, with which statistics, and how far it
//! has come (its *marks*: Delta's application transactions). What lies in the files is read and
//! written elsewhere. Nothing outside this file knows of the table format's library.

use crate::file::{self, FileStats, NewFile};
use crate::layout::{DATE, Date, TableName, file_path};
use crate::rows::RowsHash;
use crate::store::BucketStore;
use annals_archive::Bucket;
use annals_archive::bucket::LIST_MAX;
use annals_core::{Error, ErrorKind, Result};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake_core::kernel::{
    Action, Add, MetadataExt, Protocol, Remove, StructType, Transaction, new_metadata,
};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store_13::ObjectStore;
use object_store_13::path::Path;
use object_store_13::prefix::PrefixStore;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use url::Url;

/// What a commit says of the one before it: the BLAKE3 of its bytes, in hex. Delta itself would take
/// an emptied or a cut commit for a whole one.
const PREVIOUS: &str = "annalsPrevious";
/// What a commit says of itself: how many actions follow.
const ACTIONS: &str = "annalsActions";
const READS_AT_ONCE: usize = 8;
/// Commits between two checkpoints.
const CHECKPOINT_COMMITS: u64 = 50;

/// A table, as of one of its versions.
#[derive(Clone)]
pub struct Table {
    name: TableName,
    folder: String,
    bucket: Arc<dyn Bucket>,
    log: LogStoreRef,
    /// Absent while the table does not exist.
    state: Option<DeltaTableState>,
    read: Arc<Read>,
}

/// What was read of a version, once for all that is asked of it. Clones of a table share it.
#[derive(Default)]
struct Read {
    files: OnceLock<Arc<[DataFile]>>,
    marks: Mutex<HashMap<String, Option<u64>>>,
}

/// A data file of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Path within the table.
    pub path: String,
    /// Length in bytes.
    pub len: u64,
    /// Its day.
    pub date: Date,
    /// What is known of its rows.
    pub stats: FileStats,
}

impl From<NewFile> for DataFile {
    fn from(file: NewFile) -> Self {
        Self {
            path: file.path,
            len: file.bytes.len() as u64,
            date: file.date,
            stats: file.stats,
        }
    }
}

/// What changes a table, whole or not at all.
#[derive(Debug, Default)]
pub struct Change {
    /// The columns rows have from now on, without the partition's: those there are and more.
    pub schema: Option<SchemaRef>,
    /// Files to add; they are [uploaded](Table::upload).
    pub added: Vec<DataFile>,
    /// Files to remove; their bytes stay until they are cleaned up.
    pub removed: Vec<DataFile>,
    /// Marks to set.
    pub marks: Vec<(String, u64)>,
}

impl Table {
    /// Opens a table at its last version; one that does not exist has no version.
    ///
    /// A log that cannot be read is [`ErrorKind::Corrupt`].
    pub async fn open(bucket: Arc<dyn Bucket>, bus: &str, name: TableName) -> Result<Self> {
        let folder = name.folder(bus);
        let mut table = Self {
            log: log_store(&bucket, &folder)?,
            name,
            folder,
            bucket,
            state: None,
            read: Arc::default(),
        };
        table.refresh().await?;
        Ok(table)
    }

    /// Its name.
    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// Its folder in the bucket, without a `/` at its end.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// The bucket it lies in.
    pub fn bucket(&self) -> &Arc<dyn Bucket> {
        &self.bucket
    }

    /// Its version; `None` while it does not exist.
    pub fn version(&self) -> Option<u64> {
        self.state.as_ref().map(DeltaTableState::version)
    }

    /// Its columns, the partition's last; `None` while it does not exist.
    pub fn schema(&self) -> Option<SchemaRef> {
        let snapshot = self.state.as_ref()?.snapshot();
        Some(snapshot.arrow_schema())
    }

    /// Goes to the last version.
    pub async fn refresh(&mut self) -> Result<()> {
        if let Some(state) = &mut self.state {
            let known = state.version();
            let updated = state.update(&self.log, None).await;
            updated.map_err(|e| damaged(&self.name, e))?;
            let now = state.version();
            if now != known {
                self.read = Arc::default();
            }
            // One that is not there yet, or not vouched for yet, was not needed.
            if let Some(checkpoint) = checkpoint_until(now).filter(|version| *version > known)
                && self.is_vouched_for(checkpoint).await? == Some(false)
            {
                return Err(self.checkpoint_damaged(checkpoint));
            }
            return self.check_chain(known, now).await;
        }
        let (first, checkpoint) = self.log_start().await?;
        let Some(first) = checkpoint.max(first) else {
            return Ok(());
        };
        if let Some(checkpoint) = checkpoint
            && self.is_vouched_for(checkpoint).await? != Some(true)
        {
            return Err(self.checkpoint_damaged(checkpoint));
        }
        let mut table = DeltaTable::new(self.log.clone());
        table.load().await.map_err(|e| damaged(&self.name, e))?;
        let state = table.snapshot().map_err(|e| damaged(&self.name, e))?;
        self.check_chain(first, state.version()).await?;
        self.state = Some(state.clone());
        self.read = Arc::default();
        Ok(())
    }

    /// Its files, in no particular order.
    pub fn files(&self) -> Result<Arc<[DataFile]>> {
        if let Some(files) = self.read.files.get() {
            return Ok(files.clone());
        }
        let files: Arc<[DataFile]> = self.read_files()?.into();
        Ok(self.read.files.get_or_init(|| files).clone())
    }

    fn read_files(&self) -> Result<Vec<DataFile>> {
        let Some(state) = &self.state else {
            return Ok(Vec::new());
        };
        let read = |view: deltalake_core::kernel::LogicalFileView| {
            let date = view.partition_values_map().remove(DATE).flatten();
            let stats = view.stats().unwrap_or_default();
            Some(DataFile {
                path: view.path().into_owned(),
                len: u64::try_from(view.size()).ok()?,
                date: Date::parse(&date?)?,
                stats: serde_json::from_str(&stats).ok()?,
            })
        };
        let log = state.snapshot().try_log_data();
        let log = log.map_err(|e| damaged(&self.name, e))?;
        log.iter()
            .map(|view| {
                let path = view.path().into_owned();
                read(view).ok_or_else(|| {
                    Error::corrupt(format!(
                        "table {}: what its log says of {path} is damaged",
                        self.name
                    ))
                })
            })
            .collect()
    }

    /// The value of a mark; `None` if it was never set.
    pub async fn mark(&self, name: &str) -> Result<Option<u64>> {
        let Some(state) = &self.state else {
            return Ok(None);
        };
        if let Some(mark) = self.read.marks.lock().get(name) {
            return Ok(*mark);
        }
        // Walks the log, back to the last checkpoint where need be.
        let mark = state.transaction_version(&*self.log, name).await;
        let mark = mark.map_err(|e| damaged(&self.name, e))?;
        let mark = mark.and_then(|mark| u64::try_from(mark).ok());
        self.read.marks.lock().insert(name.to_owned(), mark);
        Ok(mark)
    }

    /// Uploads a file; it is part of the table once it is added.
    pub async fn upload(&self, file: NewFile) -> Result<DataFile> {
        // Named by its content: one that is there already is this one.
        self.bucket
            .create(&self.object(&file.path), file.bytes.clone())
            .await?;
        Ok(file.into())
    }

    /// Uploads a file, over one of its name: that one may be damaged.
    pub async fn replace(&self, file: NewFile) -> Result<DataFile> {
        self.bucket
            .put(&self.object(&file.path), file.bytes.clone())
            .await?;
        Ok(file.into())
    }

    /// What the rows of some of its files hash to; one that is damaged is
    /// [`ErrorKind::Corrupt`].
    pub async fn rows_hash(&self, files: &[DataFile]) -> Result<RowsHash> {
        let mut hash = RowsHash::default();
        for file in files {
            let bytes = self.bucket.get(&self.object(&file.path)).await?;
            let added = tokio::task::spawn_blocking(move || {
                for rows in file::decode(bytes)? {
                    hash.add(&rows?);
                }
                Ok::<_, Error>(hash)
            });
            hash = added.await.map_err(|e| {
                Error::corrupt(format!("{} cannot be read", file.path)).caused_by(e)
            })??;
        }
        Ok(hash)
    }

    /// Reads one of its files whole; says what is wrong with it, if anything is.
    pub async fn damage_of(&self, file: &DataFile) -> Result<Option<String>> {
        let bytes = match self.bucket.get(&self.object(&file.path)).await {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                return Ok(Some(error.to_string()));
            }
            got => got?,
        };
        let (date, path) = (file.date, file.path.clone());
        let named =
            tokio::task::spawn_blocking(move || file_path(date, &blake3::hash(&bytes)) == path);
        let named = named
            .await
            .map_err(|e| internal("a file could not be checked", e))?;
        Ok((!named).then(|| "it is not what it was written as".to_owned()))
    }

    fn object(&self, path: &str) -> String {
        format!("{}/{path}", self.folder)
    }

    /// Makes the change, whole; durable when it returns.
    ///
    /// [`ErrorKind::Conflict`]: somebody else changed the table; refresh, and decide again. After
    /// any other error nobody knows whether the change was made: the marks tell, once refreshed.
    pub async fn commit(&mut self, change: Change) -> Result<()> {
        let mut actions = Vec::new();
        if let Some(schema) = &change.schema {
            self.declare(schema, &mut actions)?;
        }
        actions.extend(change.removed.iter().map(|f| Action::Remove(remove(f))));
        actions.extend(change.added.iter().map(|f| Action::Add(add(f))));
        let marks = change.marks.iter();
        let marks = marks.map(|(name, value)| Transaction::new(name, value.cast_signed()));
        let previous = match self.version() {
            Some(version) => blake3::hash(&self.read_commit(version).await?)
                .to_hex()
                .to_string(),
            None => String::new(),
        };
        let properties = CommitProperties::default()
            .with_metadata([
                (PREVIOUS.to_owned(), previous.into()),
                (
                    ACTIONS.to_owned(),
                    (actions.len() + change.marks.len()).into(),
                ),
            ])
            .with_max_retries(0)
            .with_cleanup_expired_logs(Some(false))
            .with_application_transactions(marks.collect());
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(vec![DATE.to_owned()]),
            predicate: None,
        };
        let snapshot = self.state.as_ref().map(DeltaTableState::snapshot);
        let reference = snapshot.map(|snapshot| snapshot as &dyn TableReference);
        let committed = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(reference, self.log.clone(), operation)
            .await
            .map_err(|e| not_committed(&self.name, e))?;
        let state = committed.snapshot();
        let version = state.version();
        self.state = Some(state);
        self.read = Arc::default();
        if checkpoint_until(version) == Some(version) {
            self.vouch_for_checkpoint(version).await;
        }
        Ok(())
    }

    /// Forgets a table, whatever is wrong with it: its log goes, its data files stay until they
    /// are cleaned up. What is returned does not exist yet.
    ///
    /// From the end to the beginning: cut off in between, what is left is an older version.
    pub async fn reset(bucket: Arc<dyn Bucket>, bus: &str, name: TableName) -> Result<Self> {
        let folder = name.folder(bus);
        let logs = format!("{folder}/_delta_log/");
        for log in names(&bucket, &logs).await?.iter().rev() {
            bucket.delete(log).await?;
        }
        Self::open(bucket, bus, name).await
    }

    /// Removes the checkpoints of a table, whatever is wrong with them: it is read from its commits
    /// then, all of which are there.
    pub async fn drop_checkpoints(
        bucket: &Arc<dyn Bucket>,
        bus: &str,
        name: &TableName,
    ) -> Result<()> {
        let logs = format!("{}/_delta_log/", name.folder(bus));
        bucket.delete(&format!("{logs}_last_checkpoint")).await?;
        for log in names(bucket, &logs).await?.iter().rev() {
            if log.contains(".checkpoint") {
                bucket.delete(log).await?;
            }
        }
        Ok(())
    }

    /// The first commit there is, and the last checkpoint.
    async fn log_start(&self) -> Result<(Option<u64>, Option<u64>)> {
        let folder = self.log_name("");
        let (mut first, mut checkpoint) = (None, None);
        for name in names(&self.bucket, &folder).await? {
            let name = &name[folder.len()..];
            let version = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
            match name.get(20..) {
                Some(".json") => first = first.or(version),
                Some(rest) if rest.starts_with(".checkpoint") => checkpoint = version,
                _ => {}
            }
        }
        Ok((first, checkpoint))
    }

    /// Keeps the hash of a checkpoint that was just written: Delta would believe whatever it is.
    /// Where that fails, it is one that nobody vouches for, and is not read.
    async fn vouch_for_checkpoint(&self, version: u64) {
        let vouched = async {
            let bytes = self.bucket.get(&self.checkpoint_name(version)).await?;
            let hash = blake3::hash(&bytes).to_hex().to_string();
            self.bucket
                .put(&self.check_name(version), hash.into())
                .await
        };
        if let Err(error) = vouched.await {
            tracing::warn!(table = %self.name, version, %error, "a checkpoint nobody vouches for");
        }
    }

    /// Whether a checkpoint is what it was written as; `None` where it, or its hash, is missing.
    async fn is_vouched_for(&self, version: u64) -> Result<Option<bool>> {
        let found = |got: Result<Bytes>| match got {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            got => got.map(Some),
        };
        let checkpoint = found(self.bucket.get(&self.checkpoint_name(version)).await)?;
        let stated = found(self.bucket.get(&self.check_name(version)).await)?;
        let both = checkpoint.zip(stated);
        Ok(both.map(|(bytes, stated)| blake3::hash(&bytes).to_hex().as_bytes() == stated))
    }

    #[cold]
    fn checkpoint_damaged(&self, version: u64) -> Error {
        let text = format!("table {}: checkpoint {version} is damaged", self.name);
        Error::corrupt(text)
    }

    fn checkpoint_name(&self, version: u64) -> String {
        self.log_name(&format!("{version:020}.checkpoint.parquet"))
    }

    fn check_name(&self, version: u64) -> String {
        self.object(&format!("_checks/{version:020}.checkpoint"))
    }

    /// Checks that each commit after one up to another names the bytes of the one before it.
    async fn check_chain(&self, from: u64, until: u64) -> Result<()> {
        let reads = (from..=until).map(|version| self.read_commit(version));
        let commits: Vec<Bytes> = stream::iter(reads)
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        for (version, commit) in (from..).zip(&commits) {
            let stated = previous_of(commit);
            let before = version
                .checked_sub(from + 1)
                .map(|at| &commits[at as usize]);
            let expected = before.map(|before| blake3::hash(before).to_hex().to_string());
            if stated.is_none() || (expected.is_some() && stated != expected) {
                let text = format!("table {}: commit {version} is damaged", self.name);
                return Err(Error::corrupt(text));
            }
        }
        Ok(())
    }

    async fn read_commit(&self, version: u64) -> Result<Bytes> {
        let name = self.log_name(&format!("{version:020}.json"));
        self.bucket.get(&name).await.map_err(|e| match e.kind() {
            ErrorKind::NotFound => {
                Error::corrupt(format!("table {}: {name} is missing", self.name))
            }
            _ => e,
        })
    }

    fn log_name(&self, object: &str) -> String {
        format!("{}/_delta_log/{object}", self.folder)
    }

    /// The actions that give the table these columns: none where it has them.
    fn declare(&self, schema: &SchemaRef, actions: &mut Vec<Action>) -> Result<()> {
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(DATE, DataType::Date32, true)));
        let wanted: StructType = (&Schema::new(fields))
            .try_into_kernel()
            .map_err(|e| internal("the columns are none of a table", e))?;
        let Some(state) = &self.state else {
            let protocol = serde_json::json!({"minReaderVersion": 1, "minWriterVersion": 2});
            let protocol: Protocol = serde_json::from_value(protocol)
                .map_err(|e| internal("the protocol is none", e))?;
            let settings = [("delta.checkpointInterval", CHECKPOINT_COMMITS.to_string())];
            let metadata = new_metadata(&wanted, [DATE], settings)
                .and_then(|m| m.with_name(self.name.to_string()))
                .map_err(|e| internal("the columns are none of a table", e))?;
            actions.extend([Action::Protocol(protocol), Action::Metadata(metadata)]);
            return Ok(());
        };
        if *state.snapshot().schema() == wanted {
            return Ok(());
        }
        let metadata = state.metadata().clone().with_schema(&wanted);
        let metadata = metadata.map_err(|e| internal("the columns are none of a table", e))?;
        actions.push(Action::Metadata(metadata));
        Ok(())
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.name)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

/// What a commit says of the one before it; `None` where it is not whole.
fn previous_of(commit: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(commit).ok()?;
    let (first, actions) = text.split_once('\n')?;
    let mut action: serde_json::Value = serde_json::from_str(first).ok()?;
    let info = action.get_mut("commitInfo")?.take();
    let whole = info.get(ACTIONS)?.as_u64()? == actions.lines().count() as u64;
    whole.then(|| info.get(PREVIOUS)?.as_str().map(str::to_owned))?
}

/// The version of the last checkpoint there is at a version: one comes with every fiftieth commit.
fn checkpoint_until(version: u64) -> Option<u64> {
    let commits = version + 1;
    (commits - commits % CHECKPOINT_COMMITS).checked_sub(1)
}

/// The names of all objects of a folder, ascending.
async fn names(bucket: &Arc<dyn Bucket>, folder: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let page = bucket
            .list(folder, names.last().map(String::as_str))
            .await?;
        let more = page.len() == LIST_MAX;
        names.extend(page.into_iter().map(|entry| entry.name));
        if !more {
            return Ok(names);
        }
    }
}

fn log_store(bucket: &Arc<dyn Bucket>, folder: &str) -> Result<LogStoreRef> {
    let root: Arc<dyn ObjectStore> = Arc::new(BucketStore::new(bucket.clone()));
    let prefix = Path::parse(folder).map_err(|e| internal("the folder is none", e))?;
    let table: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(root.clone(), prefix));
    // An address for the library to resolve names against; nothing is opened by it.
    let address = Url::parse(&format!("memory:///{folder}/"));
    let address = address.map_err(|e| internal("the folder is none", e))?;
    let settings = StorageConfig::default();
    Ok(default_logstore(table, root, &address, &settings))
}

fn add(file: &DataFile) -> Add {
    Add {
        path: file.path.clone(),
        partition_values: HashMap::from([(DATE.to_owned(), Some(file.date.to_string()))]),
        size: file.len.cast_signed(),
        // Derived data has no time of its own: its day's.
        modification_time: file.date.start_us() / 1000,
        data_change: true,
        stats: serde_json::to_string(&file.stats).ok(),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}

fn remove(file: &DataFile) -> Remove {
    Remove {
        path: file.path.clone(),
        data_change: true,
        extended_file_metadata: Some(true),
        partition_values: Some(HashMap::from([(
            DATE.to_owned(),
            Some(file.date.to_string()),
        )])),
        size: Some(file.len.cast_signed()),
        ..Remove::default()
    }
}

#[cold]
fn damaged(table: &TableName, error: DeltaTableError) -> Error {
    let kind = match &error {
        DeltaTableError::ObjectStore { .. } => ErrorKind::Unavailable,
        _ => ErrorKind::Corrupt,
    };
    Error::new(kind, format!("table {table} cannot be read")).caused_by(error)
}

#[cold]
fn not_committed(table: &TableName, error: DeltaTableError) -> Error {
    let kind = match &error {
        DeltaTableError::Transaction { .. } => ErrorKind::Conflict,
        _ => ErrorKind::Unknown,
    };
    Error::new(kind, format!("table {table}: the change was not made")).caused_by(error)
}

#[cold]
fn internal(what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Internal, what).caused_by(error)
}
