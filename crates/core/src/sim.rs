//! What a simulation injects: a disk that crashes on command, a clock moved by hand, seeded
//! randomness.
//!
//! ```
//! use annals_core::{disk::Disk, sim::SimDisk};
//! use std::path::Path;
//!
//! let disk = SimDisk::new();
//! let file = disk.create(Path::new("/a"))?;
//! file.write_all_at(b"kept?", 0)?;
//! // Neither the bytes nor the name were synced: a crash here may leave either, both or none.
//! for image in disk.crash_images(disk.steps(), 7, 20) {
//!     let left = image.content(Path::new("/a"));
//!     assert!(matches!(left.as_deref(), None | Some(b"" | b"kept?")));
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

mod crash;
mod disk;

pub use disk::{SimDisk, SimOp};

use crate::{Clock, Random, Timestamp};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct SimClock(Mutex<Timestamp>);

impl SimClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now += by;
    }

    /// Moves it anywhere, backwards too.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl Default for SimClock {
    /// Stands at 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self::new(Timestamp::constant(1_767_225_600, 0))
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Random numbers that a seed decides (splitmix64).
#[derive(Debug)]
pub struct SimRandom(AtomicU64);

impl SimRandom {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// True once in `n` times.
    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

impl Random for SimRandom {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
