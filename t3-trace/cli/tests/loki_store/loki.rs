//! Fake of Loki: `query_range` and `series` as its API documentation has them, with a real
//! evaluation of stream selectors and line filters. Each query must be valid in the grammar of the
//! deployed rules (`t3-testkit/tests/deploy_files/logql.rs`).

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, mpsc},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use regex_lite::Regex;
use serde_json::json;

use super::logql;

pub type Labels = BTreeMap<String, String>;

/// A line with its time in nanoseconds since the epoch, and the labels of its stream.
#[derive(Debug, Clone)]
pub struct Line {
    pub ns: i64,
    pub labels: Arc<Labels>,
    pub text: String,
}

/// Data and limits of the fake.
pub struct Loki {
    /// Sorted by time.
    pub lines: Vec<Line>,
    /// `max_entries_limit_per_query`.
    pub most_lines: usize,
    /// `max_query_length` in nanoseconds.
    pub longest: i64,
    /// Status and body of the next responses, the last one first.
    pub instead: Mutex<Vec<(u16, &'static str)>>,
    /// Warnings of each response.
    pub warnings: Vec<&'static str>,
    /// Delay of each response.
    pub delay: std::time::Duration,
    /// Received paths and queries.
    pub received: Mutex<Vec<(String, Labels)>>,
}

impl Loki {
    pub fn new(mut lines: Vec<Line>) -> Self {
        lines.sort_by_key(|line| line.ns);
        Self {
            lines,
            most_lines: 5_000,
            longest: 721 * 3600 * 1_000_000_000,
            instead: Mutex::default(),
            warnings: Vec::new(),
            delay: std::time::Duration::ZERO,
            received: Mutex::default(),
        }
    }

    /// Serves on a thread until the end of the test; returns the address.
    pub fn start(self) -> (String, Arc<Self>) {
        let stub = Arc::new(self);
        let ours = Arc::clone(&stub);
        let (bound, address) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    let stub = Arc::clone(&ours);
                    tokio::spawn(async move {
                        let service = service_fn(|request| {
                            let stub = Arc::clone(&stub);
                            async move { Ok::<_, Infallible>(stub.respond(request).await) }
                        });
                        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            });
        });
        (format!("http://{}", address.recv().unwrap()), stub)
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        tokio::time::sleep(self.delay).await;
        let (status, body) = self.answer(&request);
        Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap()
    }

    fn answer(&self, request: &Request<Incoming>) -> (u16, String) {
        let query: Labels = (request.uri().query().unwrap_or_default().split('&'))
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| {
                (key.to_owned(), percent_decode_str(value).decode_utf8().unwrap().into_owned())
            })
            .collect();
        self.received.lock().unwrap().push((request.uri().path().to_owned(), query.clone()));
        if let Some((status, body)) = self.instead.lock().unwrap().pop() {
            return (status, body.to_owned());
        }
        let number = |key: &str| query[key].parse::<i64>().unwrap();
        let (start, end) = (number("start"), number("end"));
        if end - start > self.longest {
            return (
                400,
                "the query time range exceeds the limit (query length: 800h, limit: 721h)".to_owned(),
            );
        }
        let first = self.lines.partition_point(|line| line.ns < start);
        let last = self.lines.partition_point(|line| line.ns < end);
        let lines = &self.lines[first..last.max(first)];
        match request.uri().path() {
            "/loki/api/v1/series" => {
                let selector = Filter::of(&query["match[]"]);
                assert!(selector.lines.is_empty(), "series accepts only a selector");
                let mut streams: Vec<&Labels> = lines
                    .iter()
                    .map(|line| &*line.labels)
                    .filter(|labels| selector.selects(labels))
                    .collect();
                streams.sort();
                streams.dedup();
                (200, json!({"status": "success", "data": streams}).to_string())
            }
            "/loki/api/v1/query_range" => self.range(&query, lines),
            _ => (404, "404 page not found".to_owned()),
        }
    }

    fn range(&self, query: &Labels, lines: &[Line]) -> (u16, String) {
        let limit: usize = query["limit"].parse().unwrap();
        if limit > self.most_lines {
            let most = self.most_lines;
            let text =
                format!("max entries limit per query exceeded, limit > max_entries_limit ({limit} > {most})");
            return (400, text);
        }
        let filter = Filter::of(&query["query"]);
        let wanted = |line: &&Line| filter.selects(&line.labels) && filter.holds(&line.text);
        let found: Vec<&Line> = match query["direction"].as_str() {
            "forward" => lines.iter().filter(wanted).take(limit).collect(),
            "backward" => lines.iter().rev().filter(wanted).take(limit).collect(),
            other => panic!("direction {other}"),
        };
        let mut streams: BTreeMap<&Labels, Vec<(String, &str)>> = BTreeMap::new();
        for line in found {
            streams.entry(&line.labels).or_default().push((line.ns.to_string(), &line.text));
        }
        let result: Vec<_> =
            streams.into_iter().map(|(labels, values)| Stream { stream: labels, values }).collect();
        let result = serde_json::to_string(&result).unwrap();
        let warnings = if self.warnings.is_empty() {
            String::new()
        } else {
            format!(r#""warnings":{},"#, json!(self.warnings))
        };
        let data = format!(r#"{{"resultType":"streams","result":{result},"stats":{{}}}}"#);
        (200, format!(r#"{{"status":"success",{warnings}"data":{data}}}"#))
    }

    pub fn requests(&self) -> usize {
        self.received.lock().unwrap().len()
    }
}

#[derive(serde::Serialize)]
struct Stream<'a> {
    stream: &'a Labels,
    values: Vec<(String, &'a str)>,
}

/// A stream selector with line filters.
struct Filter {
    labels: Vec<(String, Matcher)>,
    lines: Vec<Matcher>,
}

enum Matcher {
    Is(String),
    Contains(String),
    Matches(Regex),
}

impl Matcher {
    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Is(wanted) => text == wanted,
            Self::Contains(wanted) => text.contains(wanted.as_str()),
            Self::Matches(regex) => regex.is_match(text),
        }
    }
}

impl Filter {
    fn of(query: &str) -> Self {
        logql::read(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        let mut rest = query.strip_prefix('{').unwrap();
        let mut filter = Self { labels: Vec::new(), lines: Vec::new() };
        loop {
            let at = rest.find(['=', '!']).unwrap();
            let name = rest[..at].trim().to_owned();
            let (is_regex, value) = match &rest[at..] {
                value if value.starts_with("=~") => (true, &value[2..]),
                value => (false, &value[1..]),
            };
            let (value, after) = text(value);
            // Loki anchors the regular expression of a label.
            let matcher = if is_regex {
                Matcher::Matches(Regex::new(&format!("^(?:{value})$")).unwrap())
            } else {
                Matcher::Is(value)
            };
            filter.labels.push((name, matcher));
            rest = after.trim_start();
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap().trim_start();
        while !rest.is_empty() {
            let (value, after) = text(&rest[2..]);
            filter.lines.push(match &rest[..2] {
                "|=" => Matcher::Contains(value),
                "|~" => Matcher::Matches(Regex::new(&value).unwrap()),
                other => panic!("{other} in {query}"),
            });
            rest = after.trim_start();
        }
        filter
    }

    fn selects(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(name, wanted)| wanted.holds(labels.get(name).map_or("", String::as_str)))
    }

    fn holds(&self, line: &str) -> bool {
        self.lines.iter().all(|filter| filter.holds(line))
    }
}

/// A string literal at the start, and the text after it.
fn text(query: &str) -> (String, &str) {
    let mut values = serde_json::Deserializer::from_str(query).into_iter::<String>();
    let value = values.next().unwrap().unwrap();
    let end = values.byte_offset();
    (value, &query[end..])
}
