//! Faults that dispatch survives: a blocked event loop, no free descriptors.

use std::{
    collections::BTreeSet,
    sync::{Arc, Barrier},
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use t3_record::{Cause::DispatchClosed, Cause::DownstreamClosed, ClosedBy, LegEnd, Segment, Verdict};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need, edge_burst, opening, pressure};
use crate::{
    client::Client,
    error::{Attempt, Result, TestError},
    wait,
};

/// Shorter stalls do not explain a watchdog close (t3-record/src/verdict/mod.rs).
const STALL: Duration = Duration::from_millis(5_500);

/// Time for which dispatch is stopped again and again, and in which it runs in between. Each is
/// shorter than the watchdog, and than the period, so that one heartbeat at most waits: a client
/// that had several unanswered ones before has more patience.
const PIECE: Duration = Duration::from_millis(900);
const BETWEEN: Duration = Duration::from_millis(20);
const PIECES: usize = 4;
const PIECES_PERIOD: Duration = Duration::from_millis(1_000);

/// Time after a stop in which heartbeats are answered again, longer than its effects last.
const SETTLED: Duration = Duration::from_secs(4);

/// `--handshake-timeout` of dispatch in these tests.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(6);

/// Times after which a client leaves that waits for dispatch: its open timeout, and less than any.
const GIVES_UP: Duration = Duration::from_secs(6);
const LEAVES: Duration = Duration::from_secs(2);

pub(super) fn faults() -> Vec<Fault> {
    let mut stalled = ExpectedRecord::opened(
        Verdict::DispatchStalled,
        Segment::Dispatch,
        DownstreamClosed,
        "stall",
        ClosedBy::Downstream,
    )
    .is("peer_exit", "alive")
    .is("confidence", "likely")
    .close_frame("down", "1000", "")
    // When it continues, dispatch forwards everything, and serve may reply to the Close frame.
    .one_of("cause", &["downstream_closed", "graceful"])
    .one_of("down_end", &["fin_in", "rst_in"])
    .one_of("up_end", &["fin_out", "fin_in", "rst_out"])
    .key("self_lag_ms", Expect::Range(4_000, 60_000))
    .key("lag_ms", Expect::Range(4_000, 60_000));
    for key in ["hb_gap_ms", "hb_wait_ms", "hb_rtt_ms", "hb_rtt_max_ms", "up_idle_ms", "down_idle_ms"] {
        stalled = stalled.key(key, Expect::Free);
    }
    let pieces = stalled
        .clone()
        .key("self_lag_ms", Expect::Range(700, 60_000))
        .key("lag_ms", Expect::Range(1_000, 60_000));
    let no_socket = ExpectedRecord::unopened(
        Verdict::DispatchStalled,
        Segment::Dispatch,
        DispatchClosed,
        "local_error:24",
        ClosedBy::Dispatch,
    )
    .key("down_end", Expect::Free)
    .key("up_end", Expect::Free)
    .key("peer_pid", Expect::Free)
    .key("peer_comm", Expect::Free)
    .key("peer_exit", Expect::Free);
    vec![
        Fault::new("dispatch_stalled", stalled, |fx| {
            fx.session()?;
            fx.stack.signal_dispatch(libc::SIGSTOP)?;
            std::thread::sleep(STALL);
            fx.close_and_drop();
            fx.stack.signal_dispatch(libc::SIGCONT)
        })
        .own_stack(),
        Fault::new("dispatch_stopped_in_pieces", pieces, |fx| {
            fx.serve(&[])?;
            let mut config = fx.config();
            config.heartbeat = Some(PIECES_PERIOD);
            fx.open(config)?;
            for _ in 0..PIECES {
                stop(fx, PIECE)?;
                std::thread::sleep(BETWEEN);
            }
            fx.stack.signal_dispatch(libc::SIGSTOP)?;
            std::thread::sleep(PIECE / 2);
            fx.close_and_drop();
            std::thread::sleep(PIECE / 2);
            fx.stack.signal_dispatch(libc::SIGCONT)
        })
        .needs(&[Need::RealCpus])
        .own_stack(),
        // Long before the last answered heartbeat.
        Fault::new(
            "dispatch_stopped_before",
            edge_burst::untouched().key("hb_rtt_max_ms", Expect::Free),
            |fx| {
                fx.session()?;
                stop(fx, STALL)?;
                std::thread::sleep(SETTLED);
                fx.client().heartbeats(2)?;
                fx.client().close(Some(1000), "");
                fx.wait_end()
            },
        )
        .needs(&[Need::RealCpus])
        .own_stack(),
        Fault::new(
            "dispatch_stopped_at_open",
            unread(Verdict::DispatchStalled, Segment::Dispatch, "stall", (5_000, 9_000)),
            |fx| leave_unread(fx, GIVES_UP),
        )
        .needs(&[Need::RealCpus, Need::Root, Need::Netns])
        .own_stack(),
        // Control: nobody gives up on a WebSocket that early.
        Fault::new(
            "dispatch_stopped_at_open_briefly",
            unread(Verdict::ClientLeft, Segment::Downstream, "fin", (1_000, 4_000)),
            |fx| leave_unread(fx, LEAVES),
        )
        .needs(&[Need::RealCpus, Need::Root, Need::Netns])
        .own_stack(),
        // serve answers while dispatch is stopped, for longer than the timeout of the handshake.
        Fault::new(
            "dispatch_stopped_in_handshake",
            edge_burst::untouched().key("hb_rtt_max_ms", Expect::Free),
            answered_while_stopped,
        )
        .needs(&[Need::RealCpus])
        .own_stack(),
        // Control: serve stays silent after the stop, too.
        Fault::new(
            "dispatch_stopped_serve_silent",
            opening::failed(Verdict::ServeTimeout, "handshake_timeout")
                .is("peer_exit", "alive")
                .is("confidence", "likely")
                .one_of("up_end", &["none", "fin_out", "rst_out"])
                .key("lag_ms", Expect::Range(5_000, 60_000))
                .key("self_lag_ms", Expect::Range(5_000, 60_000)),
            |fx| {
                fx.serve(&["--opening", "silent"])?;
                let config = fx.config();
                let opening = std::thread::spawn(move || Client::refused(config));
                std::thread::sleep(BETWEEN * 10);
                stop(fx, HANDSHAKE_TIMEOUT)?;
                opening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(drop)
            },
        )
        .needs(&[Need::RealCpus])
        .timeout(60)
        .own_stack(),
        Fault::new("descriptors_exhausted", no_socket, exhausted)
            .many(3, 2)
            .unaffected(edge_burst::untouched())
            .needs(&[Need::Root])
            .own_stack(),
    ]
}

/// The request and the client's FIN are read together: dispatch gives up while it connects to
/// serve, so that this leg may have no end, and serve's process may not be known.
fn unread(verdict: Verdict, segment: Segment, how: &str, lag_ms: (u64, u64)) -> ExpectedRecord {
    ExpectedRecord::unopened(verdict, segment, DownstreamClosed, how, ClosedBy::Downstream)
        .is("confidence", "likely")
        .is("down_end", LegEnd::FinIn.as_str())
        .one_of("up_end", &["none", "fin_out"])
        .without_peer()
        .key("lag_ms", Expect::Range(lag_ms.0, lag_ms.1))
}

/// A client on another host connects to a dispatch that is stopped, and leaves after this time. One
/// of this host has no user any more once it has left, so that its user header is not trusted.
fn leave_unread(fx: &mut Fixture<'_>, after: Duration) -> Result<()> {
    fx.serve(&[])?;
    let (netns, mut config) = fx.link()?;
    fx.keep_netns(netns);
    config.open_timeout = after;
    fx.stack.signal_dispatch(libc::SIGSTOP)?;
    // The error is that of the timeout.
    drop(Client::connect(config));
    fx.stack.signal_dispatch(libc::SIGCONT)
}

/// dispatch waits for a serve that is stopped; then dispatch is stopped, and serve answers. The
/// session must open.
fn answered_while_stopped(fx: &mut Fixture<'_>) -> Result<()> {
    fx.serve(&[])?;
    let port = fx.last_serve().port;
    fx.last_serve().process.signal(libc::SIGSTOP)?;
    let config = fx.config();
    let opening = std::thread::spawn(move || Client::connect(config));
    wait::until("dispatch to connect to serve", GIVES_UP, || {
        std::thread::sleep(BETWEEN);
        (pressure::accept_queue(port) > 0).then_some(())
    })?;
    fx.stack.signal_dispatch(libc::SIGSTOP)?;
    fx.last_serve().process.signal(libc::SIGCONT)?;
    std::thread::sleep(HANDSHAKE_TIMEOUT + BETWEEN);
    fx.stack.signal_dispatch(libc::SIGCONT)?;
    let client = opening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    client.heartbeats(2)?;
    std::thread::sleep(SETTLED);
    client.heartbeats(2)?;
    client.close(Some(1000), "");
    fx.clients.push(client);
    fx.wait_end()
}

/// Stops dispatch for some time.
fn stop(fx: &Fixture<'_>, time: Duration) -> Result<()> {
    fx.stack.signal_dispatch(libc::SIGSTOP)?;
    std::thread::sleep(time);
    fx.stack.signal_dispatch(libc::SIGCONT)
}

/// Without a free descriptor, the serve of a client that is connected cannot be reached, and new
/// clients wait. Open sessions continue, and waiting clients are served when descriptors are free
/// again.
fn exhausted(fx: &mut Fixture<'_>) -> Result<()> {
    let pid = fx.stack.dispatch_pid();
    fx.open_many(1, 1, fx.stack.address)?;
    fx.set_unaffected(0, 0);
    let barrier = Arc::new(Barrier::new(2));
    let mut config = fx.config_of(0, 1, fx.stack.address);
    config.before_handshake = Some(Arc::clone(&barrier));
    let connected = std::thread::spawn(move || Client::refused(config));
    let before = limit(pid, room_for(pid, 0)?)?;
    barrier.wait();
    let status = connected.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    limit(pid, room_for(pid, 0)?)?;
    let (config, (sender, connected)) = (fx.config_of(0, 2, fx.stack.address), std::sync::mpsc::channel());
    let waiting = std::thread::spawn(move || drop(sender.send(Client::connect(config))));
    fx.nth(0).heartbeats(3)?;
    if let Ok(early) = connected.try_recv() {
        let got = format!("{:?}", early.map(drop));
        return Err(TestError::Unexpected { what: "a client that waits for a descriptor".to_owned(), got });
    }
    limit(pid, before)?;
    let _ = waiting.join();
    let late = connected.recv().map_err(|_| TestError::Unexpected {
        what: "the waiting client".to_owned(),
        got: "its thread ended".to_owned(),
    })??;
    late.heartbeats(2)?;
    fx.set_unaffected(0, 2);
    fx.clients.push(late);
    for client in &fx.clients {
        client.close(Some(1000), "");
        client.wait_end()?;
    }
    match status? {
        503 => Ok(()),
        other => Err(TestError::Unexpected { what: "503".to_owned(), got: other.to_string() }),
    }
}

/// Returns the limit that lets a process open `more` descriptors, once its open ones are stable.
/// The limit is on the descriptor number; a new descriptor has the lowest free number
/// (setrlimit(2)).
fn room_for(pid: u32, more: usize) -> Result<u64> {
    let open = || -> Option<BTreeSet<u64>> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        Some(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    };
    let mut last = None;
    let open = wait::until("stable descriptors of dispatch", Duration::from_secs(20), || {
        let now = open();
        // Longer than it takes to close a connection that was refused.
        std::thread::sleep(wait::scaled(Duration::from_millis(500)));
        let same = now == std::mem::replace(&mut last, now.clone());
        now.filter(|_| same)
    })?;
    // The limit is the first free number that is no longer allowed.
    Ok((0..).filter(|number| !open.contains(number)).nth(more).unwrap_or(u64::MAX))
}

/// Sets the soft limit on a process's descriptors; returns the previous one.
fn limit(pid: u32, descriptors: u64) -> Result<u64> {
    let what = || format!("limit the descriptors of process {pid} to {descriptors}");
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let new = Rlimit { current: Some(descriptors), maximum: None };
    let hard = hard_limit(pid).unwrap_or(descriptors);
    let new = Rlimit { maximum: Some(hard), ..new };
    let old = prlimit(target, Resource::Nofile, new).map_err(std::io::Error::from).attempt(what)?;
    Ok(old.current.unwrap_or(hard))
}

fn hard_limit(pid: u32) -> Option<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(4)?.parse().ok()
}
