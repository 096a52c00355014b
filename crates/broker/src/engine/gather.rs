//! When a group is large enough: it gathers what publishers have under way.
//!
//! Publishers that keep a fixed number of messages under way replace those that are confirmed at
//! once. So after each commit as many are expected as were under way when it was told of, and the
//! next group is sealed when they are there: else confirms in small groups bring publishes in small
//! groups, for ever. docs/decisions/0006-a-group-gathers.md has the measurements.
//!
//! Messages are counted from the start of the broker.

use std::time::{Duration, Instant};

/// Messages, and bytes, that are a group worth a sync of its own: no more are waited for.
pub(super) const MESSAGES_MAX: u64 = 512;
pub(super) const BYTES_MAX: usize = 1 << 20;
/// Fewer messages are not waited for.
const MESSAGES_MIN: u64 = 8;
/// Longest wait for a group to gather.
const WAIT_MAX: Duration = Duration::from_millis(10);
/// It ends sooner when in one step of it no more than so many messages come, and the group after it
/// is not waited for: at such rates, some 6,000 a second, a sync of their own costs little, and
/// waiting would show.
const STEP: Duration = Duration::from_millis(2);
const STEP_MESSAGES: u64 = 12;

/// The wait for one group.
#[derive(Debug)]
pub(super) struct Gather {
    /// Messages in the groups sealed, and in those before the last of them.
    sealed: u64,
    before: u64,
    /// The group is sealed when so many messages came.
    goal: u64,
    /// When it stops waiting, and when the step ends.
    until: Instant,
    step_until: Instant,
    /// Messages that had come when the step began.
    step_from: u64,
    /// Whether the last wait was in vain.
    in_vain: bool,
}

impl Gather {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sealed: 0,
            before: 0,
            goal: 0,
            until: now,
            step_until: now,
            step_from: 0,
            in_vain: false,
        }
    }

    /// A group was sealed that holds all messages up to this one.
    pub(super) fn sealed(&mut self, messages: u64) {
        self.before = std::mem::replace(&mut self.sealed, messages);
        self.goal = 0;
    }

    /// Its commit is done. When it was told of, so many messages had come.
    pub(super) fn committed(&mut self, came: u64, now: Instant) {
        let under_way = came - self.before;
        if under_way >= MESSAGES_MIN && !std::mem::take(&mut self.in_vain) {
            // Of many, half: it is made while the other half is committed.
            self.goal = self.sealed + under_way.min(MESSAGES_MAX).max(under_way / 2);
            self.until = now + WAIT_MAX;
            self.begin_step(came, now);
        }
    }

    /// Whether a group that ends with this message waits for nothing more.
    pub(super) fn is_reached(&self, message: u64) -> bool {
        message >= self.goal
    }

    /// How many messages to wait for, and until when; `None` if for no more than the `came` that
    /// came until now.
    pub(super) fn wait(&mut self, came: u64, now: Instant) -> Option<(u64, Instant)> {
        if came >= self.goal {
            return None;
        }
        if now >= self.step_until && came - self.step_from <= STEP_MESSAGES {
            self.in_vain = true;
        }
        if self.in_vain || now >= self.until {
            self.goal = 0;
            return None;
        }
        if now >= self.step_until {
            self.begin_step(came, now);
        }
        Some((self.goal, self.step_until.min(self.until)))
    }

    fn begin_step(&mut self, came: u64, now: Instant) {
        self.step_until = now + STEP;
        self.step_from = came;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gather with so many messages sealed, of which `last` in the last group, whose commit was
    /// told of when `came` had come.
    fn after(sealed: u64, last: u64, came: u64) -> (Gather, Instant) {
        let now = Instant::now();
        let mut gather = Gather::new(now);
        gather.sealed(sealed - last);
        gather.sealed(sealed);
        gather.committed(came, now);
        (gather, now)
    }

    #[track_caller]
    fn check(sealed: u64, last: u64, came: u64, goal: Option<u64>) {
        let (mut gather, now) = after(sealed, last, came);
        let wait = gather.wait(came, now);
        assert_eq!(wait.map(|(goal, _)| goal), goal);
    }

    #[test]
    fn what_was_under_way_is_expected_again() {
        check(1_000, 100, 1_000, Some(1_100));
        check(1_000, 100, 1_050, Some(1_150));
    }

    #[test]
    fn a_few_and_a_group_that_is_there_are_not_waited_for() {
        check(1_000, 7, 1_000, None);
        check(1_000, 3, 1_004, None);
        check(1_000, 100, 1_900, None);
    }

    #[test]
    fn no_more_are_waited_for_than_are_worth_a_sync() {
        check(2_000, 900, 2_100, Some(2_000 + MESSAGES_MAX));
    }

    #[test]
    fn of_many_under_way_half_is_a_group() {
        check(10_000, 3_000, 11_000, Some(12_000));
    }

    #[test]
    fn messages_that_come_after_the_confirm_are_not_expected_on_top() {
        let (mut gather, now) = after(256, 256, 256);
        // 64 of the 256 that replace those confirmed.
        assert_eq!(gather.wait(320, now).map(|(goal, _)| goal), Some(512));
        assert!(gather.wait(512, now).is_none());
    }

    #[test]
    fn a_wait_in_vain_ends_early_and_is_not_repeated() {
        let (mut gather, now) = after(256, 256, 256);
        let (_, until) = gather.wait(300, now).unwrap();
        assert_eq!(until, now + STEP);
        assert!(gather.wait(300, until).is_some(), "many came");
        let later = until + STEP;
        assert!(gather.wait(300 + STEP_MESSAGES, later).is_none());
        gather.sealed(312);
        gather.committed(400, later);
        assert!(gather.wait(400, later).is_none());
        gather.sealed(400);
        gather.committed(400, later);
        assert!(gather.wait(400, later).is_some(), "but the one after it is");
    }

    #[test]
    fn a_long_wait_has_an_end() {
        let (mut gather, now) = after(1_000, 500, 1_000);
        let mut came = 1_000;
        let mut at = now;
        while let Some((_, until)) = gather.wait(came, at) {
            came += STEP_MESSAGES + 1;
            at = until;
        }
        assert_eq!(at, now + WAIT_MAX);
    }
}
