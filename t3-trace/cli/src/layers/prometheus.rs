//! Prometheus' `query_range`: series of numbers over the window.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{LayerArgs, Window};
use crate::server::{
    http::{Client, FetchError, shown_body},
    source::{ServerOptions, Source, SourceError},
};

const PATH: &str = "/api/v1/query_range";
/// Seconds between two points.
pub(super) const STEP: i64 = 15;
/// Limit of series per response.
const MOST: usize = 10_000;

/// Returns Prometheus if its option is set.
pub(super) fn source(args: &LayerArgs) -> Option<Result<Source, SourceError>> {
    Some(Source::of(ServerOptions {
        name: "Prometheus",
        option: "prometheus",
        url: args.prometheus.as_deref()?,
        tenant: args.prometheus_tenant.as_deref(),
        token: args.prometheus_token_file.as_deref(),
        user: args.prometheus_user.as_deref().zip(args.prometheus_password_file.as_deref()),
        headers: args.prometheus_header_file.as_deref(),
    }))
}

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub labels: BTreeMap<String, String>,
    /// Time in milliseconds since the epoch, and value; finite, sorted by time.
    pub points: Vec<(i64, f64)>,
}

impl Series {
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

/// Returns the series of a query.
pub(super) async fn series(
    client: &Client,
    source: &Source,
    promql: &str,
    window: Window,
) -> Result<Vec<Series>, FetchError> {
    let (start, end) = (seconds(window.from_ms), seconds(window.until_ms));
    let step = STEP.to_string();
    let query = [("query", promql), ("start", &*start), ("end", &*end), ("step", &*step)];
    let body = client.get(source, PATH, &query).await?;
    let wrong = |expected| FetchError::Answer {
        place: source.place(),
        expected,
        body: shown_body(source, &body),
        option: source.option,
    };
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|_| wrong("a Prometheus query_range response"))?;
    if answer.data.kind != "matrix" {
        return Err(wrong("a matrix"));
    }
    let row = |row: Row| {
        let point = |(at, value): (f64, String)| {
            let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite())?;
            #[expect(clippy::cast_possible_truncation, reason = "casts of floats saturate")]
            Some(((at * 1000.0).round() as i64, value))
        };
        Series { labels: row.metric, points: row.values.into_iter().filter_map(point).collect() }
    };
    Ok(answer.data.result.into_iter().take(MOST).map(row).collect())
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}
