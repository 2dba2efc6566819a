//! One request to Loki's HTTP API (grafana.com, "Loki HTTP API"): a page of `query_range`, and
//! `series`. The response is data of the network: bounded, and checked for its form.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};

use super::{
    http::{Client, FetchError, shown_body},
    source::Source,
};

const QUERY_RANGE: &str = "/loki/api/v1/query_range";
const SERIES: &str = "/loki/api/v1/series";

/// Order of the lines of a page; also which of them a limit keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The earliest first.
    Forward,
    /// The latest first.
    Backward,
}

/// A range of time and a limit of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First nanosecond since the epoch.
    pub from: i64,
    /// End in nanoseconds since the epoch, excluded.
    pub until: i64,
    pub limit: usize,
    pub direction: Direction,
}

/// One log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Nanoseconds since the epoch.
    pub ns: i64,
    /// Index of its stream in [`Page::streams`].
    pub stream: usize,
    pub text: String,
}

/// Lines of one response, in the order of the response: by stream, then by time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Labels of each stream; those of a line's structured metadata are among them.
    pub streams: Vec<BTreeMap<String, String>>,
    pub lines: Vec<Line>,
    /// Limitations of the answer in Loki's words.
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
    #[serde(default)]
    warnings: Vec<String>,
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
    values: Vec<Values>,
}

/// Time, line, and optional structured metadata, which is ignored.
struct Values(String, String);

/// Expected form of [`Values`], as an error.
const PAIRS: &str = "pairs of time and line";

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PAIRS)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Values, A::Error> {
                let ns = seq.next_element()?.ok_or_else(|| A::Error::custom(PAIRS))?;
                let text = seq.next_element()?.ok_or_else(|| A::Error::custom(PAIRS))?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Values(ns, text))
            }
        }
        deserializer.deserialize_seq(Pair)
    }
}

/// Returns the lines of a range.
///
/// # Errors
/// No response, or one that is not in the format of the API.
pub(crate) async fn page(
    client: &Client,
    source: &Source,
    logql: &str,
    range: Range,
) -> Result<Page, FetchError> {
    let (start, end, limit) = (range.from.to_string(), range.until.to_string(), range.limit.to_string());
    let direction = match range.direction {
        Direction::Forward => "forward",
        Direction::Backward => "backward",
    };
    let query =
        [("query", logql), ("start", &start), ("end", &end), ("limit", &limit), ("direction", direction)];
    let body = client.get(source, QUERY_RANGE, &query).await?;
    parse(&body).map_err(|expected| wrong(source, &body, expected))
}

/// Returns the labels of the streams that have lines in a range of nanoseconds since the epoch.
///
/// # Errors
/// As [`page`].
pub(crate) async fn series(
    client: &Client,
    source: &Source,
    selector: &str,
    (from, until): (i64, i64),
) -> Result<Vec<BTreeMap<String, String>>, FetchError> {
    let (start, end) = (from.to_string(), until.to_string());
    let body = client.get(source, SERIES, &[("match[]", selector), ("start", &start), ("end", &end)]).await?;
    let answer: Answer<Vec<BTreeMap<String, String>>> =
        serde_json::from_slice(&body).map_err(|_| wrong(source, &body, "a Loki series response"))?;
    Ok(answer.data)
}

fn wrong(source: &Source, body: &[u8], expected: &'static str) -> FetchError {
    FetchError::Answer {
        place: source.place(),
        expected,
        body: shown_body(source, body),
        option: source.option,
    }
}

/// Parses the body of a response; the error names the expected form.
fn parse(body: &[u8]) -> Result<Page, &'static str> {
    let answer: Answer<Data> = serde_json::from_slice(body).map_err(|error| {
        if error.to_string().contains(PAIRS) { PAIRS } else { "a Loki query_range response" }
    })?;
    if answer.data.kind != "streams" {
        return Err("log lines: the selector must select lines, not count them");
    }
    let mut page = Page { warnings: answer.warnings, ..Page::default() };
    for stream in answer.data.result {
        let index = page.streams.len();
        page.streams.push(stream.stream);
        for value in stream.values {
            let Values(ns, text) = value;
            let ns = ns.parse().map_err(|_| "times in nanoseconds")?;
            page.lines.push(Line { ns, stream: index, text });
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_metadata_are_read_and_warnings_kept() {
        let body = br#"{"status":"success","warnings":["partial"],"data":{"resultType":"streams","stats":{},"result":[
            {"stream":{"host":"a"},"values":[["2","two"],["1","one",{"structuredMetadata":{"user":"x"}}]]},
            {"stream":{"host":"b"},"values":[["3","three"]]}]}}"#;
        let page = parse(body).unwrap();
        let lines: Vec<_> = page.lines.iter().map(|line| (line.ns, line.stream, &*line.text)).collect();
        assert_eq!(lines, [(2, 0, "two"), (1, 0, "one"), (3, 1, "three")]);
        assert_eq!(
            (page.streams[1]["host"].as_str(), &page.warnings[..]),
            ("b", &["partial".to_owned()][..])
        );
    }

    #[test]
    fn another_form_is_an_error() {
        for (body, expected) in [
            ("[]", "a Loki query_range response"),
            (r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#, "log lines"),
            (
                r#"{"data":{"resultType":"streams","result":[{"values":[["soon","x"]]}]}}"#,
                "times in nanoseconds",
            ),
            (r#"{"data":{"resultType":"streams","result":[{"values":[["1"]]}]}}"#, PAIRS),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{body}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
