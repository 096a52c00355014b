//! The flags that select a part of history; the same words as the API's query parameters.

use crate::history::SelectionText;

/// Which events: all conditions must hold; none given: every event.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Selection")]
pub struct SelectionArgs {
    /// Types, with AMQP wildcards; several separated by commas
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub types: Vec<String>,
    /// Half-open range of time: A..B of dates, RFC 3339 times, -2h, today, …
    #[arg(long, value_name = "A..B", allow_hyphen_values = true)]
    pub range: Option<String>,
    /// Which time the range is about
    #[arg(long, value_name = "AXIS", value_parser = ["event", "archive"])]
    pub axis: Option<String>,
    /// One entity
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Event ids; several separated by commas
    #[arg(long = "id", value_name = "ID", value_delimiter = ',')]
    pub ids: Vec<String>,
}

impl From<SelectionArgs> for SelectionText {
    fn from(args: SelectionArgs) -> Self {
        Self {
            types: args.types,
            range: args.range,
            axis: args.axis,
            subject: args.subject,
            ids: args.ids,
            events: None,
        }
    }
}
