//! Randomness, injected: [`Random`] fills buffers, and mints event ids.

use crate::{Clock, EventId};
use std::fmt::Debug;

/// A source of unpredictable bytes.
pub trait Random: Debug + Send + Sync + 'static {
    /// Fills `buffer`.
    fn fill(&self, buffer: &mut [u8]);

    /// A random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Mints a UUIDv7 (RFC 9562): time-ordered by the clock, unique by 74 random bits.
pub fn mint_id(clock: &dyn Clock, random: &dyn Random) -> EventId {
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    let millis = u64::try_from(clock.now().as_millisecond()).unwrap_or(0);
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid();
    EventId::new(id.hyphenated().to_string()).expect("a UUID is a valid id")
}
