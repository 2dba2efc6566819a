//! `t3-trace doctor` beside a real daemon, a real dispatch and a journald of the test's own: as
//! root, as somebody in the group, as somebody who is not, and where no daemon runs.
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

/// A group that every system has, with nobody in it: `daemon`.
const GROUP: (&str, u32) = ("daemon", 1);
const NOBODY: u32 = 65_534;
const PATIENCE: Duration = Duration::from_secs(60);

struct House {
    journal: Journal,
    stack: Stack,
    /// Everybody may run it, wherever the build is.
    program: PathBuf,
}

/// t3-trace with two users; `None`, loudly, when it cannot be had.
fn house(test: &str) -> Option<House> {
    if !sys::is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run {test} as root: t3-trace needs it");
        eprintln!("SKIPPED {test}: needs root for t3-trace");
        return None;
    }
    let journal = Journal::private().unwrap();
    let mut setup = Setup::users(2).unwrap();
    setup.trace_arguments = ["--group", GROUP.0].map(str::to_owned).to_vec();
    let stack = Stack::start(setup, &journal).unwrap();
    open_to_all(stack.dir());
    let program = stack.dir().join("t3-trace");
    fs::copy(env!("CARGO_BIN_EXE_t3-trace"), &program).unwrap();
    Some(House { journal, stack, program })
}

fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

impl House {
    fn doctor(&self, options: &[&str], id: Option<(u32, u32)>) -> Output {
        let mut command = Command::new(&self.program);
        command.arg("doctor").arg("--socket").arg(self.stack.socket()).arg("--table").arg(self.stack.table());
        command.args(options).current_dir("/");
        match id {
            // Who has no rights needs none for the journal either.
            Some((uid, gid)) => drop(command.uid(uid).gid(gid)),
            None => self.journal.lend(&mut command).unwrap(),
        }
        command.output().unwrap()
    }

    /// The findings by name and what they are about, and whether the program failed.
    fn findings(&self, id: Option<(u32, u32)>) -> (BTreeMap<(String, String), Value>, bool) {
        let output = self.doctor(&["--json"], id);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let checks = report["checks"].as_array().unwrap().iter();
        let found: BTreeMap<_, _> =
            checks.map(|one| ((text(one, "check"), text(one, "about")), one.clone())).collect();
        let broken = found.values().any(|finding| finding["state"] == "broken");
        assert_eq!(report["health"] == "broken", broken);
        assert_eq!(
            output.status.code(),
            Some(i32::from(broken)),
            "the exit status says what the report says"
        );
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
fn root_hears_of_every_hook_of_the_daemon_of_dispatch_and_of_each_serve() {
    let Some(house) = house("root_hears_of_every_hook") else { return };
    let _serve = house.stack.serve("u0", &[], None).unwrap();
    let (found, _) = house.findings(None);
    for check in ["daemon", "permission", "version", "dispatch", "loss", "tables", "btf", "journald"] {
        assert_eq!(state(&found, check), "ok", "{check}: {found:#?}");
    }
    let status = house.stack.status().unwrap();
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
    let port = |user: &str| house.stack.port(user).unwrap().to_string();
    let says: Vec<_> = found.values().filter_map(|finding| finding["says"].as_str()).collect();
    let of =
        |user: &str, what: &str| says.iter().any(|says| says.contains(what) && says.contains(&port(user)));
    assert!(of("u0", "listens on") && of("u1", "nobody listens"), "{says:#?}");
    assert!(of("u0", "connected; listens on"), "the ports that are watched are told: {says:#?}");
}

#[test]
fn who_is_not_in_the_group_hears_which_and_who_is_may_ask() {
    let Some(house) = house("who_is_not_in_the_group_hears_which") else { return };
    let (found, broken) = house.findings(Some((NOBODY, NOBODY)));
    assert!(broken);
    assert_eq!(state(&found, "dispatch"), "absent", "what could not be asked is not told");
    let permission = &found[&("permission".to_owned(), String::new())];
    assert_eq!(permission["state"], "broken");
    assert!(permission["says"].as_str().unwrap().contains("the group daemon"), "{permission}");
    assert!(permission["do"].as_str().unwrap().contains("usermod -aG daemon"), "{permission}");

    let (found, _) = house.findings(Some((NOBODY, GROUP.1)));
    assert_eq!((state(&found, "daemon"), state(&found, "dispatch")), ("ok", "ok"));
    let hooks = found.keys().filter(|(check, _)| check == "hook").count();
    assert_eq!(hooks, house.stack.status().unwrap().hooks.len());
}

#[test]
fn without_a_daemon_root_tries_the_hooks_and_it_is_said_that_none_runs() {
    let Some(mut house) = house("without_a_daemon_root_tries_the_hooks") else { return };
    let attached = |found: &BTreeMap<(String, String), Value>| -> Vec<String> {
        let hooks = found.iter().filter(|((check, _), finding)| check == "hook" && finding["state"] == "ok");
        hooks.map(|((_, name), _)| name.clone()).collect()
    };
    let with = attached(&house.findings(None).0);
    drop(house.stack.trace.take());
    let (found, broken) = house.findings(None);
    assert!(broken && state(&found, "daemon") == "broken");
    assert_eq!(attached(&found), with, "what the daemon could attach, the doctor can");
    let (found, _) = house.findings(Some((NOBODY, NOBODY)));
    assert_eq!(attached(&found), Vec::<String>::new(), "nobody claims what was not tried");
    assert!(found.keys().any(|(check, about)| check == "hook" && about == "sock:inet_sock_set_state"));
}

#[test]
fn a_pipe_gets_no_colours_and_a_bundle_is_written_once() {
    let Some(house) = house("a_pipe_gets_no_colours") else { return };
    let bundle = house.stack.dir().join("report.tar");
    let name = bundle.to_str().unwrap();
    let output = house.doctor(&["--bundle", name], None);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("hook sock:inet_sock_set_state: attached") && text.contains(name), "{text}");
    assert!(!text.contains('\x1b'));
    assert_eq!(fs::metadata(&bundle).unwrap().permissions().mode() & 0o777, 0o600);
    let again = house.doctor(&["--bundle", name], None);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("there already"));
    assert_eq!(house.doctor(&["--no-such-option"], None).status.code(), Some(2));
}

#[test]
fn a_terminal_gets_colours_unless_no_color_says_otherwise() {
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
        terminal.until_shows("Something that should work does not", PATIENCE).unwrap();
        assert_eq!(terminal.wait(PATIENCE).unwrap(), 1, "no daemon runs");
        terminal.screen_in_colour().unwrap()
    };
    let coloured = |screen: &str| {
        screen.contains("\x1b[31m") || screen.contains("\x1b[1m\x1b[31m") || screen.contains("\x1b[1;31m")
    };
    assert!(coloured(&shown("", &[])), "an empty NO_COLOR says nothing");
    assert!(!coloured(&shown("1", &[])));
    assert!(!coloured(&shown("", &["--plain"])));
}
