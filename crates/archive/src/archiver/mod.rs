//! From the archive queue to the ledger, then the ack.
