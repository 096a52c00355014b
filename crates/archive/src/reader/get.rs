//! One event by (source, id): the index names its place, the frames' id filters its frame.

use super::Archive;
use super::batch::Location;
use super::load::check_index;
use super::stream::blocking;
use crate::filter::FilterRef;
use crate::record::RecordRef;
use crate::segment::{Segment, put_id_key};
use annals_core::{Error, Header, Result, Timestamp};
use bytes::Bytes;

/// An archived event that was looked up, owned.
#[derive(Debug, Clone)]
pub struct Found {
    /// The published bytes of the envelope.
    pub event: Bytes,
    /// When the archiver received it.
    pub received_at: Timestamp,
    /// Where it lies.
    pub location: Location,
    record: Bytes,
}

impl Found {
    /// The whole record: how it was delivered, and the body as published if that was another.
    pub fn record(&self) -> Result<RecordRef<'_>> {
        RecordRef::scan(&self.record)
    }
}

impl Archive {
    /// The first event archived under this source and id.
    pub async fn get(&self, source: &str, id: &str) -> Result<Option<Found>> {
        match self.locate(source, id).await? {
            Some(location) => Ok(Some(self.read(location, source, id).await?)),
            None => Ok(None),
        }
    }

    async fn read(&self, location: Location, source: &str, id: &str) -> Result<Found> {
        let mut key = Vec::new();
        put_id_key(source, id, &mut key);
        let entry = self.ledger.read(location.position).await?;
        for segment in &entry.entry.segments {
            let bucket = self.ledger.bucket().clone();
            let opened = Segment::open(bucket, &segment.name, segment.length).await?;
            check_index(opened.index(), segment).map_err(|e| e.context(&segment.name))?;
            for (number, frame) in opened.index().frames.iter().enumerate() {
                if !FilterRef::new(&frame.id_filter).contains(&key) {
                    continue;
                }
                let bytes = opened.read_frame(number).await?;
                let key = (source.to_owned(), id.to_owned());
                if let Some(found) = blocking(move || find(bytes, location, &key)).await? {
                    return Ok(found);
                }
            }
        }
        Err(Error::corrupt(format!(
            "the index says that {source} {id} is in ledger entry {}, where it is not",
            location.position
        )))
    }
}

fn find(frame: Bytes, location: Location, key: &(String, String)) -> Result<Option<Found>> {
    for bytes in annals_core::frame::iter(&frame) {
        let bytes = bytes?;
        let record = RecordRef::scan(bytes)?;
        if record.ordinal != location.ordinal {
            continue;
        }
        if Header::scan(record.event)?.key() != (key.0.as_str(), key.1.as_str()) {
            return Ok(None);
        }
        return Ok(Some(Found {
            event: frame.slice_ref(record.event),
            received_at: super::time_of(record.delivery.received_at_us),
            location,
            record: frame.slice_ref(bytes),
        }));
    }
    Ok(None)
}
