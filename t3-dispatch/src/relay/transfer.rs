//! Transfer of bytes and ends from one leg to the other.
//!
//! A leg that fails is read to its end: on Linux, what arrived before an RST can still be read
//! after it. Bytes for a leg that has failed are read and discarded, so that the other peer is not
//! blocked and its end is seen.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use rustix::{
    io::ioctl_fionread,
    net::{SendFlags, Shutdown as Direction, send, shutdown},
};
use t3_record::{
    evidence::{Nanos, OwnEnd, SeenEnd},
    vocabulary::Side,
};
use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
};

use super::{Relay, notify_end, sample, session::Session};
use crate::sys::{clock, recv, tcp};

pub(super) type Watch<'a> = Pin<Box<dyn Future<Output = io::Result<Ready>> + Send + 'a>>;

/// What a session has besides bytes: ended, failed and forwarded ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FlowMarks([[bool; 3]; 2], bool);

impl FlowMarks {
    fn of(session: &Session) -> Self {
        let marks = |side| {
            let flow = session.flow(side);
            [flow.ended, flow.failed, flow.end_forwarded]
        };
        Self([marks(Side::Down), marks(Side::Up)], session.end_notified)
    }
}

/// A write did not complete.
enum Blocked {
    /// The socket accepts no more; the task is woken later.
    Full,
    /// The leg has failed.
    Failed,
}

impl<'a> Relay<'a> {
    pub(super) fn stream(&self, side: Side) -> &'a TcpStream {
        match side {
            Side::Down => self.down,
            Side::Up => self.up,
        }
    }

    /// Commits the state for the next process.
    fn commit(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.commit(self.session);
        }
    }

    /// Commits a change that is not a read or a write.
    pub(super) fn commit_marks(&mut self) {
        if self.kept.is_some() {
            let marks = FlowMarks::of(self.session);
            if marks != self.committed {
                self.committed = marks;
                self.commit();
            }
        }
    }

    fn report_heartbeats(&mut self) {
        for rtt in self.session.heartbeat.take_rtts() {
            self.observer.heartbeat(*rtt);
        }
    }

    /// Relays all available bytes from `from` to the other leg.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>, from: Side, scratch: &mut [u8]) {
        loop {
            if self.session.flow(from.other()).failed {
                self.session.flow_mut(from).discard();
            } else {
                match self.flush(cx, from) {
                    Ok(()) => {}
                    Err(Blocked::Full) => return self.watch(cx, from),
                    Err(Blocked::Failed) => continue,
                }
            }
            if self.session.flow(from).ended {
                self.forward_end(from);
                return self.watch(cx, from);
            }
            if let Some(kept) = &self.kept {
                kept.reading(from);
            }
            let length = match recv::poll_recv(self.stream(from), cx, scratch) {
                Poll::Pending => {
                    // The socket is empty: nothing of the peer waits unread any more.
                    self.session.flow_mut(from).backed_up_since = None;
                    return;
                }
                Poll::Ready(Ok(received)) => received.length,
                Poll::Ready(Err(error)) => {
                    self.leg_failed(from, &error);
                    self.session.read_ended(from, tcp::seen_end(&error), clock::now());
                    continue;
                }
            };
            let now = clock::now();
            if length == 0 {
                self.progress_at = now;
                self.session.read_ended(from, self.end_of_file(from), now);
                self.note_end(now);
                continue;
            }
            self.forward(cx, from, &scratch[..length], now);
            self.commit();
        }
    }

    fn forward(&mut self, cx: &mut Context<'_>, from: Side, bytes: &[u8], now: u64) {
        let closed_before = self.session.flow(from).close_end.is_some();
        self.session.received(from, bytes, now);
        self.report_heartbeats();
        if self.session.sample_due {
            sample(self.session, self.down, self.up, now);
        }
        let is_discarded = self.session.flow(from.other()).failed;
        if !closed_before && self.session.flow(from).close_end.is_some() {
            if !is_discarded {
                // Once per session: the other peer sent its unread bytes before it could read this
                // Close frame.
                let unread = ioctl_fionread(self.stream(from.other())).unwrap_or(0);
                self.session.mark_close_forwarded(from.other(), unread, now);
            }
            notify_end(self.session, self.observer);
        }
        if is_discarded {
            return;
        }
        self.progress_at = now;
        if self.shutting_down {
            return self.end_closed_peer(from, now);
        }
        let written = match self.write(cx, from, bytes, now) {
            Ok(written) => written,
            Err(Blocked::Full) => 0,
            Err(Blocked::Failed) => return,
        };
        if written < bytes.len() {
            let flow = self.session.flow_mut(from);
            flow.pending.extend_from_slice(&bytes[written..]);
            flow.blocked_since = Some(now);
            flow.backed_up_since.get_or_insert(now);
        }
    }

    /// What the end of the stream means. A write that failed has taken the error of the socket, so
    /// that a read after it reports the end of the stream. `EPIPE` comes after a FIN.
    fn end_of_file(&self, side: Side) -> SeenEnd {
        match self.session.facts.leg(side).write_error {
            None | Some((SeenEnd::Pipe, _)) => SeenEnd::Eof,
            Some((how, _)) => how,
        }
    }

    /// Writes pending bytes.
    fn flush(&mut self, cx: &mut Context<'_>, from: Side) -> Result<(), Blocked> {
        while !self.session.flow(from).unwritten().is_empty() {
            let flow = self.session.flow_mut(from);
            // Moved out during the call, so that the session can be borrowed.
            let pending = std::mem::take(&mut flow.pending);
            let at = flow.pending_at as usize;
            let result = self.write(cx, from, &pending[at..], clock::now());
            let flow = self.session.flow_mut(from);
            flow.pending = pending;
            match result {
                Ok(written) => {
                    flow.pending_at += u32::try_from(written).unwrap_or(0);
                    self.commit();
                }
                Err(Blocked::Full) => {
                    flow.blocked_since.get_or_insert_with(clock::now);
                    return Err(Blocked::Full);
                }
                Err(Blocked::Failed) => return Err(Blocked::Failed),
            }
            let now = clock::now();
            self.session.flow_mut(from).blocked_since = Some(now);
            self.progress_at = now;
        }
        let flow = self.session.flow_mut(from);
        flow.blocked_since = None;
        if flow.pending.capacity() > 0 {
            flow.discard();
            self.commit();
        }
        Ok(())
    }

    /// Forwards a FIN of `from` to the other leg.
    fn forward_end(&mut self, from: Side) {
        let to = from.other();
        let is_fin = matches!(self.session.facts.leg(from).end, Some((SeenEnd::Eof, _)));
        if !is_fin || self.session.flow(from).end_forwarded || self.session.flow(to).failed {
            return;
        }
        let now = clock::now();
        // Fails only when that leg has lost its peer; reading from it reports the same.
        let _ = shutdown(self.stream(to), Direction::Write);
        self.session.flow_mut(from).end_forwarded = true;
        self.session.set_own_end(to, OwnEnd::Fin, now);
    }

    /// Writes to the leg opposite to `from`. Returns the number of bytes written; after a short
    /// write the task is woken only once the caller has tried again. `now`: a time before the
    /// write, which becomes that of the bytes. On the loopback the reply can arrive before `send`
    /// returns, and a reply must not have an earlier time than its request.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        from: Side,
        bytes: &[u8],
        now: Nanos,
    ) -> Result<usize, Blocked> {
        let to = from.other();
        let stream = self.stream(to);
        loop {
            match stream.poll_write_ready(cx) {
                Poll::Pending => return Err(Blocked::Full),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(self.write_failed(to, &error)),
            }
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
                (None, Err(error)) if !recv::retry(&error) => return Err(self.write_failed(to, &error)),
                (None, _) => {}
            }
        }
    }

    fn write_failed(&mut self, to: Side, error: &io::Error) -> Blocked {
        let now = clock::now();
        self.session.write_failed(to, tcp::seen_end(error), now);
        self.note_failure(now);
        Blocked::Failed
    }

    fn leg_failed(&mut self, side: Side, error: &io::Error) {
        let now = clock::now();
        self.session.leg_failed(side, tcp::seen_end(error), now);
        self.note_failure(now);
    }

    /// The time to deliver what the failed leg had sent starts now.
    fn note_failure(&mut self, now: u64) {
        self.progress_at = now;
        self.note_end(now);
    }

    /// Checks a leg that is not being read for an error condition.
    fn watch(&mut self, cx: &mut Context<'_>, side: Side) {
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
            return;
        }
        match side {
            Side::Down => self.watch_down = Some(Box::pin(std::future::pending())),
            Side::Up => self.watch_up = Some(Box::pin(std::future::pending())),
        }
        match stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => self.leg_failed(side, &error),
        }
    }
}
