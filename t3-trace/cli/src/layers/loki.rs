//! Loki's `query_range`, page by page. A page may end within lines of the same nanosecond, so the
//! next one starts at the last time, and duplicates are dropped.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::{
    Window,
    http::{Client, FetchError, shown_body},
    source::Source,
};
use crate::present::text::safe;

const PATH: &str = "/loki/api/v1/query_range";
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

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    #[serde(default)]
    stream: BTreeMap<String, String>,
    /// Time, line, and optional structured metadata.
    values: Vec<Vec<Value>>,
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
        let page = page(client, source, logql, (from, until), PAGE, "forward").await?;
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
    let page = page(client, source, logql, (until.saturating_sub(WEEK), until), 1, "backward").await?;
    Ok(!page.is_empty())
}

async fn page(
    client: &Client,
    source: &Source,
    logql: &str,
    (from, until): (i64, i64),
    limit: usize,
    direction: &str,
) -> Result<Vec<Entry>, FetchError> {
    let (start, end, limit) = (from.to_string(), until.to_string(), limit.to_string());
    let query =
        [("query", logql), ("start", &start), ("end", &end), ("limit", &limit), ("direction", direction)];
    let body = client.get(source, PATH, &query).await?;
    let wrong = |expected| FetchError::Answer {
        place: source.place(),
        expected,
        body: shown_body(source, &body),
        option: source.option,
    };
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| wrong("a Loki query_range response"))?;
    if answer.data.kind != "streams" {
        return Err(wrong("log lines: the selector must select lines, not count them"));
    }
    let mut entries = Vec::new();
    for stream in answer.data.result {
        let labels: Vec<_> = stream.stream.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let labels = safe(&format!("{{{}}}", labels.join(", ")));
        for value in stream.values {
            let [Value::String(ns), Value::String(line), ..] = value.as_slice() else {
                return Err(wrong("pairs of time and line"));
            };
            let ns = ns.parse().map_err(|_| wrong("times in nanoseconds"))?;
            entries.push(Entry { ns, stream: labels.clone(), line: line.clone() });
        }
    }
    Ok(entries)
}

fn nanos(ms: i64) -> i64 {
    ms.saturating_mul(1_000_000)
}
