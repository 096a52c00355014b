//! CloudEvents in JSON, to and from the canonical envelope.
