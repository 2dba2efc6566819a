//! Everything that is known around one close, as values with their times. Gathers nothing and
//! concludes nothing.

use t3_record::{BurstRecord, CloseRecord, OpenRecord, edge::Ended, probe::Disconnect};

use crate::layers::LayerData;

/// Something and when it was written down, in milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed<T> {
    /// When.
    pub at_ms: i64,
    /// What.
    pub what: T,
}

/// What was gathered for one close.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainInput {
    /// Its record: every answer comes from it.
    pub record: CloseRecord,
    /// When that was written, in milliseconds since the epoch.
    pub at_ms: i64,
    /// The session's own `ws open`.
    pub open: Option<Timed<OpenRecord>>,
    /// The `ws open` with which they came back.
    pub back: Option<Timed<OpenRecord>>,
    /// The journal around it; `None` when only the record was looked at.
    pub around: Option<Context>,
    /// What the layers in front of this machine logged, and which were asked.
    pub gathered: LayerData,
}

/// The journal between two times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    /// From when on, in milliseconds since the epoch.
    pub from_ms: i64,
    /// Until when: not later than when it was read.
    pub until_ms: i64,
    /// Closes of other sessions.
    pub closes: Vec<Timed<CloseRecord>>,
    /// Bursts that were summed up.
    pub bursts: Vec<Timed<BurstRecord>>,
    /// Deaths of the probe's legs.
    pub deaths: Vec<Disconnect>,
    /// What systemd said of serve's unit and of ours.
    pub units: Vec<Timed<String>>,
    /// Entries that others wrote in our name.
    pub foreign: u64,
    /// Entries that could not be read.
    pub broken: u64,
}

/// A record is written at most so long after the close: a browser waits a minute for the answer to
/// its Close.
const LATEST: i64 = 180_000;

impl ExplainInput {
    /// Nothing but the record.
    #[must_use]
    pub fn of(record: CloseRecord, at_ms: i64) -> Self {
        Self { record, at_ms, open: None, back: None, around: None, gathered: LayerData::default() }
    }

    /// As the other layers' lines are judged by.
    #[must_use]
    pub fn ended(&self) -> Ended<'_> {
        Ended { record: &self.record, at_ms: self.at_ms }
    }

    /// The moment from which the record counts, in milliseconds since the epoch: that of the first
    /// event on a leg. `dur_ms` is the time from the open to the first end of a leg, which is
    /// somewhat later where a close frame came before it.
    #[must_use]
    pub fn zero_ms(&self) -> i64 {
        let chain = self.record.chain.as_ref().map_or(&[][..], |chain| &chain.0);
        let last = chain.last().map_or(0, |event| event.at_ms.clamp(0, LATEST));
        let written = self.at_ms.saturating_sub(last);
        let Some(open) = self.open.as_ref().filter(|_| self.record.dur_ms > 0) else { return written };
        let end = chain.iter().find(|event| ends_a_leg(&event.what));
        let end = end.map_or(0, |event| event.at_ms.clamp(0, LATEST));
        let lasted = i64::try_from(self.record.dur_ms).unwrap_or(i64::MAX);
        let counted = open.at_ms.saturating_add(lasted).saturating_sub(end);
        // Where the clock was set in between, the sum says nothing.
        if (0..=LATEST).contains(&self.at_ms.saturating_sub(counted)) { counted } else { written }
    }

    /// The session carried messages, or had at least been opened.
    #[must_use]
    pub const fn opened(&self) -> bool {
        self.record.dur_ms > 0 || self.record.up_bytes.is_some()
    }
}

fn ends_a_leg(what: &str) -> bool {
    matches!(what, "fin_in" | "fin_out" | "rst_in" | "rst_out" | "timeout" | "abort" | "unreach")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "ws close user=ann ip=192.0.2.7 dur_ms=61000 cause=graceful verdict=client_closed segment=downstream \
        conn=c1 kernel=tracepoint";

    fn facts(chain: &str, opened_ms: Option<i64>) -> ExplainInput {
        let record = CloseRecord::from_line(&format!("{LINE} chain={chain}")).unwrap();
        let mut facts = ExplainInput::of(record, 1_000_000);
        let open = OpenRecord::new("ann".to_owned(), "192.0.2.7".to_owned(), "c1".to_owned());
        facts.open = opened_ms.map(|at_ms| Timed { at_ms, what: open });
        facts
    }

    #[test]
    fn the_moment_of_the_close_is_counted_from_the_open_where_that_is_known() {
        let late = "down:close1000@0,down:fin_in@60000,up:fin_out@60001";
        for (chain, opened, zero) in [
            // Written a second after the last event, and that is not known.
            (late, None, 939_999),
            // Opened at 938 s: 61 s later the leg ended, a minute after the close frame.
            (late, Some(938_000), 939_000),
            ("up:peer_sig9@-3,up:fin_in@0", Some(938_500), 999_500),
            // Clocks that were set.
            (late, Some(0), 939_999),
            (late, Some(2_000_000), 939_999),
        ] {
            assert_eq!(facts(chain, opened).zero_ms(), zero, "{chain} {opened:?}");
        }
    }
}
