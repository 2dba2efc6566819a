//! Options: how a browser without a session of its own gets one.

use std::time::Duration;

use clap::Args;

use super::value::time;
use crate::pairing::{MintCommand, mint_socket};

/// How a browser without a session of its own gets one.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pairing")]
pub struct Pairing {
    /// Leave it to serve to ask a browser for a pairing code.
    #[arg(long, env = "T3_DISPATCH_NO_PAIRING")]
    pub no_pairing: bool,
    /// Command that prints {"credential": "..."}; the OS user is added as its last argument. Words
    /// are quoted as in a shell, which is not used.
    #[arg(
        long,
        env = "T3_DISPATCH_MINT_COMMAND",
        value_name = "COMMAND",
        default_value = "sudo -n /usr/local/bin/t3-mint"
    )]
    pub mint_command: MintCommand,
    /// Socket to ask for a credential in place of that command (t3-mint.socket of the package); off
    /// for none.
    #[arg(long, env = "T3_DISPATCH_MINT_SOCKET", value_name = "PATH", default_value = "off")]
    pub mint_socket: mint_socket::Where,
    /// For that command to end, or the socket to answer, its wait for a free place included; then
    /// it is killed, or left.
    #[arg(long, env = "T3_DISPATCH_MINT_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    pub mint_timeout: Duration,
    /// For serve to take the credential.
    #[arg(long, env = "T3_DISPATCH_EXCHANGE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    pub exchange_timeout: Duration,
    /// For serve to say whether a browser's session is still good; after it the page is passed on
    /// unchecked.
    #[arg(long, env = "T3_DISPATCH_SESSION_CHECK_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "2s")]
    pub session_check_timeout: Duration,
}
