//! The walk through the segments at start: what is valid, what is damaged, where the log ends.
//!
//! A position where nothing valid lies is the end, unless a group further on says that the log was
//! durable beyond it: then it is damage, and the walk goes on behind it.

use super::files::Files;
use super::format::{
    ALIGN, GROUP_HEADER, Group, Item, KIND_RELEASE, SEGMENT_HEADER, Salt, parse, u32_at,
};
use super::reader::read_up_to;
use super::{Damage, Entry, Lsn, Recovery};
use annals_core::Result;
use annals_core::disk::{Access, DiskFile};
use std::collections::{BTreeMap, BTreeSet};

/// A segment that starts with so many zeros was never written.
const UNTOUCHED: usize = 64 << 10;

/// Where the walk came to an end.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Where the log ends.
    pub(super) end: Lsn,
    /// Where the segment before the last one ends.
    pub(super) base: Lsn,
    /// Where each segment ends that was walked through.
    pub(super) ends: BTreeMap<u32, u32>,
    /// Known to have been durable up to here.
    pub(super) durable: Lsn,
    /// Whether it ends with the mark of a log closed in order.
    pub(super) clean: bool,
    /// Whether it ends with a group that holds nothing.
    pub(super) marked: bool,
    /// Bytes of unacknowledged groups behind the end.
    pub(super) torn_bytes: u64,
}

impl Replayed {
    /// Takes back the mark of a closed log, before anything is written behind it.
    pub(super) fn reopen(&self, salt: Salt, file: &dyn DiskFile) -> Result<()> {
        self.write_mark(salt, file, self.end.offset() - GROUP_HEADER as u32)
    }

    /// Marks the end after a crash, so that what lies before it stays proven; that must be synced
    /// before, and the mark after.
    pub(super) fn mark(&mut self, salt: Salt, file: &dyn DiskFile, room: u32) -> Result<()> {
        let (at, len) = (self.end.offset(), GROUP_HEADER as u32);
        self.durable = self.end;
        if !self.marked && at + len <= room {
            self.write_mark(salt, file, at)?;
            self.end = Lsn::new(self.end.segment(), at + len);
        }
        Ok(())
    }

    fn write_mark(&self, salt: Salt, file: &dyn DiskFile, at: u32) -> Result<()> {
        let lsn = Lsn::new(self.end.segment(), at);
        let len = GROUP_HEADER as u32;
        let group = Group {
            len,
            closed: false,
            durable: self.durable,
            base: self.base,
        };
        Ok(file.write_all_at(&group.encode(salt, lsn), at.into())?)
    }
}

/// The walk.
pub(super) struct Replay<'a> {
    files: &'a Files,
    salt: Salt,
    visit: &'a mut dyn FnMut(Entry<'_>),
    recovery: Recovery,
    released: BTreeSet<u32>,
    /// The furthest any valid group says the log was durable, once asked for.
    evidence: Option<Lsn>,
    out: Replayed,
}

/// One segment on the way.
struct Segment<'a> {
    number: u32,
    /// Not beyond its end.
    bytes: &'a [u8],
    /// Where its groups end, if the next segment says so.
    end: Option<usize>,
    /// Segments after it.
    later: &'a [u32],
    /// Whether a later segment holds groups of the log.
    followed: bool,
    /// Whether the next segment is known to be missing: then this one's end is unknown.
    gap: bool,
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        files: &'a Files,
        salt: Salt,
        recovery: Recovery,
        visit: &'a mut dyn FnMut(Entry<'_>),
    ) -> Self {
        let (released, evidence, out) = Default::default();
        Self {
            files,
            salt,
            visit,
            recovery,
            released,
            evidence,
            out,
        }
    }

    /// What was found, and the segments whose release was replayed.
    pub(super) fn finish(self) -> (Recovery, BTreeSet<u32>) {
        (self.recovery, self.released)
    }

    /// Walks through the segments `order` from `start` on.
    pub(super) fn run(&mut self, order: &[u32], start: Lsn) -> Result<Replayed> {
        (self.out.end, self.out.durable) = (start, start);
        let skipped = order.partition_point(|number| *number < start.segment());
        let order = &order[skipped..];
        self.check_start(order, start)?;
        for (index, &number) in order.iter().enumerate() {
            let later = &order[index + 1..];
            let next = later
                .first()
                .map(|next| self.first_group(*next))
                .transpose()?
                .flatten();
            let mut bytes = self.load(number)?;
            let base = next.map(|next| next.base);
            let known = base.filter(|base| base.segment() == number);
            let end = known.map(|end| end.offset() as usize);
            bytes.truncate(end.unwrap_or(usize::MAX));
            let gap = base.filter(|base| base.segment() > number);
            self.recovery
                .damaged
                .extend(gap.map(|base| Damage::missing(base.segment())));
            let segment = Segment {
                number,
                bytes: &bytes,
                end,
                later,
                followed: next.is_some(),
                gap: gap.is_some(),
            };
            let from = if number == start.segment() {
                start.offset()
            } else {
                SEGMENT_HEADER
            };
            if index == 0 {
                self.out.base = self.first_group(number)?.map_or(start, |group| group.base);
            }
            if !self.walk(&segment, from as usize)? {
                break;
            }
            self.out.base = self.out.end;
        }
        Ok(std::mem::take(&mut self.out))
    }

    /// Reports segments that should be there before the first that is.
    fn check_start(&mut self, order: &[u32], start: Lsn) -> Result<()> {
        if start != Lsn::default() {
            if order.first() != Some(&start.segment()) {
                self.recovery.damaged.push(Damage::missing(start.segment()));
            }
            return Ok(());
        }
        let first = order
            .first()
            .map(|number| self.first_group(*number))
            .transpose()?
            .flatten();
        if let Some(base) = first
            .map(|group| group.base)
            .filter(|base| *base != Lsn::default())
        {
            self.recovery.damaged.push(Damage::missing(base.segment()));
        }
        Ok(())
    }

    /// Walks through one segment; returns whether the log goes on in the next.
    fn walk(&mut self, segment: &Segment<'_>, mut at: usize) -> Result<bool> {
        let number = segment.number;
        // Where a closing mark ends, any mark, and the last group.
        let (mut closed, mut marked, mut reach) = (0, 0, 0);
        let go_on = loop {
            if segment.end.is_some_and(|end| at >= end) {
                break true;
            }
            let lsn = Lsn::new(number, at as u32);
            let item = parse(segment.bytes.get(at..).unwrap_or_default(), self.salt, lsn);
            let skip = match item {
                Item::Group(group) => {
                    self.out.durable = self.out.durable.max(group.durable);
                    self.out.base = group.base;
                    reach = at + group.len as usize;
                    at += GROUP_HEADER;
                    closed = if group.closed { at } else { 0 };
                    marked = if group.len as usize == GROUP_HEADER {
                        at
                    } else {
                        0
                    };
                    continue;
                }
                Item::Record {
                    kind,
                    payload,
                    bytes,
                } => {
                    self.take(lsn, kind, payload);
                    at += bytes;
                    continue;
                }
                Item::Broken { bytes } => Some(bytes),
                Item::Nothing => None,
            };
            if at == closed && !segment.followed {
                self.out.clean = true;
                break false;
            }
            let evidence = self.evidence(segment, at, &mut reach)?;
            if lsn >= evidence {
                self.out.marked = at == marked;
                self.out.torn_bytes = reach.saturating_sub(at) as u64;
                break false;
            }
            match self.skip(segment, at, skip, evidence) {
                Some(next) => at = next,
                None => break true,
            }
        };
        self.out.ends.insert(number, at as u32);
        self.out.end = Lsn::new(number, at as u32);
        Ok(go_on)
    }

    fn take(&mut self, lsn: Lsn, kind: u8, payload: &[u8]) {
        if kind != KIND_RELEASE {
            self.recovery.records += 1;
            (self.visit)(Entry::Record(lsn, kind, payload));
        } else if payload.len() == 4 {
            self.released.insert(u32_at(payload, 0));
        }
    }

    /// Reports the damage at `at` and returns where to go on; `None` if that is in the next segment.
    fn skip(
        &mut self,
        segment: &Segment<'_>,
        at: usize,
        known: Option<usize>,
        evidence: Lsn,
    ) -> Option<usize> {
        let here = evidence.segment() == segment.number;
        // What lies behind the evidence is looked at for itself.
        let most = match here {
            true => evidence.offset() as usize,
            false => segment.end.unwrap_or(segment.bytes.len()).max(at),
        };
        let next = known.map_or_else(|| self.resync(segment, at), |len| Some(at + len));
        let next = next.filter(|next| *next < most).or(here.then_some(most));
        let reason = match known {
            Some(_) => "record does not match its checksum",
            None => "no valid record",
        };
        if next.is_some() || !segment.gap {
            let len = next.unwrap_or(most) - at;
            let damage = Damage::in_segment(segment.number, at as u32, len as u32, reason);
            self.recovery.damaged.push(damage);
        }
        next
    }

    /// The next valid record or group header behind `at`.
    fn resync(&self, segment: &Segment<'_>, at: usize) -> Option<usize> {
        let valid = |next: &usize| {
            let lsn = Lsn::new(segment.number, *next as u32);
            let item = parse(&segment.bytes[*next..], self.salt, lsn);
            matches!(item, Item::Record { .. } | Item::Group(_))
        };
        (at + ALIGN..segment.bytes.len()).step_by(ALIGN).find(valid)
    }

    /// The furthest any valid group behind `at` says the log was durable; moves `reach` to the end
    /// of the furthest group of this segment.
    fn evidence(&mut self, segment: &Segment<'_>, at: usize, reach: &mut usize) -> Result<Lsn> {
        if let Some(known) = self.evidence {
            return Ok(known);
        }
        let mut durable = self.out.durable;
        groups(segment.bytes, at, self.salt, segment.number, |at, group| {
            durable = durable.max(group.durable);
            *reach = (*reach).max(at + group.len as usize);
            true
        });
        for &number in segment.later {
            let bytes = self.load(number)?;
            groups(
                &bytes,
                SEGMENT_HEADER as usize,
                self.salt,
                number,
                |_, group| {
                    durable = durable.max(group.durable);
                    true
                },
            );
        }
        self.evidence = Some(durable);
        Ok(durable)
    }

    /// The first valid group header of a segment.
    fn first_group(&self, number: u32) -> Result<Option<Group>> {
        let file = self
            .files
            .disk
            .open(&self.files.segment(number), Access::Read)?;
        let lsn = Lsn::new(number, SEGMENT_HEADER);
        let head = read_up_to(&*file, SEGMENT_HEADER, UNTOUCHED)?;
        let mut first = Group::parse(&head, self.salt, lsn);
        if head.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if first.is_none() {
            let bytes = self.load(number)?;
            groups(
                &bytes,
                SEGMENT_HEADER as usize,
                self.salt,
                number,
                |_, group| {
                    first = Some(group);
                    false
                },
            );
        }
        Ok(first)
    }

    fn load(&self, number: u32) -> Result<Vec<u8>> {
        let file = self
            .files
            .disk
            .open(&self.files.segment(number), Access::Read)?;
        let len = u32::try_from(file.len()?).unwrap_or(u32::MAX);
        Ok(read_up_to(&*file, 0, len as usize)?)
    }
}

/// Calls `each` with every valid group header from `at` on, until it returns false.
fn groups(
    bytes: &[u8],
    at: usize,
    salt: Salt,
    number: u32,
    mut each: impl FnMut(usize, Group) -> bool,
) {
    for at in (at..bytes.len()).step_by(ALIGN) {
        if Group::is_like(&bytes[at..]) {
            let lsn = Lsn::new(number, at as u32);
            let group = Group::parse(&bytes[at..], salt, lsn);
            if group.is_some_and(|group| !each(at, group)) {
                return;
            }
        }
    }
}
