//! [`SkipList`]: the records of a ledger entry that are duplicates of earlier ones.

use annals_core::frame::{put_varint, take_varint};
use annals_core::{Error, Result};
use std::sync::Arc;

/// Ordinals of a ledger entry that a reader leaves out, ascending. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkipList {
    ordinals: Arc<[u32]>,
}

impl SkipList {
    /// Takes ascending ordinals.
    pub(crate) fn new(ordinals: impl Into<Arc<[u32]>>) -> Self {
        let ordinals = ordinals.into();
        debug_assert!(ordinals.is_sorted_by(|a, b| a < b));
        Self { ordinals }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ordinals.len()
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.ordinals.is_empty()
    }

    /// The ordinals, ascending.
    pub fn ordinals(&self) -> &[u32] {
        &self.ordinals
    }

    /// Whether an ordinal is left out.
    pub fn contains(&self, ordinal: u32) -> bool {
        self.ordinals.binary_search(&ordinal).is_ok()
    }

    /// For asking in ascending order.
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor {
            all: &self.ordinals,
            rest: None,
        }
    }

    /// Appends count and distances as varints.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        put_varint(self.ordinals.len() as u64, out);
        let mut next = 0;
        for &ordinal in self.ordinals.iter() {
            put_varint(u64::from(ordinal - next), out);
            next = ordinal.wrapping_add(1);
        }
    }

    /// Reads what [`SkipList::encode_into`] wrote, and what follows it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let cut = || Error::corrupt("a skip list is cut");
        let (count, mut rest) = take_varint(bytes).ok_or_else(cut)?;
        // Each ordinal takes a byte at least: the count takes no memory that is not there.
        let count = usize::try_from(count)
            .ok()
            .filter(|&n| n <= rest.len())
            .ok_or_else(cut)?;
        let mut ordinals = Vec::with_capacity(count);
        let mut next = 0u64;
        for _ in 0..count {
            let (distance, after) = take_varint(rest).ok_or_else(cut)?;
            let ordinal = next.checked_add(distance).ok_or_else(cut)?;
            ordinals.push(u32::try_from(ordinal).map_err(|_| cut())?);
            next = ordinal + 1;
            rest = after;
        }
        Ok((Self::new(ordinals), rest))
    }
}

/// Answers in ascending order of ordinals without searching, in any other by searching.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    all: &'a [u32],
    rest: Option<&'a [u32]>,
}

impl Cursor<'_> {
    #[inline]
    pub(crate) fn contains(&mut self, ordinal: u32) -> bool {
        if self.all.is_empty() {
            return false;
        }
        // Where a frame starts, and after a step back, the place is searched for.
        let stepped_back = |rest: &&[u32]| {
            let passed = self.all.len() - rest.len();
            passed > 0 && self.all[passed - 1] >= ordinal
        };
        let mut rest = match self.rest.filter(|rest| !stepped_back(rest)) {
            Some(rest) => rest,
            None => &self.all[self.all.partition_point(|&o| o < ordinal)..],
        };
        while rest.first().is_some_and(|&o| o < ordinal) {
            rest = &rest[1..];
        }
        self.rest = Some(rest);
        rest.first() == Some(&ordinal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skip_lists_round_trip_and_cut_ones_are_refused() {
        for ordinals in [
            vec![],
            vec![0],
            vec![0, 1, 2],
            vec![7, 300, 70_000, u32::MAX],
        ] {
            let list = SkipList::new(ordinals.clone());
            let mut bytes = Vec::new();
            list.encode_into(&mut bytes);
            assert_eq!(
                SkipList::decode(&bytes).unwrap(),
                (list, &[][..]),
                "{ordinals:?}"
            );
            for cut in 0..bytes.len() {
                assert!(SkipList::decode(&bytes[..cut]).is_err());
            }
        }
        assert!(SkipList::decode(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    }

    #[test]
    fn a_cursor_answers_as_a_search_does_in_any_order() {
        let list = SkipList::new(vec![2, 3, 9, 40]);
        let mut cursor = list.cursor();
        for ordinal in (0..50).chain([9, 40, 2, 3, 1, 0, 49, 9]) {
            assert_eq!(
                cursor.contains(ordinal),
                list.contains(ordinal),
                "{ordinal}"
            );
        }
    }
}
