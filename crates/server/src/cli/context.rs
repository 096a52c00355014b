//! [`Context`]: what a verb is run with — where data goes, which directory, which server.

use super::Flags;
use crate::address::Address;
use crate::bucket::BucketArgs;
use crate::client::Client;
use crate::exit::{Exit, Failure, Result};
use crate::history::History;
use crate::output::Output;
use annals_archive::Bucket;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Directory of a platform when none is named.
pub const DEFAULT_DIR: &str = "annals-data";
/// Where a server listens when nothing else is known.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7400";

/// What a verb is run with.
#[derive(Debug)]
pub struct Context {
    /// Where data goes.
    pub out: Output,
    /// The platform's directory.
    pub dir: PathBuf,
    /// Whether standard error is a person's terminal.
    pub interactive: bool,
    flags: Flags,
}

impl Context {
    /// The context of this process: its standard output, its terminal.
    pub fn of_process(flags: &Flags) -> Self {
        let writer = BufWriter::with_capacity(1 << 16, std::io::stdout());
        let mut context = Self::new(Output::new(writer, flags.output), flags);
        context.interactive = std::io::stderr().is_terminal();
        context
    }

    /// A context that writes its data to `out`.
    pub fn new(out: Output, flags: &Flags) -> Self {
        Self {
            out,
            dir: flags.data.clone().unwrap_or_else(|| DEFAULT_DIR.into()),
            interactive: false,
            flags: flags.clone(),
        }
    }

    /// Whether progress may be drawn.
    pub fn shows_progress(&self) -> bool {
        self.interactive && !self.flags.quiet
    }

    /// Whether questions are answered with yes.
    pub fn yes(&self) -> bool {
        self.flags.yes
    }

    /// Says something to the person running the verb.
    pub fn say(&self, line: impl std::fmt::Display) {
        if !self.flags.quiet {
            // Whoever closed standard error does not want to know.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Says why the verb ended early.
    pub fn report(&self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        let word = if self.colours() {
            "\u{1b}[1;31merror\u{1b}[0m"
        } else {
            "error"
        };
        let _ = writeln!(std::io::stderr(), "{word}: {failure}");
    }

    /// Starts the log on standard error: warnings, and more with `-v`, or as `ANNALS_LOG` says.
    pub fn start_log(&self) {
        let level = match (self.flags.quiet, self.flags.verbose) {
            (true, _) => "error,lapin=off",
            (_, 0) => "warn,lapin=off",
            (_, 1) => "info,lapin=off",
            _ => "debug",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_env("ANNALS_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
        // A second start in one process (tests) keeps the first.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(self.colours())
            .try_init();
    }

    fn colours(&self) -> bool {
        match self.flags.color {
            clap::ColorChoice::Always => true,
            clap::ColorChoice::Never => false,
            clap::ColorChoice::Auto => {
                let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
                let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
                self.interactive && !dumb && !refused
            }
        }
    }

    /// The bucket asked for.
    pub fn bucket_args(&self) -> &BucketArgs {
        &self.flags.bucket
    }

    /// The bucket, where no server is asked.
    pub fn open_bucket(&self) -> Result<Arc<dyn Bucket>> {
        self.flags.bucket.open_to_read(&self.dir)
    }

    /// The archive, where no server is asked.
    pub async fn open_history(&self) -> Result<History> {
        let bucket = self.open_bucket()?;
        self.check_named(&*bucket).await?;
        History::open(bucket).await
    }

    /// Refuses a bucket that was named and holds nothing: a slip in its name would be an archive
    /// without events, and intact.
    pub async fn check_named(&self, bucket: &dyn Bucket) -> Result<()> {
        match &self.flags.bucket.bucket {
            Some(named) if bucket.list("", None).await?.is_empty() => Err(Failure::new(
                Exit::Unreachable,
                format!("{named} holds no archive"),
            )
            .next("name the bucket and the prefix that annals up was given")),
            _ => Ok(()),
        }
    }

    /// The running server, if there is one. A server that was named must answer; else the one
    /// that announced itself in the directory is asked, or the default port where no directory
    /// was named. Whoever names a bucket wants that one read, and no server asked.
    pub async fn find_server(&self) -> Result<Option<Client>> {
        if self.flags.bucket.bucket.is_some() {
            return Ok(None);
        }
        if let Some(url) = &self.flags.server {
            let client = Client::new(url)?;
            return match client.health().await {
                Ok(_) => Ok(Some(client)),
                Err(failure) => Err(failure.next("annals up")),
            };
        }
        if let Some(address) = Address::read(&self.dir)? {
            let client = Client::new(&address.server_url())?;
            // Another process may have that port since: the pid tells.
            if client
                .health()
                .await
                .is_ok_and(|health| health.pid == address.pid)
            {
                return Ok(Some(client));
            }
        }
        if self.flags.data.is_none() {
            let client = Client::new(DEFAULT_SERVER)?;
            if client.health().await.is_ok() {
                return Ok(Some(client));
            }
        }
        Ok(None)
    }

    /// The running server; none is a failure.
    pub async fn server(&self) -> Result<Client> {
        if self.flags.bucket.bucket.is_some() {
            return Err(Failure::usage(
                "this verb asks a server: leave --bucket out",
            ));
        }
        self.find_server().await?.ok_or_else(|| {
            Failure::new(
                Exit::Unreachable,
                format!("no server runs on {}", self.dir.display()),
            )
            .next(format!("annals up --data {}", self.dir.display()))
        })
    }
}
