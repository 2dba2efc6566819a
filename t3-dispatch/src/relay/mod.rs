//! Bidirectional relay between the two sockets of a session; updates its facts.
//!
//! - One `recv` and one `send` per message that fits: with each read the kernel reports what is
//!   left, so the relay does not call `recv` on an empty socket.
//! - Reads go into one scratch buffer per thread. Only bytes that the other socket does not accept
//!   are kept, and reading pauses until they are written (back-pressure).
//! - End of file on one leg does not end the session: it is forwarded as `shutdown(SHUT_WR)`, and
//!   the other direction continues (RFC 9293 section 3.6). A reset or another error ends it: the
//!   other leg is reset once its peer has acknowledged all that the failed one had sent, or has
//!   made no progress for the close timeout.
//! - A leg that is not being read (paused, or at end of file) is still monitored for errors.
//!
//! Independent of HTTP. Waits only for the two sockets, a timer and the shutdown signal.

pub mod ack_tracker;
mod delivery;
pub mod frames;
pub mod going_away;
pub mod heartbeat;
pub mod kept;
pub mod live_stats;
pub mod liveness;
pub mod rhythm;
mod scratch;
pub mod session;
mod transfer;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    io::ioctl_fionread,
    net::{Shutdown as Direction, shutdown},
};
use t3_record::{
    evidence::{Nanos, OwnEnd, TcpFacts},
    vocabulary::Side,
};
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    relay::{
        delivery::Acknowledgements,
        kept::Kept,
        scratch::Scratch,
        session::Session,
        transfer::{FlowMarks, Watch},
    },
    shutdown::signal::Listener,
    sys::{clock, tcp, tcp_info},
};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Timeout for the end of the other leg once one peer has sent a Close frame and a FIN: that peer
/// reads nothing more.
const PEER_GONE_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeouts for the end of a session.
#[derive(Debug, Clone, Copy)]
pub struct RelayTimeouts {
    /// Time without progress after a half-close or a completed close handshake.
    pub close: Duration,
    /// Timeout for replies to Close 1001 during shutdown.
    pub going_away: Duration,
}

/// The two sockets of a session.
#[derive(Debug)]
pub struct Legs {
    /// Downstream, towards the client.
    pub down: TcpStream,
    /// Upstream, towards serve.
    pub up: TcpStream,
}

/// Reason for the end of a relay.
enum RelayEnd {
    /// Both directions ended cleanly. `is_delivered`: no leg failed, and both peers have
    /// acknowledged everything.
    Completed { is_delivered: bool },
    /// This leg failed, and what it had sent is delivered: the other one must be reset.
    Broken(Side),
    /// A peer did not end its leg in time, or did not take what the other one had sent; then with
    /// the leg that failed.
    TimedOut(Option<Side>),
    /// dispatch shuts down, and a peer did not end its leg in time.
    ShutDown,
    /// The next process continues the session.
    Left,
}

/// Result of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Relayed {
    /// The session has ended and both sockets are closed.
    Ended,
    /// The session and its sockets are left to the next process; it has no record yet.
    Left,
}

/// Observer of a relay. Must not block.
pub trait RelayObserver: Send + Sync {
    /// Called once, at the first Close frame or the end of the first leg. The relay itself may last
    /// longer: Chromium keeps the connection to a stalled serve for a minute after its Close frame.
    fn end_started(&self, session: &Session);
    /// Called when the first leg has ended after a Close frame.
    fn leg_ended(&self, _session: &Session) {}
    /// Called when a peer did not take what the other one had sent, within the close timeout.
    fn delivery_timed_out(&self) {}
    /// Called for each heartbeat reply of serve; `rtt` in nanoseconds.
    fn heartbeat(&self, rtt: u64);
}

/// Relays until the session has ended and both sockets are closed, or until the next process
/// continues it. `kept`: its slot, if the next process can. Both are boxed because a future has its
/// arguments in several places.
pub async fn run(
    session: &mut Session,
    legs: Box<Legs>,
    kept: Option<Box<Kept>>,
    timeouts: RelayTimeouts,
    listener: &Listener,
    observer: &dyn RelayObserver,
) -> Relayed {
    // It began in the process before, which observers do not know.
    if session.end_started() {
        notify_end(session, observer);
    }
    let (end, kept) = {
        let mut relay = Relay {
            session,
            down: &legs.down,
            up: &legs.up,
            watch_down: None,
            watch_up: None,
            timeouts,
            listener,
            observer,
            timer: None,
            progress_at: clock::now(),
            progress_instant: None,
            acknowledgements: Acknowledgements::default(),
            shutting_down: false,
            kept,
            committed: FlowMarks::default(),
        };
        let end = poll_fn(|cx| relay.poll(cx)).await;
        (end, relay.kept)
    };
    if matches!(end, RelayEnd::Left) {
        // Only this process lets go of the sockets: the store has them.
        return Relayed::Left;
    }
    let resets = conclude(session, &legs, &end, observer);
    // Only the last close of a socket ends its connection.
    let is_last = match kept {
        Some(kept) => kept.remove().await,
        None => true,
    };
    close(session, *legs, &end, resets, is_last);
    Relayed::Ended
}

/// Completes the facts. Returns which legs must be reset: downstream, upstream.
fn conclude(
    session: &mut Session,
    legs: &Legs,
    end: &RelayEnd,
    observer: &dyn RelayObserver,
) -> (bool, bool) {
    let now = clock::now();
    note_first_end(session, &legs.down, &legs.up, now, observer);
    delivery::note_undelivered(session, legs, end.is_delivered());
    let failed = end.failed();
    let is_late = matches!(end, RelayEnd::TimedOut(_));
    let is_cut = |side| is_late && delivery::is_cut(session, legs, side);
    let cut = (is_cut(Side::Down), is_cut(Side::Up));
    let undelivered = |side: Side| session.facts.leg(side.other()).undelivered > 0;
    if cut != (false, false) || (is_late && failed.is_some_and(undelivered)) {
        observer.delivery_timed_out();
    }
    // A stream that was cut must not look complete: it ends with RST.
    (cut.0 || failed == Some(Side::Up), cut.1 || failed == Some(Side::Down))
}

/// Closes both sockets. `is_last`: no other process has them.
fn close(session: &mut Session, legs: Legs, end: &RelayEnd, resets: (bool, bool), is_last: bool) {
    let now = clock::now();
    let Legs { down, up } = legs;
    for (side, stream, is_reset) in [(Side::Down, down, resets.0), (Side::Up, up, resets.1)] {
        if end.failed() != Some(side) {
            session.set_own_end(side, if is_reset { OwnEnd::Rst } else { OwnEnd::Fin }, now);
        }
        if !is_last {
            tcp::end_shared(&stream, is_reset);
        }
        if is_reset { tcp::reset(stream) } else { drop(stream) }
    }
}

impl RelayEnd {
    /// Both streams were read to their ends, and both peers have acknowledged all that was written:
    /// the queues of both sockets are empty.
    const fn is_delivered(&self) -> bool {
        matches!(self, Self::Completed { is_delivered: true })
    }

    /// The leg that failed.
    const fn failed(&self) -> Option<Side> {
        match self {
            Self::Broken(side) => Some(*side),
            Self::TimedOut(failed) => *failed,
            Self::Completed { .. } | Self::ShutDown | Self::Left => None,
        }
    }
}

fn note_first_end(
    session: &mut Session,
    down: &TcpStream,
    up: &TcpStream,
    now: u64,
    observer: &dyn RelayObserver,
) {
    let sampled = if session.end_started() { None } else { sample(session, down, up, now) };
    if session.first_end(now) {
        let with_timeout = |tcp, socket| TcpFacts { user_timeout_ms: tcp_info::user_timeout(socket), ..tcp };
        let of_down = sampled.or_else(|| tcp_info::read(down).ok());
        session.facts.down.tcp = of_down.map(|tcp| with_timeout(tcp, down));
        session.facts.up.tcp = tcp_info::read(up).ok().map(|tcp| with_timeout(tcp, up));
        if session.end_notified {
            observer.leg_ended(session);
        }
    }
    notify_end(session, observer);
}

fn notify_end(session: &mut Session, observer: &dyn RelayObserver) {
    if !session.end_notified {
        session.end_notified = true;
        observer.end_started(session);
    }
}

/// Samples the downstream socket for the delivery of heartbeat replies. Returns its `TCP_INFO`.
fn sample(session: &mut Session, down: &TcpStream, up: &TcpStream, now: u64) -> Option<TcpFacts> {
    // A sample needs both values.
    let (unacknowledged, tcp) = (tcp_info::unacknowledged(down).ok()?, tcp_info::read(down).ok()?);
    let lost = tcp.total_retrans.saturating_add(tcp.out_of_order.unwrap_or(0));
    session.add_sample(unacknowledged, lost, now);
    // While the client is slow, bytes from serve also wait in serve's socket.
    if let Some(backlog) = &mut session.facts.down.backlog {
        backlog.bytes += ioctl_fionread(up).unwrap_or(0);
    }
    Some(tcp)
}

struct Relay<'a> {
    session: &'a mut Session,
    down: &'a TcpStream,
    up: &'a TcpStream,
    /// Waits for an error on a leg that is not being read; created on first use.
    watch_down: Option<Watch<'a>>,
    watch_up: Option<Watch<'a>>,
    timeouts: RelayTimeouts,
    listener: &'a Listener,
    observer: &'a dyn RelayObserver,
    timer: Option<Pin<Box<Sleep>>>,
    /// Time of the last progress. The timer needs an [`Instant`], which costs another read of the
    /// clock, only at the end of a session.
    progress_at: Nanos,
    /// The same time, once the timer needed it.
    progress_instant: Option<(Nanos, Instant)>,
    acknowledgements: Acknowledgements,
    /// Shutdown: Close 1001 was sent and received bytes are discarded.
    shutting_down: bool,
    /// The slot of the session, if the next process can continue it.
    kept: Option<Box<Kept>>,
    /// What the last commit has besides the positions.
    committed: FlowMarks,
}

impl<'a> Relay<'a> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let shutdown = if self.shutting_down { None } else { self.listener.poll(cx) };
        let is_continued = shutdown.is_some()
            && self.listener.keeps()
            && self.kept.as_ref().is_some_and(|kept| kept.slot().is_live());
        if is_continued && self.listener.hands_over() {
            // A state that has no room in the slot is the exception: that session ends here.
            if self.kept.as_mut().is_some_and(|kept| kept.leave(self.session)) {
                return Poll::Ready(RelayEnd::Left);
            }
        }
        if let Some(shutdown) = shutdown.filter(|_| !is_continued || self.listener.hands_over()) {
            self.shutting_down = true;
            if let Some(kept) = &mut self.kept {
                kept.give_up();
            }
            if self.session.facts.ended_at == 0 {
                self.session.facts.shutdown = Some(shutdown);
            }
            going_away::append(self.session);
            self.progress_at = clock::now();
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let scratch = scratch.buffer(self.kept.as_ref().map(|kept| kept.slot().file()));
            loop {
                let failed = self.failed_legs();
                // Pump both before acting on either: when both legs have ended, each end must be
                // recorded.
                self.pump(cx, Side::Up, scratch);
                self.pump(cx, Side::Down, scratch);
                // A failed leg changes what the other direction waits for.
                if self.failed_legs() == failed {
                    break;
                }
            }
        });
        self.commit_marks();
        match self.poll_end(cx) {
            Poll::Pending => self.poll_timer(cx),
            end => end,
        }
    }

    /// The time of the last progress for the timer.
    fn progress_instant(&mut self) -> Instant {
        match self.progress_instant {
            Some((at, instant)) if at == self.progress_at => instant,
            _ => {
                let since = Duration::from_nanos(clock::now().saturating_sub(self.progress_at));
                let now = Instant::now();
                let instant = now.checked_sub(since).unwrap_or(now);
                self.progress_instant = Some((self.progress_at, instant));
                instant
            }
        }
    }

    fn failed_legs(&self) -> (bool, bool) {
        (self.session.flow(Side::Down).failed, self.session.flow(Side::Up).failed)
    }

    fn note_end(&mut self, now: u64) {
        note_first_end(self.session, self.down, self.up, now, self.observer);
    }

    /// Returns the end once everything has been delivered.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let done = |side| self.session.flow(side).ended && self.session.flow(side).end_forwarded;
        let failed = self.failed_legs();
        if done(Side::Down) && done(Side::Up) {
            if failed != (false, false) {
                return Poll::Ready(RelayEnd::Completed { is_delivered: false });
            }
            let is_delivered = self.is_acknowledged(cx, Side::Down) && self.is_acknowledged(cx, Side::Up);
            return if is_delivered {
                Poll::Ready(RelayEnd::Completed { is_delivered })
            } else {
                Poll::Pending
            };
        }
        let first = match failed {
            (false, false) => return Poll::Pending,
            (true, true) => return Poll::Ready(RelayEnd::Broken(self.session.failed_first())),
            (true, false) => Side::Down,
            (false, true) => Side::Up,
        };
        let flow = self.session.flow(first);
        let is_written = flow.ended && flow.unwritten().is_empty();
        if is_written && self.is_acknowledged(cx, first.other()) {
            return Poll::Ready(RelayEnd::Broken(first));
        }
        Poll::Pending
    }

    /// During shutdown: ends the write side towards a peer that has sent its Close frame.
    fn end_closed_peer(&mut self, from: Side, now: u64) {
        let opposite = from.other();
        if self.session.flow(from).scanner.closed() && !self.session.flow(opposite).end_forwarded {
            // Reading from the peer continues until its FIN.
            if self.session.flow(opposite).unwritten().is_empty() {
                let _ = shutdown(self.stream(from), Direction::Write);
                self.session.flow_mut(opposite).end_forwarded = true;
                self.session.set_own_end(from, OwnEnd::Fin, now);
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let facts = &self.session.facts;
        // A peer that has sent a Close frame and a FIN reads nothing more (RFC 6455 section 1.4).
        let gone = |side| self.session.flow(side).ended && facts.leg(side).close_frame.is_some();
        if self.shutting_down && self.listener.poll_forced(cx) {
            return Poll::Ready(RelayEnd::ShutDown);
        }
        let has_failed = self.failed_legs() != (false, false);
        let wait = if self.shutting_down {
            self.timeouts.going_away
        } else if !has_failed && (gone(Side::Down) || gone(Side::Up)) {
            self.timeouts.close.min(PEER_GONE_TIMEOUT)
        } else if facts.ended_at != 0 || (facts.down.close_frame.is_some() && facts.up.close_frame.is_some())
        {
            self.timeouts.close
        } else {
            return Poll::Pending;
        };
        self.note_progress();
        let mut wait = wait;
        loop {
            // During shutdown discarded traffic must not extend the deadline.
            let deadline = self.progress_instant() + wait;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if timer.deadline() != deadline && (!self.shutting_down || timer.deadline() > deadline) {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.shutting_down {
                return Poll::Ready(RelayEnd::ShutDown);
            }
            if self.note_progress() {
                continue;
            }
            if wait < self.timeouts.close && self.is_delivering() {
                // The peer that is gone reads nothing more; the other one still does.
                wait = self.timeouts.close;
                continue;
            }
            let failed = (has_failed).then(|| self.session.failed_first());
            return Poll::Ready(RelayEnd::TimedOut(failed));
        }
    }
}
