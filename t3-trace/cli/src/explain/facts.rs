//! All facts around one close, as values with their times. Pure data.

use t3_record::{BurstRecord, CloseRecord, OpenRecord, edge::Ended, probe::Disconnect};

use crate::{closes::changes::dpkg, layers::LayerData};

/// A value with its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed<T> {
    /// Write time in milliseconds since the epoch.
    pub at_ms: i64,
    pub what: T,
}

/// Input of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainInput {
    /// The record of the close; the conclusion comes from it.
    pub record: CloseRecord,
    /// Write time of the record in milliseconds since the epoch; of a reconciled one, the time of
    /// the end.
    pub at_ms: i64,
    /// Write time of the record in milliseconds since the epoch.
    pub written_ms: i64,
    /// Host that wrote the record.
    pub host: Option<String>,
    /// This host, if known: a page about another one names it.
    pub here: Option<String>,
    /// The session's own `ws open`.
    pub open: Option<Timed<OpenRecord>>,
    /// The `ws open` of the reconnect.
    pub back: Option<Timed<OpenRecord>>,
    /// The journal around the close; `None` if only the record was read.
    pub around: Option<Context>,
    /// Closes of this user in the time before the close and shortly after it, for patterns.
    pub history: Vec<Timed<CloseRecord>>,
    /// Package changes before the close, by time.
    pub packages: Vec<Timed<dpkg::Change>>,
    /// Results of the queries to the layers.
    pub gathered: LayerData,
    /// The times of the page are not in the zone of the system (`--time-zone`).
    pub has_own_zone: bool,
}

/// The journal between two times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    /// Start in milliseconds since the epoch.
    pub from_ms: i64,
    /// End in milliseconds since the epoch, not later than the read.
    pub until_ms: i64,
    /// Closes of other sessions.
    pub closes: Vec<Timed<CloseRecord>>,
    /// Burst records.
    pub bursts: Vec<Timed<BurstRecord>>,
    /// Disconnects of probe legs.
    pub disconnects: Vec<Disconnect>,
    /// Messages of systemd about the units of serve, t3-dispatch and t3-trace.
    pub units: Vec<Timed<String>>,
    /// Lines of the kernel about the OOM killer.
    pub kernel: Vec<Timed<String>>,
    /// Messages about a shutdown or a start of the host.
    pub host: Vec<Timed<String>>,
    /// Entries with our message IDs from other users.
    pub foreign: u64,
    /// Entries that cannot be parsed.
    pub broken: u64,
    /// A part of the journal could not be read.
    pub incomplete: bool,
}

/// Longest time between a close and its record, in milliseconds: a client waits up to a minute for
/// the reply to its Close frame.
const LATEST: i64 = 180_000;

impl ExplainInput {
    /// Creates the input with only the record.
    #[must_use]
    pub fn of(record: CloseRecord, at_ms: i64) -> Self {
        Self {
            record,
            at_ms,
            written_ms: at_ms,
            host: None,
            here: None,
            open: None,
            back: None,
            around: None,
            history: Vec::new(),
            packages: Vec::new(),
            gathered: LayerData::default(),
            has_own_zone: false,
        }
    }

    /// Returns the host of the record if it is not this one.
    #[must_use]
    pub fn other_host(&self) -> Option<&str> {
        let here = self.here.as_deref()?;
        self.host.as_deref().filter(|host| *host != here)
    }

    /// The close as the parsers of the layers expect it.
    #[must_use]
    pub fn ended(&self) -> Ended<'_> {
        Ended { record: &self.record, at_ms: self.at_ms }
    }

    /// Returns the time of the first event on a leg in milliseconds since the epoch; the record's
    /// ages and offsets are relative to it. `dur_ms` is the time from the open to the first end of
    /// a leg, which is later if a Close frame came first.
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
        // The sum is meaningless if the clock was set in between.
        if (0..=LATEST).contains(&self.at_ms.saturating_sub(counted)) { counted } else { written }
    }

    /// Whether the session was opened.
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
    fn the_time_of_the_close_is_computed_from_the_open_if_known() {
        let late = "down:close1000@0,down:fin_in@60000,up:fin_out@60001";
        for (chain, opened, zero) in [
            // Written a second after the last event, which the record does not show.
            (late, None, 939_999),
            // Opened at 938 s: 61 s later the leg ended, a minute after the Close frame.
            (late, Some(938_000), 939_000),
            ("up:peer_sig9@-3,up:fin_in@0", Some(938_500), 999_500),
            // The clock was set.
            (late, Some(0), 939_999),
            (late, Some(2_000_000), 939_999),
        ] {
            assert_eq!(facts(chain, opened).zero_ms(), zero, "{chain} {opened:?}");
        }
    }
}
