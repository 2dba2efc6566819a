//! Expected record of a fault: an expectation on every key. Pure.
//!
//! The complete record is compared: a key that a fault does not set has the expectation of an
//! ordinary session ([`ExpectedRecord::opened`]), so both extra and missing keys fail.

use std::{collections::BTreeMap, time::Duration};

use t3_record::{Cause, CloseRecord, ClosedBy, LegEnd, Segment, Verdict};

use crate::wait;

/// Expectation on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// This text.
    Is(String),
    /// One of these texts.
    OneOf(Vec<String>),
    /// Text with this prefix.
    Begins(String),
    /// A number in this range, both ends included.
    Range(u64, u64),
    /// Any value.
    Present,
    /// No value.
    Absent,
    /// No value, or a number in this range.
    AbsentOr(u64, u64),
    /// No value, or one that this expects.
    Maybe(Box<Expect>),
    /// `serve`, or `devvm` if the record shows CPU pressure on serve's cgroup, which other
    /// processes of the host may cause.
    StallSegment,
    /// A number that differs from that of another key of the record by up to this.
    Near(&'static str, u64),
    /// Not checked.
    Free,
}

/// PSI in percent from which the segment is `devvm` (docs/VERDICTS.md).
const CPU_PRESSURE: f64 = 80.0;

impl Expect {
    fn holds(&self, text: Option<&str>, under_pressure: bool) -> bool {
        let number = || text.and_then(|text| text.parse::<f64>().ok());
        #[expect(clippy::cast_precision_loss, reason = "bounds in tests are small")]
        let within = |low: u64, high: u64| number().is_some_and(|n| n >= low as f64 && n <= high as f64);
        match self {
            Self::Is(want) => text == Some(want),
            Self::OneOf(wanted) => text.is_some_and(|text| wanted.iter().any(|want| want == text)),
            Self::Begins(want) => text.is_some_and(|text| text.starts_with(want.as_str())),
            Self::Range(low, high) => within(*low, *high),
            Self::Present => text.is_some(),
            Self::Absent => text.is_none(),
            Self::AbsentOr(low, high) => text.is_none() || within(*low, *high),
            Self::Maybe(expect) => text.is_none() || expect.holds(text, under_pressure),
            Self::StallSegment => text == Some("serve") || (under_pressure && text == Some("devvm")),
            // Compared in `mismatches`, which has the record.
            Self::Near(..) | Self::Free => true,
        }
    }
}

impl std::fmt::Display for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Is(want) => f.write_str(want),
            Self::OneOf(wanted) => f.write_str(&wanted.join("|")),
            Self::Begins(want) => write!(f, "{want}..."),
            Self::Range(low, u64::MAX) => write!(f, "at least {low}"),
            Self::Range(low, high) => write!(f, "{low} to {high}"),
            Self::Present => f.write_str("something"),
            Self::Absent => f.write_str("nothing"),
            Self::AbsentOr(low, high) => write!(f, "nothing or {low} to {high}"),
            Self::Maybe(expect) => write!(f, "nothing or {expect}"),
            Self::StallSegment => f.write_str("serve"),
            Self::Near(key, difference) => write!(f, "{key}, differing by up to {difference}"),
            Self::Free => f.write_str("anything"),
        }
    }
}

/// A difference from an expectation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mismatch {
    /// The key, or the name of another check.
    pub key: String,
    pub expected: String,
    pub got: String,
}

/// Expectations on every key of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedRecord(BTreeMap<&'static str, Expect>);

const ANY: Expect = Expect::Free;
const SOME: Expect = Expect::Present;
const NO: Expect = Expect::Absent;

impl ExpectedRecord {
    /// An ordinary session with healthy heartbeats: all keys except those of the verdict.
    fn session() -> Self {
        let many = || Expect::Range(1, u64::MAX);
        // Upper limit of an ordinary heartbeat RTT on the slowest host.
        let quick = || Expect::Range(0, 2_000);
        let free = |keys: &[&'static str]| keys.iter().map(|key| (*key, ANY)).collect::<Vec<_>>();
        let mut keys: BTreeMap<&'static str, Expect> =
            CloseRecord::KEYS.iter().map(|key| (key.name, NO)).collect();
        keys.extend([("user", SOME), ("ip", SOME), ("conn", SOME), ("kernel", SOME), ("ray", SOME)]);
        keys.extend([("dur_ms", many()), ("confidence", Expect::Is("proven".to_owned()))]);
        keys.extend(["up_bytes", "down_bytes", "up_msgs", "down_msgs", "hb_n"].map(|key| (key, many())));
        keys.extend(
            ["up_idle_ms", "down_idle_ms", "hb_rtt_ms", "hb_rtt_max_ms", "hb_gap_ms"]
                .map(|key| (key, quick())),
        );
        keys.extend(["down_rtt_us", "up_rtt_us", "chain"].map(|key| (key, SOME)));
        // A ping may be in flight when the session ends.
        keys.insert("hb_by", Expect::Is("text".to_owned()));
        // Every message of the tests is one frame, read at once; under emulation not quite.
        let at_once = wait::scaled(Duration::from_millis(50)).as_millis();
        let at_once = u64::try_from(at_once).unwrap_or(u64::MAX);
        keys.insert("up_silent_ms", Expect::Near("up_idle_ms", at_once));
        // Bytes on their way to the client at the end; a busy host is late now and then.
        keys.insert("up_queued", Expect::AbsentOr(1, u64::MAX));
        // A peer that is gone acknowledges nothing more.
        keys.insert("up_undelivered", Expect::AbsentOr(1, u64::MAX));
        keys.insert("down_undelivered", Expect::AbsentOr(1, u64::MAX));
        // A delay has 100 ms or more; only its part between the open and the close counts.
        keys.insert("lag_ms", Expect::AbsentOr(1, 1_000));
        keys.insert("hb_wait_ms", Expect::AbsentOr(0, 2_000));
        keys.insert("hb_period_ms", Expect::AbsentOr(1, 2_000));
        // `Fixture::complete` sets these according to the host.
        keys.extend(free(&["peer_uid"]));
        keys.extend(free(&["peer_pid", "peer_comm", "peer_exit", "psi_mem", "psi_io", "psi_cpu"]));
        keys.extend(free(&["psi_mem_full", "psi_io_full", "psi_mem_peak", "psi_io_peak", "psi_cpu_peak"]));
        keys.extend(free(&[
            "host_psi_mem",
            "host_psi_io",
            "host_psi_cpu",
            "mem_current",
            "mem_max",
            "swap_free",
        ]));
        keys.insert("oom_kills", Expect::AbsentOr(0, 0));
        // Other load may delay an eBPF program; that does not change a verdict.
        keys.insert("lost", Expect::AbsentOr(1, 1_000));
        // Values that vary also on a healthy loopback.
        keys.extend(free(&["self_lag_ms", "rst_reason"]));
        for key in ["down_retrans", "down_unacked", "down_lost", "up_retrans", "up_unacked", "up_lost"] {
            keys.insert(key, Expect::Range(0, 20));
        }
        Self(keys)
    }

    /// A session that opened and then closed. The caller adds expected Close frames.
    #[must_use]
    pub fn opened(verdict: Verdict, segment: Segment, cause: Cause, how: &str, closed_by: ClosedBy) -> Self {
        let mut expected = Self::session();
        expected.set_outcome(verdict, segment, cause, how, closed_by);
        expected
    }

    /// A session that never opened.
    #[must_use]
    pub fn unopened(
        verdict: Verdict,
        segment: Segment,
        cause: Cause,
        how: &str,
        closed_by: ClosedBy,
    ) -> Self {
        let mut expected = Self::session();
        expected.set_outcome(verdict, segment, cause, how, closed_by);
        expected.0.insert("dur_ms", Expect::Is("0".to_owned()));
        for key in [
            "hb_n",
            "hb_rtt_ms",
            "hb_rtt_max_ms",
            "hb_gap_ms",
            "hb_wait_ms",
            "hb_period_ms",
            "hb_by",
            "up_queued",
            "up_undelivered",
            "down_undelivered",
        ] {
            expected.0.insert(key, NO);
        }
        // The time that the upgrade waited, if serve sent no answer.
        expected.0.insert("up_silent_ms", Expect::AbsentOr(0, 20_000));
        for key in ["up_bytes", "down_bytes", "up_msgs", "down_msgs"] {
            expected.0.insert(key, NO);
        }
        // The facts of a leg without a session depend on how far the open got.
        for key in ["up_idle_ms", "down_idle_ms", "down_rtt_us", "down_retrans", "down_unacked", "down_lost"]
        {
            expected.0.insert(key, ANY);
        }
        for key in ["up_rtt_us", "up_retrans", "up_unacked", "up_lost", "chain"] {
            expected.0.insert(key, ANY);
        }
        expected
    }

    fn set_outcome(
        &mut self,
        verdict: Verdict,
        segment: Segment,
        cause: Cause,
        how: &str,
        closed_by: ClosedBy,
    ) {
        let words = [
            ("verdict", verdict.as_str()),
            ("segment", segment.as_str()),
            ("cause", cause.as_str()),
            ("how", how),
            ("closed_by", closed_by.as_str()),
        ];
        for (key, word) in words {
            self.0.insert(key, Expect::Is(word.to_owned()));
        }
    }

    /// Sets the ends of the two legs.
    #[must_use]
    pub fn ends(self, down: LegEnd, up: LegEnd) -> Self {
        self.is("down_end", down.as_str()).is("up_end", up.as_str())
    }

    /// Sets the first Close frame: sender, code and reason; empty text means absent.
    #[must_use]
    pub fn close_frame(self, from: &str, code: &str, reason: &str) -> Self {
        let text = |text: &str| if text.is_empty() { NO } else { Expect::Is(text.to_owned()) };
        self.key("ws_from", text(from)).key("ws_code", text(code)).key("ws_reason", text(reason))
    }

    /// serve's last frame is large: an emulated guest reads one for a quarter of a second.
    #[must_use]
    pub fn last_frame_is_large(self) -> Self {
        self.key("up_silent_ms", Expect::Near("up_idle_ms", 500))
    }

    #[must_use]
    pub fn is(self, key: &'static str, text: &str) -> Self {
        self.key(key, Expect::Is(text.to_owned()))
    }

    #[must_use]
    pub fn one_of(self, key: &'static str, texts: &[&str]) -> Self {
        self.key(key, Expect::OneOf(texts.iter().map(|text| (*text).to_owned()).collect()))
    }

    #[must_use]
    pub fn at_least(self, key: &'static str, low: u64) -> Self {
        self.key(key, Expect::Range(low, u64::MAX))
    }

    /// Sets the expectation on a key.
    #[must_use]
    pub fn key(mut self, key: &'static str, expect: Expect) -> Self {
        self.0.insert(key, expect);
        self
    }

    /// The expectation on a key.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<&Expect> {
        self.0.get(key)
    }

    /// Sets the expectation only if the key is [`Expect::Free`], so that a fault's own one is kept;
    /// a key that may be absent still may.
    #[must_use]
    pub fn if_free(self, key: &'static str, expect: Expect) -> Self {
        match self.0.get(key) {
            Some(Expect::Free) => self.key(key, expect),
            Some(Expect::Maybe(own)) if **own == Expect::Free => {
                self.key(key, Expect::Maybe(Box::new(expect)))
            }
            _ => self,
        }
    }

    /// Lets the keys of serve's process be absent: the session may end before it is looked up.
    #[must_use]
    pub fn without_peer(self) -> Self {
        ["peer_pid", "peer_comm", "peer_exit"].into_iter().fold(self, |expected, key| {
            match expected.of(key) {
                Some(own) => {
                    let own = own.clone();
                    expected.key(key, Expect::Maybe(Box::new(own)))
                }
                None => expected,
            }
        })
    }

    /// Differences of a record.
    #[must_use]
    pub fn mismatches(&self, record: &CloseRecord) -> Vec<Mismatch> {
        let have: BTreeMap<_, _> = record.pairs().into_iter().collect();
        let percent = |key: &str| have.get(key).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let under_pressure = percent("psi_cpu").max(percent("psi_cpu_peak")) >= CPU_PRESSURE;
        let mismatch = |(key, expect): (&&'static str, &Expect)| {
            let text = have.get(key).map(String::as_str);
            if let Expect::Near(other, difference) = expect {
                let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
                let pair = number(text).zip(number(have.get(other).map(String::as_str)));
                let is_near = pair.is_some_and(|(one, other)| one.abs_diff(other) <= *difference);
                return (!is_near).then(|| Mismatch {
                    key: (*key).to_owned(),
                    expected: expect.to_string(),
                    got: text.unwrap_or("nothing").to_owned(),
                });
            }
            (!expect.holds(text, under_pressure)).then(|| Mismatch {
                key: (*key).to_owned(),
                expected: expect.to_string(),
                got: text.unwrap_or("nothing").to_owned(),
            })
        };
        self.0.iter().filter_map(mismatch).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use t3_record::KernelSource;

    fn expected() -> ExpectedRecord {
        ExpectedRecord::unopened(
            Verdict::ServeRefused,
            Segment::Serve,
            Cause::UpstreamClosed,
            "refused",
            ClosedBy::Upstream,
        )
        .is("user", "u")
        .key("down_end", ANY)
        .is("up_end", "refused")
    }

    fn record() -> CloseRecord {
        let mut record = CloseRecord::new(
            "u".to_owned(),
            "::1".to_owned(),
            0,
            Cause::UpstreamClosed,
            Verdict::ServeRefused,
            Segment::Serve,
            "c".to_owned(),
            KernelSource::Off,
        );
        record.how = Some(t3_record::How::Refused);
        record.closed_by = Some(ClosedBy::Upstream);
        record.confidence = Some(t3_record::Confidence::Proven);
        record.up_end = Some(LegEnd::Refused);
        record.ray = Some("r".to_owned());
        record
    }

    #[test]
    fn the_expected_record_has_no_mismatch() {
        assert_eq!(expected().mismatches(&record()), []);
    }

    #[test]
    fn a_wrong_a_missing_and_an_extra_key_are_each_one_mismatch() {
        let wrong = CloseRecord { verdict: Verdict::ServeTimeout, ..record() };
        assert_eq!(
            expected().mismatches(&wrong).iter().map(|mismatch| mismatch.key.as_str()).collect::<Vec<_>>(),
            ["verdict"]
        );
        let missing = CloseRecord { up_end: None, ..record() };
        assert_eq!(expected().mismatches(&missing)[0].got, "nothing");
        let extra = CloseRecord { oom_victim: Some("x".to_owned()), ws_code: Some(1000), ..record() };
        assert_eq!(expected().mismatches(&extra).len(), 2);
    }

    #[test]
    fn bounds_hold_at_both_ends() {
        let range = Expect::Range(2, 4);
        for (text, holds) in [("1", false), ("2", true), ("4", true), ("4.5", false), ("x", false)] {
            assert_eq!(range.holds(Some(text), false), holds, "{text}");
        }
        assert!(!range.holds(None, false));
        assert!(Expect::AbsentOr(0, 0).holds(None, false) && !Expect::AbsentOr(0, 0).holds(Some("1"), false));
    }
}
