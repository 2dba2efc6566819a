//! Passes bytes between the two sockets of a session until both have ended, and keeps what it sees
//! in the session.
//!
//! - One `recv` and one `send` per message when it fits: a short read says that the socket is
//!   empty, so nobody asks again.
//! - Read into one scratch buffer per thread; only what the other socket does not take is kept, and
//!   until it has been taken nothing more is read from that side (back-pressure).
//! - End of file on one side is not the end of the session: it is passed on as `shutdown(SHUT_WR)`,
//!   and the other direction goes on (RFC 9293 section 3.6). A reset or any other error is: the
//!   other leg is reset, too.
//! - A leg that is not being read (paused, or read to its end) is still watched for errors.
//!
//! Knows nothing of HTTP, and never waits for anything but the two sockets, a timer and the word to
//! stop.

pub mod ack_tracker;
pub mod frames;
pub mod going_away;
pub mod heartbeat;
pub mod live_stats;
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

/// The most that is read at once, and with that the most that is ever kept of one direction.
pub const SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// How long the other side may take once one side has said Close and sent FIN: for its own close
/// frame, which nobody reads.
const GONE: Duration = Duration::from_secs(2);

/// How long dispatch waits for ends that do not come.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// After a half-close or a completed close handshake with nothing moving any more.
    pub close: Duration,
    /// For answers to our own close frames when told to stop.
    pub farewell: Duration,
}

/// The two sockets.
#[derive(Debug)]
pub struct Legs {
    /// Towards the browser.
    pub down: TcpStream,
    /// Towards serve.
    pub up: TcpStream,
}

/// Why the relay is over.
enum Over {
    /// Both directions ended in order.
    Ended,
    /// This leg broke: the other one is to be reset.
    Broken(Side),
    /// We stop waiting.
    Impatient,
}

/// Who is told what happens on the way. Must not wait.
pub trait RelayObserver: Send + Sync {
    /// Once, when the end begins to show: at the first close frame, or else at the end of the first
    /// leg. A browser that has said Close to a stalled serve holds its connection for a minute
    /// (measured with Chromium).
    fn end_began(&self, session: &Session);
    /// serve answered a heartbeat after so many nanoseconds.
    fn heartbeat(&self, rtt: u64);
}

/// Relays until the session is over and both sockets are closed.
pub async fn run(
    session: &mut Session,
    legs: Legs,
    patience: Patience,
    listener: &Listener,
    observer: &dyn RelayObserver,
) {
    let over = {
        let mut relay = Relay {
            session,
            down: &legs.down,
            up: &legs.up,
            watch_down: None,
            watch_up: None,
            patience,
            listener,
            observer,
            timer: None,
            moved_at: Instant::now(),
            leaving: false,
        };
        poll_fn(|cx| relay.poll(cx)).await
    };
    finish(session, legs, &over, observer);
}

fn finish(session: &mut Session, legs: Legs, over: &Over, observer: &dyn RelayObserver) {
    let now = clock::now();
    note_first_end(session, &legs.down, &legs.up, now, observer);
    match over {
        Over::Broken(Side::Down) => {
            session.told(Side::Up, OwnEnd::Rst, now);
            tcp::reset(legs.up);
        }
        Over::Broken(Side::Up) => {
            session.told(Side::Down, OwnEnd::Rst, now);
            tcp::reset(legs.down);
        }
        Over::Ended | Over::Impatient => {
            session.told(Side::Down, OwnEnd::Fin, now);
            session.told(Side::Up, OwnEnd::Fin, now);
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
    if !session.decided() {
        look(session, down, now);
    }
    if session.first_end(now) {
        session.facts.down.tcp = tcp_info::read(down).ok();
        session.facts.up.tcp = tcp_info::read(up).ok();
    }
    tell_once(session, observer);
}

fn tell_once(session: &mut Session, observer: &dyn RelayObserver) {
    if !session.end_told {
        session.end_told = true;
        observer.end_began(session);
    }
}

/// What the browser's socket tells of the answers on their way.
fn look(session: &mut Session, down: &TcpStream, now: u64) {
    // Without either nothing is known of the path, and nothing is concluded.
    if let (Ok(unacknowledged), Ok(tcp)) = (tcp_info::unacknowledged(down), tcp_info::read(down)) {
        let lost = tcp.total_retrans.saturating_add(tcp.out_of_order.unwrap_or(0));
        session.looked(unacknowledged, lost, now);
    }
}

type Watch<'a> = Pin<Box<dyn Future<Output = io::Result<Ready>> + Send + 'a>>;

struct Relay<'a> {
    session: &'a mut Session,
    down: &'a TcpStream,
    up: &'a TcpStream,
    /// Waits for an error on a leg that is not being read; made when first needed.
    watch_down: Option<Watch<'a>>,
    watch_up: Option<Watch<'a>>,
    patience: Patience,
    listener: &'a Listener,
    observer: &'a dyn RelayObserver,
    timer: Option<Pin<Box<Sleep>>>,
    moved_at: Instant,
    /// Told to stop: close frames are out, nothing is forwarded any more.
    leaving: bool,
}

impl<'a> Relay<'a> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        if !self.leaving
            && let Some(word) = self.listener.poll(cx)
        {
            self.leaving = true;
            if self.session.facts.ended_at == 0 {
                self.session.facts.shutdown = Some(word);
            }
            going_away::put(self.session);
            self.moved_at = Instant::now();
        }
        let over = SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            // Both, before either is believed: when both have ended, each end must have been seen.
            let first = self.pump(cx, Side::Up, scratch);
            let second = self.pump(cx, Side::Down, scratch);
            let broken = first.err().or(second.err());
            if let Some(side) = broken {
                self.last_words(cx, side, scratch);
            }
            broken
        });
        if let Some(side) = over {
            return Poll::Ready(Over::Broken(side));
        }
        let done = |side| self.session.flow(side).ended && self.session.flow(side).passed_on;
        if done(Side::Down) && done(Side::Up) {
            return Poll::Ready(Over::Ended);
        }
        self.poll_timer(cx)
    }

    fn stream(&self, side: Side) -> &'a TcpStream {
        match side {
            Side::Down => self.down,
            Side::Up => self.up,
        }
    }

    fn tell_heartbeats(&mut self) {
        for rtt in self.session.heartbeat.take_answered() {
            self.observer.heartbeat(*rtt);
        }
    }

    fn note_end(&mut self, now: u64) {
        note_first_end(self.session, self.down, self.up, now, self.observer);
    }

    /// Moves what can be moved from `from` to the other side. `Err` names the leg that broke.
    fn pump(&mut self, cx: &mut Context<'_>, from: Side, scratch: &mut [u8]) -> Result<(), Side> {
        loop {
            if !self.flush(cx, from)? {
                return self.watch(cx, from);
            }
            if self.session.flow(from).ended {
                self.pass_on(from);
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
            self.moved_at = Instant::now();
            if length == 0 {
                self.session.read_ended(from, SeenEnd::Eof, now);
                self.note_end(now);
                continue;
            }
            let bytes = &scratch[..length];
            let closed_before = self.session.flow(from).close_end.is_some();
            self.session.arrived(from, bytes, now);
            self.tell_heartbeats();
            if self.session.look_due {
                look(self.session, self.down, now);
            }
            if !closed_before && self.session.flow(from).close_end.is_some() {
                // Once in a session's life: what the other side has sent already it has sent
                // without knowing of this close.
                let unread = ioctl_fionread(self.stream(from.other())).unwrap_or(0);
                self.session.about_to_hear(from.other(), unread, now);
                tell_once(self.session, self.observer);
            }
            if self.leaving {
                self.heard_goodbye(from, now);
                continue;
            }
            let taken = self.write(cx, from, bytes)?;
            if taken < length {
                let flow = self.session.flow_mut(from);
                flow.pending.extend_from_slice(&bytes[taken..]);
                flow.blocked_since = Some(now);
                flow.backed_up_since.get_or_insert(now);
            }
        }
    }

    /// Writes what is pending. `false`: the socket takes no more for now, and the task will be
    /// woken.
    fn flush(&mut self, cx: &mut Context<'_>, from: Side) -> Result<bool, Side> {
        while !self.session.flow(from).rest().is_empty() {
            let flow = self.session.flow_mut(from);
            // Taken out for the time of the call, so that the session stays borrowable.
            let pending = std::mem::take(&mut flow.pending);
            let at = flow.pending_at;
            let result = self.write(cx, from, &pending[at..]);
            let flow = self.session.flow_mut(from);
            flow.pending = pending;
            let taken = result?;
            if taken == 0 {
                flow.blocked_since.get_or_insert_with(clock::now);
                return Ok(false);
            }
            flow.pending_at += taken;
            flow.blocked_since = Some(clock::now());
            self.moved_at = Instant::now();
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

    /// The end of the direction from `from` reaches the other leg.
    fn pass_on(&mut self, from: Side) {
        if self.session.flow(from).passed_on {
            return;
        }
        let to = from.other();
        let now = clock::now();
        // Fails only when that leg has lost its peer, which reading from it tells.
        let _ = shutdown(self.stream(to), Direction::Write);
        self.session.flow_mut(from).passed_on = true;
        self.session.told(to, OwnEnd::Fin, now);
    }

    fn read(&self, cx: &mut Context<'_>, side: Side, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let stream = self.stream(side);
        loop {
            std::task::ready!(stream.poll_read_ready(cx))?;
            let mut got = None;
            let result = stream.try_io(Interest::READABLE, || {
                let (length, _) = recv(stream, &mut *scratch, RecvFlags::empty())?;
                got = Some(length);
                // A short read has emptied the socket: saying so makes the next poll wait instead
                // of asking the kernel.
                if length > 0 && length < scratch.len() {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            });
            match (got, result) {
                (Some(length), _) => return Poll::Ready(Ok(length)),
                (None, Err(error)) if retry(&error) => {}
                (None, Err(error)) => return Poll::Ready(Err(error)),
                (None, Ok(())) => {}
            }
        }
    }

    /// Writes to the leg opposite to `from`. Returns what was taken; when that is not all, the task
    /// will be woken once the caller has tried again and got 0.
    fn write(&mut self, cx: &mut Context<'_>, from: Side, bytes: &[u8]) -> Result<usize, Side> {
        let to = from.other();
        let stream = self.stream(to);
        loop {
            match stream.poll_write_ready(cx) {
                Poll::Pending => return Ok(0),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(self.write_failed(to, &error)),
            }
            // Before the call: on the loopback the peer can have answered before it returns, and an
            // answer must not look older than what it answers.
            let now = clock::now();
            let mut got = None;
            let result = stream.try_io(Interest::WRITABLE, || {
                let length = send(stream, bytes, SendFlags::NOSIGNAL)?;
                got = Some(length);
                if length < bytes.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (got, result) {
                (Some(length), _) => {
                    self.session.taken(from, length, now);
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

    /// A leg that is not being read can still break: the kernel says so by an error condition,
    /// which no read would find.
    fn watch(&mut self, cx: &mut Context<'_>, side: Side) -> Result<(), Side> {
        let stream = self.stream(side);
        let watch = match side {
            Side::Down => &mut self.watch_down,
            Side::Up => &mut self.watch_up,
        };
        let watch = watch.get_or_insert_with(|| {
            // Ends after the first answer: an error condition is never taken back.
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
                    // Its end was a FIN; what came after shows when writing.
                    self.session.leg_mut(side).write_error.get_or_insert((tcp::seen_end(&error), now));
                } else {
                    self.session.read_ended(side, tcp::seen_end(&error), now);
                }
                self.note_end(now);
                Err(side)
            }
        }
    }

    /// The leg `side` broke; what it had sent before that still belongs to the other one.
    fn last_words(&mut self, cx: &mut Context<'_>, side: Side, scratch: &mut [u8]) {
        while !self.session.flow(side).ended && !self.leaving {
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
            self.session.arrived(side, &scratch[..length], clock::now());
            self.tell_heartbeats();
            if !matches!(self.flush(cx, side), Ok(true)) {
                return;
            }
            if !matches!(self.write(cx, side, &scratch[..length]), Ok(taken) if taken == length) {
                return;
            }
        }
    }

    /// While leaving: a peer that has closed too needs nothing more from us.
    fn heard_goodbye(&mut self, from: Side, now: u64) {
        let opposite = from.other();
        if self.session.flow(from).scanner.closed() && !self.session.flow(opposite).passed_on {
            // Its own write side stays open for our reading; ours to it ends here.
            if self.session.flow(opposite).rest().is_empty() {
                let _ = shutdown(self.stream(from), Direction::Write);
                self.session.flow_mut(opposite).passed_on = true;
                self.session.told(from, OwnEnd::Fin, now);
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let facts = &self.session.facts;
        // A peer that has said Close and sent FIN listens for nothing any more (RFC 6455 section
        // 1.4).
        let gone = |side| self.session.flow(side).ended && facts.leg(side).close_frame.is_some();
        if self.leaving && self.listener.poll_forced(cx) {
            return Poll::Ready(Over::Impatient);
        }
        let wait = if self.leaving {
            self.patience.farewell
        } else if gone(Side::Down) || gone(Side::Up) {
            self.patience.close.min(GONE)
        } else if facts.ended_at != 0 || (facts.down.close_frame.is_some() && facts.up.close_frame.is_some())
        {
            self.patience.close
        } else {
            return Poll::Pending;
        };
        // While leaving nothing moves the deadline: moved_at of traffic that is thrown away must
        // not prolong it.
        let deadline = self.moved_at + wait;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline && (!self.leaving || timer.deadline() > deadline) {
            timer.as_mut().reset(deadline);
        }
        match timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Over::Impatient),
        }
    }
}

fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
