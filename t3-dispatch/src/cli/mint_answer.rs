//! Command line of t3-mint-answer.

use std::time::Duration;

use clap::Parser;

use super::value::time;
use crate::pairing::MintCommand;

/// Answers one request for a pairing credential: an OS user's name on standard input, one line of
/// JSON on standard output.
///
/// t3-mint.socket starts it for each connection of t3-dispatch.
#[derive(Debug, Parser)]
#[command(
    name = "t3-mint-answer",
    version,
    max_term_width = 110,
    after_help = "Exit status: 0 credential issued, 1 no credential, 2 usage error."
)]
pub struct MintAnswer {
    /// Command that prints {"credential": "..."}; the OS user is appended as its last
    /// argument.
    #[arg(long, default_value = "/usr/local/bin/t3-mint")]
    pub command: MintCommand,
    /// Timeout for that command; on expiry it is killed. Must be below --mint-timeout of
    /// t3-dispatch, so that the reason is reported.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "9s")]
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        MintAnswer::command().debug_assert();
    }
}
