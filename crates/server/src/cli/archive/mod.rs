//! `annals archive`: look at what is kept.
//!
//! A running server is asked; without one, or where a bucket is named, that is read, and nothing in
//! it is changed.

pub mod cat;
pub mod ls;
pub mod seal;
pub mod stats;
pub mod verify;

use super::Context;
use crate::exit::Result;

/// What to look at.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List the segments, as the ledger names them
    Ls(ls::Args),
    /// Print archived events
    Cat(cat::Args),
    /// Prove that all is there and intact
    Verify(verify::Args),
    /// Count events, by type and day
    Stats(stats::Args),
    /// Archive now what was published so far
    Seal(seal::Args),
}

/// Does it.
pub async fn run(verb: Verb, context: &mut Context) -> Result<()> {
    match verb {
        Verb::Ls(args) => ls::run(args, context).await,
        Verb::Cat(args) => cat::run(args, context).await,
        Verb::Verify(args) => verify::run(args, context).await,
        Verb::Stats(args) => stats::run(args, context).await,
        Verb::Seal(args) => seal::run(args, context).await,
    }
}
