//! `t3-trace live`: closes as they happen, full-screen on a terminal or one line each.
//! Reads the evidence socket and the journal; needs no privilege. With `--at` it shows a past
//! moment from the records of a store.

pub mod args;
mod dedup;
pub mod history;
mod plain;
pub mod replay;
mod screen;
mod source;

use std::io::{self, IsTerminal};

use anyhow::Context;
use t3_trace_host::journal_trust::{DISPATCH_USER, Trust};

use crate::{
    journal::source_args::JournalSource,
    live::args::LiveArgs,
    present::text,
    store::{self, StoreKind},
};

/// Shows closes until a signal, or until the reader closes the output.
///
/// # Errors
/// Writing fails, except with EPIPE.
pub fn run(args: &LiveArgs) -> anyhow::Result<()> {
    let paint = args.common.paint(false);
    let replay = match args.at {
        None if args.store.from != StoreKind::Journal || !args.store.host.is_empty() => {
            anyhow::bail!("--from and --host need --at TIME: without it live follows this host")
        }
        None => None,
        Some(at) => {
            let store = store::open(&args.store, &JournalSource::default(), &args.server)?;
            let cannot = || format!("cannot read {}", store.name());
            Some(history::read(&*store, Trust::in_user(DISPATCH_USER), at, args.via).with_context(cannot)?)
        }
    };
    if let Some(replay) = replay.as_ref().filter(|_| !full_screen(args)) {
        return match history::print(args, replay, &mut io::stdout().lock(), paint, text::width()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot write to stdout"),
        };
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the tokio runtime")?;
    let result = if full_screen(args) {
        runtime
            .block_on(screen::run::show(args, replay.as_ref(), paint.colour))
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
