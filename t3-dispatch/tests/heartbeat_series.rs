//! Heartbeats on time series of frames, as bytes through the scanner: t3 plain and compressed,
//! other applications, and sessions without a heartbeat. Period and answer time must be within 5 %.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use proptest::prelude::*;
use t3_dispatch::relay::session::Session;
use t3_record::{
    evidence::{Heartbeat, Nanos},
    vocabulary::{HeartbeatSource, Side},
    wire,
};
use t3_testkit::{
    deflate::{COMPRESSED, Codec, EXTENSION},
    frame::{HEARTBEAT, HEARTBEAT_ANSWER, opcode, raw},
};

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MS;
const FIN: u8 = 0x80;

/// Frames in order of time; each sender compresses its messages if so agreed.
struct Series {
    frames: Vec<(Nanos, Side, u8, Vec<u8>)>,
    is_compressed: bool,
}

impl Series {
    const fn new(is_compressed: bool) -> Self {
        Self { frames: Vec::new(), is_compressed }
    }

    fn text(&mut self, at: Nanos, side: Side, text: &str) {
        self.frames.push((at, side, opcode::TEXT, text.as_bytes().to_vec()));
    }

    fn control(&mut self, at: Nanos, side: Side, opcode: u8) {
        self.frames.push((at, side, opcode, b"k1".to_vec()));
    }

    /// Pings of `side` every `period`, late by up to `jitter`, answered after `rtt`.
    fn beats(&mut self, side: Side, pings: &[(Nanos, String)], answer: Option<(&str, Nanos)>) {
        for (at, ping) in pings {
            self.text(*at, side, ping);
            if let Some((text, rtt)) = answer {
                self.text(at + rtt, side.other(), text);
            }
        }
    }

    /// Facts at the end, one second after the last frame.
    fn facts(mut self) -> Option<Heartbeat> {
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
        session.opened(1, self.is_compressed.then(|| EXTENSION.to_owned()));
        self.frames.sort_by_key(|(at, ..)| *at);
        let (mut down, mut up) = (Codec::default(), Codec::default());
        for (at, side, opcode, payload) in &self.frames {
            let codec = if *side == Side::Down { &mut down } else { &mut up };
            let is_compressed = self.is_compressed && *opcode == opcode::TEXT;
            let (first, payload) = if is_compressed {
                (FIN | COMPRESSED | opcode, codec.compress(payload))
            } else {
                (FIN | opcode, payload.clone())
            };
            session.received(*side, &raw(first, &payload, *side == Side::Down), *at);
        }
        session.first_end(self.frames.last().map_or(0, |(at, ..)| *at) + SECOND);
        session.facts.heartbeat
    }
}

/// Times of pings: every `period`, late by up to `jitter` in a fixed pattern.
fn every(period: Nanos, count: u64, jitter: Nanos) -> Vec<Nanos> {
    (0..count).map(|n| SECOND + n * period + (n * 7919 % 11) * jitter / 10).collect()
}

fn same(times: &[Nanos], text: &str) -> Vec<(Nanos, String)> {
    times.iter().map(|at| (*at, text.to_owned())).collect()
}

#[track_caller]
fn check(
    facts: Option<Heartbeat>,
    source: HeartbeatSource,
    by_serve: bool,
    period: Nanos,
    rtt: Option<Nanos>,
) {
    let facts = facts.unwrap();
    assert_eq!((facts.source, facts.is_by_serve), (Some(source), by_serve));
    let learned = facts.period_ns.unwrap();
    assert!(learned.abs_diff(period) <= period / 20, "period {learned}, not {period}");
    if let Some(rtt) = rtt {
        let found = facts.rtt_ns.unwrap();
        assert!(found.abs_diff(rtt) <= rtt / 20, "answer time {found}, not {rtt}");
        assert_eq!((facts.unanswered, facts.waiting_since), (0, None));
    }
}

/// Chunks of a stream with their acknowledgements, and requests.
fn work(series: &mut Series, from: Nanos, chunks: u64) {
    for n in 0..chunks {
        let at = from + n * 70 * MS;
        let values = format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(20);
        series.text(at, Side::Up, &format!(r#"{{"_tag":"Chunk","requestId":"7","values":["{values}"]}}"#));
        series.text(at + 30 * MS, Side::Down, r#"{"_tag":"Ack","requestId":"7"}"#);
    }
    let request = r#"{"_tag":"Request","id":"8","tag":"git.status","payload":{"cwd":"/home/ann/project"},"headers":[]}"#;
    series.text(from + chunks * 70 * MS + 900 * MS, Side::Down, request);
}

#[test]
fn t3_plain_and_compressed_idle_and_at_work() {
    for (is_compressed, source) in [(false, HeartbeatSource::Text), (true, HeartbeatSource::Rhythm)] {
        for bursts in [0, 3] {
            let mut series = Series::new(is_compressed);
            let pings = same(&every(5 * SECOND, 24, 6 * MS), HEARTBEAT);
            series.beats(Side::Down, &pings, Some((HEARTBEAT_ANSWER, 4 * MS)));
            for burst in 0..bursts {
                work(&mut series, 32 * SECOND + burst * 21 * SECOND, 30);
            }
            check(series.facts(), source, false, 5 * SECOND, Some(4 * MS));
        }
    }
}

#[test]
fn other_applications() {
    for is_compressed in [false, true] {
        // socket.io: serve pings every 25 s with one byte, the client answers with one.
        let mut series = Series::new(is_compressed);
        let pings = same(&every(25 * SECOND, 8, 10 * MS), "2");
        series.beats(Side::Up, &pings, Some(("3", 60 * MS)));
        check(series.facts(), HeartbeatSource::Rhythm, true, 25 * SECOND, Some(60 * MS));
        // SignalR: both sides send the same every 15 s, and neither answers.
        let mut series = Series::new(is_compressed);
        let signal = "{\"type\":6}\u{1e}";
        series.beats(Side::Down, &same(&every(15 * SECOND, 10, 30 * MS), signal), None);
        let of_serve: Vec<_> = every(15 * SECOND, 10, 30 * MS).iter().map(|at| at + 7 * SECOND).collect();
        series.beats(Side::Up, &same(&of_serve, signal), None);
        check(series.facts(), HeartbeatSource::Rhythm, false, 15 * SECOND, None);
        // Home Assistant: an id that counts up, and gains a digit.
        let mut series = Series::new(is_compressed);
        let numbered = |n: usize| format!(r#"{{"id":{},"type":"ping"}}"#, n + 4);
        let pings: Vec<_> = every(30 * SECOND, 12, 20 * MS)
            .into_iter()
            .enumerate()
            .map(|(n, at)| (at, numbered(n)))
            .collect();
        series.beats(Side::Down, &pings, Some((r#"{"id":4,"type":"pong"}"#, 20 * MS)));
        check(series.facts(), HeartbeatSource::Rhythm, false, 30 * SECOND, Some(20 * MS));
        // Jupyter: serve sends Ping frames every 30 s.
        let mut series = Series::new(is_compressed);
        for at in every(30 * SECOND, 6, 20 * MS) {
            series.control(at, Side::Up, opcode::PING);
            series.control(at + 80 * MS, Side::Down, opcode::PONG);
        }
        check(series.facts(), HeartbeatSource::Ping, true, 30 * SECOND, Some(80 * MS));
    }
}

#[test]
fn a_hidden_tab_slows_its_heartbeat() {
    for (is_compressed, source) in [(false, HeartbeatSource::Text), (true, HeartbeatSource::Rhythm)] {
        let mut at = SECOND;
        let waits = [5; 6].into_iter().chain([6, 7, 6, 7, 7, 6, 7]).chain([120; 18]);
        let mut times = vec![at];
        times.extend(waits.map(|wait| {
            at += wait * SECOND;
            at
        }));
        let mut series = Series::new(is_compressed);
        series.beats(Side::Down, &same(&times, HEARTBEAT), Some((HEARTBEAT_ANSWER, 3 * MS)));
        let facts = series.facts();
        assert_eq!(facts.unwrap().pings, times.len() as u64);
        check(facts, source, false, 120 * SECOND, Some(3 * MS));
    }
}

#[test]
fn sessions_without_a_heartbeat_have_none() {
    for is_compressed in [false, true] {
        assert_eq!(Series::new(is_compressed).facts(), None, "idle");
        let mut opened = Series::new(is_compressed);
        opened.text(SECOND, Side::Down, r#"{"_tag":"Request","id":"1","tag":"subscribe"}"#);
        opened.text(2 * SECOND, Side::Up, r#"{"_tag":"Exit","requestId":"1"}"#);
        opened.text(3_600 * SECOND, Side::Up, r#"{"_tag":"Chunk","requestId":"1","values":[]}"#);
        assert_eq!(opened.facts(), None, "an idle tab");
        // The parts of an upload, each acknowledged, at a stable rate.
        let mut upload = Series::new(is_compressed);
        let mut word: u64 = 1;
        for n in 0..60 {
            let part: String = (0..600)
                .map(|_| {
                    word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    format!("{:x}", word >> 33)
                })
                .collect();
            upload.text(SECOND + n * 2 * SECOND, Side::Down, &part);
            upload.text(SECOND + n * 2 * SECOND + 40 * MS, Side::Up, r#"{"ok":true}"#);
        }
        // serve's acknowledgements follow the client's parts and are not taken for pings.
        assert_eq!(upload.facts(), None, "an upload");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A user types at odd times: no three intervals in a row are equal, however they are ordered.
    /// The sums of some can agree by chance; that is never taken for a timer.
    #[test]
    fn typing_at_odd_times_has_no_heartbeat(
        orders in prop::collection::vec(Just([310_u64, 570, 830, 1_310, 2_170, 3_410, 5_030]).prop_shuffle(), 3..20),
        jitter in prop::collection::vec(0_u64..10, 140),
        lengths in prop::collection::vec(1_usize..60, 140),
        is_one_size in any::<bool>(),
        is_compressed in any::<bool>(),
        answers in prop::collection::vec(any::<bool>(), 140),
    ) {
        let mut series = Series::new(is_compressed);
        let mut at = SECOND;
        for (n, wait) in orders.concat().into_iter().enumerate() {
            at += wait * MS + wait * jitter[n] * MS / 1_000;
            let length = if is_one_size { 7 } else { lengths[n] };
            series.text(at, Side::Down, &"k".repeat(length));
            if answers[n] {
                series.text(at + 90 * MS, Side::Up, r#"{"ok":1}"#);
            }
        }
        let facts = series.facts();
        // serve's answers follow what is typed, so they have no rhythm either.
        prop_assert!(facts.is_none_or(|facts| facts.can_be_chance()), "{:?}", facts);
    }

    /// The same user with t3's client, which pings. A ping shortly after a frame of serve can be
    /// its answer and teaches nothing, so the heartbeat is recognised at the latest when the user
    /// pauses for five pings.
    #[test]
    fn typing_does_not_hide_the_heartbeat(
        orders in prop::collection::vec(Just([310_u64, 570, 830, 1_310, 2_170, 3_410, 5_030]).prop_shuffle(), 3..12),
        phase in 0_u64..5_000,
    ) {
        let mut series = Series::new(true);
        let mut at = SECOND;
        for (n, wait) in orders.concat().into_iter().enumerate() {
            at += wait * MS;
            let typed = format!(r#"{{"_tag":"Request","id":"{n}","tag":"terminal.write","payload":{{"data":"{n}{at}"}}}}"#);
            series.text(at, Side::Down, &typed);
            series.text(at + 20 * MS, Side::Up, &format!(r#"{{"_tag":"Exit","requestId":"{n}","exit":"{at}"}}"#));
        }
        let times = every(5 * SECOND, at / (5 * SECOND) + 7, 6 * MS);
        let mut times: Vec<_> = times.iter().map(|t| t + phase * MS).collect();
        times.truncate(times.partition_point(|time| *time <= at) + 5);
        series.beats(Side::Down, &same(&times, HEARTBEAT), Some((HEARTBEAT_ANSWER, 2 * MS)));
        let facts = series.facts().unwrap();
        prop_assert_eq!((facts.source, facts.is_by_serve), (Some(HeartbeatSource::Rhythm), false));
        let period = facts.period_ns.unwrap();
        prop_assert!(period.abs_diff(5 * SECOND) <= SECOND / 4, "{}", period);
    }
}
