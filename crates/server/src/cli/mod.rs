//! The command line: the tree of verbs, the flags all of them take, and how a run ends.
//!
//! A verb is a file: its `Args`, and a `run(args, context)` that a test can call. Data goes to
//! [`Context::out`], everything else to standard error.

pub mod archive;
pub mod context;
pub mod doctor;
pub mod lake;
pub mod progress;
pub mod publish;
pub mod quantity;
pub mod replay;
pub mod schema;
pub mod selection;
pub mod sql;
pub mod tail;
pub mod tour;
pub mod up;
pub mod version;

pub use context::Context;

use crate::bucket::BucketArgs;
use crate::exit::{Exit, Failure, Result};
use crate::output::Format;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// An open event platform: publish, archive, verify and replay events on one machine.
#[derive(Debug, Parser)]
#[command(name = "annals", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// The flags of every verb.
    #[command(flatten)]
    pub flags: Flags,
}

const EXAMPLES: &str = "\
Examples:
  annals tour                                            see it all work, on real events
  annals up                                              run the platform
  annals publish shop.v1.OrderPlaced -d '{\"total\":42}'   publish one event
  annals tail 'shop.#'                                   watch
  annals archive stats                                   what is kept
  annals archive verify                                  prove that it is intact
  annals sql 'SELECT type, count(*) FROM events GROUP BY type'
  annals replay --types 'shop.#' --to file:orders.binpb  give history back

Exit codes: 0 done, 1 failed, 2 usage, 3 nothing matched, 4 invalid, 5 conflict,
6 unreachable, 7 not allowed, 8 partly done, 9 difference found, 124 timed out, 130 interrupted

Guide: docs/guide/getting-started.md";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// See it all work: publish, archive, query and replay 5,000 real events
    Tour(tour::Args),
    /// Run the platform: broker, archiver and HTTP API on one directory
    Up(up::Args),
    /// Publish one event, or a file of them
    Publish(publish::Args),
    /// Watch events as they are published
    Tail(tail::Args),
    /// Give a part of history back: to a file, standard output or a private exchange
    Replay(replay::Args),
    /// Look at what is kept
    #[command(subcommand)]
    Archive(archive::Verb),
    /// Ask all of history, in SQL
    Sql(sql::Args),
    /// Look after the tables that SQL and other engines read
    #[command(subcommand)]
    Lake(lake::Verb),
    /// Manage the .proto files that events are described by
    #[command(subcommand)]
    Schema(schema::Verb),
    /// Check that this machine and directory can run the platform
    Doctor(doctor::Args),
    /// Print the version
    Version(version::Args),
}

/// The flags of every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Flags {
    /// How data is printed
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// The platform's directory [default: annals-data]
    #[arg(long, global = true, env = "ANNALS_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the archive is
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// A running server's HTTP address [default: the one of the directory]
    #[arg(long, global = true, env = "ANNALS_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// Say nothing on standard error but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more on standard error (twice: even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Never ask
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Answer every question with yes
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// When to use colours on standard error
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: clap::ColorChoice,
}

/// Parses, runs, and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are data, and no error; a closed pipe is none either.
            let _ = e.print();
            let code = u8::try_from(e.exit_code()).unwrap_or(Exit::Usage as u8);
            return ExitCode::from(code);
        }
    };
    let mut context = Context::of_process(&cli.flags);
    context.start_log();
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(cli.verb, &mut context)));
    match ended {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            context.report(&failure);
            failure.exit.into()
        }
    }
}

/// Runs a verb.
pub async fn run(verb: Verb, context: &mut Context) -> Result<()> {
    match verb {
        Verb::Tour(args) => tour::run(args, context).await,
        Verb::Up(args) => up::run(args, context).await,
        Verb::Publish(args) => publish::run(args, context).await,
        Verb::Tail(args) => tail::run(args, context).await,
        Verb::Replay(args) => replay::run(args, context).await,
        Verb::Archive(verb) => archive::run(verb, context).await,
        Verb::Sql(args) => sql::run(args, context).await,
        Verb::Lake(verb) => lake::run(verb, context).await,
        Verb::Schema(verb) => schema::run(verb, context).await,
        Verb::Doctor(args) => doctor::run(args, context).await,
        Verb::Version(args) => version::run(args, context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_of_verbs_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_explains_itself_and_shows_an_example() {
        fn check(command: &mut clap::Command, path: &str) {
            // Written by the parser itself, and the same everywhere.
            if command.get_name() == "help" {
                return;
            }
            let path = format!("{path} {}", command.get_name());
            let help = command.render_long_help().to_string();
            assert!(command.get_about().is_some(), "{path} has no description");
            if command.has_subcommands() {
                for sub in command.get_subcommands_mut() {
                    check(sub, &path);
                }
            } else {
                assert!(help.contains("Example"), "{path} shows no example:\n{help}");
            }
            for argument in command.get_arguments() {
                let name = argument.get_id();
                assert!(
                    argument.get_help().is_some(),
                    "{path}: {name} is not explained"
                );
            }
        }
        check(&mut Cli::command(), "");
    }

    #[test]
    fn a_wrong_command_line_exits_with_usage() {
        for line in [
            "annals nonsense",
            "annals up --port many",
            "annals publish --from a -d b",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), Exit::Usage as i32, "{line}");
        }
    }

    #[test]
    fn global_flags_are_taken_before_and_after_the_verb() {
        for line in ["annals -o json version", "annals version -o json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.flags.output, Some(Format::Json));
        }
    }
}
