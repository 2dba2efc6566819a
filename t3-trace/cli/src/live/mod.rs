//! `t3-trace live`: closes as they happen, on the whole screen of a terminal or one line each.
//! Reads only what the daemon and the journal give; needs no privilege.

pub mod args;
mod dedup;
mod plain;
mod screen;
mod source;

use std::io::{self, IsTerminal};

use anyhow::Context;

use crate::live::args::LiveArgs;

/// Shows closes until interrupted, or until nobody reads them.
///
/// # Errors
/// When the output fails for another reason than a reader that has gone.
pub fn run(args: &LiveArgs) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let result = if full_screen(args) {
        runtime
            .block_on(screen::run::show(args, colour))
            .context("draw on the terminal; --plain does without")
    } else {
        match runtime.block_on(plain::show(args, colour)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("write the closes"),
        }
    };
    runtime.shutdown_background();
    result
}

/// Whether there is a whole screen, and a person before it.
fn full_screen(args: &LiveArgs) -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !args.plain && !args.json && !dumb && io::stdout().is_terminal() && io::stdin().is_terminal()
}
