//! `annals schema`: the `.proto` files that events are described by.

pub mod list;
pub mod push;

use super::Context;
use crate::exit::Result;

/// What to do with schemas.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Store .proto files as the next revision, if they compile
    Push(push::Args),
    /// List the types that have a schema
    List(list::Args),
}

/// Does it.
pub async fn run(verb: Verb, context: &mut Context) -> Result<()> {
    match verb {
        Verb::Push(args) => push::run(args, context).await,
        Verb::List(args) => list::run(args, context).await,
    }
}
