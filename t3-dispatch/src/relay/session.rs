//! One WebSocket as plain data: identity, facts, and the state and pending bytes of each direction.
//!
//! This and the two sockets are the complete session; no task keeps part of it on its stack, so a
//! session can move to another task or process between any two system calls. Does no IO and does
//! not read the clock.

use std::sync::Arc;

use t3_record::{
    evidence::{Backlog, Breach, CloseFrame, LegFacts, Nanos, OwnEnd, RelayFacts, SeenEnd},
    vocabulary::Side,
    wire,
};

use crate::relay::{
    frames::{Frame, FrameScanner, Sender, Sink},
    heartbeat::{self, SessionTiming},
    live_stats::LiveStats,
    liveness::Liveness,
};

#[derive(Debug, Clone)]
pub struct Session {
    /// User, addresses and sockets.
    pub identity: wire::Session,
    /// The facts of the relay, as the verdict reads them.
    pub facts: RelayFacts,
    /// The heartbeat up to the first Close frame or the end of the first leg.
    pub heartbeat: Liveness,
    /// The observer was notified of the start of the end ([`Session::end_started_at`]).
    pub end_notified: bool,
    /// The last bytes contained a ping or the client's Close frame: sample the downstream socket.
    pub sample_due: bool,
    /// Copy of the counters for subscribers of live stats.
    pub live_stats: Arc<LiveStats>,
    from_down: Flow,
    from_up: Flow,
}

/// One direction of a session, from one leg to the other.
#[derive(Debug, Clone)]
pub struct Flow {
    pub scanner: FrameScanner,
    /// Bytes that were read and not yet written to the other leg. Empty, and without allocation,
    /// while the other peer keeps up.
    pub pending: Vec<u8>,
    /// Number of bytes of `pending` that were written.
    pub pending_at: u32,
    /// Bytes written to the other leg's socket.
    pub written: u64,
    /// Offset in this direction's stream at which the first Close frame ended.
    pub close_end: Option<u64>,
    /// Reading has ended.
    pub ended: bool,
    /// The leg failed. What its peer had sent before is still read and delivered, and nothing more
    /// can be written to it.
    pub failed: bool,
    /// The other leg's write side was shut down after the end of this direction.
    pub end_forwarded: bool,
    /// Start of the time in which bytes are pending and the other leg's socket accepts none.
    pub blocked_since: Option<Nanos>,
    /// Time since which the source can have unread bytes: reading was paused by pending bytes, and
    /// has not reached the end of the receive queue since.
    pub backed_up_since: Option<Nanos>,
    /// Offset up to which this direction's bytes had arrived when the Close frame of the other peer
    /// was forwarded to its source, and that time: a Close frame before it is not a reply.
    pub sent_before_notice: Option<(u64, Nanos)>,
}

impl Flow {
    fn new(sender: Sender, extended: bool) -> Self {
        Self {
            scanner: FrameScanner::new(sender, extended),
            pending: Vec::new(),
            pending_at: 0,
            written: 0,
            close_end: None,
            ended: false,
            failed: false,
            end_forwarded: false,
            blocked_since: None,
            backed_up_since: None,
            sent_before_notice: None,
        }
    }

    /// Removes the bytes that were kept, and their allocation.
    pub fn discard(&mut self) {
        if self.pending.capacity() > 0 {
            self.pending = Vec::new();
            self.pending_at = 0;
        }
    }

    /// Bytes still to be written to the other leg.
    #[must_use]
    pub fn unwritten(&self) -> &[u8] {
        self.pending.get(self.pending_at as usize..).unwrap_or_default()
    }
}

impl Session {
    /// Returns a session before its upgrade.
    #[must_use]
    pub fn new(identity: wire::Session, started_at: Nanos) -> Self {
        Self {
            identity,
            facts: RelayFacts { started_at, ..RelayFacts::default() },
            heartbeat: Liveness::default(),
            end_notified: false,
            sample_due: false,
            live_stats: Arc::default(),
            from_down: Flow::new(Sender::Client, false),
            from_up: Flow::new(Sender::Server, false),
        }
    }

    /// Records that serve answered 101, with the WebSocket `extensions` that it negotiated.
    pub fn opened(&mut self, now: Nanos, extensions: Option<String>) {
        let extended = extensions.is_some();
        self.heartbeat = Liveness::new(extended);
        self.facts.extensions = extensions.map(String::into_boxed_str);
        self.facts.opened_at = Some(now);
        self.identity.opened_at = Some(now);
        self.from_down = Flow::new(Sender::Client, extended);
        self.from_up = Flow::new(Sender::Server, extended);
    }

    /// Returns the direction that starts at `side`.
    #[must_use]
    pub fn flow(&self, side: Side) -> &Flow {
        match side {
            Side::Down => &self.from_down,
            Side::Up => &self.from_up,
        }
    }

    pub fn flow_mut(&mut self, side: Side) -> &mut Flow {
        match side {
            Side::Down => &mut self.from_down,
            Side::Up => &mut self.from_up,
        }
    }

    pub fn leg_mut(&mut self, side: Side) -> &mut LegFacts {
        leg(&mut self.facts, side)
    }

    /// Processes bytes that were read from `side`.
    pub fn received(&mut self, side: Side, bytes: &[u8], now: Nanos) {
        // Once the end has started, heartbeats are ignored: a serve that resumes answers all
        // waiting pings, and the wait that made the client close would be lost.
        let ended = self.end_started();
        let flow = match side {
            Side::Down => &mut self.from_down,
            Side::Up => &mut self.from_up,
        };
        let facts = leg(&mut self.facts, side);
        let base = facts.bytes;
        facts.bytes += bytes.len() as u64;
        facts.last_byte_at = Some(now);
        let (close_end, sent_before_notice) = (&mut flow.close_end, flow.sent_before_notice);
        let heartbeat = (!ended).then_some(&mut self.heartbeat);
        flow.scanner
            .feed(bytes, &mut FactSink { side, facts, heartbeat, close_end, sent_before_notice, base, now });
        if !ended && self.end_started() {
            self.mark_idle();
        }
        self.sample_due = side == Side::Down && !ended && (self.heartbeat.sample_due() || self.end_started());
        let (rtt, waiting) = self.heartbeat.latest();
        let source = self.heartbeat.source();
        self.live_stats.update(self.facts.down.bytes, self.facts.up.bytes, rtt, waiting, source);
    }

    /// A Close frame or the end of a leg was received. Later events do not explain the close.
    #[must_use]
    pub fn end_started(&self) -> bool {
        self.facts.ended_at != 0
            || self.facts.down.close_frame.is_some()
            || self.facts.up.close_frame.is_some()
    }

    /// What the session knows about the time of a pause of the host.
    #[must_use]
    pub fn timing(&self) -> SessionTiming {
        let at = self.end_started_at().unwrap_or(self.facts.ended_at);
        SessionTiming {
            opened_at: self.facts.opened_at.unwrap_or(self.facts.started_at),
            early: self.heartbeat.early(),
            is_steady: self.heartbeat.is_steady(at),
        }
    }

    /// Keeps the time of the last byte of each leg at the start of the end: a stalled serve may
    /// answer the Close frame much later.
    fn mark_idle(&mut self) {
        mark_idle(&mut self.facts);
    }

    /// Adds a sample of the downstream socket: `unacknowledged` bytes in its send queue and
    /// segments `lost` so far.
    pub fn add_sample(&mut self, unacknowledged: u64, lost: u32, now: Nanos) {
        self.sample_due = false;
        let acknowledged = self.from_up.written.saturating_sub(unacknowledged);
        self.heartbeat.sample(now, acknowledged, lost);
        let bytes = self.facts.up.bytes.saturating_sub(acknowledged);
        let since =
            self.heartbeat.unacknowledged_since().into_iter().chain(self.from_up.backed_up_since).min();
        self.facts.down.backlog = since.filter(|_| bytes > 0).map(|since| Backlog { bytes, since });
    }

    /// Records that the other peer's Close frame is about to be forwarded to `side`, while `unread`
    /// of its bytes are in the receive queue.
    pub fn mark_close_forwarded(&mut self, side: Side, unread: u64, now: Nanos) {
        let offset = self.facts.leg(side).bytes + unread;
        self.flow_mut(side).sent_before_notice.get_or_insert((offset, now));
    }

    /// Records that `count` bytes from `side` were written to the other leg.
    pub fn wrote(&mut self, side: Side, count: usize, now: Nanos) {
        let flow = self.flow_mut(side);
        flow.written += count as u64;
        let forwarded = flow.close_end.is_some_and(|end| flow.written >= end);
        if forwarded {
            self.leg_mut(side.other()).close_forwarded_at.get_or_insert(now);
        }
    }

    /// Records the end of reading from `side`.
    pub fn read_ended(&mut self, side: Side, how: SeenEnd, now: Nanos) {
        let flow = self.flow_mut(side);
        flow.ended = true;
        let mid_frame = flow.scanner.mid_frame();
        let facts = self.leg_mut(side);
        facts.end.get_or_insert((how, now));
        facts.mid_frame |= mid_frame;
    }

    /// Records that the leg `side` failed. Reading from it continues.
    pub fn leg_failed(&mut self, side: Side, how: SeenEnd, now: Nanos) {
        let flow = self.flow_mut(side);
        flow.failed = true;
        let ended = flow.ended;
        let facts = self.leg_mut(side);
        if ended {
            // The leg ended with a FIN; a later error belongs to writing.
            facts.write_error.get_or_insert((how, now));
        } else {
            facts.end.get_or_insert((how, now));
        }
    }

    /// Records that writing to the leg `side` failed. Reading from it continues.
    pub fn write_failed(&mut self, side: Side, how: SeenEnd, now: Nanos) {
        self.flow_mut(side).failed = true;
        self.leg_mut(side).write_error.get_or_insert((how, now));
    }

    /// The leg that failed first, of those that failed.
    #[must_use]
    pub fn failed_first(&self) -> Side {
        let at = |side| {
            let facts = self.facts.leg(side);
            let ends = [facts.end, facts.write_error].into_iter().flatten();
            let errors = ends.filter(|(how, _)| *how != SeenEnd::Eof).map(|(_, at)| at);
            errors.min().filter(|_| self.flow(side).failed).unwrap_or(Nanos::MAX)
        };
        if at(Side::Down) < at(Side::Up) { Side::Down } else { Side::Up }
    }

    /// Records that dispatch ended the leg `side`.
    pub fn set_own_end(&mut self, side: Side, how: OwnEnd, now: Nanos) {
        self.leg_mut(side).own_end.get_or_insert((how, now));
    }

    /// Time of the first Close frame, or of the end of the first leg if that came earlier.
    #[must_use]
    pub fn end_started_at(&self) -> Option<Nanos> {
        let facts = &self.facts;
        let frames = [&facts.down, &facts.up].into_iter().filter_map(|leg| leg.close_frame.as_ref());
        let ended = (facts.ended_at != 0).then_some(facts.ended_at);
        frames.map(|frame| frame.at).chain(ended).min()
    }

    /// Records the end of the first leg with the state at that time. Returns `false` for a later
    /// end.
    pub fn first_end(&mut self, now: Nanos) -> bool {
        if self.facts.ended_at != 0 {
            return false;
        }
        self.facts = self.facts_at_end(now);
        true
    }

    /// Facts so far, for a record that another process may have to write: as if the first leg ended
    /// with the first Close frame, if it has not yet.
    #[must_use]
    pub fn facts_so_far(&self) -> RelayFacts {
        match self.end_started_at() {
            Some(at) if self.facts.ended_at == 0 => self.facts_at_end(at),
            _ => self.facts.clone(),
        }
    }

    fn facts_at_end(&self, now: Nanos) -> RelayFacts {
        let mut facts = self.facts.clone();
        facts.ended_at = now;
        facts.heartbeat = self.heartbeat.facts();
        facts.samples = self.heartbeat.samples();
        for side in [Side::Down, Side::Up] {
            let flow = self.flow(side);
            let pending = facts.leg(side).bytes.saturating_sub(flow.written);
            let to = leg(&mut facts, side.other());
            to.pending_bytes = pending;
            to.blocked_since = flow.blocked_since;
            to.backed_up_since = flow.backed_up_since;
        }
        mark_idle(&mut facts);
        facts
    }
}

fn mark_idle(facts: &mut RelayFacts) {
    for leg in [&mut facts.down, &mut facts.up] {
        leg.quiet_since = leg.quiet_since.or(leg.last_byte_at);
    }
}

fn leg(facts: &mut RelayFacts, side: Side) -> &mut LegFacts {
    match side {
        Side::Down => &mut facts.down,
        Side::Up => &mut facts.up,
    }
}

/// Turns scanner events into facts.
struct FactSink<'a> {
    side: Side,
    facts: &'a mut LegFacts,
    heartbeat: Option<&'a mut Liveness>,
    close_end: &'a mut Option<u64>,
    sent_before_notice: Option<(u64, Nanos)>,
    /// Offset of the chunk's first byte in the stream.
    base: u64,
    now: Nanos,
}

impl Sink for FactSink<'_> {
    fn frame(&mut self, frame: Frame) {
        let Some(heartbeat) = &mut self.heartbeat else { return };
        self.facts.last_frame_at = Some(self.now);
        heartbeat.frame(self.side, frame, self.now, self.facts.bytes);
    }

    fn message(&mut self) {
        self.facts.msgs += 1;
    }

    fn text(&mut self, payload: &[u8]) {
        let Some(heartbeat) = &mut self.heartbeat else { return };
        if let Some(event) = heartbeat::recognise(payload) {
            // The end of the chunk is precise enough: the bytes after the pong are acknowledged
            // soon after it.
            heartbeat.text(self.side, event, self.now, self.facts.bytes);
        }
    }

    fn close(&mut self, code: Option<u16>, reason: &[u8], end: usize) {
        let reason = String::from_utf8_lossy(reason).into_owned();
        let end = self.base + end as u64;
        // It arrived before its sender was notified of the other Close frame: that time orders it,
        // not the later time of reading it.
        let at = match self.sent_before_notice {
            Some((offset, noticed)) if end <= offset => noticed.saturating_sub(1),
            _ => self.now,
        };
        self.facts.close_frame.get_or_insert(CloseFrame { code, reason, at });
        self.close_end.get_or_insert(end);
    }

    fn breach(&mut self, breach: Breach) {
        self.facts.breach.get_or_insert(breach);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A final frame with a short payload; masked with zeros when the client sends it.
    fn frame(side: Side, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut out = vec![0x80 | opcode];
        match side {
            Side::Down => out.extend([0x80 | length, 0, 0, 0, 0]),
            Side::Up => out.push(length),
        }
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn a_session_is_small() {
        // Every idle session has one. The next size of the allocator is 3,072 bytes.
        assert!(size_of::<Session>() <= 2_560, "{}", size_of::<Session>());
    }

    #[test]
    fn an_unread_close_frame_is_not_a_reply() {
        let identity = wire::Session {
            conn: "c".into(),
            user: "u".into(),
            ip: "i".into(),
            ray: None,
            opened_at: None,
            down: None,
            up: None,
            serve_port: 1,
            kept: false,
            resumed: 0,
        };
        let close = frame(Side::Down, 8, &1000_u16.to_be_bytes());
        for (unread, at) in [(close.len() as u64, 49), (close.len() as u64 - 1, 70)] {
            let mut session = Session::new(identity.clone(), 1);
            session.opened(2, None);
            session.mark_close_forwarded(Side::Down, unread, 50);
            session.received(Side::Down, &close, 70);
            assert_eq!(session.facts.down.close_frame.as_ref().map(|frame| frame.at), Some(at));
        }
    }

    #[test]
    fn replies_after_a_close_frame_keep_the_wait_before_it() {
        let identity = wire::Session {
            conn: "c".into(),
            user: "u".into(),
            ip: "192.0.2.1".into(),
            ray: None,
            opened_at: None,
            down: None,
            up: None,
            serve_port: 1,
            kept: false,
            resumed: 0,
        };
        let mut session = Session::new(identity, 0);
        session.opened(1, None);
        let (ping, pong) = (br#"{"_tag":"Ping"}"#, br#"{"_tag":"Pong"}"#);
        for now in [10, 20, 30] {
            session.received(Side::Down, &frame(Side::Down, 1, ping), now);
        }
        session.received(Side::Up, &frame(Side::Up, 1, pong), 31);
        session.received(Side::Down, &frame(Side::Down, 8, &1000_u16.to_be_bytes()), 40);
        for now in [50, 51] {
            session.received(Side::Up, &frame(Side::Up, 1, pong), now);
        }
        session.first_end(60);
        let heartbeat = session.facts.heartbeat.unwrap();
        assert_eq!((heartbeat.unanswered, heartbeat.waiting_since), (2, Some(20)));
        assert_eq!((session.facts.up.quiet_since, session.facts.up.last_byte_at), (Some(31), Some(51)));
        assert_eq!(session.facts.down.quiet_since, Some(40));
    }
}
