//! Summary of connections that t3-dispatch did not carry: by verdict, and by port and unit. Pure
//! and bounded.

use std::collections::BTreeMap;

use t3_record::{Segment, TcpCloseRecord, Verdict};

use super::histogram::Histogram;
use crate::present::{
    text::safe,
    units::count,
    verdict_text::{Tone, tone},
};

/// Ports that are listed.
const NAMED: usize = 10;
/// Ports with their units that are counted separately.
const MOST: usize = 4_096;

/// Connections of one port and unit.
#[derive(Debug, Default, Clone, Copy)]
struct Ends {
    /// Unexpected disconnects.
    cut: u64,
    all: u64,
}

/// The summary so far.
#[derive(Debug, Default)]
pub struct DirectSummary {
    closes: u64,
    verdicts: BTreeMap<(Verdict, Segment), u64>,
    /// By direction (`true`: outgoing), port and unit, else process.
    ports: BTreeMap<(bool, u16, String), Ends>,
    /// Of further ports.
    others: Ends,
    lengths: Histogram,
    /// Connections that are older than the watch: their duration is a minimum.
    older: u64,
}

impl DirectSummary {
    /// Counts a close.
    pub fn close(&mut self, record: &TcpCloseRecord) {
        self.closes += 1;
        *self.verdicts.entry((record.verdict, record.segment)).or_default() += 1;
        if record.dur_min == Some(true) {
            self.older += 1;
        } else {
            self.lengths.add(record.dur_ms);
        }
        let unit = if record.is_outgoing() {
            record.client_unit.as_ref().or(record.client_comm.as_ref())
        } else {
            record.peer_unit.as_ref().or(record.peer_comm.as_ref())
        };
        let key = (record.is_outgoing(), record.port, unit.cloned().unwrap_or_default());
        let has_room = self.ports.len() < MOST;
        let ends = match self.ports.get_mut(&key) {
            Some(ends) => ends,
            None if has_room => self.ports.entry(key).or_default(),
            None => &mut self.others,
        };
        ends.cut += u64::from(tone(record.verdict, record.segment) != Tone::Fine);
        ends.all += 1;
    }

    /// The lines, one each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![count(self.closes, "direct connection")];
        if self.closes == 0 {
            return lines;
        }
        let mut verdicts: Vec<_> = self.verdicts.iter().collect();
        verdicts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((verdict, segment), count) in verdicts {
            lines.push(format!("  {count:>8}  {verdict:18}  {segment}"));
        }
        lines.push(format!("connections lasted {}", self.lengths.text()));
        if self.older > 0 {
            lines.push(format!("older than the watch, of unknown duration: {}", self.older));
        }
        lines.push("unexpected disconnects by port".to_owned());
        let mut ports: Vec<_> = self.ports.iter().collect();
        ports.sort_by_key(|(key, ends)| (std::cmp::Reverse((ends.cut, ends.all)), *key));
        let mut rest = self.others;
        for (_, ends) in ports.iter().skip(NAMED) {
            (rest.cut, rest.all) = (rest.cut + ends.cut, rest.all + ends.all);
        }
        for ((is_outgoing, port, unit), Ends { cut, all }) in ports.into_iter().take(NAMED) {
            let of = if unit.is_empty() { String::new() } else { format!(" {}", safe(unit)) };
            let to = if *is_outgoing { "to port " } else { ":" };
            lines.push(format!("  {cut:>8}  {to}{port}{of} (of {all} closes)"));
        }
        if rest.all > 0 {
            lines.push(format!("  {:>8}  other ports (of {} closes)", rest.cut, rest.all));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(port: u16, verdict: Verdict, segment: Segment, rest: &str) -> TcpCloseRecord {
        let line = format!(
            "tcp close ip=192.0.2.1 dur_ms=1000 cause=upstream_closed verdict={verdict} segment={segment} conn=d1 \
             port={port} via=direct kernel=tracepoint{rest}"
        );
        TcpCloseRecord::from_line(&line).unwrap()
    }

    #[test]
    fn a_summary_of_a_fixed_list() {
        let mut summary = DirectSummary::default();
        for n in 0..3 {
            let rest =
                if n == 0 { " peer_unit=nginx.service dur_min=true" } else { " peer_unit=nginx.service" };
            summary.close(&record(8080, Verdict::ServeKilled, Segment::Serve, rest));
        }
        summary.close(&record(8080, Verdict::ClientLeft, Segment::Downstream, " peer_unit=nginx.service"));
        summary.close(&record(3773, Verdict::ClientLeft, Segment::Downstream, " peer_comm=node"));
        summary.close(&record(3774, Verdict::ClientReset, Segment::Downstream, ""));
        let rest = " outgoing=true client_unit=cloudflared.service";
        summary.close(&record(8080, Verdict::ServeReset, Segment::Unknown, rest));
        let expected = "\
7 direct connections
         3  serve_killed        serve
         2  client_left         downstream
         1  client_reset        downstream
         1  serve_reset         unknown
connections lasted p10 992ms  p50 992ms  p90 992ms  p99 992ms  max 992ms
older than the watch, of unknown duration: 1
unexpected disconnects by port
         3  :8080 nginx.service (of 4 closes)";
        let text = summary.lines().join("\n");
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("\n         0  :3773 node (of 1 closes)"), "{text}");
        assert!(text.contains("\n         1  to port 8080 cloudflared.service (of 1 closes)"), "{text}");
        assert_eq!(DirectSummary::default().lines(), ["0 direct connections"]);
    }

    #[test]
    fn many_ports_stay_bounded_and_every_close_is_counted() {
        let mut summary = DirectSummary::default();
        for port in 1..=5_000 {
            summary.close(&record(port, Verdict::ServeKilled, Segment::Serve, ""));
        }
        assert_eq!(summary.ports.len(), MOST);
        let lines = summary.lines();
        assert_eq!(lines.len(), 15, "{lines:?}");
        assert_eq!(lines[14], format!("  {:>8}  other ports (of 4990 closes)", 4_990));
    }
}
