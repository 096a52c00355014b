//! [`Pace`]: how many events may go at a time, and when the next may. Pure: is told the time.

use std::num::NonZeroU32;
use std::time::Duration;
use tokio::time::Instant;

/// Most events handed to a target at a time.
const PART_MAX: usize = 1024;
/// Parts of a second in which a slow replay goes.
const PARTS_PER_SECOND: u32 = 20;
/// How much time lost to a slow target is made up for, by going faster afterwards.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// Keeps to a rate.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    rate: Option<NonZeroU32>,
    /// When the next event is due; `None` before the first.
    due: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(rate: Option<NonZeroU32>) -> Self {
        Self { rate, due: None }
    }

    /// Events to hand over at a time.
    pub(crate) fn part(&self) -> usize {
        match self.rate {
            None => PART_MAX,
            Some(rate) => (rate.get() / PARTS_PER_SECOND).clamp(1, PART_MAX as u32) as usize,
        }
    }

    /// When the next `count` events may go; counts them as gone.
    pub(crate) fn next(&mut self, count: usize, now: Instant) -> Instant {
        let Some(rate) = self.rate else { return now };
        let earliest = now.checked_sub(BEHIND_MAX).unwrap_or(now);
        let start = self.due.unwrap_or(now).max(earliest);
        self.due = Some(start + Duration::from_secs_f64(count as f64 / f64::from(rate.get())));
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_due_at_the_rate_whatever_the_parts() {
        let start = Instant::now();
        let mut pace = Pace::new(NonZeroU32::new(100));
        assert_eq!(pace.part(), 5);
        assert_eq!(pace.next(5, start), start);
        assert_eq!(pace.next(50, start), start + seconds(0.05));
        assert_eq!(pace.next(1, start), start + seconds(0.55));
        assert_eq!(Pace::new(NonZeroU32::new(1)).part(), 1);
        assert_eq!(Pace::new(NonZeroU32::new(u32::MAX)).part(), PART_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_stall_is_not_made_up_for_by_a_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(NonZeroU32::new(100));
        pace.next(100, start);
        let late = start + seconds(60.0);
        assert_eq!(pace.next(1, late), late - BEHIND_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        let now = Instant::now();
        let mut pace = Pace::new(None);
        assert_eq!(pace.next(1_000_000, now), now);
        assert_eq!(pace.next(1, now), now);
    }
}
