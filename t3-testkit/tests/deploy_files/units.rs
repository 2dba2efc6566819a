//! Units agree with the documentation: programs, users, paths and options exist, and each
//! capability has an explanation.

use std::{collections::BTreeSet, fs};

use clap::{Command, CommandFactory, Parser as _};
use serde_json::Value;
use t3_record::wire::SOCKET_PATH;
use t3_trace_host::journal_trust::DISPATCH_USER;

use crate::{
    queries,
    unit_file::{Setting, Unit},
};

const DISPATCH: &str = "deploy/systemd/t3-dispatch.service";
const DISPATCH_SOCKET: &str = "deploy/systemd/t3-dispatch.socket";
const DIAG: &str = "deploy/systemd/t3-dispatch-diag.socket";
const TRACE: &str = "deploy/systemd/t3-trace.service";
const NETLINK: &str = "deploy/systemd/t3-trace-netlink.socket";
const MINT: &str = "deploy/systemd/t3-mint@.service";
const MINT_SOCKET: &str = "deploy/systemd/t3-mint.socket";
const PROBE: &str = "deploy/systemd/t3-probe.service";
const SERVE: &str = "deploy/systemd/t3-serve@.service";
const SUDO: &str = "deploy/examples/t3-dispatch-sudo.conf";
/// Group of subscribers (`t3-trace daemon --group`).
const WATCHERS: &str = "t3-trace";

/// The program of this project at a path.
fn program(path: &str) -> Option<Command> {
    match path {
        "/usr/bin/t3-dispatch" => Some(t3_dispatch::cli::Cli::command()),
        "/usr/bin/t3-trace" => Some(t3_trace::cli::Cli::command()),
        "/usr/lib/t3-trace/t3-trace-daemon" => Some(t3_trace_daemon::args::Program::command()),
        "/usr/bin/t3-otlp" => Some(t3_otlp::cli::Cli::command()),
        "/usr/bin/t3-probe" => Some(t3_probe::cli::Cli::command()),
        "/usr/lib/t3-dispatch/t3-mint-answer" => Some(t3_dispatch::cli::MintAnswer::command()),
        _ => None,
    }
}

/// Default options of `t3-dispatch serve`.
fn defaults() -> t3_dispatch::cli::Serve {
    t3_dispatch::cli::Cli::try_parse_from(["t3-dispatch", "serve"]).unwrap().command.options()
}

/// All units of the project, and the drop-in.
fn units() -> Vec<Unit> {
    let entries = fs::read_dir(queries::file("deploy/systemd")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut units: Vec<_> = names.map(|name| Unit::read(&format!("deploy/systemd/{name}"))).collect();
    units.push(Unit::read(SUDO));
    units
}

#[test]
fn every_command_line_is_accepted_by_its_program() {
    let mut programs = BTreeSet::new();
    for unit in units() {
        for Setting { name, value, .. } in
            unit.settings.iter().filter(|setting| setting.name.starts_with("Exec"))
        {
            let words = shlex::split(value).unwrap();
            assert!(words[0].starts_with('/'), "{}: {value}", unit.name);
            if let Some(program) = program(&words[0]) {
                let taken = program.try_get_matches_from(&words);
                assert!(taken.is_ok(), "{}: {name}={value}: {}", unit.name, taken.unwrap_err());
                programs.insert(words[0].clone());
            } else {
                assert!(!words[0].contains("t3-"), "{}: where is {}?", unit.name, words[0]);
            }
        }
    }
    assert_eq!(programs.len(), 5, "{programs:?}");
}

#[test]
fn each_capability_has_an_explanation() {
    let mut capabilities = 0;
    for unit in units() {
        for name in ["CapabilityBoundingSet", "AmbientCapabilities"] {
            let words: Vec<_> = unit.all(name).flat_map(str::split_whitespace).collect();
            for capability in words {
                capabilities += 1;
                let explained = unit.comments.contains(&format!("{capability}:"))
                    || unit.comments.contains(&format!("{capability},"))
                    || unit.name == SUDO;
                assert!(explained, "{} does not explain {capability}", unit.name);
            }
        }
    }
    assert!(capabilities > 8, "{capabilities}");
}

#[test]
fn no_unit_stays_down_after_many_starts_in_a_row() {
    // systemd's default is 5 starts in 10 s, also of a socket that is started with its service.
    let restarts = |unit: &&Unit| unit.name.ends_with(".socket") || unit.all("Restart").next().is_some();
    let units = units();
    let restarting: Vec<_> = units.iter().filter(restarts).collect();
    assert!(restarting.len() >= 7, "{}", restarting.len());
    for unit in restarting {
        assert_eq!(unit.one("StartLimitIntervalSec"), "0", "{}", unit.name);
    }
}

#[test]
fn units_with_network_are_unprivileged_and_privileged_ones_have_no_network() {
    let dispatch = Unit::read(DISPATCH);
    for (name, value) in [
        ("User", DISPATCH_USER),
        ("SupplementaryGroups", WATCHERS),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("NoNewPrivileges", "yes"),
        ("PrivateUsers", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
    ] {
        assert_eq!(dispatch.one(name), value, "{name}");
    }
    let trace = Unit::read(TRACE);
    for (name, value) in [
        ("PrivateNetwork", "yes"),
        ("RestrictAddressFamilies", "AF_UNIX"),
        ("IPAddressDeny", "any"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("Group", WATCHERS),
    ] {
        assert_eq!(trace.one(name), value, "{name}");
    }
    // systemd opens the only other socket, so that the daemon needs no namespace of the host.
    let netlink = Unit::read(NETLINK);
    assert_eq!(trace.one("Sockets"), "t3-trace-netlink.socket");
    assert_eq!(netlink.one("Service"), "t3-trace.service");
    let route = format!("route {}", t3_trace_host::rtnetlink::GROUPS);
    assert_eq!(netlink.all("ListenNetlink").collect::<Vec<_>>(), [&*route, "inet-diag 0"]);
    // Without the socket, t3-dispatch sees no user but its own in its namespace.
    let diag = Unit::read(DIAG);
    assert_eq!(dispatch.one("Sockets"), "t3-dispatch.socket t3-dispatch-diag.socket");
    assert_eq!((diag.one("Service"), diag.one("ListenNetlink")), ("t3-dispatch.service", "inet-diag 0"));
    let capabilities: BTreeSet<_> = trace.one("CapabilityBoundingSet").split(' ').collect();
    let few = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"];
    assert_eq!(capabilities, BTreeSet::from(few));
    // In a user namespace the four capabilities would have no effect.
    assert_eq!(trace.all("PrivateUsers").count(), 0);
    for unit in [&dispatch, &trace] {
        assert!(unit.one("SystemCallArchitectures") == "native" && unit.all("SystemCallFilter").count() > 1);
    }
}

#[test]
fn the_sockets_have_the_paths_that_the_programs_use() {
    let trace = Unit::read(TRACE);
    let dir = format!("/run/{}", trace.one("RuntimeDirectory"));
    assert_eq!(std::path::Path::new(SOCKET_PATH).parent().unwrap().to_str().unwrap(), dir);
    let daemon = <t3_trace_daemon::args::Program as clap::CommandFactory>::command();
    let state = daemon.get_arguments().find(|arg| arg.get_long() == Some("state-dir")).unwrap();
    let dir = format!("/var/lib/{}", trace.one("StateDirectory"));
    assert_eq!(state.get_default_values()[0].to_str().unwrap(), dir);
    assert_eq!(trace.one("StateDirectoryMode"), "0700");
    let purge = queries::read("deploy/debian/t3-trace/postrm");
    assert!(purge.contains(&format!("rm -rf {dir}\n")), "{purge}");
    let mint = Unit::read(MINT_SOCKET);
    let set = format!("\nmint-socket = {:?}\n", mint.one("ListenStream"));
    assert!(queries::read("deploy/t3-dispatch.toml").contains(&set), "{set}");
    for (name, value) in [("SocketUser", DISPATCH_USER), ("SocketMode", "0600"), ("Accept", "yes")] {
        assert_eq!(mint.one(name), value, "{name}");
    }
    // systemd 257 removes CAP_SETUID from a unit with both.
    assert_eq!(Unit::read(MINT).all("User").count(), 0);
    let port = Unit::read(DISPATCH_SOCKET).one("ListenStream").to_owned();
    let definition = t3_dispatch::config::definition();
    let serve = definition.find_subcommand("serve").unwrap();
    let listen = serve.get_arguments().find(|arg| arg.get_long() == Some("listen")).unwrap();
    assert!(listen.get_default_values()[0].to_str().unwrap().ends_with(&format!(":{port}")));
}

#[test]
fn a_restart_keeps_the_default_number_of_sessions_and_a_stop_ends_all() {
    let dispatch = Unit::read(DISPATCH);
    let descriptors = 1 + 2 * defaults().limits.max_sessions.get();
    assert_eq!(dispatch.one("FileDescriptorStoreMax"), descriptors.to_string());
    assert!(dispatch.all("Environment").any(|value| value == format!("FDSTORE_MAX={descriptors}")));
    // The program decides by the signal: t3-dispatch/src/process/run.rs.
    assert_eq!((dispatch.one("KillSignal"), dispatch.one("RestartKillSignal")), ("SIGINT", "SIGTERM"));
    assert_eq!(dispatch.one("KillMode"), "mixed", "only the main process gets the signal");
    assert_eq!(dispatch.one("RestartSec"), "100ms");
    // The store is emptied by a stop and by nothing else: the default of `restart`.
    assert_eq!(dispatch.all("FileDescriptorStorePreserve").count(), 0);
    // The package restarts the service only: a restart of a socket refuses connections.
    let postinst = queries::read("deploy/debian/t3-dispatch/postinst");
    assert!(postinst.contains("deb-systemd-invoke restart t3-dispatch.service "), "{postinst}");
    let package = queries::read("t3-dispatch/Cargo.toml");
    assert!(package.contains("restart-after-upgrade = false, stop-on-upgrade = false"), "{package}");
}

#[test]
fn an_invalid_configuration_is_retried_only_where_a_failed_unit_would_lose_sessions() {
    for name in [TRACE, PROBE] {
        assert_eq!(Unit::read(name).one("RestartPreventExitStatus"), "2", "{name}");
    }
    // systemd empties the descriptor store of a failed unit.
    let dispatch = Unit::read(DISPATCH);
    assert!(dispatch.all("FileDescriptorStoreMax").next().is_some());
    assert_eq!(dispatch.all("RestartPreventExitStatus").count(), 0);
    let reason = "systemd discards the descriptor store of a failed unit";
    let comments = dispatch.comments.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(comments.contains(reason), "{comments}");
}

#[test]
fn timeouts_of_units_exceed_those_of_the_programs() {
    let dispatch = Unit::read(DISPATCH);
    let defaults = defaults();
    assert!(dispatch.seconds("TimeoutStopSec") > 2 * defaults.listening.drain_time.as_secs());
    assert!(
        dispatch.seconds("WatchdogSec") >= 30,
        "a shorter watchdog would kill all sessions on a busy host"
    );
    let descriptors: u64 = dispatch.one("LimitNOFILE").parse().unwrap();
    assert!(descriptors > 3 * 9000 && descriptors > 2 * defaults.limits.max_sessions.get() as u64 + 256);
    for unit in [&dispatch, &Unit::read(TRACE)] {
        assert_eq!(unit.one("Type"), "notify", "notify-reload needs systemd 253");
        assert_eq!(unit.one("Restart"), "always");
        // systemd passes 0 as "not set" (core/unit.c), so journald's own limit would apply.
        let burst: u64 = unit.one("LogRateLimitBurst").parse().unwrap();
        assert!(
            unit.seconds("LogRateLimitIntervalSec") == 1 && burst >= 1_000_000,
            "journald must not drop records"
        );
        assert_eq!(unit.all("WatchdogSec").count(), 1);
    }
    let reload: Vec<_> = dispatch.all("ExecReload").collect();
    assert!(reload[0].ends_with("t3-dispatch check") && reload[1].contains("kill -HUP"), "{reload:?}");
    let check = dispatch.one("ExecStartPre");
    assert!(check.contains("/usr/bin/t3-dispatch check || {") && check.contains("exit 1"), "{check}");
    // stderr inherits the target of stdout by default (systemd.exec(5)); errors would be lost.
    for unit in units().iter().filter(|unit| unit.all("StandardOutput").next().is_some()) {
        assert_eq!(unit.one("StandardError"), "journal", "{}", unit.name);
    }
    // The reply must arrive before dispatch's timeout.
    let mint = Unit::read(MINT);
    let seconds = mint.one("ExecStart").split("--timeout ").nth(1).unwrap().trim_end_matches('s');
    assert!(seconds.parse::<u64>().unwrap() < defaults.pairing.mint_timeout.as_secs());
    assert!(mint.seconds("RuntimeMaxSec") > defaults.pairing.mint_timeout.as_secs());
}

#[test]
fn serve_has_its_limits_and_explains_the_missing_soft_limit() {
    let serve = Unit::read(SERVE);
    for (name, value) in [("MemorySwapMax", "0"), ("MemoryHigh", "infinity"), ("OOMPolicy", "continue")] {
        assert_eq!(serve.one(name), value, "{name}");
    }
    assert!(serve.one("MemoryMax").ends_with('G'));
    assert_eq!((serve.one("Restart"), serve.one("User")), ("on-failure", "%i"));
    assert!(
        serve.one("EnvironmentFile").ends_with("/%i.env") && serve.one("ExecStart").contains("${T3_PORT}")
    );
    assert!(serve.comments.contains("memory.high") && serve.comments.contains("50 minutes"));
}

#[test]
fn the_prober_reads_the_packaged_file_and_is_not_restarted_after_a_configuration_error() {
    let unit = Unit::read(PROBE);
    let definition = t3_probe::cli::Cli::command();
    let run = definition.find_subcommand("run").unwrap();
    let config = run.get_arguments().find(|arg| arg.get_long() == Some("config")).unwrap();
    assert_eq!(config.get_default_values()[0], "/etc/t3-probe.toml");
    assert_eq!(unit.one("ExecStart"), "/usr/bin/t3-probe run");
    assert!(unit.one("EnvironmentFile").starts_with('-'), "the file is optional");
    // The status is in the help and tested in t3-probe/tests/running.rs.
    let help = run.get_after_help().unwrap().to_string();
    assert!(help.contains("\n  2  usage or configuration error"), "{help}");
    assert_eq!((unit.one("Restart"), unit.one("RestartPreventExitStatus")), ("always", "2"));
    assert_eq!((unit.one("DynamicUser"), unit.all("User").count()), ("yes", 0));
    let package = queries::read("t3-probe/Cargo.toml");
    assert!(package.contains("conf-files = [\"/etc/t3-probe.toml\"]") && package.contains("start = false"));
    // The credential of the drop-in in the comments.
    let variable =
        run.get_arguments().find(|arg| arg.get_long() == Some("token-file")).unwrap().get_env().unwrap();
    let line = format!("Environment={}=/run/credentials/t3-probe.service/token", variable.to_str().unwrap());
    assert!(unit.comments.contains("LoadCredential=token:") && unit.comments.contains(&line), "{line}");
}

#[test]
fn the_exporter_reads_the_packaged_file_and_keeps_its_position_over_a_restart() {
    let unit = Unit::read("deploy/systemd/t3-otlp.service");
    let definition = t3_otlp::cli::Cli::command();
    let run = definition.find_subcommand("run").unwrap();
    let option = |name: &str| run.get_arguments().find(|arg| arg.get_long() == Some(name)).unwrap();
    assert_eq!(option("config").get_default_values()[0], "/etc/t3-otlp.toml");
    assert_eq!(option("cursor-file").get_default_values()[0], "/var/lib/t3-otlp/cursor");
    assert_eq!((unit.one("StateDirectory"), unit.one("SupplementaryGroups")), ("t3-otlp", "systemd-journal"));
    assert_eq!((unit.one("Restart"), unit.one("RestartPreventExitStatus")), ("always", "2"));
    let package = queries::read("t3-otlp/Cargo.toml");
    assert!(package.contains("conf-files = [\"/etc/t3-otlp.toml\"]") && package.contains("enable = false"));
    let variable = option("header-file").get_env().unwrap().to_str().unwrap();
    let line = format!("Environment={variable}=/run/credentials/t3-otlp.service/headers");
    assert!(unit.comments.contains("LoadCredential=headers:") && unit.comments.contains(&line), "{line}");
}

#[test]
fn users_and_groups_of_the_units_are_created() {
    let made =
        ["deploy/sysusers.d/t3-dispatch.conf", "deploy/sysusers.d/t3-trace.conf"].map(queries::read).concat();
    let lines: Vec<Vec<&str>> = made.lines().map(|line| line.split_whitespace().collect()).collect();
    let has = |words: &[&str]| lines.iter().any(|line| line.starts_with(words));
    assert!(has(&["u", DISPATCH_USER]) && has(&["g", WATCHERS]) && has(&["m", DISPATCH_USER, WATCHERS]));
    let package = queries::read("deploy/sysusers.d/t3-trace.conf");
    assert!(package.contains("\ng t3-trace"), "t3-trace alone needs its group too");
}

#[test]
fn the_sudo_drop_in_disables_settings_that_block_sudo() {
    // systemd.exec(5), NoNewPrivileges=: each of these implies it in a unit with User=.
    const IMPLY: [&str; 14] = [
        "SystemCallFilter",
        "SystemCallArchitectures",
        "RestrictAddressFamilies",
        "RestrictNamespaces",
        "PrivateDevices",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectClock",
        "ProtectHostname",
        "MemoryDenyWriteExecute",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "LockPersonality",
    ];
    let sudo = Unit::read(SUDO);
    for name in IMPLY {
        assert!(["", "no"].contains(&sudo.one(name)), "{name}");
    }
    assert_eq!((sudo.one("NoNewPrivileges"), sudo.one("PrivateUsers")), ("no", "no"));
    let rule = queries::read("deploy/sudoers.d/t3-dispatch");
    let rule = rule.lines().find(|line| !line.starts_with('#')).unwrap();
    let command = "/usr/local/bin/t3-mint";
    assert!(rule.starts_with(&format!("{DISPATCH_USER} ALL=(root) ")) && rule.contains(command), "{rule}");
    let default = defaults().pairing.mint_command.to_string();
    assert!(default.ends_with(command), "{default}");
}

#[test]
fn the_example_routing_table_is_valid() {
    let table: Value = serde_json::from_str(&queries::read("deploy/examples/dispatch.json")).unwrap();
    assert!(table.as_object().unwrap().len() > 1);
    let path = queries::file("deploy/examples/dispatch.json");
    assert!(t3_dispatch::routing::table::Table::examine(&path).unwrap().1.is_empty());
}
