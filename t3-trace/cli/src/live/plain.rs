//! Closes as lines on stdout: text or one JSON object each. Messages go to stderr.

use std::io::{self, Write};

use t3_record::{CloseRecord, TcpCloseRecord};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    dedup::Dedup,
    source::{self, Item, RETRY, Subscription},
};
use crate::{
    live::args::LiveArgs,
    present::{
        close_line, json,
        text::{self, Paint},
        via,
    },
    time::local,
};

/// Writes until a signal, or until the reader closes the output.
pub(super) async fn show(args: &LiveArgs, paint: Paint) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut items = source::start(&args.socket, Subscription::Closes, args.via.has_direct());
    let mut shown = Dedup::default();
    let mut was_disconnected = false;
    if !args.json {
        writeln!(io::stdout(), "{}", text::folded(&close_line::heading(false, paint), text::width()))?;
    }
    loop {
        let item = tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            // Detects a closed reader even while no close happens.
            () = reader_closed() => return Ok(()),
            item = items.recv() => item,
        };
        match item {
            None => return Ok(()),
            Some(Item::Closed(record, at))
                if args.via.has_sessions() && shown.first_time(&record.conn) && wanted(args, &record) =>
            {
                let mut stdout = io::stdout().lock();
                if args.json {
                    writeln!(stdout, "{}", json::line(&record, None, at.saturating_mul(1_000_000))?)?;
                } else {
                    let line = close_line::close(&record, &local::clock(at), None, paint);
                    writeln!(stdout, "{}", text::folded(&line, text::width()))?;
                }
                stdout.flush()?;
            }
            Some(Item::Direct(record, at))
                if args.via.has_direct()
                    && shown.first_time(&record.conn)
                    && wanted_direct(args, &record) =>
            {
                let mut stdout = io::stdout().lock();
                if args.json {
                    let line = json::direct_line(&record, None, at.saturating_mul(1_000_000))?;
                    writeln!(stdout, "{line}")?;
                } else {
                    let line = via::direct_line(&record, &local::clock(at), None, paint);
                    writeln!(stdout, "{}", text::folded(&line, text::width()))?;
                }
                stdout.flush()?;
            }
            Some(item) => {
                if let Some(text) = notice(&item, was_disconnected) {
                    report(&text);
                }
                match item {
                    Item::Connected(_) => was_disconnected = false,
                    Item::Disconnected(_) => was_disconnected = true,
                    _ => {}
                }
            }
        }
    }
}

/// Returns the message for stderr. The first connection is expected and not reported.
fn notice(item: &Item, was_disconnected: bool) -> Option<String> {
    match item {
        Item::Message(text) => Some(text.clone()),
        Item::Skipped(records) => Some(format!("{records} closes dropped: this reader was too slow")),
        Item::Connected(daemon) => {
            was_disconnected.then(|| format!("connected to t3-trace at {}", daemon.socket.display()))
        }
        Item::Disconnected(why) => Some(format!("{why}; following the journal, retrying every {RETRY:?}")),
        Item::Closed(..) | Item::Direct(..) | Item::Sessions(_) | Item::Status(_) => None,
    }
}

/// Writes a message to stderr, where it does not mix with records.
fn report(text: &str) {
    // A closed stderr is not an error.
    let _ = writeln!(io::stderr(), "t3-trace live: {text}");
}

/// Returns when the reader of a pipe closes it; polls once a second (poll(2): POLLERR on the
/// write end).
async fn reader_closed() {
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

/// Whether a record matches `--user` and `--short`.
pub(super) fn wanted(args: &LiveArgs, record: &CloseRecord) -> bool {
    let user = args.user.as_ref().is_none_or(|user| *user == record.user);
    let short = args.short.is_none_or(|short| u128::from(record.dur_ms) < short.as_millis());
    user && short
}

/// As [`wanted`], of a connection that t3-dispatch did not carry.
pub(super) fn wanted_direct(args: &LiveArgs, record: &TcpCloseRecord) -> bool {
    let user = args.user.as_ref().is_none_or(|user| record.user.as_ref() == Some(user));
    let short = args.short.is_none_or(|short| u128::from(record.dur_ms) < short.as_millis());
    user && short
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
    fn user_and_duration_select() {
        let args = |user: Option<&str>, short: Option<u64>| LiveArgs {
            socket: "/x".into(),
            json: false,
            user: user.map(str::to_owned),
            short: short.map(Duration::from_secs),
            ..LiveArgs::default()
        };
        assert!(wanted(&args(None, None), &record("a", 1)));
        assert!(!wanted(&args(Some("b"), None), &record("a", 1)));
        assert!(wanted(&args(Some("a"), Some(120)), &record("a", 119_999)));
        assert!(!wanted(&args(None, Some(120)), &record("a", 120_000)));
    }

    #[test]
    fn only_a_reconnect_is_reported() {
        let daemon = source::Daemon {
            socket: "/run/x".into(),
            pid: Some(1),
            kernel: KernelSource::Off,
            has_sessions: true,
        };
        let back = Item::Connected(daemon);
        assert_eq!(notice(&back, false), None);
        assert_eq!(notice(&back, true).as_deref(), Some("connected to t3-trace at /run/x"));
        let gone = notice(&Item::Disconnected("t3-trace disconnected".to_owned()), false);
        assert_eq!(gone.as_deref(), Some("t3-trace disconnected; following the journal, retrying every 2s"));
    }
}
