//! Example records of docs/VERDICTS.md: one line per verdict from a run of the catalogue, inserted
//! after the page's markers. Pure.

use std::collections::BTreeMap;

use t3_record::CloseRecord;

use super::{Outcome, Row};

const OPEN: &str = "<!-- record:";
const CLOSE: &str = " -->";

/// Returns one line per verdict, of the first passed fault with that verdict.
#[must_use]
pub fn by_verdict(rows: &[Row]) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for line in rows.iter().filter(|row| row.outcome == Outcome::Passed).flat_map(|row| &row.records) {
        if let Ok(record) = CloseRecord::from_line(line) {
            lines.entry(record.verdict.to_string()).or_insert_with(|| line.clone());
        }
    }
    lines
}

/// Returns the page with the record of its verdict after each marker, as an indented block. A
/// marker without a new record keeps its present one.
#[must_use]
pub fn fill(page: &str, records: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        text.push_str(line);
        text.push('\n');
        let Some(record) = marker(line).and_then(|verdict| records.get(verdict)) else { continue };
        // The present block: blank lines and indented ones.
        let mut old = lines.clone();
        let mut block = false;
        while let Some(next) = old.peek() {
            if next.starts_with("    ") {
                block = true;
            } else if !next.is_empty() {
                break;
            }
            old.next();
        }
        if block {
            lines = old;
        }
        text.push_str(&format!("\n    {record}\n"));
        if lines.peek().is_some_and(|next| !next.is_empty()) {
            text.push('\n');
        }
    }
    text
}

/// Returns the verdict of each marker and the record after it.
#[must_use]
pub fn read(page: &str) -> Vec<(&str, Option<&str>)> {
    let mut found = Vec::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(verdict) = marker(line) else { continue };
        while lines.next_if(|next| next.is_empty()).is_some() {}
        found.push((verdict, lines.peek().and_then(|next| next.strip_prefix("    "))));
    }
    found
}

fn marker(line: &str) -> Option<&str> {
    line.strip_prefix(OPEN)?.strip_suffix(CLOSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# a\n<!-- record:x -->\n<!-- record:y -->\n\n### b\n<!-- record:z -->\n";

    #[test]
    fn records_are_inserted_after_their_markers_and_replace_old_ones() {
        let records = |x: &str| [("x", x), ("z", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let once = fill(PAGE, &records("1"));
        assert_eq!(
            once,
            "# a\n<!-- record:x -->\n\n    1\n\n<!-- record:y -->\n\n### b\n<!-- record:z -->\n\n    3\n"
        );
        assert_eq!(read(&once), [("x", Some("1")), ("y", None), ("z", Some("3"))]);
        let twice = fill(&once, &records("2"));
        assert_eq!(twice, once.replace("    1", "    2"));
    }

    #[test]
    fn a_marker_without_a_new_record_keeps_the_old_one() {
        let page = "<!-- record:x -->\n\n    old\n\ntext\n";
        assert_eq!(fill(page, &BTreeMap::new()), page);
    }
}
