//! Tables whose log has a checkpoint: opened afresh, and with the checkpoint, what points to it or
//! commits around it damaged. Whatever is damaged, a table never has fewer rows than it says it
//! has, and a converter makes it whole.

use crate::world::{BUS, ORDER, ORDERS_V1, World, order, schemas};
use annals_core::{Error, ErrorKind, Result};
use annals_lake::file::{FileStats, encode};
use annals_lake::layout::Date;
use annals_lake::{Lake, TableName};
use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use tokio::sync::Mutex;

/// One event each, so that a table has as many rows as the ledger entry it has come to.
const ENTRIES: i64 = 56;
/// The version the checkpoint is of.
const CHECKPOINT: u64 = 49;
/// Places at which a bit of a checkpoint is flipped.
const FLIPS: usize = 24;

fn tables() -> [TableName; 2] {
    [TableName::Events, TableName::of_type(ORDER).unwrap()]
}

/// Two tables of more than fifty commits.
async fn long() -> World {
    let mut world = World::new().await;
    let mut converter = world.converter(schemas(1, ORDERS_V1));
    for n in 0..ENTRIES {
        world.archive(&[order(&format!("a{n:02}"), n, 1)]).await;
        converter.catch_up().await.unwrap();
    }
    for name in tables() {
        let version = world.table(&name).await.unwrap().version();
        assert_eq!(version, Some(ENTRIES.cast_unsigned() - 1));
        world.bucket.get(&checkpoint(&name)).await.unwrap();
    }
    world
}

fn log(name: &TableName, object: &str) -> String {
    format!("{}/_delta_log/{object}", name.folder(BUS))
}

fn commit(name: &TableName, version: u64) -> String {
    log(name, &format!("{version:020}.json"))
}

fn checkpoint(name: &TableName) -> String {
    log(name, &format!("{CHECKPOINT:020}.checkpoint.parquet"))
}

/// What is wrong with a lake, if it hides rows: what reads it is given all rows up to where a
/// table says it is complete, or told of damage; and after one more conversion every event has its
/// row.
async fn hides(mut world: World, what: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in tables() {
        match read(&world, &name).await {
            Ok(Read { rows, said, .. }) if rows.len() as u64 != said => {
                wrong.push(format!(
                    "{what}: {name} has {} rows, not {said}",
                    rows.len()
                ));
            }
            Ok(Read { false_files, .. }) if !false_files.is_empty() => {
                wrong.push(format!(
                    "{what}: {name} says what is not so: {false_files:?}"
                ));
            }
            Ok(_) => {}
            Err(error) if told(&error) => {}
            Err(error) => wrong.push(format!("{what}: {name} is {error:?}")),
        }
    }
    world.archive(&[order("after", 1, 1)]).await;
    let converted = world.converter(schemas(1, ORDERS_V1)).catch_up().await;
    if let Err(error) = converted {
        wrong.push(format!("{what}: not converted: {error:?}"));
        return wrong;
    }
    let mut expected: Vec<String> = (0..ENTRIES).map(|n| format!("a{n:02}")).collect();
    expected.push("after".into());
    for name in tables() {
        match read(&world, &name).await {
            Ok(Read {
                rows, false_files, ..
            }) if rows == expected && false_files.is_empty() => {}
            Ok(Read {
                rows, false_files, ..
            }) => wrong.push(format!(
                "{what}: {name} is not mended: {} rows, false of {false_files:?}",
                rows.len()
            )),
            Err(error) => wrong.push(format!("{what}: {name} is not mended: {error:?}")),
        }
    }
    wrong
}

/// What a table gives who reads it.
#[derive(Debug)]
struct Read {
    rows: Vec<String>,
    /// Up to which entry it says it is complete: as many rows as it is to have.
    said: u64,
    /// Files of which it says what their rows do not.
    false_files: Vec<String>,
}

async fn read(world: &World, name: &TableName) -> Result<Read> {
    let lake = Lake::new(world.bucket.clone(), BUS);
    let converted = lake.table(name).await?;
    let mut false_files = Vec::new();
    for file in converted.table.files()?.iter() {
        let object = format!("{}/{}", converted.table.folder(), file.path);
        let bytes = world.bucket.get(&object).await?;
        let mut known = KNOWN.lock().await;
        let truth = known
            .entry(file.path.clone())
            .or_insert_with(|| stats_of(bytes, file.date));
        if *truth != file.stats {
            false_files.push(file.path.clone());
        }
    }
    Ok(Read {
        rows: ids(world, name).await,
        said: converted.position.0,
        false_files,
    })
}

/// What is true of files: named by content, they are the same in every world.
static KNOWN: Mutex<BTreeMap<String, FileStats>> = Mutex::const_new(BTreeMap::new());

/// What there is to say of a file, from its rows.
fn stats_of(bytes: Bytes, date: Date) -> FileStats {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let rows: Vec<RecordBatch> = reader.build().unwrap().map(|b| b.unwrap()).collect();
    let rows = concat_batches(&rows[0].schema(), &rows).unwrap();
    encode(rows, date).unwrap().stats
}

/// Whether an error tells of damage, or of a file that is not there.
fn told(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

async fn ids(world: &World, name: &TableName) -> Vec<String> {
    world.rows(name, &["id"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_checkpoint_is_opened_afresh_and_goes_on() {
    let world = long().await;
    for name in tables() {
        let table = world.table(&name).await.unwrap();
        assert_eq!(table.files().unwrap().len() as i64, ENTRIES);
        assert_eq!(
            table.mark("annals/main").await.unwrap(),
            Some(ENTRIES.cast_unsigned())
        );
    }
    // Nothing to do for a converter that begins anew.
    let progress = world.convert(ORDERS_V1).await;
    assert_eq!((progress.files, progress.rebuilt), (0, Vec::new()));
    assert_eq!(hides(world, "nothing").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_hides_no_rows() {
    let world = long().await;
    let mut wrong = Vec::new();
    for name in tables() {
        let object = checkpoint(&name);
        let whole = world.bucket.get(&object).await.unwrap();
        for kept in [0, 3, whole.len() / 2, whole.len() - 1] {
            let world = world.copy().await;
            world
                .bucket
                .put(&object, whole.slice(..kept))
                .await
                .unwrap();
            wrong.extend(hides(world, &format!("checkpoint of {name} cut to {kept}")).await);
        }
        let gone = world.copy().await;
        gone.bucket.delete(&object).await.unwrap();
        wrong.extend(hides(gone, &format!("no checkpoint of {name}")).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_of_a_checkpoint_hides_no_rows() {
    let world = long().await;
    let mut wrong = Vec::new();
    for name in tables() {
        let object = checkpoint(&name);
        let whole = world.bucket.get(&object).await.unwrap();
        for at in (0..whole.len()).step_by(whole.len() / FLIPS) {
            let world = world.copy().await;
            let mut flipped = whole.to_vec();
            flipped[at] ^= 1 << (at % 8);
            world.bucket.put(&object, flipped.into()).await.unwrap();
            wrong.extend(hides(world, &format!("checkpoint of {name}, bit at {at}")).await);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_points_to_a_checkpoint_is_not_relied_on() {
    let world = long().await;
    let mut wrong = Vec::new();
    for name in tables() {
        let object = log(&name, "_last_checkpoint");
        let whole = world.bucket.get(&object).await.unwrap();
        let text = String::from_utf8(whole.to_vec()).unwrap();
        let said = format!("\"version\":{CHECKPOINT}");
        assert!(text.contains(&said), "{text}");
        for (what, now) in [
            ("empty", String::new()),
            ("cut", text[..text.len() / 2].to_owned()),
            ("of an older one", text.replace(&said, "\"version\":20")),
            ("of a later one", text.replace(&said, "\"version\":99")),
        ] {
            let world = world.copy().await;
            world.bucket.put(&object, now.into()).await.unwrap();
            wrong.extend(hides(world, &format!("_last_checkpoint of {name} {what}")).await);
        }
        let gone = world.copy().await;
        gone.bucket.delete(&object).await.unwrap();
        wrong.extend(hides(gone, &format!("no _last_checkpoint of {name}")).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_lost_or_cut_around_a_checkpoint_hide_no_rows() {
    let world = long().await;
    let mut wrong = Vec::new();
    let last = ENTRIES.cast_unsigned() - 1;
    for name in tables() {
        let around = [0, 3, CHECKPOINT - 1, CHECKPOINT, CHECKPOINT + 1, last];
        for version in around {
            let object = commit(&name, version);
            let lost = world.copy().await;
            lost.bucket.delete(&object).await.unwrap();
            wrong.extend(hides(lost, &format!("commit {version} of {name} lost")).await);
            let cut = world.copy().await;
            let whole = cut.bucket.get(&object).await.unwrap();
            let half = whole.slice(..whole.len() / 2);
            cut.bucket.put(&object, half).await.unwrap();
            wrong.extend(hides(cut, &format!("commit {version} of {name} cut")).await);
        }
        // All that came after the checkpoint.
        let back = world.copy().await;
        for version in CHECKPOINT + 1..=last {
            back.bucket.delete(&commit(&name, version)).await.unwrap();
        }
        wrong.extend(hides(back, &format!("{name} thrown back to its checkpoint")).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
