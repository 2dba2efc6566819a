//! `t3-trace live`: closes as they happen, one line each. Reads only what the daemon and the journal give; needs no privilege.

pub mod chain_words;
pub(crate) mod entry;
pub mod line;
pub(crate) mod local_time;
mod source;
pub mod words;

use std::{
    collections::{HashSet, VecDeque},
    io::{self, IsTerminal, Write},
};

use anyhow::Context;
use t3_record::CloseRecord;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::LiveArgs;
use line::Paint;
use source::Item;

/// How many sessions are remembered as shown.
const SHOWN: usize = 4096;

/// Shows closes until interrupted, or until nobody reads them.
///
/// # Errors
/// When the output fails for another reason than a reader that has gone.
pub fn run(args: &LiveArgs) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let result = runtime.block_on(show(args));
    runtime.shutdown_background();
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write the closes"),
    }
}

async fn show(args: &LiveArgs) -> io::Result<()> {
    let terminal = io::stdout().is_terminal();
    let no_colour = args.plain || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let paint = Paint { colour: terminal && !no_colour };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut items = source::start(&args.socket);
    let mut shown = Shown::default();
    if !args.json {
        writeln!(io::stdout(), "{}", line::heading(paint))?;
    }
    loop {
        let item = tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            // A reader that goes away is noticed even while nothing happens.
            () = reader_gone() => return Ok(()),
            item = items.recv() => item,
        };
        match item {
            None => return Ok(()),
            Some(Item::Say(text)) => say(&text),
            Some(Item::Skipped(records)) => {
                say(&format!("{records} closes were left out: this reader was too slow"));
            }
            Some(Item::Closed(record, at)) if shown.first_time(&record.conn) && wanted(args, &record) => {
                let mut stdout = io::stdout().lock();
                if args.json {
                    serde_json::to_writer(&mut stdout, &*record).map_err(io::Error::from)?;
                    writeln!(stdout)?;
                } else {
                    writeln!(stdout, "{}", line::close(&record, &local_time::clock(at), paint))?;
                }
                stdout.flush()?;
            }
            Some(Item::Closed(..)) => {}
        }
    }
}

/// Remarks go where they do not mix with records.
fn say(text: &str) {
    // Nobody is left to tell when stderr itself is closed.
    let _ = writeln!(io::stderr(), "t3-trace live: {text}");
}

/// Looks once a second whether the other end of a pipe is closed (poll(2): POLLERR on its writing end).
async fn reader_gone() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let stdout = io::stdout();
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        if polled.is_ok() && fds[0].revents().contains(PollFlags::ERR) {
            return;
        }
    }
}

fn wanted(args: &LiveArgs, record: &CloseRecord) -> bool {
    let user = args.user.as_ref().is_none_or(|user| *user == record.user);
    let short = args.short.is_none_or(|short| u128::from(record.dur_ms) < short.as_millis());
    user && short
}

/// The sessions that were shown, the last [`SHOWN`] of them.
#[derive(Debug, Default)]
struct Shown {
    order: VecDeque<String>,
    set: HashSet<String>,
}

impl Shown {
    fn first_time(&mut self, conn: &str) -> bool {
        if !self.set.insert(conn.to_owned()) {
            return false;
        }
        self.order.push_back(conn.to_owned());
        if self.order.len() > SHOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use t3_record::{Cause, KernelSource, Segment, Verdict};

    use super::*;

    fn record(user: &str, dur_ms: u64) -> CloseRecord {
        CloseRecord::new(
            user.to_owned(),
            "192.0.2.7".to_owned(),
            dur_ms,
            Cause::Graceful,
            Verdict::ClientClosed,
            Segment::Downstream,
            "c1".to_owned(),
            KernelSource::Off,
        )
    }

    #[test]
    fn user_and_length_select() {
        let args = |user: Option<&str>, short: Option<u64>| LiveArgs {
            socket: "/x".into(),
            json: false,
            user: user.map(str::to_owned),
            short: short.map(Duration::from_secs),
            plain: false,
        };
        assert!(wanted(&args(None, None), &record("a", 1)));
        assert!(!wanted(&args(Some("b"), None), &record("a", 1)));
        assert!(wanted(&args(Some("a"), Some(120)), &record("a", 119_999)));
        assert!(!wanted(&args(None, Some(120)), &record("a", 120_000)));
    }

    #[test]
    fn what_was_shown_is_not_shown_again_and_memory_is_bounded() {
        let mut shown = Shown::default();
        assert!(shown.first_time("a") && !shown.first_time("a"));
        for n in 0..2 * SHOWN {
            assert!(shown.first_time(&n.to_string()));
        }
        assert_eq!((shown.order.len(), shown.set.len()), (SHOWN, SHOWN));
    }
}
