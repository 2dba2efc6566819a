//! Command line and environment. Checks what can be checked without touching anything.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use t3_journal::Mode;

/// Exit status for a configuration that cannot be used (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// The reverse proxy that knows who closed each WebSocket.
#[derive(Debug, Parser)]
#[command(name = "t3-dispatch", version, about, max_term_width = 110)]
#[command(
    after_help = "Exit status: 0 stopped as told; 1 another failure (a port in use, for example); 2 bad usage; \
                        78 bad configuration (routing table, log filter)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Proxy HTTP and WebSockets to each user's serve, and write one `ws close` record per WebSocket.
    ///
    /// SIGHUP reloads the routing table; SIGTERM and SIGINT stop: no new connections, Close 1001 to both sides, a record for
    /// every WebSocket.
    #[command(
        after_help = "Exit status: 0 stopped as told; 1 another failure; 2 bad usage; 78 bad configuration."
    )]
    Serve(Box<Serve>),
}

/// Options of `serve`.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Address to listen on; a socket passed by systemd is used instead when there is one.
    #[arg(long, env = "T3_DISPATCH_LISTEN", value_name = "ADDR:PORT", default_value = "[::]:3780")]
    pub listen: SocketAddr,
    /// Routing table: {"LOGIN": {"os_user": "USER", "port": PORT}}.
    #[arg(
        long,
        env = "T3_DISPATCH_TABLE",
        value_name = "FILE",
        default_value = "/etc/t3-serve/dispatch.json"
    )]
    pub table: PathBuf,
    /// Network whose identity and forwarding headers count. Repeatable, or separated by commas in the environment.
    #[arg(
        long,
        env = "T3_DISPATCH_TRUSTED_PROXY",
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = network,
        default_value = "127.0.0.0/8,::1/128"
    )]
    pub trusted_proxy: Vec<IpNet>,
    /// Socket of t3-trace.
    #[arg(long, env = "T3_DISPATCH_TRACE_SOCKET", value_name = "PATH", default_value = t3_record::wire::SOCKET_PATH)]
    pub trace_socket: PathBuf,
    /// Where to write: auto, journald or stderr.
    #[arg(long, env = "T3_DISPATCH_LOG", value_name = "WHERE", default_value = "auto")]
    pub log: Mode,
    /// What to log: a level, or target=level pairs.
    #[arg(long, env = "T3_DISPATCH_LOG_FILTER", value_name = "FILTER", default_value = "info")]
    pub log_filter: String,
    /// From the signal to the end, at most.
    #[arg(long, env = "T3_DISPATCH_DRAIN_TIME", value_name = "TIME", value_parser = time, default_value = "5s")]
    pub drain_time: Duration,
    /// For serve to accept a connection.
    #[arg(long, env = "T3_DISPATCH_CONNECT_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "5s")]
    pub connect_timeout: Duration,
    /// For serve to answer an upgrade.
    #[arg(long, env = "T3_DISPATCH_HANDSHAKE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "15s")]
    pub handshake_timeout: Duration,
    /// For a client to begin and finish its next request head on an open connection.
    #[arg(long, env = "T3_DISPATCH_IDLE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "120s")]
    pub idle_timeout: Duration,
    /// Silence after which TCP keepalive probes start, on both legs; 0s for none.
    #[arg(long, env = "T3_DISPATCH_KEEPALIVE", value_name = "TIME", value_parser = time_or_none, default_value = "15s")]
    pub keepalive: Duration,
    /// How long a peer may leave data or probes unacknowledged (TCP_USER_TIMEOUT); 0s for the kernel's own limit.
    #[arg(long, env = "T3_DISPATCH_USER_TIMEOUT", value_name = "TIME", value_parser = time_or_none, default_value = "30s")]
    pub user_timeout: Duration,
    /// How long a half-closed WebSocket, or one with a completed close handshake, may stand still.
    #[arg(long, env = "T3_DISPATCH_CLOSE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    pub close_timeout: Duration,
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("{text:?} is neither a network like 10.0.0.0/8 nor an address"))
}

/// A time above zero.
fn time(text: &str) -> Result<Duration, String> {
    let time = time_or_none(text)?;
    if time.is_zero() { Err("must be above zero".to_owned()) } else { Ok(time) }
}

/// Whole numbers with `ms`, `s`, `m` or `h`.
fn time_or_none(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time like 500ms, 5s, 2m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
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
    fn times_have_a_unit() {
        for (text, millis) in [("250ms", 250), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(time_or_none(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["", "5", "s", "-1s", "1.5s", "5 s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(time_or_none(text).is_err(), "{text:?}");
        }
        assert!(time("0s").is_err());
    }
}
