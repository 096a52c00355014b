//! Objects of the index: any bytes, and any content under checksums that hold.

use crate::archive::{BUS, ENTRIES, block_on, check, objects, read_lying};
use crate::bucket::{MemoryBucket, Objects};
use annals_archive::index::Index;
use annals_archive::{Bucket, Ledger, Position};
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;

/// An object: a message and its hash.
#[derive(Clone, PartialEq, Message)]
struct Checked {
    #[prost(bytes = "bytes", tag = "1")]
    message: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    hash: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct State {
    #[prost(string, tag = "1")]
    bus: String,
    #[prost(uint64, tag = "2")]
    position: u64,
    #[prost(bytes = "bytes", tag = "3")]
    ledger_hash: Bytes,
    #[prost(message, repeated, tag = "4")]
    runs: Vec<RunRef>,
}

#[derive(Clone, PartialEq, Message)]
struct RunRef {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint64, tag = "2")]
    last: u64,
    #[prost(bytes = "bytes", tag = "3")]
    hash: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Run {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint64, tag = "2")]
    last: u64,
    #[prost(message, repeated, tag = "3")]
    parts: Vec<Part>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    skips: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Part {
    #[prost(uint64, tag = "1")]
    rows: u64,
    #[prost(uint64, tag = "2")]
    length: u64,
    #[prost(bytes = "bytes", tag = "3")]
    first_key: Bytes,
    #[prost(fixed32, tag = "4")]
    footer_crc32c: u32,
}

const STATE: &str = "index/v2/main/state/00000000000000000005.binpb";
const ROW_BYTES: usize = 32;
const BLOCK_ROWS: usize = 128;
const LINE_BYTES: usize = 20;
const TRAILER_BYTES: usize = 20;

/// No index panics, and whatever it held, one made anew is as it was. The first byte says what the
/// rest is: an object as it is, or the content of the state, of a run, or of a run's rows, under
/// checksums that are made to hold.
pub fn run(bytes: &[u8]) {
    let Some((form, rest)) = bytes.split_first() else {
        return;
    };
    let mut spoilt = objects().clone();
    let of_index: Vec<&String> = objects()
        .keys()
        .filter(|n| n.starts_with("index/"))
        .collect();
    let number = 1 + u64::from(form >> 2) % ENTRIES;
    let content = Bytes::copy_from_slice(rest);
    match form & 3 {
        0 => {
            let name = of_index[usize::from(form >> 2) % of_index.len()];
            spoilt.insert(name.clone(), content);
        }
        1 => drop(put_checked(&mut spoilt, STATE, content)),
        2 => put_run(&mut spoilt, number, content),
        _ => put_rows(&mut spoilt, number, rest.to_vec()),
    }
    // Each takes long: inputs of one length try one, those of another the other.
    let by_length = rest.len() % 8;
    block_on(open(spoilt.clone(), by_length == 1));
    if by_length == 2 {
        read_lying(spoilt);
    }
}

fn put_checked(objects: &mut Objects, name: &str, message: Bytes) -> Bytes {
    let hash = Bytes::copy_from_slice(blake3::hash(&message).as_bytes());
    let file = Checked {
        message,
        hash: hash.clone(),
    };
    objects.insert(name.to_owned(), file.encode_to_vec().into());
    hash
}

fn content<T: Message + Default>(objects: &Objects, name: &str) -> T {
    let file = Checked::decode(objects[name].clone()).expect("well made");
    T::decode(file.message).expect("well made")
}

fn run_name(number: u64) -> String {
    format!("index/v2/main/runs/{number:020}-{number:020}.binpb")
}

fn rows_name(number: u64) -> String {
    format!("index/v2/main/runs/{number:020}-{number:020}-000000.rows")
}

fn put_run(objects: &mut Objects, number: u64, run: Bytes) {
    let hash = put_checked(objects, &run_name(number), run);
    let mut state: State = content(objects, STATE);
    state.runs[number as usize - 1].hash = hash;
    put_checked(objects, STATE, state.encode_to_vec().into());
}

fn put_rows(objects: &mut Objects, number: u64, mut rows: Vec<u8>) {
    // Counts, producers and conflicts are lost here: `put_run` is given those by other inputs.
    let mut run: Run = content(objects, &run_name(number));
    if let (Some((count, crc)), Some(part)) = (repair(&mut rows), run.parts.first_mut()) {
        part.rows = count;
        part.length = rows.len() as u64;
        part.footer_crc32c = crc;
    }
    objects.insert(rows_name(number), rows.into());
    put_run(objects, number, run.encode_to_vec().into());
}

/// Makes the checksums of rows hold, if their trailer says where they are.
fn repair(bytes: &mut [u8]) -> Option<(u64, u32)> {
    let trailer = bytes.len().checked_sub(TRAILER_BYTES)?;
    let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("four bytes"));
    let (rows, filter) = (word(trailer) as usize, word(trailer + 4) as usize);
    let table = (rows * ROW_BYTES).checked_add(filter)?;
    if table + rows.div_ceil(BLOCK_ROWS) * LINE_BYTES != trailer {
        return None;
    }
    let blocks = bytes[..rows * ROW_BYTES].chunks(BLOCK_ROWS * ROW_BYTES);
    let crcs: Vec<u32> = blocks.map(crc32c::crc32c).collect();
    for (block, crc) in crcs.iter().enumerate() {
        let at = table + block * LINE_BYTES + 16;
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[rows * ROW_BYTES..trailer]);
    bytes[trailer + 8..trailer + 12].copy_from_slice(&crc.to_le_bytes());
    Some((rows as u64, crc))
}

async fn open(spoilt: Objects, again: bool) {
    let memory = Arc::new(MemoryBucket::holding(spoilt));
    let bucket: Arc<dyn Bucket> = memory.clone();
    let damage = Index::damage(bucket.clone(), BUS).await;
    for (_, error) in damage.expect("memory can be reached") {
        check(&error);
    }
    match Index::open(bucket.clone(), BUS).await {
        Ok(index) => ask(&index).await,
        Err(error) => check(&error),
    }
    let ledger = Ledger::open(bucket.clone(), BUS).await.expect("well made");
    if let Err(error) = Index::open_or_rebuild(&ledger).await {
        check(&error);
    }
    if !again {
        return;
    }
    // Whatever it is now, made anew it is as it was.
    if let Ok(mut index) = Index::open(bucket, BUS).await {
        index.rebuild(&ledger).await.expect("the ledger is well");
        assert!(memory.objects() == *objects(), "made anew, it is another");
    }
}

async fn ask(index: &Index) {
    for position in 0..ENTRIES + 2 {
        if let Err(error) = index.skips(Position(position)).await {
            check(&error);
        }
    }
    for number in [0, 3, 9, 99] {
        if let Err(error) = index.lookup("/shop", &format!("id-{number}")).await {
            check(&error);
        }
    }
    let counted = format!("{:?}", (index.counts(), index.producers()));
    assert!(!counted.is_empty());
    index.conflicts().for_each(drop);
}

/// The objects of a small index, in every form.
pub fn seeds() -> Vec<Vec<u8>> {
    let objects = objects();
    let message = |name: &str| {
        Checked::decode(objects[name].clone())
            .expect("well made")
            .message
    };
    let mut lying: State = content(objects, STATE);
    lying.runs[0].last = u64::MAX;
    let number = 2;
    let which = (number as u8 - 1) << 2;
    vec![
        [&[0], &objects[STATE][..]].concat(),
        [&[1], &message(STATE)[..]].concat(),
        [&[1], &lying.encode_to_vec()[..]].concat(),
        [&[which | 2], &message(&run_name(number))[..]].concat(),
        [&[which | 3], &objects[&rows_name(number)][..]].concat(),
    ]
}
