//! CloudEvents in binary mode (`cloudEvents_*` headers), to and from the canonical envelope.
