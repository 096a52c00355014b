//! Progress on standard error: a bar on a terminal, nothing elsewhere.

use super::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A bar over `total` items (unknown: 0); hidden unless a person watches.
pub fn bar(context: &Context, what: &'static str, total: u64) -> ProgressBar {
    if !context.shows_progress() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        0 => (
            ProgressBar::new_spinner(),
            "{spinner} {msg} {human_pos} ({per_sec})",
        ),
        _ => (
            ProgressBar::new(total),
            "{msg} {wide_bar} {human_pos}/{human_len} ({per_sec}, {eta} left)",
        ),
    };
    let style = ProgressStyle::with_template(template)
        .expect("the template is a constant that a test has rendered");
    bar.with_style(style).with_message(what)
}

/// A bar over the bytes of a file.
pub fn byte_bar(context: &Context, what: &'static str, total: u64) -> ProgressBar {
    if !context.shows_progress() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} ({eta} left)",
    )
    .expect("the template is a constant that a test has rendered");
    ProgressBar::new(total).with_style(style).with_message(what)
}

/// A spinner that says what was done last; hidden unless a person watches.
pub fn spinner(context: &Context) -> ProgressBar {
    if !context.shows_progress() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg}")
        .expect("the template is a constant that a test has rendered");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use clap::Parser;

    #[test]
    fn bars_are_drawn_for_people_only() {
        let cli = crate::cli::Cli::try_parse_from(["annals", "version"]).unwrap();
        let mut context = Context::new(Output::new(std::io::sink(), None), &cli.flags);
        assert!(bar(&context, "x", 3).is_hidden());
        context.interactive = true;
        for total in [0, 3] {
            assert_eq!(bar(&context, "x", total).message(), "x");
        }
        assert_eq!(byte_bar(&context, "x", 3).message(), "x");
        assert_eq!(spinner(&context).message(), "");
    }
}
