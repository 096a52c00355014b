//! What a bucket must do before anything is entrusted to it, asked of the bucket itself.
//!
//! A store that makes a name twice loses history without a word: two writers of one ledger number
//! are both told that theirs is the entry. Some servers that speak S3 ignore the condition of a
//! create, so none is believed: they are tried at every start.

use super::{Bucket, Created, check_name};
use annals_core::{Error, ErrorKind, Result};
use bytes::Bytes;

/// Where the objects of a probe lie; each has a folder of its own, gone when it has ended.
const FOLDER: &str = "probe/";
/// Creators of one name at a time.
const CREATORS: usize = 4;

/// Finds out whether a bucket keeps the contract that the archive's safety rests on: that of many
/// creators one wins and the others are told, that what was written is seen at once by reads,
/// ranges and lists, and that it can be deleted. `unique` names this probe among all of the bucket.
///
/// [`ErrorKind::Invalid`] says which part is not kept; another kind, that it could not be asked.
/// Objects left behind by a process that was killed meanwhile do no harm.
pub async fn probe(bucket: &dyn Bucket, unique: &str) -> Result<()> {
    let folder = format!("{FOLDER}{unique}/");
    let (once, replaced) = (format!("{folder}once"), format!("{folder}replaced"));
    check_name(&once)?;
    let found = async {
        creates_once(bucket, &once).await?;
        replaces(bucket, &replaced).await?;
        reads_ranges(bucket, &replaced).await?;
        lists(bucket, &folder, &[&once, &replaced]).await
    };
    let found = found.await;
    let cleared = clear(bucket, &[&once, &replaced]).await;
    found?;
    cleared
}

async fn creates_once(bucket: &dyn Bucket, name: &str) -> Result<()> {
    let body = |i: usize| Bytes::from(format!("creator {i}"));
    let creates = (0..CREATORS).map(|i| bucket.create(name, body(i)));
    let mut winners = Vec::new();
    for (i, made) in futures::future::join_all(creates)
        .await
        .into_iter()
        .enumerate()
    {
        if made? == Created::Created {
            winners.push(i);
        }
    }
    let [winner] = winners[..] else {
        return Err(refused(format!(
            "{} of {CREATORS} creators of one name were told that they had made it (create-only \
             writes, If-None-Match: * on S3, are needed)",
            winners.len()
        )));
    };
    if bucket.create(name, Bytes::from_static(b"late")).await? == Created::Created {
        return Err(refused(
            "it makes an object again that exists (create-only writes, If-None-Match: * on S3, \
             are needed)",
        ));
    }
    if bucket.get(name).await? != body(winner) {
        return Err(refused(
            "a create that was refused changed the object all the same",
        ));
    }
    Ok(())
}

async fn replaces(bucket: &dyn Bucket, name: &str) -> Result<()> {
    for body in ["0123456789 before", "0123456789"] {
        bucket
            .put(name, Bytes::from_static(body.as_bytes()))
            .await?;
        if bucket.get(name).await? != body {
            return Err(refused("a read after a write does not see it"));
        }
    }
    Ok(())
}

/// Of the object that [`replaces`] leaves.
async fn reads_ranges(bucket: &dyn Bucket, name: &str) -> Result<()> {
    match bucket.get_range(name, 3..7).await {
        Ok(bytes) if bytes == "3456" => {}
        Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
        _ => return Err(refused("a read of a range gives other bytes")),
    }
    match bucket.get_range(name, 8..12).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(refused("it reads past the end of an object")),
    }
}

async fn lists(bucket: &dyn Bucket, folder: &str, names: &[&str]) -> Result<()> {
    for (after, expected) in [(None, names), (Some(names[0]), &names[1..])] {
        let found = bucket.list(folder, after).await?;
        if !found.iter().map(|entry| &entry.name).eq(expected) {
            return Err(refused("a list does not show what was just written"));
        }
    }
    Ok(())
}

/// Removes the objects, whatever came before; the first error is told.
async fn clear(bucket: &dyn Bucket, names: &[&str]) -> Result<()> {
    let mut cleared = Ok(());
    for name in names {
        let removed = bucket.delete(name).await;
        cleared = cleared.and(removed);
    }
    cleared?;
    for name in names {
        if bucket.head(name).await?.is_some() {
            return Err(refused("an object is still there after it was deleted"));
        }
    }
    Ok(())
}

#[cold]
fn refused(reason: impl Into<String>) -> Error {
    Error::invalid(reason)
}
