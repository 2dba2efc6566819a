//! Evidence page of one close: conclusion, all facts in words, and the record. Pure.
//! States only what the record contains.

use t3_record::{
    CloseRecord,
    evidence::Fate,
    value::Percent,
    vocabulary::{ClosedBy, KernelSource, LegEnd, Side},
};

use crate::present::{
    answer,
    chain_text::{self, signal_name},
    text::lasted,
    units, verdict_text,
};

/// A heading and its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub title: &'static str,
    /// May contain text from outside: not yet safe to print.
    pub lines: Vec<String>,
}

/// Returns the sections of the page. `when` is the formatted time of the close.
#[must_use]
pub fn page(record: &CloseRecord, when: &str) -> Vec<Section> {
    let sections = [
        Section { title: "Conclusion", lines: conclusion(record) },
        Section { title: "Session", lines: session(record, when) },
        Section { title: "Timeline", lines: order(record) },
        Section { title: "Heartbeat", lines: heartbeat(record) },
        Section { title: "serve process", lines: process(record) },
        Section { title: "Host", lines: host(record) },
        Section { title: "Connections", lines: connections(record) },
        Section { title: "Record", lines: vec![record.to_line()] },
    ];
    sections.into_iter().filter(|section| !section.lines.is_empty()).collect()
}

fn conclusion(record: &CloseRecord) -> Vec<String> {
    let mut lines = vec![
        verdict_text::close_label(record).to_owned(),
        answer::sentence(record),
        answer::confidence(record),
    ];
    lines.extend(record.closed_by.map(|end| {
        match end {
            ClosedBy::Downstream => "The downstream leg acted first; that alone does not make it the cause.",
            ClosedBy::Upstream => "The upstream leg acted first.",
            ClosedBy::Dispatch => "The proxy or the kernel of this host acted first.",
            ClosedBy::Both => "Both ends acted before either saw the other's close.",
        }
        .to_owned()
    }));
    lines
}

fn session(record: &CloseRecord, when: &str) -> Vec<String> {
    let mut lines = vec![
        format!("user {}, from {}, closed at {when} after {}", record.user, record.ip, lasted(record.dur_ms)),
        format!("conn {}", record.conn),
    ];
    if let Some(ray) = &record.ray {
        lines[1].push_str(&format!(", Cloudflare ray {ray}"));
    }
    if let Some(times) = record.resumed {
        let restarts = units::count(u64::from(times), "restart");
        let last = record
            .resumed_ms
            .map_or_else(String::new, |ms| format!(", the last one {} before the close", lasted(ms)));
        lines.push(format!("continued over {restarts} of t3-dispatch{last}"));
    }
    if let Some(side) = record.ws_from {
        let who = match side {
            Side::Down => "client",
            Side::Up => "serve",
        };
        let code = record.ws_code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
        let reason = record.ws_reason.as_ref().map_or_else(String::new, |reason| format!(" \"{reason}\""));
        lines.push(format!("first Close frame: from {who}, {code}{reason}"));
    }
    lines
}

fn order(record: &CloseRecord) -> Vec<String> {
    let events = record.chain.as_ref().map(chain_text::texts).unwrap_or_default();
    let mut lines: Vec<String> =
        events.iter().map(|event| format!("{:>9}  {}", event.at, event.what)).collect();
    if lines.is_empty() {
        lines.extend(record.down_end.map(|end| format!("downstream leg: {}", leg_end(end))));
        lines.extend(record.up_end.map(|end| format!("upstream leg: {}", leg_end(end))));
    }
    lines
}

const fn leg_end(end: LegEnd) -> &'static str {
    match end {
        LegEnd::FinIn => "FIN received",
        LegEnd::RstIn => "RST received",
        LegEnd::FinOut => "FIN sent",
        LegEnd::RstOut => "RST sent",
        LegEnd::Timeout => "TCP timeout",
        LegEnd::Abort => "destroyed locally (ss -K or similar)",
        LegEnd::Refused => "refused",
        LegEnd::Unreach => "unreachable",
        LegEnd::None => "not established",
    }
}

fn heartbeat(record: &CloseRecord) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(count) = record.hb_n {
        let period = record.hb_period_ms.map_or_else(String::new, |ms| format!(", period {}", lasted(ms)));
        let gap = record
            .hb_gap_ms
            .map_or_else(String::new, |ms| format!(", last one {} before the close", lasted(ms)));
        lines.push(format!("{count} pings{period}{gap}"));
    }
    if let Some(rtt) = record.hb_rtt_ms {
        let worst = record.hb_rtt_max_ms.map_or_else(String::new, |ms| format!(", max {}", lasted(ms)));
        lines.push(format!("RTT {}{worst}", lasted(rtt)));
    }
    match record.hb_wait_ms {
        Some(wait) => lines.push(format!("last ping unanswered for {}", lasted(wait))),
        None if record.hb_n.is_some_and(|count| count > 0) => lines.push("all pings answered".to_owned()),
        None => {}
    }
    lines
}

fn process(record: &CloseRecord) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(fate) = record.peer_exit {
        let comm = record.peer_comm.as_deref().unwrap_or("process");
        let pid = record.peer_pid.map_or_else(String::new, |pid| format!("[{pid}]"));
        let fate = match fate {
            Fate::Alive => "alive".to_owned(),
            Fate::Exit(status) => format!("exited with status {status}"),
            Fate::Signal(signal) => format!("killed by {}", signal_name(signal)),
            Fate::Oom => "killed by the OOM killer".to_owned(),
        };
        let killer =
            record.killed_by.as_ref().map_or_else(String::new, |killer| format!(", sent by {killer}"));
        lines.push(format!("{comm}{pid}: {fate}{killer}"));
    }
    lines.extend(record.oom_victim.as_ref().map(|victim| format!("OOM victim: {victim}")));
    lines
}

fn host(record: &CloseRecord) -> Vec<String> {
    let percents = |values: [(&str, Option<Percent>); 3]| {
        let known = values.into_iter().filter_map(|(name, value)| Some(format!("{name} {:.1}%", value?.0)));
        Some(known.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
    };
    let mut lines = Vec::new();
    let user = percents([("mem", record.psi_mem), ("io", record.psi_io), ("cpu", record.psi_cpu)]);
    lines.extend(user.map(|text| format!("PSI some (10 s), user's cgroup: {text}")));
    let full = percents([("mem", record.psi_mem_full), ("io", record.psi_io_full), ("", None)]);
    lines.extend(full.map(|text| format!("PSI full (10 s), user's cgroup: {text}")));
    let peak =
        percents([("mem", record.psi_mem_peak), ("io", record.psi_io_peak), ("cpu", record.psi_cpu_peak)]);
    lines.extend(peak.map(|text| format!("PSI some, worst second of the last 30 s: {text}")));
    let host_psi =
        percents([("mem", record.host_psi_mem), ("io", record.host_psi_io), ("cpu", record.host_psi_cpu)]);
    lines.extend(host_psi.map(|text| format!("host PSI some (10 s): {text}")));
    if lines.is_empty() {
        lines.push("pressure unknown".to_owned());
    }
    if let Some(current) = record.mem_current {
        let most = record.mem_max.map_or_else(String::new, |most| format!(" of {}", bytes(most)));
        lines.push(format!("memory of the user's cgroup: {}{most}", bytes(current)));
    }
    lines.extend(
        record
            .oom_kills
            .filter(|kills| *kills > 0)
            .map(|kills| format!("OOM kills in the last minute: {kills}")),
    );
    lines
        .extend(record.mem_high.map(|times| format!("throttled at memory.high in the last minute: {times}")));
    lines.extend(record.self_lag_ms.map(|lag| format!("event loop lag of the proxy: max {}", lasted(lag))));
    lines
}

fn connections(record: &CloseRecord) -> Vec<String> {
    let traffic = |who, count: Option<u64>, msgs: Option<u64>, idle: Option<u64>| {
        let mut parts = vec![format!("{} in {} messages", bytes(count?), msgs?)];
        parts.extend(idle.map(|idle| format!("last byte {} before the close", lasted(idle))));
        Some(format!("from {who}: {}", parts.join(", ")))
    };
    let leg = |who, rtt: Option<u32>, retrans: Option<u32>, unacked: Option<u32>, lost: Option<u32>| {
        let mut parts: Vec<String> =
            rtt.map(|rtt| format!("RTT {:.2} ms", f64::from(rtt) / 1000.0)).into_iter().collect();
        for (count, what) in [(retrans, "retransmits"), (unacked, "unacknowledged"), (lost, "lost")] {
            parts.extend(count.filter(|count| *count > 0).map(|count| format!("{count} {what}")));
        }
        (!parts.is_empty()).then(|| format!("{who} leg: {}", parts.join(", ")))
    };
    let mut lines: Vec<String> = [
        traffic("client", record.down_bytes, record.down_msgs, record.down_idle_ms),
        traffic("serve", record.up_bytes, record.up_msgs, record.up_idle_ms),
        leg("downstream", record.down_rtt_us, record.down_retrans, record.down_unacked, record.down_lost),
        leg("upstream", record.up_rtt_us, record.up_retrans, record.up_unacked, record.up_lost),
    ]
    .into_iter()
    .flatten()
    .collect();
    lines.extend(record.rst_reason.as_ref().map(|reason| format!("RST reason (kernel): {reason}")));
    match record.kernel {
        KernelSource::Off => {
            lines.push(
                "no kernel evidence: t3-trace was not running or could not load its eBPF programs".to_owned(),
            );
        }
        KernelSource::Timeout => lines.push("no kernel evidence: t3-trace did not answer in time".to_owned()),
        KernelSource::Kprobe | KernelSource::Tracepoint => {}
    }
    lines.extend(record.lost.map(|lost| format!("kernel events lost since the previous record: {lost}")));
    lines
}

/// Formats a number of bytes: `918 B`, `20.1 kB`, `24.0 GB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    let mut unit = 1000_u64;
    for name in ["kB", "MB", "GB", "TB"] {
        if count < unit.saturating_mul(1000) {
            let tenths = count / (unit / 10);
            return if count < 1000 {
                format!("{count} B")
            } else {
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            };
        }
        unit = unit.saturating_mul(1000);
    }
    format!("{} PB", count / 1_000_000_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::screen::testing::{self, record};
    use t3_record::vocabulary::{Segment, Verdict};

    #[test]
    fn the_page_of_a_kill_has_all_facts() {
        let sections = page(&testing::killed(), "12:00:05");
        let text: Vec<String> = sections
            .iter()
            .flat_map(|section| std::iter::once(section.title.to_owned()).chain(section.lines.clone()))
            .collect();
        for wanted in [
            "serve killed by signal",
            "wizard's serve was killed by SIGKILL (9), sent by systemd[1].",
            "Proven: serve process node[4242] killed by SIGKILL (9) (kernel event).",
            "    -2 ms  serve process killed by SIGKILL (9)",
            "node[4242]: killed by SIGKILL (9), sent by systemd[1]",
            "all pings answered",
        ] {
            assert!(text.iter().any(|line| line == wanted), "{wanted:?} in {text:#?}");
        }
    }

    #[test]
    fn unknown_values_are_not_shown_as_zero() {
        let sections = page(&record("c", "u", Verdict::Unknown, Segment::Unknown), "12:00:05");
        let titles: Vec<_> = sections.iter().map(|section| section.title).collect();
        assert_eq!(titles, ["Conclusion", "Session", "Host", "Record"]);
        assert_eq!(sections[2].lines, ["pressure unknown"]);
    }

    #[test]
    fn bytes_have_one_unit() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20_114, "20.1 kB"),
            (999_999, "999.9 kB"),
            (25_769_803_776, "25.7 GB"),
            (7_000_000_000_000_000, "7 PB"),
            (u64::MAX, "18446 PB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
