//! The ledger: the numbered, hash-chained list of segments that is the archive.
//! docs/formats/ledger.md.
//!
//! A segment is part of history from the moment a ledger entry names it, never because it lies in
//! the bucket. Entries are made under create-only names, so that of two writers one is first and
//! the other chains behind it; each holds the hash of the one before it, so that a changed or a
//! missing entry shows.

use crate::Bucket;
use crate::bucket::Created;
use crate::layout;
use crate::wire::{self, LedgerEntry, LedgerFile};
use annals_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use prost::Message;
use std::fmt;
use std::sync::Arc;

/// Entries that [`Ledger::entries`] fetches at a time.
const READ_AHEAD: usize = 16;
/// Longest ledger object a reader takes, in bytes.
const FILE_BYTES_MAX: usize = 64 << 20;

/// How far in a ledger: the number of its last entry seen; 0 before the first.
///
/// A reader pins one and sees the same history for as long as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

impl Position {
    /// The position after the next entry.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// BLAKE3 of an encoded entry; all zeros stands before the first.
pub type EntryHash = [u8; 32];

/// An entry and its hash, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its number, as a position.
    pub position: Position,
    /// What the next entry chains to.
    pub hash: EntryHash,
    /// The entry.
    pub entry: LedgerEntry,
}

/// The ledger of one bus. Cheap to clone.
///
/// A clone starts at the same head and has one of its own from then on: a writer whose try was
/// answered with an error finds out what became of it by trying the same number again, and so
/// nobody else may move its head past that number. What others append shows after
/// [`Ledger::refresh`].
#[derive(Debug)]
pub struct Ledger {
    bucket: Arc<dyn Bucket>,
    bus: Arc<str>,
    head: Mutex<Head>,
}

impl Clone for Ledger {
    fn clone(&self) -> Self {
        Self {
            bucket: Arc::clone(&self.bucket),
            bus: Arc::clone(&self.bus),
            head: Mutex::new(*self.head.lock()),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Head {
    position: Position,
    hash: EntryHash,
}

impl Ledger {
    /// Finds the head of a bus's ledger; one without entries is a ledger too.
    ///
    /// Takes a number of requests that grows with the logarithm of its length. An entry missing
    /// before the head is [`ErrorKind::Corrupt`]: writing into the hole would change history.
    pub async fn open(bucket: Arc<dyn Bucket>, bus: &str) -> Result<Self> {
        let ledger = Self {
            bucket,
            bus: bus.into(),
            head: Mutex::default(),
        };
        ledger.refresh().await?;
        Ok(ledger)
    }

    /// The bus.
    pub fn bus(&self) -> &str {
        &self.bus
    }

    /// The bucket.
    pub fn bucket(&self) -> &Arc<dyn Bucket> {
        &self.bucket
    }

    /// The last entry known. [`Ledger::refresh`] looks for later ones.
    pub fn head(&self) -> Position {
        self.head.lock().position
    }

    /// Hash of the last entry known.
    pub fn head_hash(&self) -> EntryHash {
        self.head.lock().hash
    }

    /// Looks for entries of other writers; returns the head.
    pub async fn refresh(&self) -> Result<Position> {
        let known = self.head();
        let last = self.find_last(known.0).await?;
        if last > known.0 {
            let entry = self.read(Position(last)).await?;
            self.advance(&entry);
        }
        Ok(self.head())
    }

    /// Moves the head to an entry that is known to be there, unless it is further on already.
    pub async fn advance_to(&self, position: Position) -> Result<()> {
        if position > self.head() {
            let entry = self.read(position).await?;
            self.advance(&entry);
        }
        Ok(())
    }

    /// One entry, checked in itself (its chain is [`Ledger::entries`]' to check).
    pub async fn read(&self, position: Position) -> Result<Entry> {
        let name = layout::ledger_name(&self.bus, position.0);
        let bytes = self.bucket.get(&name).await?;
        decode(&bytes, &self.bus, position).map_err(|e| e.context(name))
    }

    /// The entries after one position up to another, in order, their chain checked. After an
    /// error there are no more.
    pub fn entries(&self, after: Position, until: Position) -> BoxStream<'static, Result<Entry>> {
        let ledger = self.clone();
        // The entry at `after` is read too: its hash is what the first one chains to.
        let first = after.0.max(1);
        let read = move |number| {
            let ledger = ledger.clone();
            async move {
                // Entries are never removed: one before the head that is not there is damage.
                match ledger.read(Position(number)).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        let missing = layout::ledger_name(ledger.bus(), number);
                        let text = format!("ledger entry {missing} is missing");
                        Err(Error::corrupt(text).caused_by(error))
                    }
                    read => read,
                }
            }
        };
        let mut previous = (after.0 == 0).then_some(EntryHash::default());
        let checked = stream::iter(first..=until.0)
            .map(read)
            .buffered(READ_AHEAD)
            .filter_map(move |read| {
                let checked = read.and_then(|entry| {
                    let chained = previous.is_none_or(|hash| entry.entry.previous[..] == hash);
                    previous = Some(entry.hash);
                    chained
                        .then_some(entry)
                        .ok_or_else(|| Error::corrupt("the ledger's chain is broken"))
                });
                let skipped = matches!(&checked, Ok(entry) if entry.position <= after);
                std::future::ready((!skipped).then_some(checked))
            });
        until_error(checked).boxed()
    }

    /// Registers segments by the next entry; durable when it returns. They must be so before.
    ///
    /// Where another writer was first, chains behind it. After an error, nobody knows whether the
    /// entry was made: append the same again *with the same ledger, not refreshed meanwhile*, which
    /// finds out, or leave it to redelivery. The head moves past a number only once what lies there
    /// was read and is not this entry.
    pub async fn append(
        &self,
        segments: Vec<wire::Segment>,
        written_at_us: i64,
        writer: &str,
    ) -> Result<Entry> {
        let mut entry = LedgerEntry {
            bus: self.bus.to_string(),
            written_at_us,
            writer: writer.to_owned(),
            segments,
            ..LedgerEntry::default()
        };
        loop {
            let head = *self.head.lock();
            let position = head.position.next();
            entry.number = position.0;
            entry.previous = Bytes::copy_from_slice(&head.hash);
            let (file, hash) = encode(&entry);
            let name = layout::ledger_name(&self.bus, position.0);
            let ours = match self.bucket.create(&name, file.clone()).await? {
                Created::Created => true,
                // Ours all the same if an earlier try was answered with an error: made from the
                // same head, it was these very bytes.
                Created::AlreadyExists => self.bucket.get(&name).await? == file,
            };
            if ours {
                let made = Entry {
                    position,
                    hash,
                    entry,
                };
                self.advance(&made);
                return Ok(made);
            }
            self.refresh().await?;
        }
    }

    fn advance(&self, entry: &Entry) {
        let mut head = self.head.lock();
        if entry.position > head.position {
            *head = Head {
                position: entry.position,
                hash: entry.hash,
            };
        }
    }

    /// The last number in use, where `known` is in use or 0: doubles ahead, then halves, then
    /// asks for names after it, so that a hole is found rather than filled.
    async fn find_last(&self, known: u64) -> Result<u64> {
        let (mut present, mut step) = (known, 1u64);
        while self.exists(present.saturating_add(step)).await? {
            present = present.saturating_add(step);
            step = step.saturating_mul(2);
        }
        let mut absent = present.saturating_add(step);
        while absent - present > 1 {
            let middle = present + (absent - present) / 2;
            if self.exists(middle).await? {
                present = middle;
            } else {
                absent = middle;
            }
        }
        self.check_no_later(present).await
    }

    async fn check_no_later(&self, mut last: u64) -> Result<u64> {
        loop {
            let name = layout::ledger_name(&self.bus, last);
            let later = self
                .bucket
                .list(&layout::ledger_folder(&self.bus), Some(&name))
                .await?;
            let numbers = later
                .iter()
                .filter_map(|e| layout::ledger_number(&self.bus, &e.name));
            for number in numbers {
                // Entries appended since. A listing made meanwhile may show a later one without
                // one before it, which was there first: that one is asked for.
                for before in last + 1..number {
                    if !self.exists(before).await? {
                        let missing = layout::ledger_name(&self.bus, before);
                        return Err(Error::corrupt(format!("ledger entry {missing} is missing")));
                    }
                }
                last = number;
            }
            if later.is_empty() {
                return Ok(last);
            }
        }
    }

    async fn exists(&self, number: u64) -> Result<bool> {
        let name = layout::ledger_name(&self.bus, number);
        Ok(self.bucket.head(&name).await?.is_some())
    }
}

/// The object that holds an entry, and the entry's hash.
pub fn encode(entry: &LedgerEntry) -> (Bytes, EntryHash) {
    let entry = Bytes::from(entry.encode_to_vec());
    let hash = *blake3::hash(&entry).as_bytes();
    let file = LedgerFile {
        entry,
        hash: Bytes::copy_from_slice(&hash),
    };
    (file.encode_to_vec().into(), hash)
}

/// Reads the object of an entry and checks its hash, bus, number and form.
pub fn decode(file: &Bytes, bus: &str, position: Position) -> Result<Entry> {
    if file.len() > FILE_BYTES_MAX {
        return Err(damaged("it is longer than any"));
    }
    let file =
        LedgerFile::decode(file.clone()).map_err(|e| damaged("it does not decode").caused_by(e))?;
    let hash = *blake3::hash(&file.entry).as_bytes();
    if file.hash[..] != hash {
        return Err(damaged("its hash does not match"));
    }
    let entry =
        LedgerEntry::decode(file.entry).map_err(|e| damaged("it does not decode").caused_by(e))?;
    if entry.number != position.0 || entry.bus != bus {
        return Err(damaged("it is that of another number or bus"));
    }
    if entry.previous.len() != hash.len()
        || entry.segments.iter().any(|s| s.hash.len() != hash.len())
    {
        return Err(damaged("a hash in it is not 32 bytes long"));
    }
    Ok(Entry {
        position,
        hash,
        entry,
    })
}

fn until_error<T: Send + 'static>(
    results: impl futures::Stream<Item = Result<T>> + Send,
) -> impl futures::Stream<Item = Result<T>> + Send {
    results.scan(false, |failed, result| {
        let item = (!*failed).then_some(result);
        *failed = matches!(item, Some(Err(_)));
        std::future::ready(item)
    })
}

#[cold]
fn damaged(what: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("a ledger entry is damaged ({what})"),
    )
}
