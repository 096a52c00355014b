//! From a ledger entry to compressed frames: which segments, which of their frames, fetched whole
//! or by ranges, held against what the ledger says.

use super::damage::Damage;
use super::decode::FrameJob;
use super::plan::{Cover, Plan};
use crate::ledger::{Entry, Position};
use crate::segment::{Segment, parse_index};
use crate::wire;
use crate::{Bucket, layout};
use annals_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use std::sync::Arc;

/// Segments of one entry fetched at a time.
const SEGMENTS_AT_ONCE: usize = 4;
/// A segment up to this long is fetched whole, in bytes: one request beats three.
const WHOLE_BYTES: u64 = 1 << 20;
/// A segment is fetched whole from this share of wanted records on.
const WHOLE_SHARE: f64 = 0.5;

/// The compressed frames of a ledger entry that are wanted.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) position: Position,
    pub(crate) frames: Vec<FrameJob>,
    pub(crate) damage: Vec<Damage>,
}

/// Fetches what a plan wants of an entry. An error is one that is no damage: to be retried.
pub(crate) async fn load(bucket: &Arc<dyn Bucket>, plan: &Plan, entry: Entry) -> Result<Loaded> {
    let position = entry.position;
    let mut loaded = Loaded {
        position,
        ..Loaded::default()
    };
    let wanted = entry.entry.segments.into_iter();
    let fetches: Vec<_> = wanted
        .filter(|segment| plan.wants_segment(segment))
        .map(|segment| fetch_named(bucket, plan, position, segment))
        .collect();
    let mut fetched = stream::iter(fetches).buffered(SEGMENTS_AT_ONCE);
    while let Some((segment, frames)) = fetched.next().await {
        match frames {
            Ok(frames) => loaded.frames.extend(frames),
            Err(error) if Damage::is_damage(&error) => loaded.damage.push(Damage {
                position,
                segment: Some(segment.name.as_str().into()),
                frame: None,
                error,
            }),
            Err(error) => return Err(error.context(&segment.name)),
        }
    }
    Ok(loaded)
}

async fn fetch_named(
    bucket: &Arc<dyn Bucket>,
    plan: &Plan,
    position: Position,
    segment: wire::Segment,
) -> (wire::Segment, Result<Vec<FrameJob>>) {
    let frames = fetch(bucket, plan, position, &segment).await;
    (segment, frames)
}

async fn fetch(
    bucket: &Arc<dyn Bucket>,
    plan: &Plan,
    position: Position,
    segment: &wire::Segment,
) -> Result<Vec<FrameJob>> {
    let name: Arc<str> = segment.name.as_str().into();
    let job = |index: &Arc<wire::SegmentIndex>, number, compressed, cover| FrameJob {
        position,
        segment: name.clone(),
        index: index.clone(),
        number,
        compressed,
        ask: cover == Cover::Some,
    };
    if segment.length <= WHOLE_BYTES || plan.share(position, segment) >= WHOLE_SHARE {
        let (index, bytes) = fetch_whole(bucket, segment).await?;
        let mut jobs = Vec::new();
        for (number, cover) in wanted(plan, position, &index) {
            let frame = &index.frames[number];
            let range = frame.offset as usize..(frame.offset + frame.length) as usize;
            jobs.push(job(&index, number, bytes.slice(range), cover));
        }
        return Ok(jobs);
    }
    let opened = Segment::open(bucket.clone(), &segment.name, segment.length).await?;
    check_index(opened.index(), segment)?;
    let mut jobs = Vec::new();
    let wanted: Vec<_> = wanted(plan, position, opened.index()).collect();
    // Neighbours in one request.
    for run in wanted.chunk_by(|(one, _), (next, _)| one + 1 == *next) {
        let frames = run[0].0..run[0].0 + run.len();
        let compressed = opened.read_compressed(frames).await?;
        for (&(number, cover), compressed) in run.iter().zip(compressed) {
            jobs.push(job(opened.index(), number, compressed, cover));
        }
    }
    Ok(jobs)
}

/// Fetches a segment and holds it against all the ledger says of it.
pub(crate) async fn fetch_whole(
    bucket: &Arc<dyn Bucket>,
    segment: &wire::Segment,
) -> Result<(Arc<wire::SegmentIndex>, Bytes)> {
    let bytes = bucket.get(&segment.name).await?;
    let stated = segment.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let index = check_whole(&stated, &bytes)?;
        Ok((Arc::new(index), bytes))
    });
    checked
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "the check panicked").caused_by(e))?
}

fn check_whole(segment: &wire::Segment, bytes: &[u8]) -> Result<wire::SegmentIndex> {
    if bytes.len() as u64 != segment.length {
        let (held, stated) = (bytes.len(), segment.length);
        let message = format!("it is {held} bytes long, the ledger says {stated}");
        return Err(Error::corrupt(message));
    }
    if blake3::hash(bytes).as_bytes()[..] != segment.hash[..] {
        return Err(Error::corrupt("its hash is not the one in the ledger"));
    }
    let index = parse_index(bytes, segment.length)?;
    check_index(&index, segment)?;
    Ok(index)
}

pub(crate) fn check_index(index: &wire::SegmentIndex, segment: &wire::Segment) -> Result<()> {
    let bus = layout::encode(&index.bus);
    if index.count != segment.count || index.package != segment.package {
        return Err(Error::corrupt(
            "its index is not that of the ledger's segment",
        ));
    }
    if !segment.name.starts_with(&format!("raw/v1/{bus}/")) {
        return Err(Error::corrupt("its index is that of another bus"));
    }
    let frames: u64 = index
        .frames
        .iter()
        .map(|frame| u64::from(frame.count))
        .sum();
    if frames != index.count {
        return Err(Error::corrupt(
            "its frames do not have as many records as it says",
        ));
    }
    Ok(())
}

fn wanted<'a>(
    plan: &'a Plan,
    position: Position,
    index: &'a wire::SegmentIndex,
) -> impl Iterator<Item = (usize, Cover)> + 'a {
    let covers = index
        .frames
        .iter()
        .map(move |frame| plan.cover(position, frame))
        .enumerate();
    covers.filter(|(_, cover)| *cover != Cover::None)
}
