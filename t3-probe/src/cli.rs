//! Command line and environment, and the legs they ask for.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use http::Uri;
use t3_config::value::duration;
use t3_record::probe::Way;

use crate::leg::{Address, Leg, Timeouts};

/// Observes the way to t3 by several legs, so that a drop can be put where it belongs.
#[derive(Debug, Parser)]
#[command(
    name = "t3-probe",
    version,
    max_term_width = 110,
    after_help = "Exit status:
  0  all is well; for once: every leg is clean
  1  a failure; for once: a leg is down or slow
  2  wrong usage or configuration"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep all legs under observation and serve metrics.
    #[command(after_help = "Examples:
  t3-probe run --host t3.example.org --internal 10.0.20.203 --serve http://10.0.10.10:3773
  t3-probe run --config /etc/t3-probe.toml

Exit status:
  0  stopped as reported
  1  a failure: a port in use, for example
  2  wrong usage or configuration")]
    Run(Run),
    /// Try every leg once, now, and say what they mean together.
    #[command(after_help = "Examples:
  t3-probe once --host t3.example.org --internal 10.0.20.203 --serve ann=http://10.0.10.10:3773

Exit status:
  0  every leg is clean
  1  a leg is down or slow
  2  wrong usage or configuration")]
    Once(LegOptions),
}

/// `t3-probe run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The legs.
    #[command(flatten)]
    pub legs: LegOptions,
    /// Where to serve /metrics, /healthz and /.
    #[arg(long, env = "T3_PROBE_LISTEN", value_name = "ADDR:PORT", default_value = "[::]:9108")]
    pub listen: SocketAddr,
    /// How far back the overview on / looks: long enough for a second leg to notice what the first
    /// one did.
    #[arg(long, env = "T3_PROBE_WINDOW", value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub window: Duration,
    /// Leave the line of JSON at each disconnect out.
    #[arg(long, env = "T3_PROBE_NO_JSON")]
    pub no_json: bool,
    /// What to log: a level, or target=level pairs.
    #[arg(long, env = "T3_PROBE_LOG_FILTER", value_name = "FILTER", default_value = "info")]
    pub log_filter: String,
}

/// The legs and their timeouts.
#[derive(Debug, Clone, Args)]
pub struct LegOptions {
    /// Options from a file, as `name = value` in TOML; the command line and the environment win
    /// over it.
    #[arg(long, env = "T3_PROBE_CONFIG", value_name = "FILE", default_value = "/etc/t3-probe.toml")]
    pub config: PathBuf,
    /// The name people use: the leg `cloudflare` takes wss://HOST/probe/ws at the address that
    /// public DNS gives.
    #[arg(long, env = "T3_PROBE_HOST", value_name = "HOST[:PORT]")]
    pub host: Option<String>,
    /// Where DNS over HTTPS is asked, as dns-json.
    #[arg(long, env = "T3_PROBE_DOH", value_name = "URL", default_value = "https://1.1.1.1/dns-query", value_parser = https)]
    pub doh: Uri,
    /// The internal Traefik: the leg `internal` takes the same URL there. Port 443 unless it has
    /// one.
    #[arg(long, env = "T3_PROBE_INTERNAL", value_name = "ADDR[:PORT]", value_parser = address)]
    pub internal: Option<SocketAddr>,
    /// A serve: the leg `t3serve` asks it for /api/auth/session. Repeatable with a name each: the
    /// leg is then `t3serve:NAME`.
    #[arg(long, env = "T3_PROBE_SERVE", value_name = "[NAME=]URL", value_delimiter = ',', value_parser = serve)]
    pub serve: Vec<ServeTarget>,
    /// The path of the echo.
    #[arg(long, env = "T3_PROBE_PATH", value_name = "PATH", default_value = "/probe/ws", value_parser = path)]
    pub path: String,
    /// Certificates to believe beside the public ones, as PEM.
    #[arg(long, env = "T3_PROBE_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// From an echo to the next ping.
    #[arg(long, env = "T3_PROBE_BEAT", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub beat: Duration,
    /// For an echo or an answer.
    #[arg(long, env = "T3_PROBE_ANSWER_TIMEOUT", value_name = "TIME", value_parser = duration, default_value = "20s")]
    pub answer_timeout: Duration,
    /// For a connection to be established.
    #[arg(long, env = "T3_PROBE_CONNECT_TIMEOUT", value_name = "TIME", value_parser = duration, default_value = "15s")]
    pub connect_timeout: Duration,
    /// From a disconnect to the next attempt, this much more each time, up to ten times as much.
    #[arg(long, env = "T3_PROBE_BACK_OFF", value_name = "TIME", value_parser = duration, default_value = "3s")]
    pub back_off: Duration,
    /// An answer slower than this is a stall.
    #[arg(long, env = "T3_PROBE_SLOW", value_name = "TIME", value_parser = duration, default_value = "1s")]
    pub slow: Duration,
}

/// A serve to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeTarget {
    name: Option<String>,
    url: Uri,
}

/// The options ask for nothing that can be done.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LegsError {
    /// No leg at all.
    #[error("no leg to observe: give --host, --internal (with --host) or --serve")]
    None,
    /// A pinned address says where, the host says what for.
    #[error("--internal needs --host: the name in the URL, in SNI and in the certificate")]
    NoHost,
    /// Not a host.
    #[error("--host {0:?} is not a name with an optional port")]
    Host(String),
    /// Two legs of one name.
    #[error("two legs are called {0:?}: give each serve a name of its own, as in --serve ann=http://...")]
    Twice(String),
}

impl LegOptions {
    /// The legs asked for.
    ///
    /// # Errors
    /// [`LegsError`].
    pub fn legs(&self) -> Result<Vec<Leg>, LegsError> {
        let mut legs = Vec::new();
        if let Some(host) = &self.host {
            let url: Uri = format!("wss://{host}{}", self.path)
                .parse()
                .ok()
                .filter(|url: &Uri| url.host().is_some_and(|found| host.starts_with(found)))
                .ok_or_else(|| LegsError::Host(host.clone()))?;
            legs.push(leg(Way::Cloudflare, None, url.clone(), Address::Doh(self.doh.clone())));
            if let Some(address) = self.internal {
                legs.push(leg(Way::Internal, None, url, Address::Pinned(address)));
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

    /// The timeouts asked for.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            beat: self.beat,
            answer: self.answer_timeout,
            connect: self.connect_timeout,
            back_off: self.back_off,
            back_off_most: self.back_off.saturating_mul(10),
            slow: self.slow,
        }
    }
}

fn leg(way: Way, name: Option<&str>, url: Uri, address: Address) -> Leg {
    let name = name.map_or_else(|| way.to_string(), |name| format!("{way}:{name}"));
    Leg { name, way, url, address }
}

fn https(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    if url.scheme_str() == Some("https") && url.host().is_some() {
        Ok(url)
    } else {
        Err(format!("{text:?} is not a URL like https://1.1.1.1/dns-query"))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse::<SocketAddr>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 443)))
        .ok_or_else(|| format!("{text:?} is not an address like 10.0.20.203 or 10.0.20.203:443"))
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err(format!("{text:?} does not start with /")) }
}

fn serve(text: &str) -> Result<ServeTarget, String> {
    let wrong = || format!("{text:?} is not a URL like http://10.0.10.10:3773, with NAME= before it or not");
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
            Command::Once(legs) => legs.legs().map_err(|error| error.to_string()),
            Command::Run(_) => unreachable!(),
        }
    }

    #[test]
    fn the_definition_is_consistent_and_every_option_has_its_variable() {
        Cli::command().debug_assert();
        let command = Cli::command();
        for arg in command.find_subcommand("run").unwrap().get_arguments() {
            if arg.get_id() != "help" {
                let expected = format!("T3_PROBE_{}", arg.get_id().as_str().to_uppercase());
                assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(expected.as_str()));
            }
        }
    }

    #[test]
    fn help_pages_and_completions_are_whole_and_their_examples_are_right() {
        let problems = t3_config::pages::audit::problems(&t3_config::definition::<Cli>());
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn todays_three_legs() {
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
    fn several_serves_have_names_and_bad_options_say_what_is_wrong() {
        let found = legs(&["--serve", "ann=http://h:1,bob=http://h:2/x"]).unwrap();
        assert_eq!(
            found.iter().map(|leg| leg.name.as_str()).collect::<Vec<_>>(),
            ["t3serve:ann", "t3serve:bob"]
        );
        assert_eq!(found[1].url.path(), "/x");
        for (arguments, what) in [
            (&["--serve", "http://h:1,http://h:2"][..], "two legs are called"),
            (&[], "no leg to observe"),
            (&["--internal", "10.0.0.1"], "--internal needs --host"),
            (&["--serve", "ftp://h"], "is not a URL like"),
            (&["--host", "a b"], "is not a name"),
            (&["--host", "h", "--doh", "http://1.1.1.1/"], "is not a URL like https"),
            (&["--host", "h", "--internal", "traefik"], "is not an address like"),
            (&["--host", "h", "--beat", "0s"], "expected a duration above zero"),
        ] {
            let error = legs(arguments).unwrap_err();
            assert!(error.contains(what), "{arguments:?}: {error}");
        }
    }
}
