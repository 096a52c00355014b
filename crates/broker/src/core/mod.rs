//! Pure, deterministic state of the broker: no I/O, no clock.

pub(crate) mod spec;
