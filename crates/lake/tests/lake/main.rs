//! The converter, from a ledger to tables: what is in them, and that nothing that happens to it or
//! to them on the way changes that.

mod convert;
mod damage;
mod interrupted;
mod world;
