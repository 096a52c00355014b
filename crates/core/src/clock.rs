//! Time, injected: [`Clock`] says what time it is; nothing's correctness rests on its answer.

use crate::Timestamp;
use std::fmt::Debug;

/// The wall clock. May jump either way.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// The time now in microseconds since 1970-01-01T00:00:00Z.
    fn now_us(&self) -> i64 {
        self.now().as_microsecond()
    }
}
