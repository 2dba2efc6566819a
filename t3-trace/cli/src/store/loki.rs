//! Loki as a store. Reads page by page, so that memory does not grow with the answer.

use std::{
    ops::ControlFlow,
    time::{Duration, SystemTime},
};

use http::StatusCode;
use tokio::{runtime::Runtime, time::timeout};

use super::{
    Query, ReadError, Store, StoreArgs, Survey,
    line::fill,
    pager::{Found, Pager},
    selector::{self, Selector},
    survey::Host,
};
use crate::{
    journal::{export_format::Entry, warnings::Warnings},
    server::{
        LokiArgs,
        http::{Client, FetchError},
        loki::{self as api, Direction, Page, Range},
        source::{Source, SourceError},
    },
    time::utc,
};

/// Range that is read without `--since`, in nanoseconds.
const DEFAULT_RANGE: i64 = 30 * DAY;
const DAY: i64 = 86_400 * 1_000_000_000;
/// Limit of the bytes of all lines of one answer.
const MOST_BYTES: u64 = 4 << 30;
/// Waits before a request is repeated that an overloaded server did not answer.
const REPEAT_AFTER: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// Limit of hosts that are checked for silence; each costs a request.
const MOST_HOSTS: usize = 100;

/// Loki cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LokiError {
    #[error("--from loki needs the address of Loki: set --loki, or loki in /etc/t3-trace.toml")]
    NoAddress,
    #[error("--file, --directory and --boot select a journal: omit them, or --from loki")]
    Place,
    #[error("--host selects a host in Loki: add --from loki")]
    Host,
    #[error("cannot start the async runtime: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(
        "no complete response from {place} within {seconds} s; use a shorter range (--since, --until), or raise --loki-timeout"
    )]
    Timeout { place: String, seconds: f32 },
    #[error(
        "{place} has no lines of {selector} in the last week; check --journal-selector, the tenant, and the shippers of the hosts"
    )]
    NoLines { place: String, selector: String },
}

/// Loki with the journals of many hosts.
pub struct LokiStore {
    runtime: Runtime,
    client: Client,
    source: Source,
    selector: Selector,
    hosts: Vec<String>,
    timeout: Duration,
    limit: u64,
}

/// Lines and bytes so far, and what limited the answer.
#[derive(Debug, Default)]
struct Progress {
    lines: u64,
    bytes: u64,
    warnings: Vec<String>,
}

impl LokiStore {
    /// # Errors
    /// Address or credentials cannot be used.
    pub fn open(args: &StoreArgs, loki: &LokiArgs) -> Result<Self, LokiError> {
        let source = Source::loki(loki).ok_or(LokiError::NoAddress)??;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            runtime: runtime.map_err(LokiError::Runtime)?,
            client: Client::new(loki.layer_ca.as_ref())?,
            source,
            selector: args.journal_selector.clone(),
            hosts: args.host.clone(),
            timeout: args.loki_timeout,
            limit: args.loki_limit,
        })
    }

    /// Runs a request with the timeout, again if the server is overloaded.
    fn request<T>(&self, request: impl AsyncFn() -> Result<T, FetchError>) -> Result<T, LokiError> {
        let mut waits = REPEAT_AFTER.into_iter();
        loop {
            let answer = self.runtime.block_on(async { timeout(self.timeout, request()).await });
            let error = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => {
                    let seconds = self.timeout.as_secs_f32();
                    return Err(LokiError::Timeout { place: self.source.place(), seconds });
                }
            };
            match waits.next().filter(|_| is_overloaded(&error)) {
                Some(wait) => std::thread::sleep(wait),
                None => return Err(error.into()),
            }
        }
    }

    fn page(&self, logql: &str, range: Range) -> Result<Page, LokiError> {
        self.request(async || api::page(&self.client, &self.source, logql, range).await)
    }

    /// Reads all pages of a query; returns whether `each` broke or a limit was reached.
    fn pages(
        &self,
        logql: &str,
        mut pager: Pager,
        progress: &mut Progress,
        each: &mut dyn FnMut(&Found<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LokiError> {
        while let Some(range) = pager.next() {
            let page = match self.page(logql, range) {
                Err(LokiError::Fetch(error)) if shrunk(&mut pager, &error) => continue,
                page => page?,
            };
            for warning in &page.warnings {
                if !progress.warnings.contains(warning) {
                    progress.warnings.push(warning.clone());
                }
            }
            let delivered = pager.accept(range, &page);
            if let Some(ns) = delivered.crowded {
                let at = utc(ns.div_euclid(1_000_000));
                progress.warnings.push(format!(
                    "more than {} lines of one nanosecond at {at}: some are missing",
                    range.limit
                ));
            }
            for line in delivered.lines {
                if progress.lines >= self.limit || progress.bytes >= MOST_BYTES {
                    progress.warnings.push(self.cut(line.ns, progress.lines, range.direction));
                    return Ok(ControlFlow::Break(()));
                }
                progress.lines += 1;
                progress.bytes += line.text.len() as u64;
                if each(&line).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn cut(&self, ns: i64, lines: u64, direction: Direction) -> String {
        let at = utc(ns.div_euclid(1_000_000));
        let rest = match direction {
            Direction::Forward => "later",
            Direction::Backward => "earlier",
        };
        format!(
            "stopped at the limit of {lines} lines: {rest} ones than {at} are missing; use a shorter range (--since, --until), --host, or raise \
             --loki-limit"
        )
    }

    /// Start and end of a query in nanoseconds since the epoch, the end excluded.
    fn range(query: &Query) -> (i64, i64) {
        let nanos = |micros: u64| i64::try_from(micros).unwrap_or(i64::MAX).saturating_mul(1000);
        let now = now_ns();
        // journald counts microseconds, so that an entry has the first nanosecond of one.
        let until = query.until.map_or(now, |until| nanos(until.epoch_micros().saturating_add(1)));
        // A shipper's clock may be ahead.
        let until = until.min(now.saturating_add(60_000_000_000));
        let since = query.since.map(|since| nanos(since.epoch_micros()));
        (since.unwrap_or_else(|| until.saturating_sub(DEFAULT_RANGE)), until)
    }

    fn hosts<'a>(&'a self, query: &Query) -> std::borrow::Cow<'a, [String]> {
        query.host.clone().map_or_else(|| (&self.hosts[..]).into(), |host| vec![host].into())
    }

    /// No records: an empty store is an error, as a journal without files is.
    fn check_lines(&self, hosts: &[String]) -> Result<(), LokiError> {
        let selector = self.selector.of(None, hosts);
        let until = now_ns();
        let range =
            Range { from: until.saturating_sub(7 * DAY), until, limit: 1, direction: Direction::Backward };
        if self.page(&selector, range)?.lines.is_empty() {
            return Err(LokiError::NoLines { place: self.source.place(), selector });
        }
        Ok(())
    }

    /// Time of the last line of a host from a day before `end` to a day after it.
    fn last_line(&self, host: &str, end: i64) -> Result<Option<i64>, LokiError> {
        let selector = self.selector.of(None, &[host.to_owned()]);
        let until = end.saturating_add(DAY).min(now_ns());
        let range = Range { from: end.saturating_sub(DAY), until, limit: 1, direction: Direction::Backward };
        Ok(self.page(&selector, range)?.lines.first().map(|line| line.ns))
    }
}

impl Store for LokiStore {
    fn entries(
        &self,
        query: &Query,
        each: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
    ) -> Result<Warnings, ReadError> {
        let (from, until) = Self::range(query);
        let hosts = self.hosts(query);
        let direction = if query.reverse { Direction::Backward } else { Direction::Forward };
        let mut progress = Progress::default();
        let mut entry = Entry::default();
        let mut any = false;
        for logql in selector::queries(&self.selector, &hosts, &query.wanted) {
            let pager = Pager::new(from, until, direction);
            let flow = self.pages(&logql, pager, &mut progress, &mut |line| {
                fill(&mut entry, line.ns, line.labels, line.text);
                if query.wanted.iter().any(|want| want.holds(&entry)) {
                    any = true;
                    return each(&entry);
                }
                ControlFlow::Continue(())
            })?;
            if flow.is_break() {
                break;
            }
        }
        if !any && !query.often_empty {
            self.check_lines(&hosts)?;
        }
        Ok(Warnings::of_loki(progress.warnings))
    }

    fn survey(&self, query: &Query) -> Result<Survey, ReadError> {
        let (from, until) = Self::range(query);
        let selector = self.selector.of(Some(selector::WRITERS), &self.hosts(query));
        let mut names = std::collections::BTreeSet::new();
        let mut pager = Pager::new(from, until, Direction::Backward);
        while let Some(range) = pager.next() {
            let bounds = (range.from, range.until);
            let streams = match self
                .request(async || api::series(&self.client, &self.source, &selector, bounds).await)
            {
                Err(LokiError::Fetch(error)) if shrunk(&mut pager, &error) => continue,
                streams => streams?,
            };
            names.extend(streams.into_iter().filter_map(|mut labels| labels.remove("host")));
            pager.accept(range, &Page::default());
        }
        let end = until.min(now_ns());
        let hosts = names.into_iter().enumerate().map(|(n, name)| {
            let last_ns = if n < MOST_HOSTS { self.last_line(&name, end)? } else { Some(end) };
            Ok::<_, LokiError>(Host { name, last_ns })
        });
        Ok(Survey { hosts: hosts.collect::<Result<_, _>>()? })
    }

    fn needs_start(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "records from Loki"
    }
}

/// Whether a later request may succeed.
fn is_overloaded(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Status {
            status: StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT,
            ..
        }
    )
}

/// Whether the error is a limit of the server on one request and the pager now stays below it.
/// Texts of grafana.com, "Troubleshoot queries".
fn shrunk(pager: &mut Pager, error: &FetchError) -> bool {
    let FetchError::Status { body, .. } = error else { return false };
    let is = |texts: &[&str]| texts.iter().any(|text| body.contains(text));
    if is(&["max entries limit"]) {
        pager.fewer_lines()
    } else if is(&["query time range exceeds the limit", "would read too many bytes", "too large to execute"])
    {
        pager.shorter_range()
    } else {
        false
    }
}

fn now_ns() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}
