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

    /// Notes a delivery that is not handed on and so is never settled; returns its tag.
    #[cfg(feature = "embedded")]
    pub(crate) fn leave_out(&mut self) -> u64 {
        let tag = self.push();
        self.close(self.open.len() - 1);
        tag
    }

    /// The unsettled tags up to one.
    #[cfg(feature = "embedded")]
    pub(crate) fn up_to(&self, tag: u64) -> impl Iterator<Item = u64> {
        let all = (self.settled_up_to + 1..=tag).zip(&self.open);
        all.filter(|(_, open)| **open).map(|(tag, _)| tag)
    }

    /// Refuses a tag that is not unsettled.
    #[cfg(any(feature = "embedded", feature = "amqp"))]
    pub(crate) fn check(&self, tags: Tags) -> Result<()> {
        self.place(tags).map(drop)
    }

    /// Notes a settlement; refuses a tag that is not unsettled.
    pub(crate) fn settle(&mut self, tags: Tags) -> Result<()> {
        let place = self.place(tags)?;
        if let Tags::UpTo(_) = tags {
            self.open.drain(..place);
            self.settled_up_to += place as u64;
            self.close(0);
        } else {
            self.close(place);
        }
        Ok(())
    }

    fn close(&mut self, place: usize) {
        self.open[place] = false;
        while self.open.front() == Some(&false) {
            self.open.pop_front();
            self.settled_up_to += 1;
        }
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

    #[cfg(feature = "embedded")]
    #[test]
    fn a_tag_left_out_is_never_settled_nor_in_the_way() {
        let mut unsettled = Unsettled::default();
        assert_eq!((unsettled.leave_out(), unsettled.push()), (1, 2));
        assert_eq!((unsettled.push(), unsettled.leave_out()), (3, 4));
        assert_eq!((unsettled.push(), unsettled.leave_out()), (5, 6));
        for left_out in [1, 4, 6] {
            assert!(unsettled.settle(Tags::One(left_out)).is_err());
            assert!(unsettled.settle(Tags::UpTo(left_out)).is_err());
        }
        assert!(unsettled.up_to(3).eq([2, 3]));
        unsettled.settle(Tags::UpTo(3)).unwrap();
        assert!(unsettled.up_to(5).eq([5]));
        unsettled.settle(Tags::One(5)).unwrap();
        assert_eq!((unsettled.settled_up_to, unsettled.push()), (6, 7));
    }
}
