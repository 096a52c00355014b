//! Ledger entries: any bytes, and any content under a hash that holds.

use crate::archive::{BUS, ENTRIES, objects, read_all_ways};
use annals_archive::ledger::{decode, encode};
use annals_archive::wire::{LedgerEntry, LedgerFile};
use annals_archive::{Position, layout};
use bytes::Bytes;
use prost::Message;

/// Numbers an object can be under, beyond those that a small archive has.
const BEYOND: [u64; 3] = [ENTRIES + 1, ENTRIES + 3, u64::MAX];

/// No entry panics. The first byte says which entry of a small archive is replaced, or under which
/// further number one is added, and whether the rest is its object or the entry in it, whose hash
/// is made to hold.
pub fn run(bytes: &[u8]) {
    let Some((form, rest)) = bytes.split_first() else {
        return;
    };
    let numbers: Vec<u64> = (1..=ENTRIES).chain(BEYOND).collect();
    let position = Position(numbers[usize::from(form >> 1) % numbers.len()]);
    let file = match form & 1 {
        0 => Bytes::copy_from_slice(rest),
        _ => sealed(rest),
    };
    if let Ok(entry) = decode(&file, BUS, position) {
        assert_eq!((entry.position, entry.entry.number), (position, position.0));
        let again = decode(&encode(&entry.entry).0, BUS, position);
        assert_eq!(again.expect("what was read is written").entry, entry.entry);
    }
    let mut objects = objects().clone();
    objects.insert(layout::ledger_name(BUS, position.0), file);
    read_all_ways(objects);
}

fn sealed(entry: &[u8]) -> Bytes {
    let file = LedgerFile {
        entry: Bytes::copy_from_slice(entry),
        hash: Bytes::copy_from_slice(blake3::hash(entry).as_bytes()),
    };
    file.encode_to_vec().into()
}

/// Entries of the small archive, both ways, and one that says what none can.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for number in 1..=2 {
        let file = &objects()[&layout::ledger_name(BUS, number)];
        let entry = LedgerFile::decode(file.clone()).expect("well made").entry;
        let which = (number as u8 - 1) << 1;
        seeds.push([&[which], &file[..]].concat());
        seeds.push([&[which | 1], &entry[..]].concat());
        let mut lying = LedgerEntry::decode(entry).expect("well made");
        for segment in &mut lying.segments {
            segment.length = u64::MAX;
            segment.count = u64::MAX;
        }
        seeds.push([&[which | 1], &lying.encode_to_vec()[..]].concat());
        for (at, beyond) in (ENTRIES as u8..).zip(BEYOND) {
            lying.number = beyond;
            seeds.push([&[at << 1 | 1], &lying.encode_to_vec()[..]].concat());
        }
    }
    seeds
}
