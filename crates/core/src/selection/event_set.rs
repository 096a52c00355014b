//! [`EventSet`]: events by (source, id), or by id alone. Millions in little memory: ids lie in one
//! text, sources are kept once, and a table of numbers finds them.

use crate::names::{LONG_BYTES_MAX, SHORT_BYTES_MAX, check};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Longest ids and sources together, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 30;
/// The source of an event that is named by its id alone.
const ANY: u32 = u32::MAX;
/// Slots of the smallest table.
const SLOTS_MIN: usize = 16;

/// Events by (source, id), or by id whatever their source. Keeps the order they were added in.
///
/// Takes about 20 bytes beside the text of an id.
#[derive(Clone, Default)]
pub struct EventSet {
    sources: Vec<Arc<str>>,
    by_source: HashMap<Arc<str>, u32>,
    /// The ids, one after the other.
    ids: String,
    named: Vec<Named>,
    /// Places in `named` plus one, by hash; 0 is free. At most half full.
    slots: Vec<u32>,
    of_any_source: usize,
    source_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Named {
    /// Where its id ends; it starts where the one before ends.
    end: u32,
    source: u32,
}

impl EventSet {
    /// No event.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event; `false` if it is there already.
    pub fn insert(&mut self, source: &str, id: &str) -> Result<bool> {
        check("source", source, LONG_BYTES_MAX)?;
        check("id", id, SHORT_BYTES_MAX)?;
        let source = self.number_of(source)?;
        self.add(source, id)
    }

    /// Adds all events of an id, whatever their source; `false` if it is there already.
    pub fn insert_id(&mut self, id: &str) -> Result<bool> {
        check("id", id, SHORT_BYTES_MAX)?;
        let added = self.add(ANY, id)?;
        self.of_any_source += usize::from(added);
        Ok(added)
    }

    /// Whether an event is in the set: it or its id was added.
    #[inline]
    pub fn contains(&self, source: &str, id: &str) -> bool {
        self.find(Some(source), id).is_some() || self.find(None, id).is_some()
    }

    /// The number of an event, or of an id added without source, in the order of adding.
    pub fn find(&self, source: Option<&str>, id: &str) -> Option<usize> {
        let source = match source {
            Some(source) => *self.by_source.get(source)?,
            None if self.of_any_source == 0 => return None,
            None => ANY,
        };
        self.place(source, id).ok()
    }

    /// What was added as this number: source, if one was given, and id.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, number: usize) -> (Option<&str>, &str) {
        let source = self.named[number].source;
        let source = (source != ANY).then(|| &*self.sources[source as usize]);
        (source, self.id(number))
    }

    /// All, in the order of adding.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Option<&str>, &str)> {
        (0..self.len()).map(|number| self.get(number))
    }

    /// How many were added.
    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// How many of them are ids without a source.
    pub fn of_any_source(&self) -> usize {
        self.of_any_source
    }

    /// Memory it takes, about.
    pub fn bytes(&self) -> usize {
        self.ids.capacity()
            + self.named.capacity() * size_of::<Named>()
            + self.slots.len() * size_of::<u32>()
            + self.source_bytes
    }

    fn id(&self, number: usize) -> &str {
        let start = number.checked_sub(1).map_or(0, |n| self.named[n].end);
        &self.ids[start as usize..self.named[number].end as usize]
    }

    fn number_of(&mut self, source: &str) -> Result<u32> {
        if let Some(&number) = self.by_source.get(source) {
            return Ok(number);
        }
        self.check_room(source)?;
        let source: Arc<str> = source.into();
        let number = self.sources.len() as u32;
        // What two lists, a table and an allocation take beside the text.
        self.source_bytes += source.len() + 80;
        self.sources.push(Arc::clone(&source));
        self.by_source.insert(source, number);
        Ok(number)
    }

    fn add(&mut self, source: u32, id: &str) -> Result<bool> {
        if (self.named.len() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let Err(slot) = self.place(source, id) else {
            return Ok(false);
        };
        self.check_room(id)?;
        self.ids.push_str(id);
        let end = self.ids.len() as u32;
        self.named.push(Named { end, source });
        self.slots[slot] = self.named.len() as u32;
        Ok(true)
    }

    fn check_room(&self, text: &str) -> Result<()> {
        match self.ids.len() + self.source_bytes + text.len() > TEXT_BYTES_MAX {
            true => Err(Error::invalid(format!(
                "the listed ids and sources are longer than {TEXT_BYTES_MAX} bytes; split the list"
            ))),
            false => Ok(()),
        }
    }

    /// The number of what is there, or the free slot where it belongs.
    fn place(&self, source: u32, id: &str) -> Result<usize, usize> {
        if self.slots.is_empty() {
            return Err(0);
        }
        let mask = self.slots.len() - 1;
        let mut slot = hash(source, id) & mask;
        loop {
            let Some(number) = self.slots[slot].checked_sub(1) else {
                return Err(slot);
            };
            let number = number as usize;
            if self.named[number].source == source && self.id(number) == id {
                return Ok(number);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(SLOTS_MIN);
        self.slots = vec![0; len];
        for number in 0..self.named.len() {
            let mut slot = hash(self.named[number].source, self.id(number)) & (len - 1);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (len - 1);
            }
            self.slots[slot] = number as u32 + 1;
        }
    }
}

/// The same in every process: nothing of it is written down, but tests repeat.
#[inline]
fn hash(source: u32, id: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    (source, id).hash(&mut hasher);
    hasher.finish() as usize
}

impl PartialEq for EventSet {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(s, id)| other.find(s, id).is_some())
    }
}

impl Eq for EventSet {}

impl fmt::Debug for EventSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSet")
            .field("len", &self.len())
            .field("of_any_source", &self.of_any_source)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn it_holds_what_a_plain_set_holds_in_the_order_of_adding(
            added in prop::collection::vec((prop::option::of(0u8..4), 0u8..40), 0..200),
        ) {
            let mut events = EventSet::new();
            let mut plain = HashSet::new();
            let mut order = Vec::new();
            for (source, id) in added {
                let (source, id) = (source.map(|s| format!("/s-{s}")), format!("id-{id}"));
                let fresh = match &source {
                    Some(source) => events.insert(source, &id).unwrap(),
                    None => events.insert_id(&id).unwrap(),
                };
                prop_assert_eq!(fresh, plain.insert((source.clone(), id.clone())));
                if fresh {
                    order.push((source, id));
                }
            }
            let owned = |(s, id): (Option<&str>, &str)| (s.map(str::to_owned), id.to_owned());
            prop_assert_eq!(events.iter().map(owned).collect::<Vec<_>>(), order);
            for source in 0..5 {
                for id in 0..41 {
                    let (source, id) = (format!("/s-{source}"), format!("id-{id}"));
                    let expected = plain.contains(&(Some(source.clone()), id.clone()))
                        || plain.contains(&(None, id.clone()));
                    prop_assert_eq!(events.contains(&source, &id), expected);
                }
            }
        }
    }

    #[test]
    fn a_hundred_thousand_take_about_twenty_bytes_beside_their_ids() {
        let mut events = EventSet::new();
        let id = |n: usize| format!("0195a8f0-0000-7000-8000-{n:012}");
        for n in 0..100_000 {
            assert!(events.insert("/shop", &id(n)).unwrap());
        }
        assert_eq!(events.len(), 100_000);
        assert!((0..100_000).all(|n| events.contains("/shop", &id(n))));
        assert!(!events.contains("/mail", &id(1)) && !events.contains("/shop", &id(100_000)));
        let most = 100_000 * (2 * 36 + 24);
        assert!(events.bytes() < most, "{} bytes", events.bytes());
    }

    #[test]
    fn what_is_no_source_or_id_is_refused() {
        let mut events = EventSet::new();
        for (source, id) in [("", "a"), ("/s", ""), ("/s", "a\u{0}"), ("/s\n", "a")] {
            assert!(events.insert(source, id).is_err(), "{source:?} {id:?}");
        }
        assert!(events.insert_id(&"x".repeat(256)).is_err());
        assert!(events.is_empty() && !events.contains("", ""));
    }

    #[test]
    fn sets_are_equal_whatever_the_order() {
        let set = |of: &[(&str, &str)]| {
            let mut events = EventSet::new();
            for (source, id) in of {
                events.insert(source, id).unwrap();
            }
            events
        };
        assert_eq!(
            set(&[("/a", "1"), ("/b", "1")]),
            set(&[("/b", "1"), ("/a", "1")])
        );
        assert_ne!(
            set(&[("/a", "1"), ("/b", "1")]),
            set(&[("/a", "1"), ("/b", "2")])
        );
    }
}
