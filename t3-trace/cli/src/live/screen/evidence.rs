//! One close as a page for a person: what was concluded, and everything that was seen, in words.
//! Pure. Says nothing that the record does not say; what cannot be put in words stands in the
//! record itself at the end.

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
    verdict_text,
};

/// A heading and what stands under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// One thing each. May hold text from outside: not yet safe to print.
    pub lines: Vec<String>,
}

/// All of it. `when` is the time of the close, as text.
#[must_use]
pub fn page(record: &CloseRecord, when: &str) -> Vec<Section> {
    let sections = [
        Section { title: "What happened", lines: conclusion(record) },
        Section { title: "Session", lines: session(record, when) },
        Section { title: "In this order", lines: order(record) },
        Section { title: "Heartbeat", lines: heartbeat(record) },
        Section { title: "serve's process", lines: process(record) },
        Section { title: "Machine", lines: machine(record) },
        Section { title: "Connections", lines: connections(record) },
        Section { title: "The record", lines: vec![record.to_line()] },
    ];
    sections.into_iter().filter(|section| !section.lines.is_empty()).collect()
}

fn conclusion(record: &CloseRecord) -> Vec<String> {
    let mut lines =
        vec![verdict_text::label(record.verdict).to_owned(), answer::sentence(record), answer::sure(record)];
    lines.extend(record.closed_by.map(|end| {
        match end {
            ClosedBy::Downstream => "The downstream leg acted first, which does not make it the cause.",
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
    if let Some(side) = record.ws_from {
        let who = match side {
            Side::Down => "the browser's side",
            Side::Up => "serve",
        };
        let code = record.ws_code.map_or_else(|| "without a code".to_owned(), |code| code.to_string());
        let reason = record.ws_reason.as_ref().map_or_else(String::new, |reason| format!(" \"{reason}\""));
        lines.push(format!("first close frame: from {who}, {code}{reason}"));
    }
    lines
}

fn order(record: &CloseRecord) -> Vec<String> {
    let events = record.chain.as_ref().map(chain_text::texts).unwrap_or_default();
    let mut lines: Vec<String> =
        events.iter().map(|event| format!("{:>9}  {}", event.at, event.what)).collect();
    if lines.is_empty() {
        lines.extend(record.down_end.map(|end| format!("browser's leg: {}", leg_end(end))));
        lines.extend(record.up_end.map(|end| format!("serve's leg: {}", leg_end(end))));
    }
    lines
}

const fn leg_end(end: LegEnd) -> &'static str {
    match end {
        LegEnd::FinIn => "ended by the other side (FIN)",
        LegEnd::RstIn => "reset by the other side (RST)",
        LegEnd::FinOut => "ended by the proxy (FIN)",
        LegEnd::RstOut => "reset by this machine (RST)",
        LegEnd::Timeout => "the other side no longer answered",
        LegEnd::Abort => "destroyed by an administrator",
        LegEnd::Refused => "refused",
        LegEnd::Unreach => "could not be reached",
        LegEnd::None => "never came to be",
    }
}

fn heartbeat(record: &CloseRecord) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(count) = record.hb_n {
        let period = record.hb_period_ms.map_or_else(String::new, |ms| format!(", one every {}", lasted(ms)));
        let gap = record
            .hb_gap_ms
            .map_or_else(String::new, |ms| format!(", the last {} before the close", lasted(ms)));
        lines.push(format!("{count} seen{period}{gap}"));
    }
    if let Some(rtt) = record.hb_rtt_ms {
        let worst = record.hb_rtt_max_ms.map_or_else(String::new, |ms| format!(", at worst {}", lasted(ms)));
        lines.push(format!("answered last in {}{worst}", lasted(rtt)));
    }
    match record.hb_wait_ms {
        Some(wait) => lines.push(format!("one was not answered: it had waited {}", lasted(wait))),
        None if record.hb_n.is_some_and(|count| count > 0) => lines.push("all were answered".to_owned()),
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
            Fate::Signal(signal) => format!("died of {}", signal_name(signal)),
            Fate::Oom => "killed by the OOM killer".to_owned(),
        };
        let killer =
            record.killed_by.as_ref().map_or_else(String::new, |killer| format!(", sent by {killer}"));
        lines.push(format!("{comm}{pid}: {fate}{killer}"));
    }
    lines.extend(record.oom_victim.as_ref().map(|victim| format!("the OOM killer's victim: {victim}")));
    lines
}

fn machine(record: &CloseRecord) -> Vec<String> {
    let percents = |values: [(&str, Option<Percent>); 3]| {
        let known = values.into_iter().filter_map(|(name, value)| Some(format!("{name} {:.1}%", value?.0)));
        Some(known.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
    };
    let mut lines = Vec::new();
    let user = percents([("mem", record.psi_mem), ("io", record.psi_io), ("cpu", record.psi_cpu)]);
    lines.extend(user.map(|text| format!("stalled in the last 10 s, user's cgroup: {text}")));
    let full = percents([("mem", record.psi_mem_full), ("io", record.psi_io_full), ("", None)]);
    lines.extend(full.map(|text| format!("of that with every task stalled: {text}")));
    let peak =
        percents([("mem", record.psi_mem_peak), ("io", record.psi_io_peak), ("cpu", record.psi_cpu_peak)]);
    lines.extend(peak.map(|text| format!("worst second of the last 30 s: {text}")));
    let host =
        percents([("mem", record.host_psi_mem), ("io", record.host_psi_io), ("cpu", record.host_psi_cpu)]);
    lines.extend(host.map(|text| format!("whole machine in the last 10 s: {text}")));
    if lines.is_empty() {
        lines.push("its pressure is not known".to_owned());
    }
    if let Some(current) = record.mem_current {
        let most = record.mem_max.map_or_else(String::new, |most| format!(" of {}", bytes(most)));
        lines.push(format!("user's cgroup held {}{most} of memory", bytes(current)));
    }
    lines.extend(
        record
            .oom_kills
            .filter(|kills| *kills > 0)
            .map(|kills| format!("OOM kills in the last minute: {kills}")),
    );
    lines.extend(
        record.self_lag_ms.map(|lag| format!("the proxy itself was late by {} at worst", lasted(lag))),
    );
    lines
}

fn connections(record: &CloseRecord) -> Vec<String> {
    let traffic = |who, count: Option<u64>, msgs: Option<u64>, idle: Option<u64>| {
        let mut parts = vec![format!("{} in {} messages", bytes(count?), msgs?)];
        parts.extend(idle.map(|idle| format!("the last byte {} before the close", lasted(idle))));
        Some(format!("from {who}: {}", parts.join(", ")))
    };
    let leg = |who, rtt: Option<u32>, retrans: Option<u32>, unacked: Option<u32>, lost: Option<u32>| {
        let mut parts: Vec<String> =
            rtt.map(|rtt| format!("round trip {:.2} ms", f64::from(rtt) / 1000.0)).into_iter().collect();
        for (count, what) in
            [(retrans, "retransmits"), (unacked, "segments not acknowledged"), (lost, "segments lost")]
        {
            parts.extend(count.filter(|count| *count > 0).map(|count| format!("{count} {what}")));
        }
        (!parts.is_empty()).then(|| format!("{who} leg: {}", parts.join(", ")))
    };
    let browser = "downstream";
    let mut lines: Vec<String> = [
        traffic("the browser", record.down_bytes, record.down_msgs, record.down_idle_ms),
        traffic("serve", record.up_bytes, record.up_msgs, record.up_idle_ms),
        leg(browser, record.down_rtt_us, record.down_retrans, record.down_unacked, record.down_lost),
        leg("upstream", record.up_rtt_us, record.up_retrans, record.up_unacked, record.up_lost),
    ]
    .into_iter()
    .flatten()
    .collect();
    lines.extend(
        record.rst_reason.as_ref().map(|reason| format!("the kernel's reason for the reset: {reason}")),
    );
    match record.kernel {
        KernelSource::Off => {
            lines
                .push("no kernel evidence: t3-trace was not there or could not load its programs".to_owned());
        }
        KernelSource::Timeout => lines.push("no kernel evidence: t3-trace did not answer in time".to_owned()),
        KernelSource::Kprobe | KernelSource::Tracepoint => {}
    }
    lines.extend(record.lost.map(|lost| format!("kernel events lost since the record before: {lost}")));
    lines
}

/// A number of bytes for people: `918 B`, `20.1 kB`, `24.0 GB`.
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
    fn a_kill_is_told_with_all_that_was_seen() {
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
            "node[4242]: died of SIGKILL (9), sent by systemd[1]",
            "all were answered",
        ] {
            assert!(text.iter().any(|line| line == wanted), "{wanted:?} in {text:#?}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_told_as_zero() {
        let sections = page(&record("c", "u", Verdict::Unknown, Segment::Unknown), "12:00:05");
        let titles: Vec<_> = sections.iter().map(|section| section.title).collect();
        assert_eq!(titles, ["What happened", "Session", "Machine", "The record"]);
        assert_eq!(sections[2].lines, ["its pressure is not known"]);
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
