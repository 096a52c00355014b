//! Names of tables as people write them: any case, the last part alone, quoted as a whole.

mod rewrite;

pub(crate) use rewrite::{dotted, rewrite};

use crate::history::TableName;
use annals_core::{Error, ErrorKind, Result};

/// Most names an error suggests.
const SUGGESTED_MAX: usize = 5;

/// The tables there are, to look names up in.
#[derive(Debug)]
pub(crate) struct Names {
    tables: Vec<TableName>,
}

impl Names {
    pub(crate) fn new(mut tables: Vec<TableName>) -> Self {
        tables.sort();
        tables.dedup();
        Self { tables }
    }

    pub(crate) fn all(&self) -> &[TableName] {
        &self.tables
    }

    /// The table meant by `written`: its full name, else in any case, else its last parts.
    pub(crate) fn find(&self, written: &str) -> Result<&TableName> {
        if let Some(exact) = self.tables.iter().find(|t| t.as_str() == written) {
            return Ok(exact);
        }
        let in_any_case = |t: &&TableName| t.as_str().eq_ignore_ascii_case(written);
        if let Some(found) = self.only(written, in_any_case)? {
            return Ok(found);
        }
        let exact_end = |t: &&TableName| ends_with_parts(t.as_str(), written);
        let exact: Vec<&TableName> = self.tables.iter().filter(exact_end).collect();
        if let [found] = exact.as_slice() {
            return Ok(found);
        }
        let lower = written.to_ascii_lowercase();
        let any_end = |t: &&TableName| ends_with_parts(&t.as_str().to_ascii_lowercase(), &lower);
        if let Some(found) = self.only(written, any_end)? {
            return Ok(found);
        }
        Err(self.unknown(written))
    }

    fn only(
        &self,
        written: &str,
        matches: impl Fn(&&TableName) -> bool,
    ) -> Result<Option<&TableName>> {
        let found: Vec<&TableName> = self.tables.iter().filter(matches).collect();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            several => Err(Error::invalid(format!(
                "the table {written} can mean {}: write the full name",
                listed(several)
            ))),
        }
    }

    fn unknown(&self, written: &str) -> Error {
        let near = self.near(written);
        let next = if near.is_empty() {
            "SHOW TABLES lists them".to_owned()
        } else {
            format!("did you mean {}?", listed(&near))
        };
        let shown: String = written.chars().take(200).collect();
        Error::new(
            ErrorKind::NotFound,
            format!("there is no table {shown}: {next}"),
        )
    }

    /// Names that differ from `written` by a few letters, the nearest first.
    fn near(&self, written: &str) -> Vec<&TableName> {
        let written = written.to_ascii_lowercase();
        if written.len() > 255 {
            return Vec::new();
        }
        let mut near: Vec<(usize, &TableName)> = self
            .tables
            .iter()
            .filter_map(|t| {
                let whole = distance(&t.as_str().to_ascii_lowercase(), &written);
                let last = distance(&t.last_part().to_ascii_lowercase(), last_part(&written));
                let d = whole.min(last);
                (d <= 1 + last_part(&written).len() / 4).then_some((d, t))
            })
            .collect();
        near.sort();
        near.truncate(SUGGESTED_MAX);
        near.into_iter().map(|(_, t)| t).collect()
    }
}

/// How many letters must change to make one text of the other.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn ends_with_parts(name: &str, parts: &str) -> bool {
    name.strip_suffix(parts)
        .is_some_and(|rest| rest.ends_with('.'))
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn listed(tables: &[&TableName]) -> String {
    let shown = tables.iter().take(SUGGESTED_MAX);
    let shown: Vec<&str> = shown.map(|t| t.as_str()).collect();
    let more = tables.len().saturating_sub(SUGGESTED_MAX);
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let all = [
            "events",
            "vcs.v1.CommitPushed",
            "vcs.v2.CommitPushed",
            "shop.v1.OrderPlaced",
        ];
        Names::new(all.map(TableName::new).to_vec())
    }

    #[test]
    fn a_name_is_found_whole_in_any_case_or_by_its_last_parts() {
        let names = names();
        for (written, full) in [
            ("vcs.v1.CommitPushed", "vcs.v1.CommitPushed"),
            ("VCS.V1.commitpushed", "vcs.v1.CommitPushed"),
            ("v2.CommitPushed", "vcs.v2.CommitPushed"),
            ("orderplaced", "shop.v1.OrderPlaced"),
            ("Events", "events"),
        ] {
            assert_eq!(names.find(written).unwrap().as_str(), full, "{written}");
        }
    }

    #[test]
    fn a_name_that_can_mean_two_tables_is_refused_with_both() {
        let error = names().find("CommitPushed").unwrap_err().to_string();
        assert!(
            error.contains("vcs.v1.CommitPushed, vcs.v2.CommitPushed"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_name_is_answered_with_near_ones() {
        let error = names().find("shop.v1.OrderPlacd").unwrap_err().to_string();
        assert!(
            error.contains("did you mean shop.v1.OrderPlaced?"),
            "{error}"
        );
        let error = names().find("evnts").unwrap_err().to_string();
        assert!(error.contains("did you mean events?"), "{error}");
        let error = names().find("nothing_like_it").unwrap_err().to_string();
        assert!(error.contains("SHOW TABLES"), "{error}");
    }

    #[test]
    fn distance_counts_changed_letters() {
        for (a, b, d) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("same", "same", 0),
        ] {
            assert_eq!(distance(a, b), d);
            assert_eq!(distance(b, a), d);
        }
    }
}
