//! One WebSocket as plain data: who it is, what was seen, where each direction stands, and the
//! bytes in between.
//!
//! Together with its two sockets this is all there is to a session; no task's stack holds anything
//! of it, so that it can be handed to another task or another process between any two system calls.
//! Does no IO and never looks at a clock.

use std::sync::Arc;

use t3_record::{
    evidence::{Breach, CloseFrame, LegFacts, Nanos, OwnEnd, RelayFacts, SeenEnd},
    vocabulary::Side,
    wire,
};

use crate::relay::{
    frames::{Scanner, Sender, Sink},
    heartbeat::{self, Beat, Meter},
    live_stats::Published,
};

/// A session.
#[derive(Debug, Clone)]
pub struct Session {
    /// Who and between which sockets.
    pub who: wire::Session,
    /// What was seen, as the verdict will be given it.
    pub facts: RelayFacts,
    /// The heartbeat up to the first close frame or the end of the first leg.
    pub heartbeat: Meter,
    /// Whether those who want to know at once have been told that the end has begun
    /// ([`Session::end_began`]).
    pub end_told: bool,
    /// The bytes that came last hold a ping or the browser's close frame: time to look at its
    /// socket.
    pub look_due: bool,
    /// A copy of the live numbers for those who watch; nothing is decided by it.
    pub published: Arc<Published>,
    from_down: Flow,
    from_up: Flow,
}

/// One direction: bytes from one leg on their way to the other.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Reads the frames of this direction.
    pub scanner: Scanner,
    /// Read, not yet taken by the other leg's socket. Empty, and without memory, while the other
    /// side keeps up.
    pub pending: Vec<u8>,
    /// How much of `pending` has been taken.
    pub pending_at: usize,
    /// Bytes the other leg's socket has taken.
    pub written: u64,
    /// Offset in this direction's stream at which the first close frame ended.
    pub close_end: Option<u64>,
    /// Nothing more can be read.
    pub ended: bool,
    /// The end of this direction was passed on (`shutdown` of the other leg's write side).
    pub passed_on: bool,
    /// Since when the other leg's socket has taken nothing while something was pending.
    pub blocked_since: Option<Nanos>,
    /// Since when something has been pending without a break: so long has nothing been read from
    /// this direction's source at will.
    pub backed_up_since: Option<Nanos>,
    /// Up to which offset of this direction's stream bytes lay in our socket when its source first
    /// heard of the other side's close, and when that was: a close frame up to there is no answer.
    pub unheard: Option<(u64, Nanos)>,
}

impl Flow {
    fn new(sender: Sender, extended: bool) -> Self {
        Self {
            scanner: Scanner::new(sender, extended),
            pending: Vec::new(),
            pending_at: 0,
            written: 0,
            close_end: None,
            ended: false,
            passed_on: false,
            blocked_since: None,
            backed_up_since: None,
            unheard: None,
        }
    }

    /// What the other leg's socket has still to take.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        self.pending.get(self.pending_at..).unwrap_or_default()
    }
}

impl Session {
    /// A session that is about to be opened. `extended`: serve accepted a WebSocket extension.
    #[must_use]
    pub fn new(who: wire::Session, started_at: Nanos) -> Self {
        Self {
            who,
            facts: RelayFacts { started_at, ..RelayFacts::default() },
            heartbeat: Meter::default(),
            end_told: false,
            look_due: false,
            published: Arc::default(),
            from_down: Flow::new(Sender::Client, false),
            from_up: Flow::new(Sender::Server, false),
        }
    }

    /// The 101 has been relayed. `extended`: with it a WebSocket extension was negotiated.
    pub fn opened(&mut self, now: Nanos, extended: bool) {
        self.facts.opened_at = Some(now);
        self.who.opened_at = Some(now);
        self.from_down = Flow::new(Sender::Client, extended);
        self.from_up = Flow::new(Sender::Server, extended);
    }

    /// The direction that starts at `side`.
    #[must_use]
    pub fn flow(&self, side: Side) -> &Flow {
        match side {
            Side::Down => &self.from_down,
            Side::Up => &self.from_up,
        }
    }

    /// The direction that starts at `side`.
    pub fn flow_mut(&mut self, side: Side) -> &mut Flow {
        match side {
            Side::Down => &mut self.from_down,
            Side::Up => &mut self.from_up,
        }
    }

    /// The facts of the leg `side`.
    pub fn leg_mut(&mut self, side: Side) -> &mut LegFacts {
        leg(&mut self.facts, side)
    }

    /// Bytes came from `side`.
    pub fn arrived(&mut self, side: Side, bytes: &[u8], now: Nanos) {
        // After the first word of an end the beats say nothing about what led to it: a serve that
        // wakes up answers what had waited, and the browser that gave up on it would look as if it
        // had not waited at all.
        let ended = self.decided();
        let flow = match side {
            Side::Down => &mut self.from_down,
            Side::Up => &mut self.from_up,
        };
        let facts = leg(&mut self.facts, side);
        let base = facts.bytes;
        facts.bytes += bytes.len() as u64;
        facts.last_byte_at = Some(now);
        let (close_end, unheard) = (&mut flow.close_end, flow.unheard);
        let meter = (!ended).then_some(&mut self.heartbeat);
        flow.scanner.feed(bytes, &mut Seen { side, facts, meter, close_end, unheard, base, now });
        if !ended && self.decided() {
            self.fall_quiet();
        }
        self.look_due = side == Side::Down && !ended && (self.heartbeat.unlooked() || self.decided());
        let (rtt, waiting) = self.heartbeat.latest();
        self.published.publish(self.facts.down.bytes, self.facts.up.bytes, rtt, waiting);
    }

    /// A close frame or an end has come: what is seen from now on tells nothing of what led to it.
    #[must_use]
    pub fn decided(&self) -> bool {
        self.facts.ended_at != 0
            || self.facts.down.close_frame.is_some()
            || self.facts.up.close_frame.is_some()
    }

    /// How long either side had been silent is what it was when the end began to show: the answer
    /// to a Close comes when serve can.
    fn fall_quiet(&mut self) {
        for facts in [&mut self.facts.down, &mut self.facts.up] {
            facts.quiet_since = facts.quiet_since.or(facts.last_byte_at);
        }
    }

    /// A look at the browser's socket: bytes of ours that are not acknowledged, and segments lost
    /// on it so far.
    pub fn looked(&mut self, unacknowledged: u64, lost: u32, now: Nanos) {
        self.look_due = false;
        let acknowledged = self.from_up.written.saturating_sub(unacknowledged);
        self.heartbeat.look(now, acknowledged, lost);
    }

    /// `side` is about to be told of the other side's close while `unread` of its bytes lie in our
    /// socket.
    pub fn about_to_hear(&mut self, side: Side, unread: u64, now: Nanos) {
        let offset = self.facts.leg(side).bytes + unread;
        self.flow_mut(side).unheard.get_or_insert((offset, now));
    }

    /// The socket of the leg opposite to `side` took `count` bytes of the direction from `side`.
    pub fn taken(&mut self, side: Side, count: usize, now: Nanos) {
        let flow = self.flow_mut(side);
        flow.written += count as u64;
        let forwarded = flow.close_end.is_some_and(|end| flow.written >= end);
        if forwarded {
            self.leg_mut(side.other()).close_forwarded_at.get_or_insert(now);
        }
    }

    /// Reading from `side` ended.
    pub fn read_ended(&mut self, side: Side, how: SeenEnd, now: Nanos) {
        let flow = self.flow_mut(side);
        flow.ended = true;
        let mid_frame = flow.scanner.mid_frame();
        let facts = self.leg_mut(side);
        facts.end.get_or_insert((how, now));
        facts.mid_frame |= mid_frame;
    }

    /// dispatch itself ended the leg `side`.
    pub fn told(&mut self, side: Side, how: OwnEnd, now: Nanos) {
        self.leg_mut(side).own_end.get_or_insert((how, now));
    }

    /// When the end began to show: the first close frame of either side, or the end of the first
    /// leg. `None` as long as nothing has.
    #[must_use]
    pub fn end_began(&self) -> Option<Nanos> {
        let facts = &self.facts;
        let frames = [&facts.down, &facts.up].into_iter().filter_map(|leg| leg.close_frame.as_ref());
        let ended = (facts.ended_at != 0).then_some(facts.ended_at);
        frames.map(|frame| frame.at).chain(ended).min()
    }

    /// The first leg has ended: what is true at this moment stays in the facts. `false` when it had
    /// ended before.
    pub fn first_end(&mut self, now: Nanos) -> bool {
        if self.facts.ended_at != 0 {
            return false;
        }
        self.facts.ended_at = now;
        self.facts.heartbeat = self.heartbeat.facts();
        self.facts.samples = self.heartbeat.looks();
        for side in [Side::Down, Side::Up] {
            let flow = self.flow(side);
            let (written, blocked, backed_up) = (flow.written, flow.blocked_since, flow.backed_up_since);
            let pending = self.facts.leg(side).bytes.saturating_sub(written);
            let facts = self.leg_mut(side.other());
            facts.pending_bytes = pending;
            facts.blocked_since = blocked;
            facts.backed_up_since = backed_up;
        }
        self.fall_quiet();
        true
    }
}

fn leg(facts: &mut RelayFacts, side: Side) -> &mut LegFacts {
    match side {
        Side::Down => &mut facts.down,
        Side::Up => &mut facts.up,
    }
}

/// Turns what the scanner tells into facts.
struct Seen<'a> {
    side: Side,
    facts: &'a mut LegFacts,
    meter: Option<&'a mut Meter>,
    close_end: &'a mut Option<u64>,
    unheard: Option<(u64, Nanos)>,
    /// Offset in the stream of the chunk's first byte.
    base: u64,
    now: Nanos,
}

impl Sink for Seen<'_> {
    fn message(&mut self) {
        self.facts.msgs += 1;
    }

    fn text(&mut self, payload: &[u8]) {
        let Some(meter) = &mut self.meter else { return };
        match (self.side, heartbeat::recognise(payload)) {
            (Side::Down, Some(Beat::Ping)) => meter.ping(self.now),
            // Where its chunk ends is near enough: what stands behind it there is soon acknowledged
            // with it.
            (Side::Up, Some(Beat::Pong)) => meter.pong(self.now, self.facts.bytes),
            _ => {}
        }
    }

    fn close(&mut self, code: Option<u16>, reason: &[u8], end: usize) {
        let reason = String::from_utf8_lossy(reason).into_owned();
        let end = self.base + end as u64;
        // It had come before its sender was told: that moment, not the later one of reading it,
        // orders it.
        let at = match self.unheard {
            Some((offset, told)) if end <= offset => told.saturating_sub(1),
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

    /// A final frame with a short payload; masked with zeros when the browser sends it.
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
    fn a_close_frame_that_lay_unread_is_no_answer() {
        let who = wire::Session {
            conn: "c".into(),
            user: "u".into(),
            ip: "i".into(),
            ray: None,
            opened_at: None,
            down: None,
            up: None,
            serve_port: 1,
        };
        let close = frame(Side::Down, 8, &1000_u16.to_be_bytes());
        for (unread, at) in [(close.len() as u64, 49), (close.len() as u64 - 1, 70)] {
            let mut session = Session::new(who.clone(), 1);
            session.opened(2, false);
            session.about_to_hear(Side::Down, unread, 50);
            session.arrived(Side::Down, &close, 70);
            assert_eq!(session.facts.down.close_frame.as_ref().map(|frame| frame.at), Some(at));
        }
    }

    #[test]
    fn answers_that_come_after_a_close_frame_do_not_unmake_the_wait_before_it() {
        let who = wire::Session {
            conn: "c".into(),
            user: "u".into(),
            ip: "192.0.2.1".into(),
            ray: None,
            opened_at: None,
            down: None,
            up: None,
            serve_port: 1,
        };
        let mut session = Session::new(who, 0);
        session.opened(1, false);
        let (ping, pong) = (br#"{"_tag":"Ping"}"#, br#"{"_tag":"Pong"}"#);
        for now in [10, 20, 30] {
            session.arrived(Side::Down, &frame(Side::Down, 1, ping), now);
        }
        session.arrived(Side::Up, &frame(Side::Up, 1, pong), 31);
        session.arrived(Side::Down, &frame(Side::Down, 8, &1000_u16.to_be_bytes()), 40);
        for now in [50, 51] {
            session.arrived(Side::Up, &frame(Side::Up, 1, pong), now);
        }
        session.first_end(60);
        let heartbeat = session.facts.heartbeat.unwrap();
        assert_eq!((heartbeat.unanswered, heartbeat.waiting_since), (2, Some(20)));
        assert_eq!((session.facts.up.quiet_since, session.facts.up.last_byte_at), (Some(31), Some(51)));
        assert_eq!(session.facts.down.quiet_since, Some(40));
    }
}
