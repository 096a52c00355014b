//! [`Batch`]: the selected events of one ledger entry, in order of arrival, where they lie in the
//! decompressed frames.
//!
//! Walking a batch allocates nothing and copies nothing: an event is its place in a frame, and its
//! header is scanned when it is walked to.

use super::decode::{DecodedFrame, Slot};
use crate::ledger::Position;
use crate::record::RecordRef;
use annals_core::{Error, Header, Result, Timestamp};
use bytes::Bytes;

/// The selected events of one ledger entry, or a piece of them. Holds the frames they lie in.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    position: Position,
    frames: Vec<Bytes>,
    slots: Vec<Slot>,
}

/// Where an event lies in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// Its ledger entry.
    pub position: Position,
    /// Its place in the order of arrival within the entry.
    pub ordinal: u32,
}

/// One archived event, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct EventRef<'a> {
    /// The published bytes of the envelope.
    pub event: &'a [u8],
    /// The attributes of [`EventRef::event`].
    pub header: Header<'a>,
    /// When the archiver received it, microseconds since 1970.
    pub received_at_us: i64,
    /// Where it lies.
    pub location: Location,
    frame: &'a Bytes,
    record: &'a [u8],
}

impl Batch {
    /// The ledger entry the events lie in. A reader that has worked off this batch goes on from
    /// the position after it.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Walks the events in order of arrival. An item is an error where the envelope cannot be
    /// read; under [`OnDamage::Report`](super::OnDamage::Report) those are left out before.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<EventRef<'_>>> {
        self.slots.iter().map(|slot| self.event(slot))
    }

    #[inline]
    fn event(&self, slot: &Slot) -> Result<EventRef<'_>> {
        let frame = &self.frames[slot.frame as usize];
        let event = slot.event_in(frame);
        let location = Location {
            position: self.position,
            ordinal: slot.ordinal,
        };
        Ok(EventRef {
            event,
            header: Header::scan(event).map_err(|e| unreadable(location, e))?,
            received_at_us: slot.received_at_us,
            location,
            frame,
            record: slot.record_in(frame),
        })
    }

    /// Merges the slots of an entry's frames by ordinal.
    ///
    /// Frames of one type come in order, so their slots are runs; a stable sort merges those.
    pub(crate) fn merge(position: Position, decoded: Vec<DecodedFrame>) -> Result<Self> {
        let mut merged = Self::piece(position, decoded);
        let slots = &mut merged.slots;
        sort_by_ordinal(slots);
        if let Some(twice) = slots.windows(2).find(|w| w[0].ordinal == w[1].ordinal) {
            return Err(Error::corrupt(format!(
                "ledger entry {} has two records of ordinal {}",
                position.0, twice[0].ordinal
            )));
        }
        Ok(merged)
    }

    /// Some frames of an entry, one after the other.
    pub(crate) fn piece(position: Position, decoded: Vec<DecodedFrame>) -> Self {
        let count = decoded.iter().map(|frame| frame.slots.len()).sum();
        let mut slots: Vec<Slot> = Vec::with_capacity(count);
        let mut frames = Vec::with_capacity(decoded.len());
        for frame in decoded {
            if frame.slots.is_empty() {
                continue;
            }
            let number = frames.len() as u32;
            slots.extend(frame.slots.into_iter().map(|slot| Slot {
                frame: number,
                ..slot
            }));
            frames.push(frame.bytes);
        }
        Self {
            position,
            frames,
            slots,
        }
    }
}

impl<'a> EventRef<'a> {
    /// The envelope as a cheap handle that outlives the batch; it keeps its frame in memory.
    pub fn to_bytes(&self) -> Bytes {
        self.frame.slice_ref(self.event)
    }

    /// When the archiver received it.
    pub fn received_at(&self) -> Timestamp {
        super::plan::time_of(self.received_at_us)
    }

    /// The whole record: how it was delivered, and the body as published if that was another.
    pub fn record(&self) -> Result<RecordRef<'a>> {
        RecordRef::scan(self.record)
    }
}

/// Ordinals of an entry are dense, so where most are selected each slot has its place.
fn sort_by_ordinal(slots: &mut Vec<Slot>) {
    if slots.is_sorted_by_key(|slot| slot.ordinal) {
        return;
    }
    let last = slots.iter().map(|slot| slot.ordinal).max().unwrap_or(0) as usize;
    if last / 4 > slots.len() {
        slots.sort_by_key(|slot| slot.ordinal);
        return;
    }
    let mut places = vec![u32::MAX; last + 1];
    for (at, slot) in slots.iter().enumerate() {
        let place = &mut places[slot.ordinal as usize];
        if *place != u32::MAX {
            // Twice the same ordinal: damage, which the caller looks for in sorted slots.
            slots.sort_by_key(|slot| slot.ordinal);
            return;
        }
        *place = at as u32;
    }
    places.retain(|&at| at != u32::MAX);
    *slots = places.iter().map(|&at| slots[at as usize]).collect();
}

#[cold]
fn unreadable(location: Location, error: Error) -> Error {
    Error::corrupt(format!(
        "the event at ordinal {} of ledger entry {} cannot be read",
        location.ordinal, location.position.0
    ))
    .caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ordinals: &[u32]) -> DecodedFrame {
        let slot = |&ordinal| Slot {
            ordinal,
            ..Slot::default()
        };
        DecodedFrame {
            bytes: Bytes::new(),
            slots: ordinals.iter().map(slot).collect(),
        }
    }

    fn merged(frames: &[&[u32]]) -> Result<Vec<u32>> {
        let frames = frames.iter().map(|ordinals| frame(ordinals)).collect();
        let batch = Batch::merge(Position(7), frames)?;
        Ok(batch.slots.iter().map(|slot| slot.ordinal).collect())
    }

    #[test]
    fn frames_are_merged_into_the_order_of_arrival() {
        assert_eq!(merged(&[]).unwrap(), [] as [u32; 0]);
        assert_eq!(
            merged(&[&[0, 3], &[], &[1, 2, 4]]).unwrap(),
            [0, 1, 2, 3, 4]
        );
        assert_eq!(
            merged(&[&[9, 90_000], &[4, 70_000]]).unwrap(),
            [4, 9, 70_000, 90_000]
        );
        assert_eq!(merged(&[&[5], &[1], &[3]]).unwrap(), [1, 3, 5]);
    }

    #[test]
    fn two_records_of_one_ordinal_are_damage() {
        for frames in [
            &[&[1, 2][..], &[2][..]][..],
            &[&[90_000], &[3, 90_000]],
            &[&[4, 4]],
        ] {
            let error = merged(frames).unwrap_err();
            assert!(error.to_string().contains("ledger entry 7"), "{error}");
        }
    }
}
