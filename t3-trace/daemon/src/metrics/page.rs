//! Metrics in the text format of Prometheus. Pure.

use std::fmt::Write as _;

use super::closes::Closes;

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const CLOSES: Family = Family {
    name: "t3_trace_tcp_closes_total",
    kind: "counter",
    labels: &["port", "verdict"],
    help: "Records of closed connections that t3-dispatch did not carry (`tcp close`), by listening port (up to 32, more are `other`; of outgoing connections `outgoing`) and verdict.",
};
const SHORT: Family = plain(
    "t3_trace_tcp_short_total",
    "counter",
    "Closed connections to watched ports that were shorter than the minimum of their port: counted, not recorded; those of t3-dispatch are among them.",
);
const OVER_BUDGET: Family = plain(
    "t3_trace_tcp_over_budget_total",
    "counter",
    "Closed connections without a record because the budget of their port was used up.",
);
const LOST: Family = plain(
    "t3_trace_tcp_lost_total",
    "counter",
    "Closed connections without a record because the ring of the kernel was full.",
);
const PORTS: Family =
    plain("t3_trace_watched_ports", "gauge", "Ports whose closed connections are recorded.");
const EVENTS_LOST: Family = plain(
    "t3_trace_kernel_events_lost_total",
    "counter",
    "Kernel events lost since the start, of sessions of t3-dispatch, too.",
);
const EVIDENCE: Family =
    plain("t3_trace_kernel_evidence", "gauge", "1 while the eBPF programs are loaded, else 0.");
const START: Family =
    plain("t3_trace_start_time_seconds", "gauge", "Unix time of the start of t3-trace, in seconds.");
const TIME: Family = plain(
    "t3_trace_metrics_time_seconds",
    "gauge",
    "Unix time at which t3-trace wrote these metrics, in seconds.",
);

/// All metrics, in the order of the page.
pub const FAMILIES: [Family; 9] =
    [CLOSES, SHORT, OVER_BUDGET, LOST, PORTS, EVENTS_LOST, EVIDENCE, START, TIME];

const fn plain(name: &'static str, kind: &'static str, help: &'static str) -> Family {
    Family { name, kind, labels: &[], help }
}

/// The values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) closes: Closes,
    pub(crate) short: u64,
    pub(crate) over_budget: u64,
    pub(crate) lost: u64,
    pub(crate) ports: u64,
    pub(crate) events_lost: u64,
    pub(crate) has_evidence: bool,
    /// Unix time in seconds.
    pub(crate) started_at: u64,
    /// Unix time in seconds.
    pub(crate) now: u64,
}

impl Snapshot {
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        for family in FAMILIES {
            let Family { name, kind, labels: _, help } = family;
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
            let value = match family {
                SHORT => self.short,
                OVER_BUDGET => self.over_budget,
                LOST => self.lost,
                PORTS => self.ports,
                EVENTS_LOST => self.events_lost,
                EVIDENCE => u64::from(self.has_evidence),
                START => self.started_at,
                TIME => self.now,
                _ => {
                    for (port, verdict, count) in self.closes.series() {
                        let _ = writeln!(page, "{name}{{port=\"{port}\",verdict=\"{verdict}\"}} {count}");
                    }
                    continue;
                }
            };
            let _ = writeln!(page, "{name} {value}");
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use t3_record::Verdict;

    use super::*;

    #[test]
    fn each_metric_has_its_value_help_and_type() {
        let mut closes = Closes::default();
        closes.count(Some(8080), Verdict::ServeKilled);
        let snapshot = Snapshot {
            closes,
            short: 1,
            over_budget: 2,
            lost: 3,
            ports: 4,
            events_lost: 5,
            has_evidence: true,
            started_at: 6,
            now: 7,
        };
        let page = snapshot.page();
        let lines: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(
            lines.contains(&"t3_trace_tcp_closes_total{port=\"8080\",verdict=\"serve_killed\"} 1"),
            "{page}"
        );
        assert!(
            lines.contains(&"t3_trace_tcp_closes_total{port=\"8080\",verdict=\"client_left\"} 0"),
            "{page}"
        );
        let rest: Vec<_> = lines.into_iter().filter(|line| !line.contains('{')).collect();
        assert_eq!(
            rest,
            [
                "t3_trace_tcp_short_total 1",
                "t3_trace_tcp_over_budget_total 2",
                "t3_trace_tcp_lost_total 3",
                "t3_trace_watched_ports 4",
                "t3_trace_kernel_events_lost_total 5",
                "t3_trace_kernel_evidence 1",
                "t3_trace_start_time_seconds 6",
                "t3_trace_metrics_time_seconds 7",
            ]
        );
        for family in FAMILIES {
            assert!(page.contains(&format!("# TYPE {} {}\n", family.name, family.kind)));
            assert_eq!(family.kind == "counter", family.name.ends_with("_total"), "{}", family.name);
        }
    }
}
