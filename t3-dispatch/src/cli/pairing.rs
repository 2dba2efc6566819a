//! Options: pairing of browsers without a session.

use std::time::Duration;

use clap::Args;

use super::value::time;
use crate::pairing::{MintCommand, mint_socket};

/// Pairing of browsers without a session.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pairing")]
pub struct PairingOptions {
    /// Disable automatic pairing.
    #[arg(long, env = "T3_DISPATCH_NO_PAIRING")]
    pub no_pairing: bool,
    /// Command that prints {"credential": "..."}; the OS user is appended as its last
    /// argument. Split like a shell command, without running a shell.
    #[arg(
        long,
        env = "T3_DISPATCH_MINT_COMMAND",
        value_name = "COMMAND",
        default_value = "sudo -n /usr/local/bin/t3-mint"
    )]
    pub mint_command: MintCommand,
    /// Socket that provides the credential in place of that command (t3-mint.socket of the
    /// package); off for none.
    #[arg(long, env = "T3_DISPATCH_MINT_SOCKET", value_name = "PATH", default_value = "off")]
    pub mint_socket: mint_socket::SocketOption,
    /// Timeout for that command or socket, including the wait for a slot; on expiry the command is
    /// killed or the socket abandoned.
    #[arg(long, env = "T3_DISPATCH_MINT_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    pub mint_timeout: Duration,
    /// Timeout for serve to accept the credential.
    #[arg(long, env = "T3_DISPATCH_EXCHANGE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    pub exchange_timeout: Duration,
    /// Timeout for serve to check the session of a browser; on expiry the request is forwarded
    /// unchecked.
    #[arg(long, env = "T3_DISPATCH_SESSION_CHECK_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "2s")]
    pub session_check_timeout: Duration,
    /// Maximum number of pairings of one user within a minute; more get 429. 0 for no limit.
    #[arg(long, env = "T3_DISPATCH_MAX_PAIRINGS_PER_USER", value_name = "N", default_value = "120")]
    pub max_pairings_per_user: u32,
}
