//! Bidirectional relay between the two sockets of a session; updates its facts.
//!
//! - One `recv` and one `send` per message that fits: a short read means that the socket is empty,
//!   so the relay does not call `recv` again.
//! - Reads go into one scratch buffer per thread. Only bytes that the other socket does not accept
//!   are kept, and reading pauses until they are written (back-pressure).
//! - End of file on one leg does not end the session: it is forwarded as `shutdown(SHUT_WR)`, and
//!   the other direction continues (RFC 9293 section 3.6). A reset or another error ends it: the
//!   other leg is reset.
//! - A leg that is not being read (paused, or at end of file) is still monitored for errors.
//!
//! Independent of HTTP. Waits only for the two sockets, a timer and the shutdown signal.

pub mod ack_tracker;
pub mod frames;
pub mod going_away;
pub mod heartbeat;
pub mod live_stats;
pub mod liveness;
pub mod rhythm;
pub mod session;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    io::ioctl_fionread,
    net::{RecvFlags, SendFlags, Shutdown as Direction, recv, send, shutdown},
};
use t3_record::{
    evidence::{OwnEnd, SeenEnd},
    vocabulary::Side,
};
use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    relay::session::Session,
    shutdown::signal::Listener,
    sys::{clock, tcp, tcp_info},
};

/// Limit of one read in bytes, and so of the bytes kept for one direction.
pub const SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
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
    /// Both directions ended cleanly.
    Completed,
    /// This leg failed: the other one must be reset.
    Broken(Side),
    TimedOut,
}

/// Observer of a relay. Must not block.
pub trait RelayObserver: Send + Sync {
    /// Called once, at the first Close frame or the end of the first leg. The relay itself may last
    /// longer: Chromium keeps the connection to a stalled serve for a minute after its Close frame.
    fn end_started(&self, session: &Session);
    /// Called when the first leg has ended after a Close frame.
    fn leg_ended(&self, _session: &Session) {}
    /// Called for each heartbeat reply of serve; `rtt` in nanoseconds.
    fn heartbeat(&self, rtt: u64);
}

/// Relays until the session has ended and both sockets are closed.
pub async fn run(
    session: &mut Session,
    legs: Legs,
    timeouts: RelayTimeouts,
    listener: &Listener,
    observer: &dyn RelayObserver,
) {
    let end = {
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
            progress_at: Instant::now(),
            shutting_down: false,
        };
        poll_fn(|cx| relay.poll(cx)).await
    };
    finish(session, legs, &end, observer);
}

fn finish(session: &mut Session, legs: Legs, end: &RelayEnd, observer: &dyn RelayObserver) {
    let now = clock::now();
    note_first_end(session, &legs.down, &legs.up, now, observer);
    match end {
        RelayEnd::Broken(Side::Down) => {
            session.set_own_end(Side::Up, OwnEnd::Rst, now);
            tcp::reset(legs.up);
        }
        RelayEnd::Broken(Side::Up) => {
            session.set_own_end(Side::Down, OwnEnd::Rst, now);
            tcp::reset(legs.down);
        }
        RelayEnd::Completed | RelayEnd::TimedOut => {
            session.set_own_end(Side::Down, OwnEnd::Fin, now);
            session.set_own_end(Side::Up, OwnEnd::Fin, now);
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
    if !session.end_started() {
        sample(session, down, now);
    }
    if session.first_end(now) {
        session.facts.down.tcp = tcp_info::read_with_timeout(down).ok();
        session.facts.up.tcp = tcp_info::read_with_timeout(up).ok();
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

/// Samples the downstream socket for the delivery of heartbeat replies.
fn sample(session: &mut Session, down: &TcpStream, now: u64) {
    // A sample needs both values.
    if let (Ok(unacknowledged), Ok(tcp)) = (tcp_info::unacknowledged(down), tcp_info::read(down)) {
        let lost = tcp.total_retrans.saturating_add(tcp.out_of_order.unwrap_or(0));
        session.add_sample(unacknowledged, lost, now);
    }
}

type Watch<'a> = Pin<Box<dyn Future<Output = io::Result<Ready>> + Send + 'a>>;

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
    progress_at: Instant,
    /// Shutdown: Close 1001 was sent and received bytes are discarded.
    shutting_down: bool,
}

impl<'a> Relay<'a> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        if !self.shutting_down
            && let Some(shutdown) = self.listener.poll(cx)
        {
            self.shutting_down = true;
            if self.session.facts.ended_at == 0 {
                self.session.facts.shutdown = Some(shutdown);
            }
            going_away::append(self.session);
            self.progress_at = Instant::now();
        }
        let broken = SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            // Pump both before acting on either: when both legs have ended, each end must be
            // recorded.
            let first = self.pump(cx, Side::Up, scratch);
            let second = self.pump(cx, Side::Down, scratch);
            let broken = first.err().or(second.err());
            if let Some(side) = broken {
                self.forward_last_bytes(cx, side, scratch);
            }
            broken
        });
        if let Some(side) = broken {
            return Poll::Ready(RelayEnd::Broken(side));
        }
        let done = |side| self.session.flow(side).ended && self.session.flow(side).end_forwarded;
        if done(Side::Down) && done(Side::Up) {
            return Poll::Ready(RelayEnd::Completed);
        }
        self.poll_timer(cx)
    }

    fn stream(&self, side: Side) -> &'a TcpStream {
        match side {
            Side::Down => self.down,
            Side::Up => self.up,
        }
    }

    fn report_heartbeats(&mut self) {
        for rtt in self.session.heartbeat.take_rtts() {
            self.observer.heartbeat(*rtt);
        }
    }

    fn note_end(&mut self, now: u64) {
        note_first_end(self.session, self.down, self.up, now, self.observer);
    }

    /// Relays all available bytes from `from` to the other leg. `Err` names the leg that failed.
    fn pump(&mut self, cx: &mut Context<'_>, from: Side, scratch: &mut [u8]) -> Result<(), Side> {
        loop {
            if !self.flush(cx, from)? {
                return self.watch(cx, from);
            }
            if self.session.flow(from).ended {
                self.forward_end(from);
                return self.watch(cx, from);
            }
            let length = match self.read(cx, from, scratch) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(length)) => length,
                Poll::Ready(Err(error)) => {
                    let now = clock::now();
                    self.session.read_ended(from, tcp::seen_end(&error), now);
                    self.note_end(now);
                    return Err(from);
                }
            };
            let now = clock::now();
            self.progress_at = Instant::now();
            if length == 0 {
                self.session.read_ended(from, SeenEnd::Eof, now);
                self.note_end(now);
                continue;
            }
            let bytes = &scratch[..length];
            let closed_before = self.session.flow(from).close_end.is_some();
            self.session.received(from, bytes, now);
            self.report_heartbeats();
            if self.session.sample_due {
                sample(self.session, self.down, now);
            }
            if !closed_before && self.session.flow(from).close_end.is_some() {
                // Once per session: the other peer sent its unread bytes before it could read this
                // Close frame.
                let unread = ioctl_fionread(self.stream(from.other())).unwrap_or(0);
                self.session.mark_close_forwarded(from.other(), unread, now);
                notify_end(self.session, self.observer);
            }
            if self.shutting_down {
                self.end_closed_peer(from, now);
                continue;
            }
            let written = self.write(cx, from, bytes)?;
            if written < length {
                let flow = self.session.flow_mut(from);
                flow.pending.extend_from_slice(&bytes[written..]);
                flow.blocked_since = Some(now);
                flow.backed_up_since.get_or_insert(now);
            }
        }
    }

    /// Writes pending bytes. Returns `false` when the socket accepts no more; the task is woken
    /// later.
    fn flush(&mut self, cx: &mut Context<'_>, from: Side) -> Result<bool, Side> {
        while !self.session.flow(from).unwritten().is_empty() {
            let flow = self.session.flow_mut(from);
            // Moved out during the call, so that the session can be borrowed.
            let pending = std::mem::take(&mut flow.pending);
            let at = flow.pending_at;
            let result = self.write(cx, from, &pending[at..]);
            let flow = self.session.flow_mut(from);
            flow.pending = pending;
            let written = result?;
            if written == 0 {
                flow.blocked_since.get_or_insert_with(clock::now);
                return Ok(false);
            }
            flow.pending_at += written;
            flow.blocked_since = Some(clock::now());
            self.progress_at = Instant::now();
        }
        let flow = self.session.flow_mut(from);
        if flow.pending.capacity() > 0 {
            flow.pending = Vec::new();
            flow.pending_at = 0;
        }
        flow.blocked_since = None;
        flow.backed_up_since = None;
        Ok(true)
    }

    /// Forwards the end of the direction from `from` to the other leg.
    fn forward_end(&mut self, from: Side) {
        if self.session.flow(from).end_forwarded {
            return;
        }
        let to = from.other();
        let now = clock::now();
        // Fails only when that leg has lost its peer; reading from it reports the same.
        let _ = shutdown(self.stream(to), Direction::Write);
        self.session.flow_mut(from).end_forwarded = true;
        self.session.set_own_end(to, OwnEnd::Fin, now);
    }

    fn read(&self, cx: &mut Context<'_>, side: Side, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let stream = self.stream(side);
        loop {
            std::task::ready!(stream.poll_read_ready(cx))?;
            let mut count = None;
            let result = stream.try_io(Interest::READABLE, || {
                let (length, _) = recv(stream, &mut *scratch, RecvFlags::empty())?;
                count = Some(length);
                // A short read has emptied the socket: WouldBlock makes the next poll wait without
                // a system call.
                if length > 0 && length < scratch.len() {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            });
            match (count, result) {
                (Some(length), _) => return Poll::Ready(Ok(length)),
                (None, Err(error)) if retry(&error) => {}
                (None, Err(error)) => return Poll::Ready(Err(error)),
                (None, Ok(())) => {}
            }
        }
    }

    /// Writes to the leg opposite to `from`. Returns the number of bytes written; after a short
    /// write the task is woken only once the caller has tried again and got 0.
    fn write(&mut self, cx: &mut Context<'_>, from: Side, bytes: &[u8]) -> Result<usize, Side> {
        let to = from.other();
        let stream = self.stream(to);
        loop {
            match stream.poll_write_ready(cx) {
                Poll::Pending => return Ok(0),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(self.write_failed(to, &error)),
            }
            // Before the call: on the loopback the reply can arrive before `send` returns, and a
            // reply must not have an earlier time than its request.
            let now = clock::now();
            let mut count = None;
            let result = stream.try_io(Interest::WRITABLE, || {
                let length = send(stream, bytes, SendFlags::NOSIGNAL)?;
                count = Some(length);
                if length < bytes.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (count, result) {
                (Some(length), _) => {
                    self.session.wrote(from, length, now);
                    return Ok(length);
                }
                (None, Err(error)) if !retry(&error) => return Err(self.write_failed(to, &error)),
                (None, _) => {}
            }
        }
    }

    fn write_failed(&mut self, to: Side, error: &io::Error) -> Side {
        let now = clock::now();
        self.session.leg_mut(to).write_error.get_or_insert((tcp::seen_end(error), now));
        self.note_end(now);
        to
    }

    /// Checks a leg that is not being read for an error condition.
    fn watch(&mut self, cx: &mut Context<'_>, side: Side) -> Result<(), Side> {
        let stream = self.stream(side);
        let watch = match side {
            Side::Down => &mut self.watch_down,
            Side::Up => &mut self.watch_up,
        };
        let watch = watch.get_or_insert_with(|| {
            // Ends after the first event: an error condition stays.
            Box::pin(async move {
                stream.ready(Interest::ERROR).await?;
                Ok(Ready::ERROR)
            })
        });
        if watch.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        match side {
            Side::Down => self.watch_down = Some(Box::pin(std::future::pending())),
            Side::Up => self.watch_up = Some(Box::pin(std::future::pending())),
        }
        match stream.take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => {
                let now = clock::now();
                if self.session.flow(side).ended {
                    // The leg ended with a FIN; a later error belongs to writing.
                    self.session.leg_mut(side).write_error.get_or_insert((tcp::seen_end(&error), now));
                } else {
                    self.session.read_ended(side, tcp::seen_end(&error), now);
                }
                self.note_end(now);
                Err(side)
            }
        }
    }

    /// Forwards the bytes that the broken leg `side` had sent before its end.
    fn forward_last_bytes(&mut self, cx: &mut Context<'_>, side: Side, scratch: &mut [u8]) {
        while !self.session.flow(side).ended && !self.shutting_down {
            let length = match self.read(cx, side, scratch) {
                Poll::Pending => return,
                Poll::Ready(Ok(length)) => length,
                Poll::Ready(Err(error)) => {
                    self.session.read_ended(side, tcp::seen_end(&error), clock::now());
                    return;
                }
            };
            if length == 0 {
                self.session.read_ended(side, SeenEnd::Eof, clock::now());
                return;
            }
            self.session.received(side, &scratch[..length], clock::now());
            self.report_heartbeats();
            if !matches!(self.flush(cx, side), Ok(true)) {
                return;
            }
            if !matches!(self.write(cx, side, &scratch[..length]), Ok(written) if written == length) {
                return;
            }
        }
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
            return Poll::Ready(RelayEnd::TimedOut);
        }
        let wait = if self.shutting_down {
            self.timeouts.going_away
        } else if gone(Side::Down) || gone(Side::Up) {
            self.timeouts.close.min(PEER_GONE_TIMEOUT)
        } else if facts.ended_at != 0 || (facts.down.close_frame.is_some() && facts.up.close_frame.is_some())
        {
            self.timeouts.close
        } else {
            return Poll::Pending;
        };
        // During shutdown discarded traffic must not extend the deadline.
        let deadline = self.progress_at + wait;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline && (!self.shutting_down || timer.deadline() > deadline) {
            timer.as_mut().reset(deadline);
        }
        match timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(RelayEnd::TimedOut),
        }
    }
}

fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
