//! Summary of many closes: counts, durations, reconnects, bursts, users, times. Pure. Memory grows
//! with the number of users, not of records.

use std::collections::{BTreeMap, HashMap};

use t3_record::{CloseRecord, Segment, TcpCloseRecord, Verdict};

use super::{direct_summary::DirectSummary, histogram::Histogram};
use crate::present::{
    text::{folded, lasted, safe},
    verdict_text::{Tone, tone},
    via::ViaFilter,
};

/// Closes within one second that count as a burst.
const BURST: u64 = 5;
/// Number of bursts and users that are listed.
const NAMED: usize = 5;
/// Limit of bars in the time histogram.
const BARS: u64 = 24;
/// The longest bar, in characters.
const BAR: u64 = 40;
/// Column where bars start: indent, date and time, count, and gaps.
const BAR_COLUMN: usize = 33;

/// The summary so far. Records come in the order of time.
#[derive(Debug, Default)]
pub struct Summary {
    closes: u64,
    verdicts: BTreeMap<(Verdict, Segment), u64>,
    lengths: Histogram,
    gaps: Histogram,
    second: (u64, u64),
    bursts: u64,
    largest: Vec<(u64, u64)>,
    users: HashMap<String, (u64, u64)>,
    times: Times,
    /// Records that t3-trace wrote after the session had ended.
    reconciled: u64,
    /// Connections without a request, and the longest time of one in milliseconds.
    attempts: (u64, u64),
    direct: DirectSummary,
}

impl Summary {
    /// Counts a close at a time in seconds since the epoch.
    pub fn close(&mut self, record: &CloseRecord, at: u64) {
        self.closes += 1;
        self.reconciled += u64::from(record.reconciled.is_some());
        *self.verdicts.entry((record.verdict, record.segment)).or_default() += 1;
        self.lengths.add(record.dur_ms);
        if self.second.0 != at {
            self.end_second();
            self.second = (at, 0);
        }
        self.second.1 += 1;
        let cut = u64::from(tone(record.verdict, record.segment) != Tone::Fine);
        let user = self.users.entry(record.user.clone()).or_default();
        *user = (user.0 + cut, user.1 + 1);
        self.times.add(at);
    }

    /// Counts a connection that t3-dispatch did not carry.
    pub fn direct(&mut self, record: &TcpCloseRecord) {
        self.direct.close(record);
    }

    /// Counts a reconnect and its gap in milliseconds.
    pub fn gap(&mut self, ms: u64) {
        self.gaps.add(ms);
    }

    /// Counts connections that ended before a request was read, and their longest wait.
    pub fn attempts(&mut self, connections: u64, wait_ms: u64) {
        self.attempts = (self.attempts.0.saturating_add(connections), self.attempts.1.max(wait_ms));
    }

    fn end_second(&mut self) {
        let (at, ends) = self.second;
        if ends >= BURST {
            self.bursts += 1;
            self.largest.push((ends, at));
            self.largest.sort_by_key(|(ends, at)| (std::cmp::Reverse(*ends), *at));
            self.largest.truncate(NAMED);
        }
    }

    /// The summary of the selected closes as text, folded to `width` columns. `clock` formats
    /// seconds since the epoch.
    #[must_use]
    pub fn text(mut self, via: ViaFilter, width: Option<usize>, clock: impl Fn(u64) -> String) -> String {
        self.end_second();
        let bar = width.map_or(BAR, |width| BAR.min(width.saturating_sub(BAR_COLUMN) as u64));
        let mut out = String::new();
        let sessions = via.has_sessions().then(|| self.lines(bar, clock));
        let direct = via.has_direct().then(|| self.direct.lines());
        for line in sessions.into_iter().chain(direct).flatten() {
            out.push_str(&folded(&line, width));
            out.push('\n');
        }
        out
    }

    fn lines(&self, longest_bar: u64, clock: impl Fn(u64) -> String) -> Vec<String> {
        let mut lines = vec![format!("{} closes", self.closes)];
        let (attempts, wait_ms) = self.attempts;
        if attempts > 0 {
            let wait = lasted(wait_ms);
            let text = "connections ended before a request was read";
            lines.push(format!("{attempts} {text} (longest wait {wait})"));
        }
        if self.closes == 0 {
            return lines;
        }
        let mut verdicts: Vec<_> = self.verdicts.iter().collect();
        verdicts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((verdict, segment), count) in verdicts {
            lines.push(format!("  {count:>8}  {verdict:18}  {segment}"));
        }
        if self.reconciled > 0 {
            lines.push(format!("reconciled by t3-trace: {}", self.reconciled));
        }
        lines.push(format!("sessions lasted    {}", self.lengths.text()));
        lines.push(format!("reconnected after  {}", self.gaps.text()));
        lines.push(format!("mass disconnects (>= {BURST} in 1 s): {}", self.bursts));
        for (ends, at) in &self.largest {
            lines.push(format!("  {ends:>8}  {}", clock(*at)));
        }
        let mut users: Vec<_> = self.users.iter().filter(|(_, (cut, _))| *cut > 0).collect();
        users.sort_by_key(|(name, (cut, _))| (std::cmp::Reverse(*cut), name.as_str()));
        lines.push(format!("users with unexpected disconnects: {}", users.len()));
        for (name, (cut, all)) in users.into_iter().take(NAMED) {
            lines.push(format!("  {cut:>8}  {} (of {all} closes)", safe(name)));
        }
        let width = self.times.width();
        let per = if width == 60 { "minute".to_owned() } else { lasted(width * 1000) };
        lines.push(format!("closes per {per}"));
        let most = self.times.bars.values().max().copied().unwrap_or(1);
        let ends = self.times.bars.keys().next().zip(self.times.bars.keys().next_back());
        for bar in ends.map(|(first, last)| *first..=*last).into_iter().flatten() {
            let count = self.times.bars.get(&bar).copied().unwrap_or(0);
            let length = usize::try_from((count * longest_bar).div_ceil(most)).unwrap_or(0);
            let line = format!("  {}  {count:>8}  {}", clock(bar * width), "#".repeat(length));
            lines.push(line.trim_end().to_owned());
        }
        lines
    }
}

/// Counts over time, in minutes doubled until [`BARS`] are enough.
#[derive(Debug, Default)]
struct Times {
    doubled: u32,
    bars: BTreeMap<u64, u64>,
}

impl Times {
    fn width(&self) -> u64 {
        60 << self.doubled
    }

    fn add(&mut self, at: u64) {
        *self.bars.entry(at / self.width()).or_default() += 1;
        while let Some((first, last)) = self.bars.keys().next().zip(self.bars.keys().next_back())
            && last - first >= BARS
        {
            self.doubled += 1;
            let mut wider = BTreeMap::new();
            for (bar, count) in &self.bars {
                *wider.entry(bar / 2).or_default() += count;
            }
            self.bars = wider;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tests::record, *};

    #[test]
    fn a_summary_of_a_fixed_list() {
        let mut summary = Summary::default();
        for n in 0..6 {
            summary.close(&record("alice", Verdict::ServeOom, Segment::Serve, 1000 * n), 600);
        }
        summary.close(&record("bob", Verdict::ClientClosed, Segment::Downstream, 60_000), 720);
        summary.gap(50);
        let expected = "\
7 closes
         6  serve_oom           serve
         1  client_closed       downstream
sessions lasted    p10 0ms  p50 2.9s  p90 59.3s  p99 59.3s  max 59.3s
reconnected after  p10 50ms  p50 50ms  p90 50ms  p99 50ms  max 50ms
mass disconnects (>= 5 in 1 s): 1
         6  @600
users with unexpected disconnects: 1
         6  alice (of 6 closes)
closes per minute
  @600         6  ########################################
  @660         0
  @720         1  #######
";
        assert_eq!(summary.text(ViaFilter::Dispatch, None, |at| format!("@{at}")), expected);
        assert_eq!(Summary::default().text(ViaFilter::Dispatch, None, |_| String::new()), "0 closes\n");
    }

    #[test]
    fn attempts_and_reconciled_records_have_a_line() {
        let mut summary = Summary::default();
        summary.attempts(3, 9120);
        summary.attempts(4, 20);
        let attempts = "7 connections ended before a request was read (longest wait 9.1s)\n";
        let mut reconciled = record("alice", Verdict::DispatchDied, Segment::Dispatch, 1);
        reconciled.reconciled = Some(t3_record::vocabulary::Reconciled::Journal);
        assert_eq!(
            summary.text(ViaFilter::Dispatch, None, |_| String::new()),
            format!("0 closes\n{attempts}")
        );
        let mut summary = Summary::default();
        summary.close(&reconciled, 1);
        summary.close(&record("bob", Verdict::ClientClosed, Segment::Downstream, 1), 1);
        let text = summary.text(ViaFilter::Dispatch, None, |_| String::new());
        assert!(text.contains("\nreconciled by t3-trace: 1\n") && !text.contains("connections"), "{text}");
    }

    proptest! {
        #[test]
        fn bars_count_every_close_and_are_limited(
            times in prop::collection::vec(0..4_000_000_000_u64, 1..200),
        ) {
            let mut kept = Times::default();
            times.iter().for_each(|at| kept.add(*at));
            prop_assert_eq!(kept.bars.values().sum::<u64>(), times.len() as u64);
            prop_assert!(kept.bars.len() as u64 <= BARS);
        }
    }
}
