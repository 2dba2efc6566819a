//! Command line of t3-mint-answer.

use std::time::Duration;

use clap::Parser;

use super::value::time;
use crate::pairing::MintCommand;

/// Answers one question for a pairing credential: an OS user's name on standard input, one line of
/// JSON on standard output.
///
/// t3-mint.socket starts it for each connection of t3-dispatch.
#[derive(Debug, Parser)]
#[command(
    name = "t3-mint-answer",
    version,
    max_term_width = 110,
    after_help = "Exit status: 0 a credential was given out, 1 none was, 2 bad usage."
)]
pub struct MintAnswer {
    /// Command that prints {"credential": "..."}; the OS user is added as its last argument.
    #[arg(long, default_value = "/usr/local/bin/t3-mint")]
    pub command: MintCommand,
    /// For that command to end; then it is killed. Shorter than t3-dispatch waits, so that it still
    /// hears why.
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
