//! `t3-trace live`: closes as they happen, full-screen on a terminal or one line each.
//! Reads the evidence socket and the journal; needs no privilege.

pub mod args;
mod dedup;
mod plain;
mod screen;
mod source;

use std::io::{self, IsTerminal};

use anyhow::Context;

use crate::live::args::LiveArgs;

/// Shows closes until a signal, or until the reader closes the output.
///
/// # Errors
/// Writing fails, except with EPIPE.
pub fn run(args: &LiveArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the tokio runtime")?;
    let paint = args.common.paint(false);
    let result = if full_screen(args) {
        runtime
            .block_on(screen::run::show(args, paint.colour))
            .context("cannot draw on the terminal; --plain works without one")
    } else {
        match runtime.block_on(plain::show(args, paint)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot write to stdout"),
        }
    };
    runtime.shutdown_background();
    result
}

/// Whether stdin and stdout are a terminal that supports full-screen mode.
fn full_screen(args: &LiveArgs) -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !args.plain && !args.json && !dumb && io::stdout().is_terminal() && io::stdin().is_terminal()
}
