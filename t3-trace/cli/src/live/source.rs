//! Source of closes for `live`: the daemon's socket, and the journal while it is unavailable.
//!
//! Two tasks feed one channel. The journal is read a little longer than necessary after a
//! reconnect, so that no close is lost in between; the reader drops duplicates.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use t3_record::{
    CloseRecord, TcpCloseRecord,
    journal::{CLOSE_ID, TCP_CLOSE_ID},
    wire::{FromTrace, MAX_MESSAGE, Status, ToTrace, live::Sessions},
};
use t3_trace_host::{
    clock::realtime_secs,
    journal_trust::{DISPATCH_USER, Trust},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_seqpacket::UnixSeqpacket;

use crate::{
    journal::json_entry,
    present::text::safe,
    subscriber::{receive, subscribe},
    time::closed::closed_micros,
};

pub use crate::subscriber::Daemon;

/// Time between attempts to connect.
pub const RETRY: Duration = Duration::from_secs(2);
/// Time for which the journal is still read after a reconnect.
const OVERLAP: Duration = Duration::from_secs(3);
/// Interval between queries for the open sessions.
const QUERY_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which an unanswered query is sent again.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The daemon's status is queried with every n-th query for open sessions.
const STATUS_EVERY: u32 = 5;
/// Timeout for the rest of stderr after the end of stdout of journalctl.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);
/// Limit of errors of one journalctl that are shown.
const MOST_ERRORS: usize = 8;
/// Longest error of journalctl that is shown, in characters.
const LONGEST_ERROR: usize = 200;

/// One item from the daemon or the journal.
#[derive(Debug)]
pub enum Item {
    /// A close and its time (seconds since the epoch).
    Closed(Box<CloseRecord>, u64),
    /// A close of a connection that t3-dispatch did not carry, and its time.
    Direct(Box<TcpCloseRecord>, u64),
    /// The daemon dropped this many records because this reader was too slow.
    Skipped(u64),
    Connected(Daemon),
    /// Not connected, with the reason; sent once per reason. The journal delivers closes then.
    Disconnected(String),
    /// A part of the open sessions.
    Sessions(Box<Sessions>),
    Status(Box<Status>),
    /// A message for the operator.
    Message(String),
}

/// Data to receive in addition to closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    /// None; dispatch sends no live stats.
    Closes,
    /// Open sessions and the daemon's status, periodically.
    Everything,
}

/// State of the connection; `DownSince` is in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    DownSince(u64),
}

/// Starts both tasks; the journal is read for connections that t3-dispatch did not carry only with
/// `has_direct`.
#[must_use]
pub fn start(socket: &Path, subscription: Subscription, has_direct: bool) -> mpsc::Receiver<Item> {
    let (items, received) = mpsc::channel(256);
    let (link, link_seen) = watch::channel(Link::Up);
    tokio::spawn(follow_socket(socket.to_owned(), subscription, items.clone(), link));
    tokio::spawn(follow_journal(items, link_seen, has_direct));
    received
}

async fn follow_socket(
    path: PathBuf,
    subscription: Subscription,
    items: mpsc::Sender<Item>,
    link: watch::Sender<Link>,
) {
    let mut reported = None;
    loop {
        let why = match subscribe(&path).await {
            Ok((socket, daemon)) => {
                reported = None;
                link.send_replace(Link::Up);
                let queries = subscription == Subscription::Everything && daemon.has_sessions;
                let _ = items.send(Item::Connected(daemon)).await;
                listen(&socket, queries, &items).await
            }
            Err(why) => why,
        };
        if items.is_closed() {
            return;
        }
        link.send_if_modified(|link| {
            let lost = *link == Link::Up;
            if lost {
                *link = Link::DownSince(realtime_secs());
            }
            lost
        });
        if reported.as_ref() != Some(&why) {
            let _ = items.send(Item::Disconnected(why.clone())).await;
            reported = Some(why);
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn report(items: &mpsc::Sender<Item>, text: String) {
    let _ = items.send(Item::Message(text)).await;
}

/// Reads until the connection ends; returns the reason.
async fn listen(socket: &UnixSeqpacket, queries: bool, items: &mpsc::Sender<Item>) -> String {
    let mut pending = PendingQueries::default();
    let mut query_due = interval(QUERY_INTERVAL);
    query_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let message = tokio::select! {
            message = receive(socket, &mut buffer) => message,
            _ = query_due.tick(), if queries => match pending.send(socket).await {
                Ok(()) => continue,
                Err(error) => return format!("t3-trace disconnected: {error}"),
            },
        };
        let item = match message {
            Ok(Some(FromTrace::Closed { record })) => {
                let at = closed_micros(&record, realtime_secs().saturating_mul(1_000_000));
                Item::Closed(record, at / 1_000_000)
            }
            Ok(Some(FromTrace::TcpClosed { record })) => Item::Direct(record, realtime_secs()),
            Ok(Some(FromTrace::Skipped { records })) => Item::Skipped(records),
            Ok(Some(FromTrace::Sessions(part))) => {
                pending.answered(part.more);
                Item::Sessions(part)
            }
            Ok(Some(FromTrace::Status(status))) => Item::Status(status),
            Ok(Some(FromTrace::Refused { why })) => return format!("t3-trace refused the connection: {why}"),
            // A message for other roles, or from a newer daemon.
            Ok(_) => continue,
            Err(why) => return why,
        };
        if items.send(item).await.is_err() {
            return String::new();
        }
    }
}

/// One query in flight at a time, so that a stalled daemon is not flooded.
#[derive(Default)]
struct PendingQueries {
    waiting_since: Option<Instant>,
    sent: u32,
}

impl PendingQueries {
    async fn send(&mut self, socket: &UnixSeqpacket) -> std::io::Result<()> {
        if self.waiting_since.is_some_and(|since| since.elapsed() < QUERY_TIMEOUT) {
            return Ok(());
        }
        self.waiting_since = Some(Instant::now());
        let state = self.sent.is_multiple_of(STATUS_EVERY).then_some(ToTrace::Status);
        self.sent = self.sent.wrapping_add(1);
        for query in state.into_iter().chain([ToTrace::Sessions]) {
            socket.send(&serde_json::to_vec(&query)?).await?;
        }
        Ok(())
    }

    fn answered(&mut self, more: bool) {
        if !more {
            self.waiting_since = None;
        }
    }
}

async fn follow_journal(items: mpsc::Sender<Item>, mut link: watch::Receiver<Link>, has_direct: bool) {
    loop {
        let Ok(Link::DownSince(since)) = link.wait_for(|link| *link != Link::Up).await.map(|link| *link)
        else {
            return;
        };
        let reconnected = async {
            let _ = link.wait_for(|link| *link == Link::Up).await;
            tokio::time::sleep(OVERLAP).await;
        };
        tokio::select! {
            () = reconnected => {}
            why = read_journal(since, has_direct, &items) => {
                if items.is_closed() {
                    return;
                }
                report(&items, why).await;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Reads until journalctl exits; returns the reason.
async fn read_journal(since: u64, has_direct: bool, items: &mpsc::Sender<Item>) -> String {
    let child = Command::new("journalctl")
        // Without `--quiet`: it would hide that there are no files, or that some are not readable.
        .args(["--follow", "--no-pager", "--output=json", "--all"])
        .env("LC_ALL", "C")
        // `live` does not show closes from before the disconnect.
        .args(["--lines=all".to_owned(), format!("--since=@{since}"), format!("MESSAGE_ID={CLOSE_ID}")])
        .args(has_direct.then(|| format!("MESSAGE_ID={TCP_CLOSE_ID}")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return format!("cannot run journalctl: {error}"),
    };
    let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        return "cannot read the output of journalctl".to_owned();
    };
    let last_error = tokio::spawn(report_lines(errors, items.clone()));
    let trust = Trust::in_user(DISPATCH_USER);
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match item_of(&line, trust) {
            Ok(Some(item)) => {
                if items.send(item).await.is_err() {
                    return String::new();
                }
            }
            Ok(None) => {}
            Err(error) => report(items, error.to_string()).await,
        }
    }
    let last_error = tokio::time::timeout(STDERR_TIMEOUT, last_error).await;
    journal_ended(&last_error.ok().and_then(Result::ok).unwrap_or_default())
}

/// The close of a line of journalctl.
fn item_of(line: &str, trust: Trust) -> Result<Option<Item>, json_entry::Unusable> {
    let Some(fields) = json_entry::fields(line) else { return Ok(None) };
    if let Some((record, at)) = json_entry::direct_of(&fields, trust)? {
        return Ok(Some(Item::Direct(Box::new(record), at)));
    }
    Ok(json_entry::of(&fields, trust)?.map(|(record, at)| Item::Closed(Box::new(record), at)))
}

/// Reports each line once, up to [`MOST_ERRORS`], cut to [`LONGEST_ERROR`]; returns the last line
/// that is not empty. Reads all, also text that is not UTF-8, so that journalctl never blocks on a
/// full pipe.
async fn report_lines(errors: impl AsyncRead + Unpin, items: mpsc::Sender<Item>) -> String {
    let (mut errors, mut line) = (BufReader::new(errors), Vec::new());
    let mut last = String::new();
    let mut reported = HashSet::new();
    while matches!(errors.read_until(b'\n', &mut line).await, Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        if !text.trim().is_empty() {
            last = safe(text.trim()).chars().take(LONGEST_ERROR).collect();
            if reported.len() < MOST_ERRORS && reported.insert(last.clone()) {
                report(&items, format!("journalctl: {last}")).await;
            }
        }
        line.clear();
    }
    last
}

/// The group helps only against missing permissions; journalctl also exits for other reasons.
fn journal_ended(error: &str) -> String {
    if error.is_empty() {
        return "journalctl exited".to_owned();
    }
    let hint = if error.contains("ermission") { "; join group systemd-journal" } else { "" };
    format!("journalctl exited: {}{hint}", error.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use t3_record::{
        KernelSource,
        wire::{Role, VERSION},
    };
    use tokio::time::timeout;
    use tokio_seqpacket::UnixSeqpacketListener;

    use super::*;

    #[tokio::test]
    async fn the_lines_of_journalctl_are_reported_once_and_the_last_with_a_hint_that_fits() {
        let (items, mut received) = mpsc::channel(64);
        for (stderr, expected) in [
            (&b""[..], "journalctl exited"),
            (b"\n  \n", "journalctl exited"),
            (b"a\nCannot allocate memory.\n\n", "journalctl exited: Cannot allocate memory"),
            (
                b"No journal files were opened due to insufficient permissions.\n",
                "journalctl exited: No journal files were opened due to insufficient permissions; join group systemd-journal",
            ),
            (b"not UTF-8 \xff\nBad message\n", "journalctl exited: Bad message"),
        ] {
            assert_eq!(journal_ended(&report_lines(stderr, items.clone()).await), expected);
        }
        let mut lines = || {
            let text = std::iter::from_fn(|| received.try_recv().ok());
            text.map(|item| format!("{item:?}")).collect::<Vec<_>>()
        };
        assert_eq!(lines().len(), 5);
        let many: String = (0..20).map(|n| format!("same\nline {n}\n")).collect();
        assert_eq!(report_lines(many.as_bytes(), items.clone()).await, "line 19");
        let lines = lines();
        assert_eq!(lines.len(), MOST_ERRORS);
        assert_eq!(lines[0], "Message(\"journalctl: same\")");
        assert_eq!(report_lines(&[b'x'; 5_000][..], items).await.len(), LONGEST_ERROR);
    }

    /// A daemon whose answers the test writes.
    struct FakeDaemon {
        listener: UnixSeqpacketListener,
        path: PathBuf,
        _dir: tempfile::TempDir,
    }

    impl FakeDaemon {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("socket");
            Self { listener: UnixSeqpacketListener::bind(&path).unwrap(), path, _dir: dir }
        }

        async fn welcome(&mut self, sessions: bool) -> UnixSeqpacket {
            let subscriber = self.listener.accept().await.unwrap();
            let hello = ToTrace::Hello { v: VERSION, role: Role::Subscriber };
            assert_eq!(query(&subscriber).await, Some(hello));
            send(
                &subscriber,
                &FromTrace::Welcome {
                    v: VERSION,
                    kernel: KernelSource::Off,
                    sessions,
                    ending: false,
                    kept: false,
                },
            )
            .await;
            subscriber
        }
    }

    async fn send(subscriber: &UnixSeqpacket, message: &FromTrace) {
        subscriber.send(&serde_json::to_vec(message).unwrap()).await.unwrap();
    }

    /// The next query; `None` when none arrives within 1.5 intervals.
    async fn query(subscriber: &UnixSeqpacket) -> Option<ToTrace> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let received =
            timeout(QUERY_INTERVAL + QUERY_INTERVAL / 2, subscriber.recv(&mut buffer)).await.ok()?;
        serde_json::from_slice(&buffer[..received.unwrap().bytes_read()]).unwrap()
    }

    #[tokio::test]
    async fn no_queries_without_need_or_to_an_older_daemon() {
        for (subscription, sessions) in [(Subscription::Closes, true), (Subscription::Everything, false)] {
            let mut fake = FakeDaemon::new();
            let _items = start(&fake.path, subscription, false);
            let subscriber = fake.welcome(sessions).await;
            assert_eq!(query(&subscriber).await, None, "{subscription:?}");
        }
    }

    #[tokio::test]
    async fn one_query_at_a_time() {
        let mut fake = FakeDaemon::new();
        let mut items = start(&fake.path, Subscription::Everything, false);
        let subscriber = fake.welcome(true).await;
        assert!(matches!(items.recv().await, Some(Item::Connected(daemon)) if daemon.pid.is_some()));
        assert_eq!(query(&subscriber).await, Some(ToTrace::Status));
        assert_eq!(query(&subscriber).await, Some(ToTrace::Sessions));
        send(&subscriber, &FromTrace::Sessions(Box::new(Sessions { more: true, ..Sessions::default() })))
            .await;
        assert_eq!(query(&subscriber).await, None, "the answer is not complete");
        send(&subscriber, &FromTrace::Sessions(Box::default())).await;
        assert_eq!(query(&subscriber).await, Some(ToTrace::Sessions), "the status is queried less often");
        drop(subscriber);
        loop {
            if let Item::Disconnected(why) = items.recv().await.unwrap() {
                assert!(why.contains("t3-trace disconnected"), "{why}");
                break;
            }
        }
        fake.welcome(true).await;
        loop {
            if let Item::Connected(_) = items.recv().await.unwrap() {
                break;
            }
        }
    }
}
