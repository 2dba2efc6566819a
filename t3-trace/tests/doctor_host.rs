//! `t3-trace doctor` with a real daemon, a real dispatch and a private journald: as root, as a
//! member of the group, as another user, and without a daemon.
//!
//! Needs root and `cargo xtask build`.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use t3_testkit::{
    harness::{Setup, Stack},
    journald::Journal,
    sys,
    tmux::Terminal,
};

/// `daemon`, a group that every system has, without members.
const GROUP: (&str, u32) = ("daemon", 1);
const NOBODY: u32 = 65_534;
const TIMEOUT: Duration = Duration::from_secs(60);

struct Fixture {
    stack: Stack,
    /// A copy that any user may run.
    program: PathBuf,
}

/// t3-trace with two users; `None` with a message without root.
fn fixture(test: &str) -> Option<Fixture> {
    if !sys::is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run {test} as root: t3-trace needs it");
        eprintln!("SKIPPED {test}: needs root for t3-trace");
        return None;
    }
    let mut setup = Setup::users(2).unwrap();
    setup.trace_arguments = ["--group", GROUP.0].map(str::to_owned).to_vec();
    let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
    open_to_all(stack.dir());
    let program = stack.dir().join("t3-trace");
    fs::copy(env!("CARGO_BIN_EXE_t3-trace"), &program).unwrap();
    Some(Fixture { stack, program })
}

fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Fixture {
    fn doctor(&self, options: &[&str], id: Option<(u32, u32)>) -> Output {
        let mut command = Command::new(&self.program);
        command.arg("doctor").arg("--socket").arg(self.stack.socket()).arg("--table").arg(self.stack.table());
        command.args(options).current_dir("/");
        match id {
            // A user without permissions cannot read the private journal either.
            Some((uid, gid)) => drop(command.uid(uid).gid(gid)),
            None => self.stack.journal.lend(&mut command).unwrap(),
        }
        command.output().unwrap()
    }

    /// Findings by check and subject, and whether the program failed.
    fn findings(&self, id: Option<(u32, u32)>) -> (BTreeMap<(String, String), Value>, bool) {
        let output = self.doctor(&["--json"], id);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let checks = report["checks"].as_array().unwrap().iter();
        let found: BTreeMap<_, _> =
            checks.map(|one| ((text(one, "check"), text(one, "about")), one.clone())).collect();
        let broken = found.values().any(|finding| finding["state"] == "broken");
        assert_eq!(report["health"] == "broken", broken);
        assert_eq!(output.status.code(), Some(i32::from(broken)), "the exit status matches the report");
        (found, broken)
    }
}

fn state<'a>(found: &'a BTreeMap<(String, String), Value>, check: &str) -> &'a str {
    found
        .get(&(check.to_owned(), String::new()))
        .and_then(|finding| finding["state"].as_str())
        .unwrap_or("absent")
}

#[test]
fn root_gets_all_hooks_the_daemon_dispatch_and_each_serve() {
    let Some(fixture) = fixture("root_gets_all_hooks") else { return };
    let _serve = fixture.stack.serve("u0", &[], None).unwrap();
    let (found, _) = fixture.findings(None);
    for check in ["daemon", "permission", "version", "dispatch", "loss", "tables", "btf", "journald"] {
        assert_eq!(state(&found, check), "ok", "{check}: {found:#?}");
    }
    let status = fixture.stack.status().unwrap();
    assert!(!status.hooks.is_empty() && !status.tables.is_empty() && status.uptime_s.is_some());
    for hook in &status.hooks {
        let finding = &found[&("hook".to_owned(), hook.name.clone())];
        match &hook.attached {
            Some(way) => assert_eq!(finding["says"], format!("attached by {way}")),
            None => {
                assert!(
                    finding["says"].as_str().unwrap().contains(hook.why.as_deref().unwrap()),
                    "{finding}"
                );
            }
        }
    }
    let port = |user: &str| fixture.stack.port(user).unwrap().to_string();
    let says: Vec<_> = found.values().filter_map(|finding| finding["says"].as_str()).collect();
    let of =
        |user: &str, what: &str| says.iter().any(|says| says.contains(what) && says.contains(&port(user)));
    assert!(of("u0", "listens on") && of("u1", "no listener"), "{says:#?}");
    assert!(of("u0", "connected; listens on"), "watched ports: {says:#?}");
}

#[test]
fn the_group_is_named_and_its_members_may_query() {
    let Some(fixture) = fixture("the_group_is_named") else { return };
    let (found, broken) = fixture.findings(Some((NOBODY, NOBODY)));
    assert!(broken);
    assert_eq!(state(&found, "dispatch"), "absent", "not queried, so not reported");
    let permission = &found[&("permission".to_owned(), String::new())];
    assert_eq!(permission["state"], "broken");
    assert!(permission["says"].as_str().unwrap().contains("the group daemon"), "{permission}");
    assert!(permission["do"].as_str().unwrap().contains("usermod -aG daemon"), "{permission}");

    let (found, _) = fixture.findings(Some((NOBODY, GROUP.1)));
    assert_eq!((state(&found, "daemon"), state(&found, "dispatch")), ("ok", "ok"));
    let hooks = found.keys().filter(|(check, _)| check == "hook").count();
    assert_eq!(hooks, fixture.stack.status().unwrap().hooks.len());
}

#[test]
fn without_a_daemon_root_tests_the_hooks() {
    let Some(mut fixture) = fixture("without_a_daemon_root_tests_the_hooks") else { return };
    let attached = |found: &BTreeMap<(String, String), Value>| -> Vec<String> {
        let hooks = found.iter().filter(|((check, _), finding)| check == "hook" && finding["state"] == "ok");
        hooks.map(|((_, name), _)| name.clone()).collect()
    };
    let with = attached(&fixture.findings(None).0);
    drop(fixture.stack.trace.take());
    let (found, broken) = fixture.findings(None);
    assert!(broken && state(&found, "daemon") == "broken");
    assert_eq!(attached(&found), with, "the same hooks as the daemon");
    let (found, _) = fixture.findings(Some((NOBODY, NOBODY)));
    assert_eq!(attached(&found), Vec::<String>::new(), "untested hooks are not reported as attached");
    assert!(found.keys().any(|(check, about)| check == "hook" && about == "sock:inet_sock_set_state"));
}

#[test]
fn a_pipe_gets_no_colours_and_a_bundle_is_written_once() {
    let Some(fixture) = fixture("a_pipe_gets_no_colours") else { return };
    let bundle = fixture.stack.dir().join("report.tar");
    let name = bundle.to_str().unwrap();
    let output = fixture.doctor(&["--bundle", name], None);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("hook sock:inet_sock_set_state: attached") && text.contains(name), "{text}");
    assert!(!text.contains('\x1b'));
    assert_eq!(fs::metadata(&bundle).unwrap().permissions().mode() & 0o777, 0o600);
    let again = fixture.doctor(&["--bundle", name], None);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("the file exists"));
    assert_eq!(fixture.doctor(&["--no-such-option"], None).status.code(), Some(2));
}

#[test]
fn a_terminal_gets_colours_without_no_color() {
    if let Err(error) = Terminal::possible() {
        assert!(std::env::var_os("CI").is_none(), "CI must run this: {error}");
        eprintln!("SKIPPED a_terminal_gets_colours: {error}");
        return;
    }
    let shown = |no_color: &str, options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
        command.arg("doctor").args(["--socket", "/nonexistent/evidence.sock"]).args(options);
        command.env("NO_COLOR", no_color);
        let terminal = Terminal::start(120, 80, &command).unwrap();
        terminal.until_shows("Not all parts work", TIMEOUT).unwrap();
        assert_eq!(terminal.wait(TIMEOUT).unwrap(), 1, "no daemon");
        terminal.screen_in_colour().unwrap()
    };
    let coloured = |screen: &str| {
        screen.contains("\x1b[31m") || screen.contains("\x1b[1m\x1b[31m") || screen.contains("\x1b[1;31m")
    };
    assert!(coloured(&shown("", &[])), "an empty NO_COLOR has no effect");
    assert!(!coloured(&shown("1", &[])));
    assert!(!coloured(&shown("", &["--plain"])));
}

/// A line that the terminal breaks at its edge would start in the first column.
#[test]
fn a_report_breaks_between_words_at_60_80_and_120_columns() {
    if let Err(error) = Terminal::possible() {
        assert!(std::env::var_os("CI").is_none(), "CI must run this: {error}");
        eprintln!("SKIPPED a_report_breaks_between_words: {error}");
        return;
    }
    for columns in [60, 80, 120] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
        command.args(["doctor", "--plain", "--socket", "/nonexistent/evidence.sock"]);
        let terminal = Terminal::start(columns, 200, &command).unwrap();
        terminal.until_shows("Not all parts work", TIMEOUT).unwrap();
        let screen = terminal.screen().unwrap();
        assert!(screen.contains("-> "), "{screen}");
        let sections = ["t3-trace", "kernel", "host", "serves", "journal"];
        for line in screen.lines().skip_while(|line| !line.starts_with("t3-trace doctor")) {
            let is_text = line.starts_with("  ") || sections.contains(&line.trim_end());
            let is_frame = line.starts_with("t3-trace doctor") || line.starts_with("Not all parts work");
            assert!(line.trim().is_empty() || is_text || is_frame, "{line:?} in\n{screen}");
        }
    }
}
