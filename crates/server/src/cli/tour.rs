//! `annals tour`: see it all work, on real events, and end.
//!
//! Every figure it prints was checked: one that does not agree ends the tour with an error.

mod figures;
mod questions;
mod steps;

use super::{Context, progress};
use crate::exit::{Exit, Failure, Result, at_path};
use crate::platform::{Platform, PlatformConfig};
use figures::Figures;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  annals tour
  annals tour --dir ./tour            leaves the directory: annals archive stats --data ./tour
  annals tour --from events.jsonl     on events of your own, in CloudEvents JSON

Starts a platform on free ports, publishes 5,000 real commits of open-source projects over AMQP,
archives, verifies, asks in SQL, replays, compares every byte with what was published, and stops. Exits with 9 if
anything differs.";

/// See it all work: publish, archive, query and replay 5,000 real events
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory to use; must be empty or new [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the temporary directory as it is at the end
    #[arg(long)]
    pub keep: bool,
    /// Publish this file of CloudEvents JSON lines instead of the sample
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
}

/// Takes the tour.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let (dir, made) = place(args.dir.as_deref())?;
    let ended = tour(&dir, args.from, context).await;
    let removes = made && !args.keep && ended.is_ok();
    if removes {
        // All of it was ours; what cannot be removed is in the temporary directory anyway.
        let _ = std::fs::remove_dir_all(&dir);
    }
    match ended {
        Ok(()) => {
            context.say(the_end(&dir, removes));
            Ok(())
        }
        // What went wrong can be looked into.
        Err(failure) => {
            let look = format!("annals archive verify --data {}", dir.display());
            let next = failure.next.clone().unwrap_or(look);
            Err(failure.next(next))
        }
    }
}

async fn tour(dir: &Path, from: Option<PathBuf>, context: &mut Context) -> Result<()> {
    let mut config = PlatformConfig::new(dir);
    (config.amqp_port, config.http_port) = (0, 0);
    let mut figures = Figures::new(progress::spinner(context));
    let platform = Platform::start(config).await?;
    figures.step(
        "start",
        "a broker, an archiver and an HTTP API run on one directory",
    );
    let taken = steps::take(&platform, dir, from, &mut figures).await;
    let stopped = platform.stop().await;
    taken?;
    stopped?;
    figures.step(
        "stop",
        "everything is archived, nothing is left in the queue",
    );
    context.out.table(&figures.table())
}

/// What the tour came to, and how to go on.
fn the_end(dir: &Path, removed: bool) -> String {
    let dir = dir.display();
    let look = match removed {
        true => format!("It ran in {dir}, which is removed; annals tour --dir DIR leaves it."),
        false => format!(
            "Look around in what it left:
  annals archive stats --data {dir}
  annals archive cat --data {dir} --subject tokio-rs/axum -n 3
  annals sql --data {dir} 'SELECT subject, count(*) FROM events GROUP BY subject ORDER BY 2 DESC'"
        ),
    };
    format!(
        "
Every byte that was published came back.
{look}

Go on with events of your own:
  annals up                                              run the platform, data in ./annals-data
  annals publish shop.v1.OrderPlaced -d '{{\"total\":42}}'   (in another terminal)
  annals tail --since -1h                                what came, then what comes
  annals replay --to stdout                              all of history, once"
    )
}

/// The directory to use, and whether the tour made it.
fn place(asked: Option<&Path>) -> Result<(PathBuf, bool)> {
    let Some(dir) = asked else {
        let name = format!("annals-tour-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).map_err(at_path(&dir))?;
        return Ok((dir, true));
    };
    std::fs::create_dir_all(dir).map_err(at_path(dir))?;
    let mut entries = std::fs::read_dir(dir).map_err(at_path(dir))?;
    match entries.next() {
        None => Ok((dir.to_owned(), false)),
        Some(_) => Err(
            Failure::new(Exit::Conflict, format!("{} is not empty", dir.display()))
                .next("name a new directory with --dir"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_says_where_it_ran_and_how_to_go_on() {
        let removed = the_end(Path::new("/tmp/t"), true);
        assert!(removed.contains("/tmp/t, which is removed"), "{removed}");
        assert!(!removed.contains("--data /tmp/t"), "{removed}");
        let left = the_end(Path::new("/tmp/t"), false);
        for step in ["stats --data /tmp/t", "annals up", "annals replay"] {
            assert!(left.contains(step), "{left}");
        }
    }

    #[test]
    fn the_tour_never_enters_a_directory_that_holds_something() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            place(Some(dir.path())).unwrap(),
            (dir.path().to_owned(), false)
        );
        std::fs::write(dir.path().join("x"), b"").unwrap();
        assert_eq!(place(Some(dir.path())).unwrap_err().exit, Exit::Conflict);
    }
}
