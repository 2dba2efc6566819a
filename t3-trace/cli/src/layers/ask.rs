//! Queries of the layers, one function per layer.

use std::{cell::OnceCell, future::Future, time::Instant};

use t3_record::{
    edge::{BadLine, Reading, Statement, cloudflared, envoy, haproxy, logpush, redacted, traefik},
    probe::{Attribution, attribute},
};
use tokio::time::timeout;

use super::{LayerArgs, OtherLine, Pressure, QueryStatus, Window, files, legs, loki, prometheus};
use crate::{
    present::text::safe,
    server::{
        http::{Client, FetchError},
        source::{Source, SourceError},
    },
};

/// Limit of a line of another stream, in characters.
const SHOWN: usize = 4_096;
/// Largest difference between the end in Traefik's log and the record, in milliseconds.
const SLACK: i64 = 3_000;
/// Time after a close in which lines or scrapes may be missing, in milliseconds.
const FRESH: i64 = 30_000;
/// Time in which a batch of Logpush arrives at Loki after its end, in milliseconds.
const BATCH: i64 = 3_600_000;
/// Resources with PSI. Queries use a range of two minutes: one minute has too few scrapes at some
/// sites.
const PRESSURE: [&str; 3] = ["cpu", "memory", "io"];

/// Input of all queries.
pub(super) struct LayerQuery<'a> {
    pub args: &'a LayerArgs,
    /// Identifier of the session's ray, which joins Cloudflare's records.
    pub ray: Option<String>,
    pub window: Window,
    pub closed_ms: i64,
    pub now_ms: i64,
    /// Made for the first query: it reads the trusted certificates.
    pub client: OnceCell<Result<Client, FetchError>>,
    pub loki: Option<Result<Source, SourceError>>,
    pub prometheus: Option<Result<Source, SourceError>>,
}

/// Error text of a layer.
struct Why(String);

impl<E: std::error::Error> From<E> for Why {
    fn from(error: E) -> Self {
        Self(safe(&error.to_string()))
    }
}

/// Result of a successful query.
struct Answer<T> {
    value: T,
    from: String,
    found: usize,
    note: Option<String>,
}

/// Data and status of a layer.
pub(super) type LayerResult<T> = (Option<T>, QueryStatus);

fn result<T>(answer: Result<Answer<T>, Why>) -> LayerResult<T> {
    match answer {
        Ok(Answer { value, from, found, note }) => {
            (Some(value), QueryStatus::Yes { from: safe(&from), found, note })
        }
        Err(Why(why)) => (None, QueryStatus::Failed { why }),
    }
}

/// One kind of log line.
struct Log<T> {
    kind: files::Kind<T>,
    /// Filter that the server applies.
    filter: String,
    /// Time after the window in which lines about it are written, in milliseconds.
    late: i64,
    selector_option: &'static str,
}

impl LayerQuery<'_> {
    pub(super) async fn traefik(&self) -> LayerResult<Reading<traefik::AccessLine>> {
        if self.args.replaces_traefik() {
            return (None, QueryStatus::No);
        }
        let kind = files::Kind {
            option: "traefik-log",
            parse: traefik::parse,
            wanted: |line: &traefik::AccessLine, window| {
                let wide = Window { from_ms: window.from_ms - SLACK, until_ms: window.until_ms + SLACK };
                wide.holds(line.end_ms())
            },
        };
        let filter = " |= \"/ws\"".to_owned();
        let log = Log { kind, filter, late: 0, selector_option: "traefik-selector" };
        self.log(log, &self.args.traefik_log, Some(&self.args.traefik_selector)).await
    }

    pub(super) async fn cloudflared(&self) -> LayerResult<Reading<cloudflared::TunnelLine>> {
        let kind = files::Kind {
            option: "cloudflared-log",
            parse: cloudflared::parse,
            wanted: |line: &cloudflared::TunnelLine, window| window.holds(line.at_ms),
        };
        let log = Log { kind, filter: String::new(), late: 0, selector_option: "cloudflared-selector" };
        self.log(log, &self.args.cloudflared_log, Some(&self.args.cloudflared_selector)).await
    }

    pub(super) async fn logpush(&self) -> LayerResult<Reading<Statement>> {
        let (paths, selector) = (&self.args.logpush, self.args.logpush_selector.as_deref());
        if paths.is_empty() && (selector.is_none() || self.loki.is_none()) {
            return (None, QueryStatus::No);
        }
        let is_plain = |ray: &&String| !ray.is_empty() && ray.bytes().all(|b| b.is_ascii_alphanumeric());
        let Some(ray) = self.ray.as_ref().filter(is_plain) else {
            let why = "the record has no ray (Cf-Ray), by which Cloudflare's records are joined".to_owned();
            return (None, QueryStatus::Failed { why });
        };
        let kind = statements("logpush", logpush::parse);
        let log =
            Log { kind, filter: format!(" |= \"{ray}\""), late: BATCH, selector_option: "logpush-selector" };
        self.log(log, paths, selector).await
    }

    pub(super) async fn envoy(&self) -> LayerResult<Reading<Statement>> {
        let kind = statements("envoy-log", envoy::parse);
        let log = Log { kind, filter: " |= \"/ws\"".to_owned(), late: 0, selector_option: "envoy-selector" };
        self.log(log, &self.args.envoy_log, self.args.envoy_selector.as_deref()).await
    }

    pub(super) async fn haproxy(&self) -> LayerResult<Reading<Statement>> {
        let kind = statements("haproxy-log", haproxy::parse);
        let log =
            Log { kind, filter: " |= \"/ws\"".to_owned(), late: 0, selector_option: "haproxy-selector" };
        self.log(log, &self.args.haproxy_log, self.args.haproxy_selector.as_deref()).await
    }

    async fn log<T: Send + 'static>(
        &self,
        log: Log<T>,
        files: &[std::path::PathBuf],
        selector: Option<&str>,
    ) -> LayerResult<Reading<T>> {
        if !files.is_empty() {
            return result(self.of_files(log.kind, files).await);
        }
        match (&self.loki, selector) {
            (None, _) | (_, None) => (None, QueryStatus::No),
            (Some(loki), Some(selector)) => result(
                self.in_time(loki, |source, client| self.of_loki(source, client, &log, selector)).await,
            ),
        }
    }

    async fn of_files<T: Send + 'static>(
        &self,
        kind: files::Kind<T>,
        paths: &[std::path::PathBuf],
    ) -> Result<Answer<Reading<T>>, Why> {
        let (paths, window) = (paths.to_vec(), self.window);
        let deadline = Instant::now() + self.args.layer_timeout;
        let from = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let read = tokio::task::spawn_blocking(move || files::read(&paths, &kind, window, deadline));
        let reading = read.await??;
        let cut = "incomplete: reading takes longer than --layer-timeout, or the file is too large";
        Ok(self.reading(reading, from, cut))
    }

    async fn of_loki<T>(
        &self,
        source: &Source,
        client: &Client,
        log: &Log<T>,
        selector: &str,
    ) -> Result<Answer<Reading<T>>, Why> {
        let until_ms = self.window.until_ms.saturating_add(log.late);
        let window = Window { until_ms, ..self.window };
        let found = loki::lines(client, source, &format!("{selector}{}", log.filter), window).await?;
        let from = format!("{}, {selector}", source.place());
        if found.entries.is_empty() && !loki::alive(client, source, selector, self.window).await? {
            let option = log.selector_option;
            return Err(Why(format!(
                "{from}: no line in the last week, so the absence of lines proves nothing; check --{option}"
            )));
        }
        let mut reading = Reading { cut: found.cut, ..Reading::default() };
        for entry in &found.entries {
            match (log.kind.parse)(&entry.line) {
                Ok(line) if !(log.kind.wanted)(&line, self.window) => {}
                parsed => reading.take(&entry.line, parsed),
            }
        }
        if reading.lines.is_empty() && reading.unread == 0 && !found.entries.is_empty() {
            return Err(Why(format!(
                "{from}: {} lines, none in the format of this log; check --{}",
                found.entries.len(),
                log.selector_option
            )));
        }
        Ok(self.reading(reading, from, "incomplete: too many lines"))
    }

    fn reading<T>(&self, reading: Reading<T>, from: String, cut: &str) -> Answer<Reading<T>> {
        let mut notes: Vec<String> = Vec::new();
        if reading.cut {
            notes.push(cut.to_owned());
        }
        if let (unread @ 1.., Some(sample)) = (reading.unread, &reading.sample) {
            notes.push(format!("{unread} lines cannot be parsed, for example: {}", safe(sample)));
        }
        notes.extend(self.fresh());
        Answer { found: reading.lines.len(), value: reading, from, note: joined(notes) }
    }

    pub(super) async fn streams(&self) -> LayerResult<Vec<OtherLine>> {
        match &self.loki {
            Some(loki) if !self.args.loki_selector.is_empty() => {
                result(self.in_time(loki, |source, client| self.other_lines(source, client)).await)
            }
            _ => (None, QueryStatus::No),
        }
    }

    async fn other_lines(&self, source: &Source, client: &Client) -> Result<Answer<Vec<OtherLine>>, Why> {
        let (mut lines, mut cut) = (Vec::new(), false);
        for selector in &self.args.loki_selector {
            let found = loki::lines(client, source, selector, self.window).await?;
            cut |= found.cut;
            lines.extend(found.entries.into_iter().map(|entry| OtherLine {
                at_ms: entry.ns.div_euclid(1_000_000),
                stream: entry.stream,
                text: safe(&redacted(entry.line.trim_end())).chars().take(SHOWN).collect(),
            }));
        }
        lines.sort_by_key(|line| line.at_ms);
        let mut notes: Vec<String> =
            cut.then(|| "incomplete: too many lines".to_owned()).into_iter().collect();
        notes.extend(self.fresh());
        let from = format!("{}, {}", source.place(), self.args.loki_selector.join(" and "));
        Ok(Answer { found: lines.len(), value: lines, from, note: joined(notes) })
    }

    pub(super) async fn probe(&self) -> LayerResult<Attribution> {
        match &self.prometheus {
            None => (None, QueryStatus::No),
            Some(prometheus) => {
                result(self.in_time(prometheus, |source, client| self.legs(source, client)).await)
            }
        }
    }

    async fn legs(&self, source: &Source, client: &Client) -> Result<Answer<Attribution>, Why> {
        let mut answers = Vec::new();
        for query in legs::QUERIES {
            answers.push(prometheus::series(client, source, query, self.until_now()).await?);
        }
        let samples = legs::samples(answers);
        let (legs, since) = legs::legs(&samples, self.closed_ms);
        let from = format!("{}, t3probe_*", source.place());
        if legs.is_empty() {
            return Err(Why(format!(
                "{from}: no probe leg around the close; does it scrape t3-probe (docs/PROBE.md)?"
            )));
        }
        let note = (!since)
            .then(|| "not every probe leg was scraped since the close; run again in a minute".to_owned());
        Ok(Answer { value: attribute(&legs), from, found: legs::count(&samples), note })
    }

    pub(super) async fn pressure(&self) -> LayerResult<Vec<Pressure>> {
        match &self.prometheus {
            None => (None, QueryStatus::No),
            Some(prometheus) => {
                result(self.in_time(prometheus, |source, client| self.host(source, client)).await)
            }
        }
    }

    async fn host(&self, source: &Source, client: &Client) -> Result<Answer<Vec<Pressure>>, Why> {
        let labels = self.args.prometheus_host.as_deref().unwrap_or_default();
        let mut pressure = Vec::new();
        for resource in PRESSURE {
            let query = format!("100 * rate(node_pressure_{resource}_waiting_seconds_total{{{labels}}}[2m])");
            for series in prometheus::series(client, source, &query, self.until_now()).await? {
                let instance = safe(series.label("instance"));
                pressure.push(Pressure { resource, instance, points: series.points });
            }
        }
        let from = format!("{}, node_pressure_*_waiting_seconds_total{{{labels}}}", source.place());
        if pressure.is_empty() {
            return Err(Why(format!(
                "{from}: no data; does it scrape node_exporter, and does --prometheus-host select this host?"
            )));
        }
        let found = pressure.iter().map(|series| series.points.len()).sum();
        Ok(Answer { value: pressure, from, found, note: self.fresh() })
    }

    /// Runs a query with the timeout.
    async fn in_time<'s, T, F>(
        &'s self,
        source: &'s Result<Source, SourceError>,
        query: impl FnOnce(&'s Source, &'s Client) -> F,
    ) -> Result<T, Why>
    where
        F: Future<Output = Result<T, Why>>,
    {
        let source = source.as_ref().map_err(|error| Why(safe(&error.to_string())))?;
        let client = self.client.get_or_init(|| Client::new(self.args.server.layer_ca.as_ref()));
        let client = client.as_ref().map_err(|error| Why(safe(&error.to_string())))?;
        let time = self.args.layer_timeout;
        match timeout(time, query(source, client)).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::Timeout { place: source.place(), seconds: time.as_secs_f32() }.into()),
        }
    }

    /// Limits the window to now: Prometheus would repeat the last samples for the future.
    fn until_now(&self) -> Window {
        let until_ms = self.window.until_ms.min(self.now_ms).max(self.window.from_ms);
        Window { until_ms, ..self.window }
    }

    fn fresh(&self) -> Option<String> {
        let ago = self.now_ms.saturating_sub(self.closed_ms);
        (0..FRESH).contains(&ago).then(|| {
            format!("queried {} s after the close: recent lines or scrapes may be missing", ago / 1000)
        })
    }
}

/// A log with statements about the end of a session.
fn statements(option: &'static str, parse: fn(&str) -> Result<Statement, BadLine>) -> files::Kind<Statement> {
    files::Kind {
        option,
        parse,
        wanted: |statement: &Statement, window| {
            let wide = Window { from_ms: window.from_ms - SLACK, until_ms: window.until_ms + SLACK };
            wide.holds(statement.end_ms)
        },
    }
}

fn joined(notes: Vec<String>) -> Option<String> {
    (!notes.is_empty()).then(|| notes.join("; "))
}
