//! AMQP 0-9-1 in one process: the zero-install bus, on one durable log.

pub mod log;
