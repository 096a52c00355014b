//! `annals lake`: the tables that history is converted to.
//!
//! A running server is asked; without one the bucket is read, and to change it the directory is
//! locked.

pub mod convert;
pub mod rebuild;
pub mod status;
pub mod tables;

use super::Context;
use crate::address::DirectoryLock;
use crate::exit::Result;
use crate::platform::BUS;
use crate::questions::CurrentSchemas;
use annals_archive::Ledger;
use annals_core::system::SystemDisk;
use annals_lake::Converter;
use annals_lake::converter::Config;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List the tables: rows, files, bytes
    Tables(tables::Args),
    /// Say how far the lake has come, and what is wrong with it
    Status(status::Args),
    /// Convert now what is archived
    Convert(convert::Args),
    /// Make a table, or days of it, anew from the archive
    Rebuild(rebuild::Args),
}

/// Does it.
pub async fn run(verb: Verb, context: &mut Context) -> Result<()> {
    match verb {
        Verb::Tables(args) => tables::run(args, context).await,
        Verb::Status(args) => status::run(args, context).await,
        Verb::Convert(args) => convert::run(args, context).await,
        Verb::Rebuild(args) => rebuild::run(args, context).await,
    }
}

/// The status, from a server or from the bucket.
async fn status_of(context: &Context) -> Result<crate::lake::LakeStatus> {
    if let Some(server) = context.find_server().await? {
        return server.lake().await;
    }
    let bucket = context.open_bucket()?;
    let schemas = CurrentSchemas::of_bucket(&bucket).await?.get();
    let ledger = Ledger::open(bucket, BUS).await?;
    crate::lake::LakeStatus::of(ledger, &schemas).await
}

/// A converter of the directory's lake, where no server runs.
async fn converter(context: &Context) -> Result<(DirectoryLock, Converter)> {
    let lock = DirectoryLock::take(&SystemDisk, &context.dir)?;
    let bucket = context.open_bucket()?;
    let schemas = CurrentSchemas::of_bucket(&bucket).await?.get();
    let ledger = Ledger::open(bucket, BUS).await?;
    Ok((lock, Converter::new(ledger, schemas, Config::default())))
}
