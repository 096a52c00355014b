//! What a log's directory holds, read back: docs/formats/broker-log.md, "Recovery".

use super::files::{Files, Listing, segment_name, snapshot_name};
use super::format::{SEGMENT_HEADER, Salt, SegmentHeader, parse_segment_header};
use super::pool::Spare;
use super::reader::read_up_to;
use super::replay::{Replay, Replayed};
use super::snapshot::Snapshot;
use super::{Damage, Entry, LogConfig, Lsn, Recovery};
use annals_core::disk::{Access, DiskFile};
use annals_core::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// A log read back, ready to go on.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) salt: Salt,
    /// Segments that hold records, except the last: where each ends.
    pub(super) sealed: BTreeMap<u32, u32>,
    /// The last, and the end of the one before it.
    pub(super) last: Option<(Spare, Lsn)>,
    /// Prepared segments, and files that can become such.
    pub(super) spares: (Vec<Spare>, Vec<PathBuf>),
    /// First number that was never used.
    pub(super) next: u32,
    pub(super) damaged: BTreeSet<u32>,
    /// Snapshots that can be used, oldest first, with their lengths.
    pub(super) snapshots: Vec<(Lsn, u64)>,
    pub(super) recovery: Recovery,
}

/// Reads the log in `files`, and makes durable what was found.
pub(super) fn recover(
    files: &Files,
    config: &LogConfig,
    visit: &mut dyn FnMut(Entry<'_>),
) -> Result<Recovered> {
    let mut listing = files.list()?;
    for path in &listing.unfinished {
        files.disk.remove(path)?;
    }
    let mut recovery = Recovery::default();
    let most = listing.segments.last().copied().unwrap_or(0);
    let snapshot = newest_snapshot(files, &mut listing, &mut recovery)?;
    let found = check_headers(files, config, &mut listing, &mut recovery)?;
    let salt = match found.or(snapshot.as_ref().map(|snapshot| snapshot.salt)) {
        Some(salt) => salt,
        None if most == 0 => Salt::new(config.salt),
        None => {
            let dir = files.dir.display();
            return Err(Error::corrupt(format!(
                "no segment in {dir} has a readable header"
            )));
        }
    };
    if let Some(snapshot) = &snapshot {
        visit(Entry::Snapshot(snapshot.state()));
        recovery.snapshot = Some(snapshot.position);
    }
    let start = snapshot
        .as_ref()
        .map_or(Lsn::default(), |snapshot| snapshot.position);
    let order: Vec<u32> = listing.segments.iter().copied().collect();
    let mut replay = Replay::new(files, salt, recovery, visit);
    let mut replayed = replay.run(&order, start)?;
    let (mut recovery, released) = replay.finish();
    if let Some(snapshot) = &snapshot {
        let gone = |n: &&u32| !listing.segments.contains(n) && !released.contains(n);
        let missing = snapshot
            .segments
            .iter()
            .filter(|n| **n < start.segment())
            .filter(gone);
        recovery
            .damaged
            .extend(missing.map(|n| Damage::missing(*n)));
    }
    recovery.clean = replayed.clean;
    recovery.torn_bytes = replayed.torn_bytes;
    mark_damaged(files, &mut listing, &recovery)?;
    settle(files, config, salt, &listing, &mut replayed)?;
    recovery.end = replayed.end;
    let spares = sort_spares(files, config, &listing, &replayed)?;
    let last = match listing.segments.contains(&replayed.end.segment()) {
        true => {
            let number = replayed.end.segment();
            let file = files.disk.open(&files.segment(number), Access::ReadWrite)?;
            Some((Spare { number, file }, replayed.base))
        }
        false => None,
    };
    let used = listing.segments.range(..replayed.end.segment());
    let end = |n: &u32| {
        replayed
            .ends
            .get(n)
            .copied()
            .unwrap_or(config.segment_bytes)
    };
    Ok(Recovered {
        salt,
        sealed: used.map(|n| (*n, end(n))).collect(),
        last,
        spares,
        next: 1 + most.max(replayed.end.segment()),
        damaged: listing.damaged,
        snapshots: listing.snapshots,
        recovery,
    })
}

/// The newest snapshot that is whole; those that are not are reported and no longer listed.
fn newest_snapshot(
    files: &Files,
    listing: &mut Listing,
    recovery: &mut Recovery,
) -> Result<Option<Snapshot>> {
    while let Some(&(position, len)) = listing.snapshots.last() {
        match Snapshot::read(files, position)? {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(reason) => recovery.damaged.push(Damage {
                file: snapshot_name(position),
                segment: 0,
                offset: 0,
                bytes: u32::try_from(len).unwrap_or(u32::MAX),
                reason,
            }),
        }
        listing.snapshots.pop();
    }
    Ok(None)
}

/// Checks every segment's header and length; those of other logs or under a wrong name are reported
/// and no longer listed. Returns the log's salt.
fn check_headers(
    files: &Files,
    config: &LogConfig,
    listing: &mut Listing,
    recovery: &mut Recovery,
) -> Result<Option<Salt>> {
    let mut known: Option<Salt> = None;
    let mut foreign = Vec::new();
    for &number in &listing.segments {
        let file = files.disk.open(&files.segment(number), Access::Read)?;
        let header = read_up_to(&*file, 0, SEGMENT_HEADER as usize)?;
        let mut whole = config.segment_bytes;
        let reason = match parse_segment_header(&header) {
            SegmentHeader::Foreign(version) => {
                let name = segment_name(number);
                return Err(Error::invalid(format!(
                    "{name} has format version {version}, not 1"
                )));
            }
            SegmentHeader::Valid { number: n, .. } if n != number => {
                foreign.push(number);
                Some("segment under another's name")
            }
            SegmentHeader::Valid { salt, .. } if known.is_some_and(|known| known != salt) => {
                foreign.push(number);
                Some("segment of another log")
            }
            SegmentHeader::Valid {
                segment_bytes,
                salt,
                ..
            } => {
                known = Some(salt);
                whole = segment_bytes;
                None
            }
            SegmentHeader::Damaged => Some("segment header is damaged"),
        };
        let damage = |from, len, reason| Damage::in_segment(number, from, len, reason);
        recovery
            .damaged
            .extend(reason.map(|reason| damage(0, SEGMENT_HEADER, reason)));
        let len = u32::try_from(file.len()?).unwrap_or(u32::MAX);
        if len < whole {
            recovery
                .damaged
                .push(damage(len, whole - len, "segment is cut short"));
        }
    }
    for number in foreign {
        listing.segments.remove(&number);
        listing.damaged.insert(number);
    }
    Ok(known)
}

/// Remembers damaged segments for ever, so that they are never recycled.
fn mark_damaged(files: &Files, listing: &mut Listing, recovery: &Recovery) -> Result<()> {
    let on_disk = |n: &u32| listing.segments.contains(n) && !listing.damaged.contains(n);
    let found: BTreeSet<u32> = recovery
        .damaged
        .iter()
        .map(|d| d.segment)
        .filter(on_disk)
        .collect();
    for &number in &found {
        files.disk.create(&files.damaged(number))?;
    }
    if !found.is_empty() {
        files.sync()?;
        listing.damaged.extend(found);
    }
    Ok(())
}

/// Makes what was replayed durable, and what lies behind it void.
///
/// What no later group proves durable is written again: after a failed sync the system may hold it
/// in memory only, and take it for written.
fn settle(
    files: &Files,
    config: &LogConfig,
    salt: Salt,
    listing: &Listing,
    replayed: &mut Replayed,
) -> Result<()> {
    let last = replayed.end.segment();
    if !listing.segments.contains(&last) {
        return Ok(());
    }
    for (&number, &end) in replayed
        .ends
        .range(replayed.durable.segment().min(last)..=last)
    {
        let unsure = number != last || !replayed.clean;
        let path = files.segment(number);
        let file = files.disk.open(&path, Access::ReadWrite)?;
        if unsure {
            let from = replayed.durable.max(Lsn::new(number, 0)).offset().min(end);
            let bytes = read_up_to(&*file, from, (end - from) as usize)?;
            file.write_all_at(&bytes, from.into())?;
        }
        if number == last {
            match replayed.clean {
                true => replayed.reopen(salt, &*file)?,
                false => void(&*file, end, config.segment_bytes)?,
            }
        }
        file.sync_data()?;
    }
    if !replayed.clean {
        let file = files.disk.open(&files.segment(last), Access::ReadWrite)?;
        replayed.mark(salt, &*file, config.segment_bytes)?;
        file.sync_data()?;
    }
    Ok(())
}

/// Zeroes a segment from `end` on.
fn void(file: &dyn DiskFile, end: u32, segment_bytes: u32) -> Result<()> {
    const STEP: u32 = 1 << 20;
    let zeros = vec![0; STEP.min(segment_bytes) as usize];
    for offset in (end..segment_bytes).step_by(STEP as usize) {
        let len = STEP.min(segment_bytes - offset) as usize;
        if read_up_to(file, offset, len)? != zeros[..len] {
            file.write_all_at(&zeros[..len], offset.into())?;
        }
    }
    Ok(())
}

/// Segments after the last: as they are if the log was closed in order, else set aside, since an
/// unacknowledged group may have reached them.
fn sort_spares(
    files: &Files,
    config: &LogConfig,
    listing: &Listing,
    replayed: &Replayed,
) -> Result<(Vec<Spare>, Vec<PathBuf>)> {
    let (mut ready, mut free): (Vec<Spare>, Vec<PathBuf>) = Default::default();
    for &number in listing.segments.range(replayed.end.segment() + 1..) {
        let path = files.segment(number);
        let file: Arc<dyn DiskFile> = files.disk.open(&path, Access::ReadWrite)?;
        let whole = file.len()? == u64::from(config.segment_bytes);
        if replayed.clean && whole && !listing.damaged.contains(&number) {
            ready.push(Spare { number, file });
            continue;
        }
        let aside = files.unfinished(number);
        files.disk.rename(&path, &aside)?;
        if whole {
            free.push(aside);
        } else {
            files.disk.remove(&aside)?;
        }
    }
    files.sync()?;
    Ok((ready, free))
}

impl Damage {
    pub(super) fn in_segment(number: u32, offset: u32, bytes: u32, reason: &'static str) -> Self {
        Self {
            file: segment_name(number),
            segment: number,
            offset,
            bytes,
            reason,
        }
    }

    pub(super) fn missing(number: u32) -> Self {
        Self::in_segment(number, 0, 0, "segment is missing")
    }
}
