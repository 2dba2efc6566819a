//! Options, and the legs that they configure.

use std::{
    ffi::OsStr,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use http::{HeaderValue, Uri};
use t3_config::value::duration;
use t3_record::probe::Way;
use tracing_subscriber::EnvFilter;

use crate::leg::{Address, Leg, Profile, Timeouts};

/// Probe the path to t3 with several legs, to attribute disconnects to a segment.
#[derive(Debug, Parser)]
#[command(
    name = "t3-probe",
    version,
    max_term_width = 110,
    after_help = "Exit status:
  0  success; for once: every leg is clean
  1  runtime failure; for once: a leg is down or slow
  2  usage or configuration error"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Observe all legs and serve metrics
    #[command(after_help = "Examples:
  t3-probe run --host t3.example.org --internal 10.0.20.203 --serve http://10.0.10.10:3773
  t3-probe run --config /etc/t3-probe.toml

Exit status:
  0  clean shutdown
  1  runtime failure, for example a port in use
  2  usage or configuration error

Environment: NO_COLOR disables colours of the log; without a terminal there are none.")]
    Run(Run),
    /// Try every leg once and print the attribution
    #[command(after_help = "Examples:
  t3-probe once --host t3.example.org --internal 10.0.20.203 --serve ann=http://10.0.10.10:3773
  t3-probe once --json

Exit status:
  0  every leg is clean
  1  a leg is down or slow
  2  usage or configuration error")]
    Once(Once),
}

/// `t3-probe once`.
#[derive(Debug, Args)]
pub struct Once {
    #[command(flatten)]
    pub legs: LegOptions,
    /// Print one JSON document in place of the table
    #[arg(long, env = "T3_PROBE_JSON")]
    pub json: bool,
}

/// `t3-probe run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub legs: LegOptions,
    /// Address of /metrics, /healthz and /
    #[arg(long, env = "T3_PROBE_LISTEN", value_name = "ADDR:PORT", default_value = "[::]:9108")]
    pub listen: SocketAddr,
    /// Window of the overview on /; should exceed the time in which all legs notice the same outage
    /// and are up again: --beat, --answer-timeout, --connect-timeout and ten times --back-off
    #[arg(long, env = "T3_PROBE_WINDOW", value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub window: Duration,
    /// Disable the line of JSON on stdout for each disconnect
    #[arg(long, env = "T3_PROBE_NO_JSON")]
    pub no_json: bool,
    /// Log filter: a level, or target=level pairs
    #[arg(long, env = "T3_PROBE_LOG_FILTER", value_name = "FILTER", value_parser = filter, default_value = "info")]
    pub log_filter: String,
}

/// Options of the legs.
#[derive(Debug, Clone, Args)]
pub struct LegOptions {
    /// Configuration file, `name = value` in TOML; command line and environment override it
    #[arg(long, env = "T3_PROBE_CONFIG", value_name = "FILE", default_value = "/etc/t3-probe.toml")]
    pub config: PathBuf,
    /// Public name of t3: the leg `cloudflare` connects to wss://HOST/probe/ws at the address from
    /// public DNS
    #[arg(long, env = "T3_PROBE_HOST", value_name = "HOST[:PORT]")]
    pub host: Option<String>,
    /// Resolver for DNS over HTTPS (dns-json)
    #[arg(long, env = "T3_PROBE_DOH", value_name = "URL", default_value = "https://1.1.1.1/dns-query", value_parser = https)]
    pub doh: Uri,
    /// Address of the internal Traefik: the leg `internal` connects to the same URL there; default
    /// port 443
    #[arg(long, env = "T3_PROBE_INTERNAL", value_name = "ADDR[:PORT]", value_parser = address)]
    pub internal: Option<SocketAddr>,
    /// URL of a serve: the leg `t3serve` requests its /api/auth/session. Repeatable with names; the
    /// legs are then `t3serve:NAME`
    #[arg(long, env = "T3_PROBE_SERVE", value_name = "[NAME=]URL", value_delimiter = ',', value_parser = serve)]
    pub serve: Vec<ServeTarget>,
    /// Path of the echo WebSocket
    #[arg(long, env = "T3_PROBE_PATH", value_name = "PATH", default_value = "/probe/ws", value_parser = path)]
    pub path: String,
    /// File with the token that t3-dispatch requires of probes (its `--probe-token-file`)
    #[arg(long, env = "T3_PROBE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Trusted CA certificates (PEM), in addition to those of the system
    #[arg(long, env = "T3_PROBE_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Preset of --beat and --answer-timeout: browser (2s, 5s) notices the stalls that end a
    /// session in a browser, python (10s, 20s) has the times of the Python prober. Each of the two
    /// options overrides it
    #[arg(
        long,
        env = "T3_PROBE_PROFILE",
        value_name = "NAME",
        value_enum,
        hide_possible_values = true,
        default_value = "browser"
    )]
    pub profile: Profile,
    /// Time from an answered ping to the next; by default that of --profile
    #[arg(long, env = "T3_PROBE_BEAT", value_name = "TIME", value_parser = duration)]
    pub beat: Option<Duration>,
    /// Timeout for the echo and the Pong of a ping, or for a response; by default that of --profile
    #[arg(long, env = "T3_PROBE_ANSWER_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub answer_timeout: Option<Duration>,
    /// Timeout for establishing a leg
    #[arg(long, env = "T3_PROBE_CONNECT_TIMEOUT", value_name = "TIME", value_parser = duration, default_value = "15s")]
    pub connect_timeout: Duration,
    /// Reconnect backoff step (linear, max 10x)
    #[arg(long, env = "T3_PROBE_BACK_OFF", value_name = "TIME", value_parser = duration, default_value = "3s")]
    pub back_off: Duration,
    /// Time to the echo and the Pong, or to a response, above which a leg is slow
    #[arg(long, env = "T3_PROBE_SLOW", value_name = "TIME", value_parser = duration, default_value = "1s")]
    pub slow: Duration,
}

/// A serve to probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeTarget {
    name: Option<String>,
    url: Uri,
}

/// Invalid combination of options.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LegsError {
    /// No leg.
    #[error("no probe leg is configured; set --host, --internal (with --host) or --serve")]
    None,
    /// The address alone has no name for TLS.
    #[error("--internal requires --host, the name in the URL, in SNI and in the certificate")]
    NoHost,
    /// Not a host.
    #[error("--host: expected NAME or NAME:PORT, got {0:?}")]
    Host(String),
    /// The file cannot be used.
    #[error("cannot read the token of {0}: {1}; see --token-file")]
    Token(String, String),
    /// The file cannot be used.
    #[error("{0}; see --ca-file")]
    CaFile(String),
    /// Two legs with the same name.
    #[error("two legs have the name {0:?}; name each serve, as in --serve ann=http://...")]
    Twice(String),
}

impl LegOptions {
    /// Returns the configured legs.
    ///
    /// # Errors
    /// [`LegsError`].
    pub fn legs(&self) -> Result<Vec<Leg>, LegsError> {
        let mut legs = Vec::new();
        let authorization = self.token_file.as_deref().map(authorization).transpose()?;
        if let Some(host) = &self.host {
            let url: Uri = format!("wss://{host}{}", self.path)
                .parse()
                .ok()
                .filter(|url: &Uri| url.host().is_some_and(|found| host.starts_with(found)))
                .ok_or_else(|| LegsError::Host(host.clone()))?;
            let dispatch = |way, url, address| Leg {
                authorization: authorization.clone(),
                ..leg(way, None, url, address)
            };
            legs.push(dispatch(Way::Cloudflare, url.clone(), Address::Doh(self.doh.clone())));
            if let Some(address) = self.internal {
                legs.push(dispatch(Way::Internal, url, Address::Pinned(address)));
            }
        } else if self.internal.is_some() {
            return Err(LegsError::NoHost);
        }
        for serve in &self.serve {
            legs.push(leg(Way::Serve, serve.name.as_deref(), serve.url.clone(), Address::System));
        }
        if legs.is_empty() {
            return Err(LegsError::None);
        }
        for (n, leg) in legs.iter().enumerate() {
            if legs.iter().take(n).any(|other| other.name == leg.name) {
                return Err(LegsError::Twice(leg.name.clone()));
            }
        }
        Ok(legs)
    }

    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            ping_interval: self.beat.unwrap_or(self.profile.ping_interval()),
            response_timeout: self.answer_timeout.unwrap_or(self.profile.response_timeout()),
            connect_timeout: self.connect_timeout,
            backoff_step: self.back_off,
            max_backoff: self.back_off.saturating_mul(10),
            slow_threshold: self.slow,
        }
    }
}

/// Whether the log has colours: only on a terminal, and not with a `NO_COLOR` that has a value.
#[must_use]
pub fn wants_colour(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

fn leg(way: Way, name: Option<&str>, url: Uri, address: Address) -> Leg {
    let name = name.map_or_else(|| way.to_string(), |name| format!("{way}:{name}"));
    Leg { name, way, url, address, authorization: None }
}

/// Reads a token; returns the value of `Authorization` (RFC 6750 section 2.1).
fn authorization(path: &Path) -> Result<HeaderValue, LegsError> {
    let failed = |why: String| LegsError::Token(path.display().to_string(), why);
    let token = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    // An invalid value is not in the error.
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim_end()))
        .map_err(|_| failed("expected one line of visible characters".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("expected a level such as info, or target=level pairs: {error}"))
}

fn https(text: &str) -> Result<Uri, String> {
    let url: Uri =
        text.parse().map_err(|error| format!("expected a URL such as https://1.1.1.1/dns-query: {error}"))?;
    if url.scheme_str() == Some("https") && url.host().is_some() {
        Ok(url)
    } else {
        Err("expected a URL such as https://1.1.1.1/dns-query".to_owned())
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse::<SocketAddr>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 443)))
        .ok_or_else(|| "expected an address such as 10.0.20.203 or 10.0.20.203:443".to_owned())
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("expected a path that starts with /".to_owned())
    }
}

fn serve(text: &str) -> Result<ServeTarget, String> {
    let wrong = || "expected [NAME=]URL, for example ann=http://10.0.10.10:3773".to_owned();
    let (name, url) = match text.split_once('=') {
        Some((name, url)) if !name.contains(':') => (Some(name.to_owned()), url),
        _ => (None, text),
    };
    if name.as_deref() == Some("") {
        return Err(wrong());
    }
    let url: Uri = url.parse().map_err(|_| wrong())?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
        return Err(wrong());
    }
    let url = if url.path() == "/" { session_page(&url).ok_or_else(wrong)? } else { url };
    Ok(ServeTarget { name, url })
}

fn session_page(url: &Uri) -> Option<Uri> {
    format!("{}://{}/api/auth/session", url.scheme_str()?, url.authority()?).parse().ok()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn legs(arguments: &[&str]) -> Result<Vec<Leg>, String> {
        let all = ["t3-probe", "once"].iter().chain(arguments);
        match Cli::try_parse_from(all).map_err(|error| error.to_string())?.command {
            Command::Once(once) => once.legs.legs().map_err(|error| error.to_string()),
            Command::Run(_) => unreachable!(),
        }
    }

    #[test]
    fn the_definition_is_consistent_and_every_option_has_its_variable() {
        Cli::command().debug_assert();
        let command = Cli::command();
        let all = ["run", "once"].map(|name| command.find_subcommand(name).unwrap().get_arguments());
        for arg in all.into_iter().flatten() {
            if arg.get_id() != "help" {
                let expected = format!("T3_PROBE_{}", arg.get_id().as_str().to_uppercase());
                assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(expected.as_str()));
            }
        }
    }

    #[test]
    fn the_log_has_colours_only_on_a_terminal_without_no_color() {
        for (is_terminal, no_color, expected) in [
            (true, None, true),
            (true, Some(""), true),
            (true, Some("1"), false),
            (false, None, false),
            (false, Some("1"), false),
        ] {
            assert_eq!(wants_colour(is_terminal, no_color.map(OsStr::new)), expected, "{no_color:?}");
        }
    }

    #[test]
    fn help_pages_and_completions_are_complete_and_their_examples_parse() {
        let problems = t3_config::pages::audit::problems(&t3_config::definition::<Cli>());
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn the_token_is_for_dispatch_only_and_is_not_printed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let all = ["--host", "t3.example.org", "--serve", "http://10.0.10.10:3773", "--token-file", path];
        std::fs::write(path, "0123456789abcdef\n").unwrap();
        let found = legs(&all).unwrap();
        let sent: Vec<_> = found.iter().map(|leg| leg.authorization.as_ref().map(|v| v.as_bytes())).collect();
        assert_eq!(sent, [Some(&b"Bearer 0123456789abcdef"[..]), None]);
        assert!(!format!("{found:?}").contains("0123"));
        std::fs::write(path, "secret\u{1}").unwrap();
        let error = legs(&all).unwrap_err();
        assert!(error.contains("--token-file") && !error.contains("secret"), "{error}");
        std::fs::remove_file(path).unwrap();
        assert!(legs(&all).unwrap_err().contains("--token-file"));
    }

    #[test]
    fn the_options_configure_three_legs() {
        let found = legs(&[
            "--host",
            "t3.example.org",
            "--internal",
            "10.0.20.203",
            "--serve",
            "http://10.0.10.10:3773",
        ]);
        let found = found.unwrap();
        let reported: Vec<_> =
            found.iter().map(|leg| (leg.name.as_str(), leg.url.to_string(), leg.address.clone())).collect();
        let doh = Address::Doh("https://1.1.1.1/dns-query".parse().unwrap());
        assert_eq!(
            reported,
            [
                ("cloudflare", "wss://t3.example.org/probe/ws".to_owned(), doh),
                (
                    "internal",
                    "wss://t3.example.org/probe/ws".to_owned(),
                    Address::Pinned("10.0.20.203:443".parse().unwrap())
                ),
                ("t3serve", "http://10.0.10.10:3773/api/auth/session".to_owned(), Address::System),
            ]
        );
    }

    #[test]
    fn a_profile_sets_the_times_and_explicit_options_override_it() {
        for (arguments, beat, answer_timeout) in [
            (&[][..], 2, 5),
            (&["--profile=browser"], 2, 5),
            (&["--profile=python"], 10, 20),
            (&["--profile=python", "--beat=3s"], 3, 20),
            (&["--answer-timeout=7s", "--profile=python"], 10, 7),
        ] {
            let Command::Once(once) =
                Cli::try_parse_from(["t3-probe", "once"].iter().chain(arguments)).unwrap().command
            else {
                unreachable!()
            };
            let times = once.legs.timeouts();
            assert_eq!(
                (times.ping_interval.as_secs(), times.response_timeout.as_secs()),
                (beat, answer_timeout),
                "{arguments:?}"
            );
            if arguments.is_empty() {
                assert_eq!(times, Timeouts::default());
            }
        }
    }

    #[test]
    fn the_default_window_covers_an_outage_that_the_legs_notice_at_different_times() {
        let Command::Run(run) = Cli::try_parse_from(["t3-probe", "run"]).unwrap().command else {
            unreachable!()
        };
        let times = run.legs.timeouts();
        let apart = times.ping_interval + times.response_timeout + times.connect_timeout + times.max_backoff;
        assert!(run.window > apart, "{:?} {apart:?}", run.window);
    }

    #[test]
    fn several_serves_have_names_and_invalid_options_name_the_cause() {
        let found = legs(&["--serve", "ann=http://h:1,bob=http://h:2/x"]).unwrap();
        assert_eq!(
            found.iter().map(|leg| leg.name.as_str()).collect::<Vec<_>>(),
            ["t3serve:ann", "t3serve:bob"]
        );
        assert_eq!(found[1].url.path(), "/x");
        for (arguments, what) in [
            (&["--serve", "http://h:1,http://h:2"][..], "two legs have the name"),
            (&[], "no probe leg is configured"),
            (&["--internal", "10.0.0.1"], "--internal requires --host"),
            (&["--serve", "ftp://h"], "expected [NAME=]URL"),
            (&["--host", "a b"], "expected NAME or NAME:PORT"),
            (&["--host", "h", "--doh", "http://1.1.1.1/"], "expected a URL such as https"),
            (&["--host", "h", "--internal", "traefik"], "expected an address such as"),
            (&["--host", "h", "--beat", "0s"], "expected a duration above zero"),
            (&["--host", "h", "--profile", "go"], "[possible values: browser, python]"),
        ] {
            let error = legs(arguments).unwrap_err();
            assert!(error.contains(what), "{arguments:?}: {error}");
        }
    }
}
