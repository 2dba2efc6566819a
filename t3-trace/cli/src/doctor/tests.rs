//! Reports of a healthy and a faulty host, word for word.

use std::collections::BTreeMap;

use t3_config::unit_files::HiddenUnit;
use t3_record::{
    KernelSource,
    wire::{DirectState, Hook, JournalState, Status, Table},
};
use t3_trace_host::kernel::ABSENT;

use super::{
    facts::{
        Access, Caller, Cgroups, Clock, Daemon, Facts, Heartbeats, Hooks, Host, Journal, JournaldConf,
        Kernel, Level, Limit, Listener, LocalTrust, Memlock, Presence, Pressure, Serve, Setting, Space,
        Suppressed, TestEntry, Unit,
    },
    finding::Check,
    *,
};

fn hook(name: &str, way: &str) -> Hook {
    Hook { name: name.to_owned(), attached: Some(way.to_owned()), why: None }
}

fn without(name: &str, why: &str) -> Hook {
    Hook { name: name.to_owned(), attached: None, why: Some(why.to_owned()) }
}

fn serve(user: &str, port: u16) -> Serve {
    let unit = format!("t3-serve@{user}.service");
    Serve {
        user: user.to_owned(),
        port,
        process: Listener::Process { pid: 4242, comm: "node".to_owned() },
        levels: vec![
            Level { name: unit.clone(), high: None, max: Some(12 << 30) },
            Level { name: "system.slice".to_owned(), high: None, max: None },
        ],
        unit: Some(unit),
        oom_group: Some(false),
        pressure: Some(true),
    }
}

fn unit(policy: Option<&str>) -> Unit {
    Unit {
        load: "loaded".to_owned(),
        active: "active".to_owned(),
        oom_policy: policy.map(str::to_owned),
        log_interval_us: 1_000_000,
        log_burst: 1_000_000,
        fd_store_max: Some(8200),
        log_level_max: Some("-1".to_owned()),
        files: Vec::new(),
    }
}

/// Facts of a healthy host.
pub(super) fn healthy() -> Facts {
    let table = |name: &str, used, size, forgets| Table { name: name.to_owned(), size, used, forgets };
    let hooks = vec![
        hook("sock:inet_sock_set_state", "tracepoint"),
        hook("tcp:tcp_send_reset", "tracepoint"),
        hook("tcp_close", "fentry"),
    ];
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: Some(KernelSource::Kprobe),
        hooks: hooks.clone(),
        sessions: 17,
        open: Some(17),
        kept: Some(17),
        subscribers: 1,
        dispatch: true,
        uptime_s: Some(11_520),
        listen: vec![3780],
        serve: vec![3773, 3774],
        tables: vec![
            table("SOCKETS", Some(16_384), 16_384, true),
            table("GENERATION", Some(34), 16_384, false),
            table("EVENTS", None, 1 << 20, false),
        ],
        events: Some(81_234),
        clock_moved_ms: Some(3),
        journal: Some(JournalState { waiting: 2, ..JournalState::default() }),
        ..Status::default()
    };
    let units = [
        ("t3-trace.service", unit(Some("stop"))),
        ("t3-dispatch.service", unit(Some("stop"))),
        ("t3-serve@ann.service", unit(Some("continue"))),
        ("t3-serve@bob.service", unit(Some("continue"))),
    ];
    Facts {
        caller: Caller { uid: 0 },
        socket: "/run/t3-trace/evidence.sock".into(),
        daemon: Daemon::Answers(Box::new(status)),
        heartbeats: Some(Heartbeats { sessions: 15, without: 0 }),
        kernel: Kernel {
            release: "6.12.41-amd64".to_owned(),
            btf: Presence::Present,
            lockdown: Some("none".to_owned()),
            memlock: Some(Memlock { of_daemon: true, bytes: None }),
            hooks: Hooks::Running(hooks),
        },
        host: Host {
            pressure: vec![
                ("memory", Pressure::Some(0.0)),
                ("io", Pressure::Some(3.4)),
                ("cpu", Pressure::Some(11.0)),
            ],
            cgroups: Cgroups { v2: Some("/sys/fs/cgroup".into()), v1: Vec::new() },
            clock: Clock { synchronised: Some(true), error_ms: 31 },
        },
        trust: Ok(LocalTrust::default()),
        serves: Ok(vec![serve("ann", 3773), serve("bob", 3774)]),
        journal: Journal {
            accepts: Ok(()),
            access: Access::Granted,
            persistent: true,
            conf: JournaldConf {
                limit: Limit {
                    interval_us: 30_000_000,
                    burst: 10_000,
                    from: "journald's default".to_owned(),
                },
                max_level: None,
                storage: None,
            },
            suppressed: Ok(Vec::new()),
            space: Some(Space { path: "/var/log/journal".into(), free: 40 << 30, read_only: false }),
            test_entry: TestEntry::Found,
        },
        hidden_units: Vec::new(),
        units: units.into_iter().map(|(name, unit)| (name.to_owned(), unit)).collect(),
    }
}

/// Facts of a host with many problems.
fn faulty() -> Facts {
    let mut facts = healthy();
    facts.heartbeats = None;
    let Daemon::Answers(status) = &mut facts.daemon else { unreachable!() };
    status.dispatch = false;
    (status.open, status.kept) = (Some(17), Some(5));
    status.lost = 5_000;
    status.map_full = 3;
    status.version = "0.0.9".to_owned();
    status.journal = Some(JournalState { missing: 42, rewritten: 37, lost: 2, waiting: 3 });
    status.direct = Some(DirectState {
        ports: vec![3773, 8080],
        written: 1_000,
        short: 40_000,
        over_budget: 250,
        lost: 0,
    });
    status.clock_moved_ms = Some(-7_200_000);
    facts.kernel.hooks = Hooks::Running(vec![
        hook("sock:inet_sock_set_state", "tracepoint"),
        without("tcp:tcp_send_reset", "Operation not permitted; lost: sent RST"),
        without("sock:inet_sk_error_report", &format!("{ABSENT}; lost: time of a socket error")),
        without("tcp_close", "fentry: not supported; kprobe: no kprobes; lost: no effect on verdicts"),
    ]);
    facts.kernel.release = "5.10.0-28-amd64".to_owned();
    facts.kernel.lockdown = Some("confidentiality".to_owned());
    facts.kernel.memlock = Some(Memlock { of_daemon: true, bytes: Some(65_536) });
    facts.host.pressure[1].1 = Pressure::Off;
    facts.host.cgroups = Cgroups { v2: Some("/sys/fs/cgroup/unified".into()), v1: vec!["memory".to_owned()] };
    let mut carl = serve("carl", 3775);
    carl.levels[0] = Level { name: "t3-serve@carl.service".to_owned(), high: Some(10 << 30), max: None };
    carl.pressure = Some(false);
    facts.units.insert("t3-serve@carl.service".to_owned(), unit(Some("stop")));
    let gone = Serve { process: Listener::Absent, unit: None, levels: Vec::new(), ..serve("dora", 3776) };
    facts.serves = Ok(vec![carl, gone]);
    facts.journal = Journal {
        accepts: Err("/run/systemd/journal/socket: Connection refused".to_owned()),
        access: Access::Granted,
        persistent: false,
        conf: JournaldConf {
            limit: Limit {
                interval_us: 30_000_000,
                burst: 1000,
                from: "/etc/systemd/journald.conf".to_owned(),
            },
            max_level: Some(Setting {
                value: "notice".to_owned(),
                from: "/etc/systemd/journald.conf".to_owned(),
            }),
            storage: None,
        },
        space: Some(Space { path: "/run/log/journal".into(), free: 2 << 20, read_only: false }),
        test_entry: TestEntry::NotSent("Connection refused".to_owned()),
        suppressed: Ok(vec![Suppressed {
            unit: "t3-dispatch.service".to_owned(),
            entries: 12,
            at: "2026-11-24 14:10:05".to_owned(),
        }]),
    };
    facts.hidden_units = vec![HiddenUnit {
        unit: "t3-dispatch.service".to_owned(),
        by: "/etc/systemd/system/t3-dispatch.service".into(),
        packaged: "/usr/lib/systemd/system/t3-dispatch.service".into(),
        is_masked: false,
    }];
    facts.trust = Ok(LocalTrust { users: vec![("ann".to_owned(), true)], secret: false });
    facts
        .units
        .insert("t3-dispatch.service".to_owned(), Unit { log_interval_us: 0, log_burst: 0, ..unit(None) });
    facts
}

fn report_text(facts: &Facts) -> String {
    report_at(facts, report::WIDTH)
}

fn report_at(facts: &Facts, columns: usize) -> String {
    let text = report::text(&checks::all(facts), &title(facts), columns, false);
    text.replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn report_of_a_healthy_host() {
    let facts = healthy();
    assert!(works(&checks::all(&facts)));
    golden("healthy", &report_text(&facts));
}

#[test]
fn report_of_a_faulty_host() {
    let facts = faulty();
    assert!(!works(&checks::all(&facts)));
    for columns in [60, 80, 120] {
        golden(&format!("faulty-{columns}"), &report_at(&facts, columns));
    }
}

/// A line that a terminal breaks at its edge starts in the first column; only the title, the
/// headings and the summary do.
#[test]
fn a_report_fits_its_terminal_and_breaks_no_word() {
    let facts = faulty();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let expected = words(&report_at(&facts, report::WIDTH));
    for columns in [60, 80, 120] {
        let text = report_at(&facts, columns);
        assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}:\n{text}");
        assert_eq!(words(&text), expected, "{columns}");
    }
}

/// The texts are in the folder golden; `cargo xtask docs` updates them.
fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/doctor/golden/{name}.txt"));
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(
        text,
        std::fs::read_to_string(&path).unwrap(),
        "`cargo xtask docs` updates {}",
        path.display()
    );
}

#[test]
fn warnings_and_notes_are_not_failures() {
    let mut facts = healthy();
    facts.host.clock.synchronised = Some(false);
    facts.host.pressure[0].1 = Pressure::Missing;
    let findings = checks::all(&facts);
    assert_eq!(finding::worst(&findings), State::Warning);
    assert!(works(&findings));
}

#[test]
fn every_check_has_a_finding() {
    let found: Vec<Check> = [healthy(), faulty()]
        .iter()
        .flat_map(|facts| checks::all(facts).into_iter().map(|finding| finding.check))
        .collect();
    for check in Check::ALL {
        assert!(found.contains(check), "{}", check.name());
    }
}

/// The page has a heading for every check, and the current report.
#[test]
fn the_page_has_every_check_and_the_current_report() {
    const MARKS: [&str; 2] = ["<!-- faulty -->\n", "<!-- /faulty -->"];
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/DOCTOR.md");
    let mut page = std::fs::read_to_string(&path).unwrap();
    let shown: String = report_text(&faulty())
        .lines()
        .map(|line| format!("    {line}").trim_end().to_owned() + "\n")
        .collect();
    let (begin, end) = (page.find(MARKS[0]).unwrap() + MARKS[0].len(), page.find(MARKS[1]).unwrap());
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        page.replace_range(begin..end, &format!("\n{shown}\n"));
        std::fs::write(&path, &page).unwrap();
    } else {
        assert_eq!(page[begin..end].trim_matches('\n'), shown.trim_end(), "`cargo xtask docs` updates it");
    }
    let headings: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let names: Vec<_> = Check::ALL.iter().map(|check| check.name()).collect();
    assert_eq!(headings, names);
}

#[test]
fn escape_sequences_from_outside_are_removed() {
    let mut facts = faulty();
    facts.units = BTreeMap::new();
    if let Daemon::Answers(status) = &mut facts.daemon {
        status.version = "\x1b[2J".to_owned();
    }
    facts.kernel.hooks = Hooks::Running(vec![without("a\x1b[2J", "b\x07\nc")]);
    let text = report_text(&facts);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}
