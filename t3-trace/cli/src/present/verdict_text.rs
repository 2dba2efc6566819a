//! The text of each verdict: label, meaning, doubt and next steps. Every surface reads this table.
//!
//! docs/VERDICTS.md shows its labels and meanings (`cargo xtask docs`).

use t3_record::{
    CloseRecord, How,
    vocabulary::{Segment, Verdict},
};

/// The text of one verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerdictText {
    /// At most [`WIDTH`] characters. Holds for every mechanism of the verdict.
    pub label: &'static str,
    pub meaning: &'static str,
    /// Why a verdict that is only likely is not proven.
    pub doubt: &'static str,
}

/// Width of the label column in characters: the longest label.
pub const WIDTH: usize = 26;

const INFERRED: &str = "Inferred from timing or from missing events.";
const FATE_UNKNOWN: &str = "serve did end the connection; whether its process is alive is unknown.";

/// Returns the text of a verdict.
#[must_use]
pub const fn text(verdict: Verdict) -> VerdictText {
    let (label, meaning, doubt) = match verdict {
        Verdict::ClientClosed => {
            ("client closed", "The client sent the first Close frame and nothing had stalled.", INFERRED)
        }
        Verdict::ClientLeft => (
            "client FIN, no Close frame",
            "The client ended the TCP connection without a Close frame and nothing had stalled.",
            "The client did leave; how is uncertain, because its FIN was not captured.",
        ),
        Verdict::ClientReset => (
            "client RST",
            "An RST arrived on the downstream leg.",
            "An RST does not show its sender: the client, a hop before it, or a firewall of this host.",
        ),
        Verdict::ClientVanished => (
            "client TCP timeout",
            "The downstream peer stopped responding: keepalive or retransmission timeout, zero window, or \
             unreachable.",
            INFERRED,
        ),
        Verdict::PathStalled => (
            "client path stalled",
            "The client gave up although serve had answered in time: slow line, loss or missing heartbeats \
             between dispatch and client.",
            "Inferred from missing heartbeats or ACKs; a user who left at that moment would look the same.",
        ),
        Verdict::ClientProtocol => {
            ("client protocol error", "The client sent frames that RFC 6455 forbids.", INFERRED)
        }
        Verdict::EdgeBurst => (
            "mass disconnect (edge)",
            "Five or more sessions of several users lost the downstream leg within one second.",
            "One close alone proves nothing; together they point at a component that they share.",
        ),
        Verdict::ServeClosed => {
            ("serve closed", "serve sent the first Close frame; its process is alive.", INFERRED)
        }
        Verdict::ServeLeft => (
            "serve FIN, no Close frame",
            "serve ended the TCP connection without a Close frame; its process is alive.",
            FATE_UNKNOWN,
        ),
        Verdict::ServeReset => ("serve RST", "serve sent RST; its process is alive.", FATE_UNKNOWN),
        Verdict::ServeExited => {
            ("serve exited", "The serve process exited; `how` has the exit status.", INFERRED)
        }
        Verdict::ServeKilled => (
            "serve killed by signal",
            "A signal terminated the serve process; `killed_by` names the sender.",
            INFERRED,
        ),
        Verdict::ServeOom => {
            ("serve OOM-killed", "The kernel's OOM killer terminated the serve process.", INFERRED)
        }
        Verdict::ServeStalled => (
            "serve unresponsive",
            "serve was alive and sent nothing for longer than the client's watchdog, or did not read its \
             socket.",
            "The late reply is certain; that the client gave up because of it is inferred: a user who left \
             at that moment would look the same.",
        ),
        Verdict::ServeRefused => (
            "serve unavailable",
            "At open: the connection was refused, serve was unreachable, or the listener belongs to another \
             user.",
            INFERRED,
        ),
        Verdict::ServeTimeout => (
            "serve open timeout",
            "At open: serve did not accept the connection or did not answer the upgrade in time.",
            "The client left before the timeout of t3-dispatch; it had waited long enough to have given up.",
        ),
        Verdict::ServeRejected => {
            ("serve rejected the upgrade", "At open: serve answered with a status other than 101.", INFERRED)
        }
        Verdict::ServeProtocol => (
            "serve protocol error",
            "serve sent an invalid reply to the upgrade, or frames that RFC 6455 forbids.",
            INFERRED,
        ),
        Verdict::DispatchShutdown => {
            ("proxy shutdown", "t3-dispatch received a stop signal and closed the session.", INFERRED)
        }
        Verdict::DispatchStalled => (
            "proxy stalled",
            "The event loop of t3-dispatch was blocked, or a local error (`how=local_error:N`) prevented the \
             open.",
            "That the client gave up because of it is inferred from the times.",
        ),
        Verdict::DispatchDied => (
            "proxy died",
            "The t3-dispatch process ended with the session open; t3-trace wrote the record.",
            "The cause of its exit is unknown.",
        ),
        Verdict::HostPaused => (
            "host paused",
            "The whole host did not run: VM paused, migrated, suspended or not scheduled.",
            "That the client gave up because of it is inferred from the times.",
        ),
        Verdict::AdminKilled => (
            "socket destroyed locally",
            "A socket of the session was destroyed on this host (`ss -K` or similar).",
            INFERRED,
        ),
        Verdict::Unknown => {
            ("unknown (please report)", "No rule matched; this is a bug.", "No rule matched.")
        }
    };
    VerdictText { label, meaning, doubt }
}

/// Returns the label of a verdict.
#[must_use]
pub const fn label(verdict: Verdict) -> &'static str {
    text(verdict).label
}

/// Returns the label of a close: that of its verdict, except for an end of the host itself.
#[must_use]
pub const fn close_label(record: &CloseRecord) -> &'static str {
    match (record.verdict, record.how) {
        (Verdict::Unknown, Some(How::PowerLoss)) => "host lost power or crashed",
        (Verdict::Unknown, Some(How::Reboot)) => "host rebooted",
        (verdict, _) => label(verdict),
    }
}

/// The step that querying the edge logs replaces.
pub const QUERY_EDGE: &str = "Query the edge logs: run again with --loki and --prometheus, or with --traefik-log and \
                              --cloudflared-log (docs/RUNBOOK.md).";
const SERVE_LOG: &str = "Read the log of serve: `{serve_log}`.";
const DISPATCH_LOG: &str = "`{dispatch_log}`";
const OTHERS: &str = "Check whether other sessions closed at the same time: `t3-trace closes {range}`.";
const RESTARTED: &str = "No action needed if this was a restart or an upgrade.";
const VERSION: &str = "Has its version changed?";

/// Returns the steps after a close, most important first. `{user}`, `{unit}`, `{range}`,
/// `{serve_log}` and `{dispatch_log}` stand for the values of the close.
#[must_use]
pub const fn next_steps(verdict: Verdict, how: Option<How>) -> &'static [&'static str] {
    match (verdict, how) {
        (Verdict::ClientClosed, Some(How::FalseAlarm)) => &[
            "Update the client: effect 4.0.5 and newer do not close a quiet session (docs/RUNBOOK.md).",
            "Other closes of the user: `t3-trace closes --user {user}`.",
        ],
        (Verdict::ClientClosed, _) => &[
            "No action needed: the client closed the session itself. Investigate only if one user has many.",
            "Time offline: see the next `ws open`; all closes of the user: `t3-trace closes --user {user}`.",
        ],
        (Verdict::ClientLeft, _) => &[
            OTHERS,
            "If it was only this user, the cause is on the client's side; this host has no further evidence.",
        ],
        (Verdict::ClientReset, _) => &[
            OTHERS,
            "Compare with other sessions on the same Traefik: was a pod killed, did a firewall time out?",
        ],
        (Verdict::ClientVanished, _) => &[
            "Check Traefik's node and the cluster network at that time: the node stopped responding.",
            OTHERS,
        ],
        (Verdict::PathStalled, Some(How::Loss)) => &[
            "Check the cluster network between Traefik's node and this host: segments were lost there.",
            QUERY_EDGE,
        ],
        (Verdict::PathStalled, Some(How::Backlog)) => {
            &["Find what serve sent before the close, such as a large snapshot: `{serve_log}`.", QUERY_EDGE]
        }
        (Verdict::PathStalled, _) => &[
            QUERY_EDGE,
            "If the edge was healthy: Wi-Fi, a suspended laptop or a VPN of the user; ask the user.",
        ],
        (Verdict::ClientProtocol, _) => {
            &["Identify the client: a middlebox that rewrites the stream, or a faulty program."]
        }
        (Verdict::EdgeBurst, _) => &[
            QUERY_EDGE,
            OTHERS,
            "Usual causes: Traefik or cloudflared restarted, or one tunnel connection was lost.",
        ],
        (Verdict::ServeClosed | Verdict::ServeLeft | Verdict::ServeReset, _) => &[SERVE_LOG],
        (Verdict::ServeExited, Some(How::Exit(0))) => &[RESTARTED, SERVE_LOG],
        (Verdict::ServeExited, _) => {
            &[SERVE_LOG, "Check the present state of the unit: `systemctl status {unit}`."]
        }
        (Verdict::ServeKilled, Some(How::Signal(15))) => {
            &["No action needed if this was a restart: the sender of the signal is named above.", SERVE_LOG]
        }
        (Verdict::ServeKilled, Some(How::Signal(6 | 11))) => {
            &["serve crashed; check for a core dump: `coredumpctl list`.", SERVE_LOG]
        }
        (Verdict::ServeKilled, _) => &[
            "Check the sender of the signal, if it is named; a sender such as earlyoom means low memory.",
            SERVE_LOG,
        ],
        (Verdict::ServeOom, _) => &[
            "Compare memory use and limit: `systemctl show -p MemoryCurrent -p MemoryMax {unit}`.",
            SERVE_LOG,
        ],
        (Verdict::ServeStalled | Verdict::ServeTimeout, Some(How::Loss)) => {
            &["Check the firewall of this host: `nft list ruleset`.", SERVE_LOG]
        }
        (Verdict::ServeStalled, _) => &[
            SERVE_LOG,
            "Check whether other sessions of the user stalled: `t3-trace closes --user {user} {range}`.",
        ],
        (Verdict::ServeRefused, Some(How::ForeignListener)) => &[
            "Find the process: `ss -ltnpe`. If it is the user's, in a container or a user namespace, set `\"uid\"` of \
             the entry in the routing table; if not, it waits for the user's credentials.",
            DISPATCH_LOG,
        ],
        (Verdict::ServeRefused, Some(How::OtherAddress)) => {
            &["Let serve listen on 127.0.0.1: `ss -ltnp`, `systemctl cat {unit}`.", SERVE_LOG]
        }
        (Verdict::ServeRefused, _) => &[
            "Is the unit running, and does it listen? `systemctl status {unit}`, and the routing table of \
             t3-dispatch.",
            SERVE_LOG,
        ],
        (Verdict::ServeTimeout, _) => &["Is serve stalled? `systemctl status {unit}`.", SERVE_LOG],
        (Verdict::ServeRejected, Some(How::Status(401 | 403))) => {
            &["Usually no action needed: an expired session, not a disconnect (docs/PAIRING.md).", SERVE_LOG]
        }
        (Verdict::ServeRejected | Verdict::ServeProtocol, _) => &[SERVE_LOG, VERSION],
        (Verdict::DispatchShutdown, _) => &[RESTARTED, DISPATCH_LOG],
        (Verdict::DispatchStalled, Some(How::LocalError(_))) => &[
            "Raise its limit (`systemctl show -p LimitNOFILE t3-dispatch`), and find out who opens so many \
             connections: `{dispatch_log}`.",
        ],
        (Verdict::DispatchStalled, _) => &["Check the PSI of the host at that time.", DISPATCH_LOG],
        (Verdict::DispatchDied, _) => &["Find the cause: `coredumpctl list t3-dispatch`, `{dispatch_log}`."],
        (Verdict::HostPaused, _) => &[
            "Ask who operates the hypervisor: snapshot, migration or backup at that time.",
            "Check suspends and clock steps: `journalctl -k`, `journalctl -u chrony -u systemd-timesyncd`.",
        ],
        (Verdict::AdminKilled, _) => &["Check who was logged in: `last`, `journalctl _COMM=sudo`."],
        (Verdict::Unknown, Some(How::PowerLoss)) => &[
            "Find the cause: `journalctl --list-boots`, `ls /sys/fs/pstore`, and the log of the hypervisor or BMC.",
            "Check the disks and the journal after a power loss: `journalctl --verify`.",
        ],
        (Verdict::Unknown, Some(How::Reboot)) => &[
            "No action needed if the reboot was planned: `last -x reboot shutdown`, `journalctl --list-boots`.",
        ],
        (Verdict::Unknown, _) => {
            &["Keep this page and the record, and report them: a close that no rule explains is a bug."]
        }
    }
}

/// Severity of a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// An expected close.
    Fine,
    /// Unexpected; the cause is outside of this host.
    Warning,
    /// Unexpected; the cause is on this host.
    Bad,
}

/// Returns the severity of a close.
#[must_use]
pub const fn tone(verdict: Verdict, segment: Segment) -> Tone {
    match (verdict, segment) {
        (
            Verdict::ClientClosed | Verdict::ClientLeft | Verdict::ServeClosed | Verdict::DispatchShutdown,
            _,
        ) => Tone::Fine,
        (Verdict::Unknown, _) | (_, Segment::Serve | Segment::Devvm | Segment::Dispatch) => Tone::Bad,
        _ => Tone::Warning,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_verdict_has_its_own_label_that_fits_the_column() {
        let labels: HashSet<&str> = Verdict::ALL.iter().map(|verdict| label(*verdict)).collect();
        assert_eq!(labels.len(), Verdict::ALL.len());
        let longest = labels.iter().map(|label| label.chars().count()).max();
        assert_eq!(longest, Some(WIDTH));
        let mut record = t3_record::reconcile::reconcile(
            &t3_record::reconcile::UnclosedSession {
                conn: "c1".to_owned(),
                user: "ann".to_owned(),
                ip: "192.0.2.7".to_owned(),
                ray: None,
                opened: t3_record::reconcile::Moment::default(),
            },
            t3_record::reconcile::UnclosedEnd::PowerLoss,
            None,
        );
        for how in [How::PowerLoss, How::Reboot] {
            record.how = Some(how);
            let label = close_label(&record);
            assert!(label.chars().count() <= WIDTH && !labels.contains(label), "{label}");
        }
    }

    #[test]
    fn labels_hold_no_contract_words_and_meanings_are_sentences() {
        for verdict in Verdict::ALL {
            let VerdictText { label, meaning, doubt } = text(*verdict);
            assert!(!label.contains('_'), "{verdict}");
            assert!(meaning.ends_with('.') && doubt.ends_with('.'), "{verdict}");
        }
    }

    #[test]
    fn a_cause_on_this_host_is_bad_and_an_expected_close_is_fine() {
        assert_eq!(tone(Verdict::ClientClosed, Segment::None), Tone::Fine);
        assert_eq!(tone(Verdict::ServeStalled, Segment::Devvm), Tone::Bad);
        assert_eq!(tone(Verdict::PathStalled, Segment::Downstream), Tone::Warning);
        assert_eq!(tone(Verdict::Unknown, Segment::Unknown), Tone::Bad);
    }
}
