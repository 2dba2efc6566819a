//! What to do after each verdict: the "Next" of docs/VERDICTS.md as a table that the compiler keeps
//! whole, with commands that can be pasted. Pure.

use t3_record::{CloseRecord, How, Segment, Verdict, edge::Part};

/// When the commands should look, as journalctl takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// From when on.
    pub since: String,
    /// Until when.
    pub until: String,
}

/// What the layers in front of this machine have been asked already, and which part they named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EdgeFindings {
    /// Their logs have been read: to read them is no next step any more.
    pub asked: bool,
    /// The part they named.
    pub part: Option<Part>,
}

/// The steps, the first one first.
#[must_use]
pub fn steps(record: &CloseRecord, window: &Window, front: EdgeFindings) -> Vec<String> {
    let mut steps = by_verdict(record, window);
    if front.asked {
        steps.retain(|step| step != EDGE);
    }
    if let Some(part) = front.part {
        let step = match part {
            Part::Traefik => "Look at Traefik: was it restarted or reloaded, was its node cut off?",
            Part::Tunnel => {
                "Look at cloudflared and the line to Cloudflare: was it restarted, was the WAN away?"
            }
            Part::LastMile => "It was on their side: Wi-Fi, a laptop that slept, a VPN; ask them.",
        };
        steps.insert(0, step.to_owned());
    }
    if record.segment == Segment::Devvm && starves(record.verdict) {
        let limits = format!("systemctl show -p MemoryHigh -p MemoryMax {}", unit(record));
        let step =
            format!("Find what filled the machine: `systemd-cgtop -m`, `iotop`; serve's limits: `{limits}`.");
        steps.insert(0, step);
    }
    steps
}

/// The step that asking the other layers takes the place of.
const EDGE: &str = "Ask the layers in front: this page with --loki and --prometheus, or with --traefik-log and \
                    --cloudflared-log (docs/RUNBOOK.md).";

fn starves(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::ServeStalled | Verdict::ServeTimeout | Verdict::DispatchStalled)
}

fn by_verdict(record: &CloseRecord, window: &Window) -> Vec<String> {
    let Window { since, until } = window;
    let log = |unit: &str| format!("journalctl -u {unit} --since '{since}' --until '{until}'");
    let serve = || format!("Read serve's own log: `{}`.", log(&unit(record)));
    let others = || {
        format!(
            "See whether others went at the same time: `t3-trace closes --since '{since}' --until '{until}'`."
        )
    };
    let edge = || EDGE.to_owned();
    let said = |text: &str| text.to_owned();
    match record.verdict {
        Verdict::ClientClosed => vec![
            said("Nothing: the browser meant it. It is worth a look only if one user has many of them."),
            format!(
                "How long they were off: the `ws open` after it; all of theirs: `t3-trace closes --user {}`.",
                user(record)
            ),
        ],
        Verdict::ClientLeft => vec![
            others(),
            said("If it was only this user: it was their side; nothing on this machine will show more."),
        ],
        Verdict::ClientReset => vec![
            others(),
            said(
                "Compare with other sessions on the same Traefik: was a pod of it killed, did a firewall time out?",
            ),
        ],
        Verdict::ClientVanished => vec![
            said(
                "Look at the node on which Traefik ran and at the cluster's network at that time: it stopped answering us.",
            ),
            others(),
        ],
        Verdict::PathStalled => match record.how {
            Some(How::Loss) => vec![
                said(
                    "Look at the cluster's network between Traefik's node and this machine: segments were lost there.",
                ),
                edge(),
            ],
            _ => vec![
                edge(),
                said("If the layers in front were clean: their Wi-Fi, a laptop that slept, a VPN; ask them."),
            ],
        },
        Verdict::ClientProtocol => {
            vec![said("Find out which client it was: a middlebox that rewrites, or a broken program.")]
        }
        Verdict::EdgeBurst => vec![
            edge(),
            others(),
            said("Usual: Traefik or cloudflared was restarted, one tunnel connection was lost."),
        ],
        Verdict::ServeClosed | Verdict::ServeLeft | Verdict::ServeReset => vec![serve()],
        Verdict::ServeExited => match record.how {
            Some(How::Exit(0)) => vec![said("Nothing, if somebody restarted or upgraded it."), serve()],
            _ => vec![serve(), format!("And how the unit is now: `systemctl status {}`.", unit(record))],
        },
        Verdict::ServeKilled => match record.how {
            Some(How::Signal(15)) => {
                vec![said("Nothing, if somebody restarted it: the sender above says who."), serve()]
            }
            Some(How::Signal(6 | 11)) => {
                vec![said("It crashed; look at the core: `coredumpctl list`."), serve()]
            }
            _ => vec![
                said(
                    "Ask the sender of the signal, if the answer names one; a watcher such as earlyoom means that memory was short.",
                ),
                serve(),
            ],
        },
        Verdict::ServeOom => vec![
            format!(
                "Compare what it needs with what it may have: `systemctl show -p MemoryCurrent -p MemoryMax {}`.",
                unit(record)
            ),
            serve(),
        ],
        Verdict::ServeStalled => vec![
            serve(),
            format!(
                "See whether that user's other sessions stood still: `t3-trace closes --user {} --since '{since}' --until '{until}'`.",
                user(record)
            ),
        ],
        Verdict::ServeRefused => vec![
            format!(
                "Is the unit running, and does it still listen? `systemctl status {}`, and the routing table of t3-dispatch.",
                unit(record)
            ),
            serve(),
        ],
        Verdict::ServeTimeout => vec![format!("Does it hang? `systemctl status {}`.", unit(record)), serve()],
        Verdict::ServeRejected => match record.how {
            Some(How::Status(401 | 403)) => vec![
                said("Nothing, mostly: a session that had expired, and no drop (docs/PAIRING.md)."),
                serve(),
            ],
            _ => vec![serve(), said("Has its version changed?")],
        },
        Verdict::ServeProtocol => vec![serve(), said("Has its version changed?")],
        Verdict::DispatchShutdown => {
            vec![said("Nothing, if somebody restarted or upgraded it."), format!("`{}`", log("t3-dispatch"))]
        }
        Verdict::DispatchStalled => match record.how {
            Some(How::LocalError(_)) => vec![format!(
                "Raise its limit (`systemctl show -p LimitNOFILE t3-dispatch`), and see who opens so many: `{}`.",
                log("t3-dispatch")
            )],
            _ => vec![
                said("Look at the pressure of the machine at that time."),
                format!("`{}`", log("t3-dispatch")),
            ],
        },
        Verdict::DispatchDied => {
            vec![format!("Why it died: `coredumpctl list t3-dispatch`, `{}`.", log("t3-dispatch"))]
        }
        Verdict::AdminKilled => vec![said("See who was logged in: `last`, `journalctl _COMM=sudo`.")],
        Verdict::Unknown => vec![said(
            "Keep this page and the record, and report them: a close that no rule explains is a bug.",
        )],
    }
}

fn unit(record: &CloseRecord) -> String {
    format!("t3-serve@{}", user(record))
}

/// The user as it can stand in a command: a name that a shell would take apart is not pasted.
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
    fn layers_that_were_asked_are_no_next_step_and_what_they_named_is_the_first() {
        for verdict in [Verdict::EdgeBurst, Verdict::PathStalled] {
            let record = record("ann", verdict, Segment::Downstream);
            assert!(of(&record).iter().any(|step| step.contains("--loki")), "{verdict}");
            for part in Part::ALL {
                let steps = with(&record, EdgeFindings { asked: true, part: Some(*part) });
                assert!(!steps.iter().any(|step| step.contains("--loki")), "{steps:?}");
                let first = steps[0].to_lowercase();
                let named =
                    ["traefik", "cloudflared", "their side"].iter().position(|name| first.contains(name));
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
    fn commands_look_at_that_user_and_that_time() {
        let steps = of(&record("ann", Verdict::ServeClosed, Segment::Serve));
        let command =
            "`journalctl -u t3-serve@ann --since '2026-11-25 14:09:00' --until '2026-11-25 14:11:00'`";
        assert!(steps[0].contains(command), "{steps:?}");
        let starved = of(&record("ann", Verdict::ServeStalled, Segment::Devvm));
        assert!(starved[0].contains("MemoryHigh") && starved.len() > 1, "{starved:?}");
        assert!(!of(&record("ann", Verdict::AdminKilled, Segment::Devvm))[0].contains("MemoryHigh"));
    }

    #[test]
    fn a_name_that_a_shell_would_take_apart_is_not_put_into_a_command() {
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
