//! Next steps after a close, with commands that can be pasted. The texts are in
//! `present/verdict_text.rs`. Pure.

use t3_record::{CloseRecord, Segment, Verdict, edge::Part};

use crate::present::verdict_text::{self, QUERY_EDGE};

/// Time range for the commands, in journalctl's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub since: String,
    pub until: String,
}

/// Result of the queries to the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EdgeFindings {
    /// The edge logs have been read.
    pub queried: bool,
    /// The hop that they name.
    pub part: Option<Part>,
}

/// Returns the steps, most important first.
#[must_use]
pub fn steps(record: &CloseRecord, window: &Window, front: EdgeFindings) -> Vec<String> {
    let mut steps: Vec<String> = verdict_text::next_steps(record.verdict, record.how)
        .iter()
        .filter(|step| !(front.queried && **step == QUERY_EDGE))
        .map(|step| filled(step, record, window))
        .collect();
    if let Some(part) = front.part {
        let step = match part {
            Part::Traefik => "Check Traefik: was it restarted or reloaded, was its node unreachable?",
            Part::Tunnel => {
                "Check cloudflared and the line to Cloudflare: was it restarted, was the WAN down?"
            }
            Part::Edge => "Cloudflare ended the session: a code release or a limit; see its status page.",
            Part::Proxy => {
                "Check the proxy in front of t3-dispatch: was it restarted, which timeout did it use?"
            }
            Part::BehindEdge => {
                "Check cloudflared, the line to Cloudflare and Traefik: was one of them restarted?"
            }
            Part::BeforeProxy => {
                "Query cloudflared's log and --logpush: they tell the user's side from the tunnel."
            }
            Part::LastMile => {
                "The cause is on the user's side: Wi-Fi, a suspended laptop or a VPN; ask the user."
            }
        };
        steps.insert(0, step.to_owned());
    }
    let can_starve =
        matches!(record.verdict, Verdict::ServeStalled | Verdict::ServeTimeout | Verdict::DispatchStalled);
    if record.segment == Segment::Devvm && can_starve {
        let limits = format!("systemctl show -p MemoryHigh -p MemoryMax {}", unit(record));
        let step =
            format!("Find the load on the host: `systemd-cgtop -m`, `iotop`; limits of serve: `{limits}`.");
        steps.insert(0, step);
    }
    steps
}

/// Replaces the placeholders of a step.
fn filled(step: &str, record: &CloseRecord, window: &Window) -> String {
    let range = format!("--since '{}' --until '{}'", window.since, window.until);
    let unit = unit(record);
    step.replace("{serve_log}", &format!("journalctl -u {unit} {range}"))
        .replace("{dispatch_log}", &format!("journalctl -u t3-dispatch {range}"))
        .replace("{range}", &range)
        .replace("{unit}", &unit)
        .replace("{user}", user(record))
}

fn unit(record: &CloseRecord) -> String {
    format!("t3-serve@{}", user(record))
}

/// Returns the user for a command; `USER` for a name that a shell would split or interpret.
fn user(record: &CloseRecord) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let name = record.user.as_str();
    if !name.is_empty() && name.chars().all(plain) && !name.starts_with('-') { name } else { "USER" }
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, KernelSource};

    use super::*;

    fn record(user: &str, verdict: Verdict, segment: Segment) -> CloseRecord {
        let (user, ip, conn) = (user.to_owned(), "192.0.2.7".to_owned(), "c1".to_owned());
        CloseRecord::new(user, ip, 5000, Cause::Graceful, verdict, segment, conn, KernelSource::Tracepoint)
    }

    fn of(record: &CloseRecord) -> Vec<String> {
        with(record, EdgeFindings::default())
    }

    fn with(record: &CloseRecord, front: EdgeFindings) -> Vec<String> {
        steps(
            record,
            &Window { since: "2026-11-25 14:09:00".to_owned(), until: "2026-11-25 14:11:00".to_owned() },
            front,
        )
    }

    #[test]
    fn the_edge_is_queried_once_and_the_hop_that_it_names_comes_first() {
        for verdict in [Verdict::EdgeBurst, Verdict::PathStalled] {
            let record = record("ann", verdict, Segment::Downstream);
            assert!(of(&record).iter().any(|step| step.contains("--loki")), "{verdict}");
            for part in Part::ALL {
                let steps = with(&record, EdgeFindings { queried: true, part: Some(*part) });
                assert!(!steps.iter().any(|step| step.contains("--loki")), "{steps:?}");
                let first = steps[0].to_lowercase();
                let named = [
                    "check traefik",
                    "check cloudflared and",
                    "is on the user's side",
                    "cloudflare ended",
                    "check the proxy",
                    "check cloudflared, the",
                    "query cloudflared's",
                ]
                .iter()
                .position(|name| first.contains(name));
                assert_eq!(named, Part::ALL.iter().position(|one| one == part), "{steps:?}");
            }
        }
    }

    #[test]
    fn every_verdict_has_a_next_step_that_is_a_sentence() {
        for verdict in Verdict::ALL {
            let steps = of(&record("ann", *verdict, Segment::Unknown));
            assert!(!steps.is_empty(), "{verdict}");
            for step in steps {
                assert!(step.ends_with(['.', '?', '`']), "{verdict}: {step}");
                assert_eq!(step.matches('`').count() % 2, 0, "{verdict}: {step}");
            }
        }
    }

    #[test]
    fn commands_name_the_user_and_the_time() {
        let steps = of(&record("ann", Verdict::ServeClosed, Segment::Serve));
        let command =
            "`journalctl -u t3-serve@ann --since '2026-11-25 14:09:00' --until '2026-11-25 14:11:00'`";
        assert!(steps[0].contains(command), "{steps:?}");
        let starved = of(&record("ann", Verdict::ServeStalled, Segment::Devvm));
        assert!(starved[0].contains("MemoryHigh") && starved.len() > 1, "{starved:?}");
        assert!(!of(&record("ann", Verdict::AdminKilled, Segment::Devvm))[0].contains("MemoryHigh"));
    }

    #[test]
    fn a_name_that_a_shell_would_interpret_is_not_in_a_command() {
        for hostile in ["a;rm -rf /", "$(id)", "--help", "", "a'b", "a\nb", "ä"] {
            for step in of(&record(hostile, Verdict::ServeClosed, Segment::Serve)) {
                assert!(
                    step.contains("t3-serve@USER ") && (hostile.is_empty() || !step.contains(hostile)),
                    "{step}"
                );
            }
        }
    }
}
