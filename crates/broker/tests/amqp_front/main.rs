//! The TCP front from outside: raw sockets, and clients that know RabbitMQ only.

mod corpus;
mod flow;
mod full_disk;
mod other_clients;
mod peer;
mod rust_client;
mod server;
mod wire;
