//! Heartbeat of one session, recognised by text, by Ping frames or by period; any frame of the
//! other side is life.
//!
//! Pure. One source counts at a time, and a better one replaces a worse one: t3's text, Ping frames
//! of the client, a period of the client, Ping frames of serve (Jupyter, the `ws` library), a
//! period of serve (socket.io).

use serde::{Deserialize, Serialize};
use t3_record::{
    evidence::{Heartbeat, Nanos, SocketSample},
    vocabulary::{HeartbeatSource, Side},
};

use crate::relay::{
    frames::Frame,
    heartbeat::{EarlyPing, HeartbeatEvent, HeartbeatTracker},
    rhythm::Rhythm,
};

const PING: u8 = 9;
const PONG: u8 = 10;

/// A compressed reply of t3 has up to this size (facts, D.4).
const COMPRESSED_REPLY: u64 = 17;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Liveness {
    tracker: HeartbeatTracker,
    source: Option<(HeartbeatSource, Side)>,
    is_compressed: bool,
    /// A ping was answered by a frame as small as a reply of t3: larger frames are life and no
    /// replies, which older clients wait for.
    has_small_replies: bool,
    /// Allocated for a session whose heartbeat has no text.
    rhythms: Option<Box<Rhythms>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Rhythms {
    client: Rhythm,
    /// Not needed once the client's heartbeat is recognised.
    serve: Option<Box<Rhythm>>,
}

/// Higher is better.
const fn rank(source: HeartbeatSource, sender: Side) -> u8 {
    match (source, sender) {
        (HeartbeatSource::Text, _) => 5,
        (HeartbeatSource::Ping, Side::Down) => 4,
        (HeartbeatSource::Rhythm, Side::Down) => 3,
        (HeartbeatSource::Ping, Side::Up) => 2,
        (HeartbeatSource::Rhythm, Side::Up) => 1,
        (HeartbeatSource::None, _) => 0,
    }
}

impl Liveness {
    /// Continues with the facts that another process had noted; a rhythm is learned again.
    /// `is_current`: the side that replies has sent nothing after them. Returns `None` for facts
    /// without a source.
    #[must_use]
    pub fn resume(is_compressed: bool, facts: Heartbeat, is_current: bool) -> Option<Self> {
        let sender = if facts.is_by_serve { Side::Up } else { Side::Down };
        let source = facts.source?;
        let tracker = HeartbeatTracker::resume(facts, is_current);
        Some(Self { tracker, source: Some((source, sender)), is_compressed, ..Self::default() })
    }

    /// Whether a state from another process can be used.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let mut rhythms =
            self.rhythms.iter().flat_map(|both| std::iter::once(&both.client).chain(both.serve.as_deref()));
        self.tracker.is_possible() && rhythms.all(Rhythm::is_possible)
    }

    /// Pings and pongs together, and unanswered pings: what changes with each heartbeat.
    #[must_use]
    pub fn counts(&self) -> (u64, u32) {
        self.tracker.counts()
    }

    /// Creates the state of a session. `is_compressed`: an extension compresses messages.
    #[must_use]
    pub fn new(is_compressed: bool) -> Self {
        Self { is_compressed, ..Self::default() }
    }

    /// Records a half of t3's heartbeat. `end` is the offset at which it ends in the stream of its
    /// sender.
    pub fn text(&mut self, side: Side, event: HeartbeatEvent, now: Nanos, end: u64) {
        match (side, event) {
            (Side::Down, HeartbeatEvent::Ping) if self.adopt(HeartbeatSource::Text, Side::Down) => {
                self.tracker.ping(now);
            }
            (Side::Up, HeartbeatEvent::Pong) if self.is_from(HeartbeatSource::Text) => {
                self.tracker.pong(now, end);
            }
            _ => {}
        }
    }

    /// Records a complete frame. `end` is the offset at which it ends in the stream of its sender.
    pub fn frame(&mut self, side: Side, frame: Frame, now: Nanos, end: u64) {
        if self.source.is_some_and(|(_, sender)| sender != side) {
            self.tracker.life();
        }
        match frame.opcode {
            PING if self.adopt(HeartbeatSource::Ping, side) => self.tracker.ping(now),
            PONG if self.source == Some((HeartbeatSource::Ping, side.other())) => self.tracker.pong(now, end),
            _ => {}
        }
        if self.source == Some((HeartbeatSource::Rhythm, side.other())) {
            let is_small = self.is_compressed && frame.is_message && frame.size <= COMPRESSED_REPLY;
            self.has_small_replies |= is_small && self.tracker.is_waiting();
            if is_small || !self.has_small_replies {
                self.tracker.pong_all(now, end);
            }
        }
        self.rhythm(side, frame, now);
    }

    fn rhythm(&mut self, side: Side, frame: Frame, now: Nanos) {
        let best = self.source.map_or(0, |(source, sender)| rank(source, sender));
        if best > rank(HeartbeatSource::Rhythm, Side::Down) {
            return;
        }
        let is_compressed = self.is_compressed;
        let mut rhythms = self.rhythms.take().unwrap_or_else(|| {
            let new = || Rhythm::new(is_compressed);
            Box::new(Rhythms { client: new(), serve: Some(Box::new(new())) })
        });
        let (own, other) = match side {
            Side::Down => (Some(&mut rhythms.client), rhythms.serve.as_deref_mut()),
            Side::Up => (rhythms.serve.as_deref_mut(), Some(&mut rhythms.client)),
        };
        if let Some(other) = other {
            other.other(now);
        }
        if let Some(own) = own.filter(|_| frame.is_message) {
            own.own(frame.size, now, |beat| {
                if self.adopt(HeartbeatSource::Rhythm, side) {
                    self.tracker.ping(beat.at);
                    if let Some(at) = beat.answer {
                        self.tracker.life();
                        // The client has acknowledged it since, or the next answer shows that it
                        // has not.
                        self.tracker.pong_all(at, 0);
                    }
                }
            });
        }
        if self.source == Some((HeartbeatSource::Rhythm, Side::Down)) {
            rhythms.serve = None;
        }
        self.rhythms = Some(rhythms);
        if self.source.is_some_and(|(source, sender)| rank(source, sender) > 3) {
            self.rhythms = None;
        }
    }

    fn is_from(&self, source: HeartbeatSource) -> bool {
        self.source.is_some_and(|(current, _)| current == source)
    }

    /// Makes this the source, unless a better one is known. Returns whether it is the source.
    fn adopt(&mut self, source: HeartbeatSource, sender: Side) -> bool {
        if self.source == Some((source, sender)) {
            return true;
        }
        if self
            .source
            .is_some_and(|(source_now, sender_now)| rank(source_now, sender_now) > rank(source, sender))
        {
            return false;
        }
        self.source = Some((source, sender));
        self.has_small_replies = false;
        self.tracker = HeartbeatTracker::new(source, sender);
        if rank(source, sender) > rank(HeartbeatSource::Rhythm, Side::Down) {
            self.rhythms = None;
        }
        true
    }

    /// See [`HeartbeatTracker::sample`].
    pub fn sample(&mut self, now: Nanos, acknowledged: u64, lost: u32) {
        self.tracker.sample(now, acknowledged, lost);
    }

    /// A ping arrived since the last sample.
    #[must_use]
    pub fn sample_due(&self) -> bool {
        self.tracker.sample_due()
    }

    /// The samples, oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<SocketSample> {
        self.tracker.samples()
    }

    /// Time at which the oldest reply that the client has not acknowledged was received from serve.
    #[must_use]
    pub fn unacknowledged_since(&self) -> Option<Nanos> {
        self.tracker.unacknowledged_since()
    }

    /// Returns the RTTs of serve in nanoseconds since the last call.
    pub fn take_rtts(&mut self) -> &[u64] {
        self.tracker.take_rtts()
    }

    /// See [`HeartbeatTracker::early`].
    #[must_use]
    pub fn early(&self) -> Option<EarlyPing> {
        self.tracker.early()
    }

    /// See [`HeartbeatTracker::is_steady`].
    #[must_use]
    pub fn is_steady(&self, at: Nanos) -> bool {
        self.tracker.is_steady(at)
    }

    /// RTT of serve in nanoseconds, and time of the oldest ping that serve has not answered.
    #[must_use]
    pub fn latest(&self) -> (Option<u64>, Option<Nanos>) {
        self.tracker.latest()
    }

    /// How the heartbeat is recognised.
    #[must_use]
    pub fn source(&self) -> HeartbeatSource {
        self.source.map_or(HeartbeatSource::None, |(source, _)| source)
    }

    /// The facts so far; `None` until a heartbeat is recognised.
    #[must_use]
    pub fn facts(&self) -> Option<Heartbeat> {
        let is_regular = self.is_regular();
        self.tracker.facts().map(|facts| Heartbeat { is_regular, ..facts })
    }

    /// The heartbeat is known by its content, or is that of a timer and not of a user.
    fn is_regular(&self) -> bool {
        match (self.source, &self.rhythms) {
            (Some((HeartbeatSource::Rhythm, Side::Down)), Some(rhythms)) => rhythms.client.is_regular(),
            (Some((HeartbeatSource::Rhythm, Side::Up)), Some(rhythms)) => {
                rhythms.serve.as_ref().is_some_and(|serve| serve.is_regular())
            }
            (source, _) => source.is_some_and(|(source, _)| source != HeartbeatSource::Rhythm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;
    const SECOND: Nanos = 1_000 * MS;

    fn message(size: u64) -> Frame {
        Frame { opcode: 1, size, is_message: true }
    }

    fn control(opcode: u8) -> Frame {
        Frame { opcode, size: 4, is_message: false }
    }

    /// Compressed pings of t3, each answered after 2 ms.
    fn compressed(beats: u64) -> Liveness {
        let mut liveness = Liveness::new(true);
        for n in 1..=beats {
            liveness.frame(Side::Down, message(if n == 1 { 17 } else { 4 }), n * 5 * SECOND, n * 10);
            liveness.frame(Side::Up, message(4), n * 5 * SECOND + 2 * MS, n * 6);
        }
        liveness
    }

    #[test]
    fn a_compressed_heartbeat_has_the_facts_of_a_plain_one() {
        let mut liveness = compressed(7);
        let facts = liveness.facts().unwrap();
        assert_eq!((facts.source, facts.is_by_serve), (Some(HeartbeatSource::Rhythm), false));
        assert_eq!((facts.pings, facts.pongs, facts.unanswered), (7, 7, 0));
        assert_eq!((facts.rtt_ns, facts.period_ns), (Some(2 * MS), Some(5 * SECOND)));
        assert_eq!(facts.silent_since, None);
        // serve stalls.
        for n in 8..=10 {
            liveness.frame(Side::Down, message(4), n * 5 * SECOND, n * 10);
        }
        let facts = liveness.facts().unwrap();
        assert_eq!((facts.unanswered, facts.silent_since), (3, Some(40 * SECOND)));
        // Any frame is life.
        liveness.frame(Side::Up, message(900), 51 * SECOND, 2_000);
        let facts = liveness.facts().unwrap();
        assert_eq!((facts.unanswered, facts.silent_since, facts.survived), (3, None, 2));
        liveness.frame(Side::Up, message(4), 52 * SECOND, 2_006);
        assert_eq!(liveness.facts().unwrap().unanswered, 0);
        assert_eq!(compressed(3).facts(), None);
    }

    #[test]
    fn an_application_with_large_replies_has_its_pings_answered() {
        let mut liveness = Liveness::new(true);
        for n in 1..=9 {
            liveness.frame(Side::Down, message(12), n * 5 * SECOND, n * 10);
            liveness.frame(Side::Up, message(90), n * 5 * SECOND + 2 * MS, n * 90);
        }
        let facts = liveness.facts().unwrap();
        assert_eq!((facts.pings, facts.pongs, facts.unanswered), (9, 9, 0));
    }

    #[test]
    fn frames_without_pongs_are_life_and_no_answer() {
        let mut liveness = Liveness::new(false);
        for n in 1..=20 {
            liveness.text(Side::Down, HeartbeatEvent::Ping, n * SECOND, 0);
            liveness.frame(Side::Down, message(15), n * SECOND, 0);
            liveness.frame(Side::Up, message(500), n * SECOND + 500 * MS, 0);
        }
        let facts = liveness.facts().unwrap();
        assert_eq!((facts.source, facts.unanswered), (Some(HeartbeatSource::Text), 20));
        assert_eq!((facts.silent_since, facts.survived), (None, 0));
    }

    #[test]
    fn ping_frames_of_either_side_are_heartbeats() {
        for sender in [Side::Down, Side::Up] {
            let mut liveness = Liveness::new(false);
            for n in 1..=5 {
                liveness.frame(sender, control(9), n * 20 * SECOND, 0);
                liveness.frame(sender.other(), control(10), n * 20 * SECOND + MS, 0);
            }
            liveness.frame(sender, control(9), 120 * SECOND, 0);
            let facts = liveness.facts().unwrap();
            assert_eq!(facts.source, Some(HeartbeatSource::Ping));
            assert_eq!(facts.is_by_serve, sender == Side::Up);
            assert_eq!((facts.pings, facts.pongs, facts.silent_since), (6, 5, Some(120 * SECOND)));
            assert_eq!(facts.period_ns, Some(20 * SECOND));
            // Replies of a client are not a measure of serve.
            assert_eq!(liveness.latest().0.is_some(), sender == Side::Down);
        }
    }

    #[test]
    fn a_better_source_replaces_a_worse_one() {
        let mut liveness = compressed(7);
        liveness.text(Side::Down, HeartbeatEvent::Ping, 41 * SECOND, 0);
        assert_eq!(liveness.facts().unwrap().pings, 1);
        assert!(liveness.rhythms.is_none());
        liveness.frame(Side::Up, control(9), 42 * SECOND, 0);
        assert_eq!(liveness.facts().unwrap().source, Some(HeartbeatSource::Text));
        // A session without a heartbeat has none.
        let mut idle = Liveness::new(false);
        idle.frame(Side::Down, message(900), SECOND, 0);
        idle.frame(Side::Up, message(9), 2 * SECOND, 0);
        assert_eq!(idle.facts(), None);
    }
}
