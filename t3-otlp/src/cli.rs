//! Options.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use t3_config::value::duration;

/// Export the records of t3-dispatch to an OpenTelemetry collector
#[derive(Debug, Parser)]
#[command(
    name = "t3-otlp",
    version,
    max_term_width = 110,
    after_help = "Exit status:
  0  success
  1  runtime failure, or a record could not be exported
  2  usage or configuration error"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow the journal and export each `ws close` as a log record and a span
    #[command(after_help = "Examples:
  t3-otlp run --endpoint http://127.0.0.1:4318
  journalctl --output=json --since today | t3-otlp run --endpoint http://127.0.0.1:4318 --from -

Exit status:
  0  stopped by a signal; with --from: everything was exported
  1  runtime failure; with --from: a record was not exported
  2  usage or configuration error")]
    Run(Run),
}

/// What is exported of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Signal {
    /// A log record.
    Logs,
    /// A span.
    Traces,
}

/// `t3-otlp run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Configuration file, `name = value` in TOML; command line and environment override it
    #[arg(long, env = "T3_OTLP_CONFIG", value_name = "FILE", default_value = "/etc/t3-otlp.toml")]
    pub config: PathBuf,
    /// Base URL of the collector (OTLP over HTTP), without /v1/logs; required
    #[arg(long, env = "T3_OTLP_ENDPOINT", value_name = "URL", value_parser = endpoint)]
    pub endpoint: Option<Uri>,
    /// Log records, spans or both
    #[arg(
        long,
        env = "T3_OTLP_SIGNALS",
        value_name = "SIGNAL",
        value_delimiter = ',',
        default_value = "logs,traces"
    )]
    pub signals: Vec<Signal>,
    /// File with header fields for the collector, such as a token: `Name: value`, one per line
    #[arg(long, env = "T3_OTLP_HEADER_FILE", value_name = "FILE")]
    pub header_file: Option<PathBuf>,
    /// Trusted CA certificates (PEM), in addition to those of the system
    #[arg(long, env = "T3_OTLP_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Units whose records are exported
    #[arg(
        long,
        env = "T3_OTLP_UNITS",
        value_name = "UNIT",
        value_delimiter = ',',
        default_value = "t3-dispatch.service,t3-trace.service"
    )]
    pub units: Vec<String>,
    /// File with the position in the journal; without it the export begins with the next record
    #[arg(long, env = "T3_OTLP_CURSOR_FILE", value_name = "FILE", default_value = "/var/lib/t3-otlp/cursor")]
    pub cursor_file: PathBuf,
    /// Export this output of `journalctl --output=json` (-: standard input) and exit
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Maximum number of records of a request, 1 to 10000
    #[arg(long, env = "T3_OTLP_BATCH_SIZE", value_name = "N", default_value = "256", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub batch_size: u16,
    /// Time to wait for more records of a request
    #[arg(long, env = "T3_OTLP_BATCH_TIME", value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub batch_time: Duration,
    /// Timeout for a request
    #[arg(long, env = "T3_OTLP_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
    /// Longest delay before a request is repeated; the first is 1 s
    #[arg(long, env = "T3_OTLP_MAX_DELAY", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub max_delay: Duration,
    /// Log filter: a level, or target=level pairs
    #[arg(long, env = "T3_OTLP_LOG_FILTER", value_name = "FILTER", default_value = "info")]
    pub log_filter: String,
}

fn endpoint(text: &str) -> Result<Uri, String> {
    let wrong = || format!("expected http://HOST:PORT or https://HOST:PORT, got {text:?}");
    let url: Uri = text.parse().map_err(|_| wrong())?;
    if matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some() && url.query().is_none() {
        return Ok(url);
    }
    Err(wrong())
}

/// Reads the header fields of `--header-file`. Errors do not contain a value.
///
/// # Errors
/// The file cannot be read, or a line is not a header field.
pub fn headers(path: &std::path::Path) -> anyhow::Result<HeaderMap> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; see --header-file", path.display()))?;
    let mut headers = HeaderMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let field = line.split_once(':').and_then(|(name, value)| {
            let name = name.trim().parse::<HeaderName>().ok()?;
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        let Some((name, value)) = field else {
            bail!("{}, line {number}: expected `Name: value`", path.display());
        };
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod page;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_url() {
        for text in ["http://127.0.0.1:4318", "https://otlp.example.org/tenant"] {
            endpoint(text).unwrap();
        }
        for text in ["127.0.0.1:4318", "grpc://a:1", "http://a/?x=1", ""] {
            assert!(endpoint(text).unwrap_err().contains(&format!("got {text:?}")), "{text}");
        }
    }

    #[test]
    fn header_fields_are_read_and_values_stay_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        std::fs::write(&path, "Authorization: Bearer s3cret\n\nX-Scope-OrgID: a\n").unwrap();
        let found = headers(&path).unwrap();
        assert_eq!(found["authorization"], "Bearer s3cret");
        assert!(!format!("{found:?}").contains("s3cret"));
        std::fs::write(&path, "A: b\ns3cret\n").unwrap();
        let error = headers(&path).unwrap_err().to_string();
        assert!(error.ends_with("line 2: expected `Name: value`"), "{error}");
    }
}
