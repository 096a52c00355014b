//! The disk that crashes on command, for crash-state tests.
