//! The unsettled deliveries of one consumer, by tag: a wrong tag is refused here, before it costs
//! the channel it would be sent on.

use crate::{Error, Result, Tags};
use std::collections::VecDeque;

/// Dense tags from 1; which of them are unsettled. Amortised constant time, one byte a delivery
/// from the oldest unsettled one on.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    /// Tags up to here are settled.
    settled_up_to: u64,
    /// Whether each later tag is unsettled; the first always is.
    open: VecDeque<bool>,
}

impl Unsettled {
    /// Notes a delivery; returns its tag.
    pub(crate) fn push(&mut self) -> u64 {
        self.open.push_back(true);
        self.settled_up_to + self.open.len() as u64
    }

    /// Refuses a tag that is not unsettled.
    #[cfg(any(feature = "embedded", feature = "amqp"))]
    pub(crate) fn check(&self, tags: Tags) -> Result<()> {
        self.place(tags).map(drop)
    }

    /// Notes a settlement; refuses a tag that is not unsettled.
    pub(crate) fn settle(&mut self, tags: Tags) -> Result<()> {
        let place = self.place(tags)?;
        match tags {
            Tags::One(_) => self.open[place] = false,
            Tags::UpTo(_) => {
                self.open.drain(..=place);
                self.settled_up_to += place as u64 + 1;
            }
        }
        while self.open.front() == Some(&false) {
            self.open.pop_front();
            self.settled_up_to += 1;
        }
        Ok(())
    }

    fn place(&self, tags: Tags) -> Result<usize> {
        let (Tags::One(tag) | Tags::UpTo(tag)) = tags;
        let place = tag.checked_sub(self.settled_up_to + 1);
        let place = place.and_then(|place| usize::try_from(place).ok());
        let place = place.filter(|&place| self.open.get(place) == Some(&true));
        place.ok_or_else(|| Error::invalid(format!("delivery {tag} is not unsettled")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_settled_once_and_only_if_it_was_delivered() {
        let mut unsettled = Unsettled::default();
        let tags: Vec<u64> = (0..5).map(|_| unsettled.push()).collect();
        assert_eq!(tags, [1, 2, 3, 4, 5]);
        unsettled.settle(Tags::One(3)).unwrap();
        assert!(unsettled.settle(Tags::One(3)).is_err());
        assert!(unsettled.settle(Tags::UpTo(3)).is_err());
        unsettled.settle(Tags::UpTo(2)).unwrap();
        assert_eq!(unsettled.settled_up_to, 3);
        assert!(unsettled.settle(Tags::UpTo(2)).is_err());
        assert!(unsettled.settle(Tags::One(0)).is_err());
        assert!(unsettled.settle(Tags::UpTo(6)).is_err());
        assert!(unsettled.settle(Tags::One(u64::MAX)).is_err());
        unsettled.settle(Tags::UpTo(5)).unwrap();
        assert_eq!(unsettled.push(), 6);
    }
}
