//! Command line and environment. Checks values without side effects.

mod evidence;
mod http;
mod legs;
mod limits;
mod listening;
mod logging;
mod metrics;
mod mint_answer;
mod pages;
mod pairing;
mod routing;
mod trust;
mod value;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use self::{
    evidence::EvidenceOptions, http::HttpOptions, legs::LegOptions, limits::LimitOptions,
    listening::ListenOptions, logging::LogOptions, metrics::MetricsOptions, mint_answer::MintAnswer,
    pages::PageOptions, pairing::PairingOptions, routing::RoutingOptions, trust::TrustOptions,
    value::FileOption,
};

/// Text after the examples in every help.
macro_rules! below {
    ($examples:literal) => {
        concat!(
            "Examples:\n",
            $examples,
            "\n
Exit status:
   0  clean shutdown; for check: no problems found
   1  runtime failure, for example a port in use
   2  usage error: wrong option or value on the command line or in the environment
  78  bad configuration: file, routing table or log filter; for check: any problem

Options come from the command line, the environment, the configuration file or the default, in this
order."
        )
    };
}

/// Exit status for a configuration that cannot be used (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// Reverse proxy that records who closed each WebSocket.
#[derive(Debug, Parser)]
#[command(name = "t3-dispatch", version, about, max_term_width = 110,
          after_help = below!("  t3-dispatch check\n  t3-dispatch serve --listen 127.0.0.1:3780"))]
pub struct Cli {
    /// Command.
    #[command(subcommand)]
    pub command: Command,
}

/// Command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Proxy HTTP and WebSockets to each user's serve, and write one `ws close` record per
    /// WebSocket.
    ///
    /// SIGHUP reloads the routing table. SIGTERM and SIGINT stop the program: no new connections,
    /// Close 1001 on both legs, one record per WebSocket.
    #[command(after_help = below!(
        "  t3-dispatch serve --listen 127.0.0.1:3780 --table table.json --log stderr\n  T3_DISPATCH_LOG_FILTER=debug t3-dispatch serve"
    ))]
    Serve(Box<Serve>),
    /// Check the configuration and the routing table; print the options that `serve` would use,
    /// with their source.
    ///
    /// Takes the options of `serve`, opens no socket and changes nothing.
    #[command(after_help = below!(
        "  t3-dispatch check\n  t3-dispatch check --config new.toml --table new.json && systemctl reload t3-dispatch"
    ))]
    Check(Box<Serve>),
}

impl Command {
    /// Options of either command.
    #[must_use]
    pub fn options(self) -> Serve {
        match self {
            Self::Serve(options) | Self::Check(options) => *options,
        }
    }
}

/// Options of `serve` by subject. A new option goes into the file of its group.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Configuration file: options of this list as `name = value`, in TOML. The default file
    /// is optional.
    ///
    /// Read once at start; /dev/null for none.
    #[arg(long, env = "T3_DISPATCH_CONFIG", value_name = "FILE", default_value = "/etc/t3-dispatch.toml")]
    pub config: PathBuf,
    /// Listening address.
    #[command(flatten)]
    pub listening: ListenOptions,
    /// Routing of a request.
    #[command(flatten)]
    pub routing: RoutingOptions,
    /// Whose identity and forwarding headers count.
    #[command(flatten)]
    pub trust: TrustOptions,
    /// Pairing.
    #[command(flatten)]
    pub pairing: PairingOptions,
    /// Pages.
    #[command(flatten)]
    pub pages: PageOptions,
    /// HTTP connections.
    #[command(flatten)]
    pub http: HttpOptions,
    /// The two legs of a WebSocket.
    #[command(flatten)]
    pub legs: LegOptions,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitOptions,
    /// Evidence and records.
    #[command(flatten)]
    pub evidence: EvidenceOptions,
    /// Metrics.
    #[command(flatten)]
    pub metrics: MetricsOptions,
    /// Logging.
    #[command(flatten)]
    pub logging: LogOptions,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent_and_every_option_has_its_variable() {
        Cli::command().debug_assert();
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for arg in serve.get_arguments().filter(|arg| arg.get_id() != "help") {
            let expected = format!("T3_DISPATCH_{}", arg.get_id().as_str().to_uppercase());
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(expected.as_str()));
        }
    }

    #[test]
    fn help_pages_completions_and_examples_are_valid() {
        assert_eq!(t3_config::pages::audit::problems(&crate::config::definition()), Vec::<String>::new());
    }
}
