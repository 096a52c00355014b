//! The converter, from a ledger to tables: what is in them, and that nothing that happens to it or
//! to them on the way changes that.

mod checkpoints;
mod convert;
mod damage;
mod interrupted;
mod schemas;
mod world;
