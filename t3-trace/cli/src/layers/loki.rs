//! Loki's `query_range`, page by page. A page may end within lines of the same nanosecond, so the
//! next one starts at the last time, and duplicates are dropped.

use std::collections::{BTreeMap, HashSet};

use super::Window;
use crate::{
    present::text::safe,
    server::{
        http::{Client, FetchError},
        loki::{self, Direction, Range},
        source::Source,
    },
};

/// Lines per page, allowed by every Loki.
const PAGE: usize = 1_000;
/// Limits of lines and of their bytes.
const MOST: usize = 50_000;
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// Range of the search for any line of a stream, in nanoseconds: one week.
const WEEK: i64 = 7 * 86_400 * 1_000_000_000;

/// One log line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    /// Nanoseconds since the epoch.
    pub ns: i64,
    /// Labels of its stream, printable.
    pub stream: String,
    pub line: String,
}

/// Result of a query.
#[derive(Debug, Default)]
pub(super) struct QueryResult {
    /// Sorted by time.
    pub entries: Vec<Entry>,
    /// The limit was reached; there is more.
    pub cut: bool,
}

/// Returns all lines in the window.
pub(super) async fn lines(
    client: &Client,
    source: &Source,
    logql: &str,
    window: Window,
) -> Result<QueryResult, FetchError> {
    let until = nanos(window.until_ms).saturating_add(1_000_000);
    let mut from = nanos(window.from_ms);
    let mut found = QueryResult::default();
    let mut bytes = 0;
    // Lines at the time where the next page starts.
    let mut overlap: HashSet<Entry> = HashSet::new();
    loop {
        let range = Range { from, until, limit: PAGE, direction: Direction::Forward };
        let page = page(client, source, logql, range).await?;
        let Some(last) = page.iter().map(|entry| entry.ns).max() else { return Ok(found) };
        let full = page.len() >= PAGE;
        let before = found.entries.len();
        for entry in page {
            if !overlap.contains(&entry) {
                bytes += entry.line.len();
                if entry.ns == last {
                    overlap.insert(entry.clone());
                }
                found.entries.push(entry);
            }
        }
        if !full {
            found.entries.sort_by_key(|entry| entry.ns);
            return Ok(found);
        }
        let stuck = last == from && found.entries.len() == before;
        if stuck || found.entries.len() >= MOST || bytes >= MOST_BYTES {
            found.entries.sort_by_key(|entry| entry.ns);
            found.cut = true;
            return Ok(found);
        }
        overlap.retain(|entry| entry.ns == last);
        from = last;
    }
}

/// Whether the stream has any line in the week before the window's end.
pub(super) async fn alive(
    client: &Client,
    source: &Source,
    logql: &str,
    window: Window,
) -> Result<bool, FetchError> {
    let until = nanos(window.until_ms);
    let from = until.saturating_sub(WEEK);
    let range = Range { from, until, limit: 1, direction: Direction::Backward };
    let page = page(client, source, logql, range).await?;
    Ok(!page.is_empty())
}

async fn page(client: &Client, source: &Source, logql: &str, range: Range) -> Result<Vec<Entry>, FetchError> {
    let page = loki::page(client, source, logql, range).await?;
    let label = |(key, value): (&String, &String)| format!("{key}=\"{value}\"");
    let shown = |labels: &BTreeMap<String, String>| labels.iter().map(label).collect::<Vec<_>>().join(", ");
    let streams: Vec<_> = page.streams.iter().map(|labels| safe(&format!("{{{}}}", shown(labels)))).collect();
    let entry = |line: loki::Line| {
        let stream = streams.get(line.stream).cloned().unwrap_or_default();
        Entry { ns: line.ns, stream, line: line.text }
    };
    Ok(page.lines.into_iter().map(entry).collect())
}

fn nanos(ms: i64) -> i64 {
    ms.saturating_mul(1_000_000)
}
