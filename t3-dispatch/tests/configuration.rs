//! Sources of options: file, environment and command line, their precedence, and the output of
//! `check`. Starts the program; needs nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod program;

use std::{
    fmt::Write as _,
    io::Write as _,
    path::Path,
    process::{Command, Output},
};

use clap::Arg;
use program::{GOOD, table, text};
use t3_dispatch::config::{definition, is_file, options_of};

fn check() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-dispatch"));
    command.env_clear().arg("check");
    command
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns a valid value of the option, different from its default where possible.
fn sample(arg: &Arg, table: &Path) -> String {
    let kind = arg.get_value_names().map_or("", |names| names[0].as_str());
    let default =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(",");
    match (arg.get_long().unwrap(), kind) {
        ("table", _) => table.display().to_string(),
        ("probe-token-file", _) => {
            let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/probe-token");
            std::fs::write(path, "0123456789abcdef\n").unwrap();
            path.to_owned()
        }
        ("proxy-secret-file", _) => "off".to_owned(),
        ("log", _) => "stderr".to_owned(),
        ("evidence-timeout", _) => "3s".to_owned(),
        (_, "TIME") => "7s".to_owned(),
        (_, "N" | "COUNT" | "NUMBER" | "PERCENT") => "77".to_owned(),
        (_, "BOOL") => (default != "true").to_string(),
        (_, "CIDR") => "10.1.0.0/16".to_owned(),
        (_, "ORIGIN") => "https://seven.example".to_owned(),
        (_, "ADDR:PORT") => "127.0.0.1:7777".to_owned(),
        (_, "FILE" | "PATH") => "/seven".to_owned(),
        _ if !default.is_empty() => default,
        _ => "seven".to_owned(),
    }
}

fn options() -> Vec<Arg> {
    let definition = definition();
    options_of(definition.find_subcommand("serve").unwrap()).filter(|arg| !is_file(arg)).cloned().collect()
}

#[test]
fn every_option_can_be_set_in_file_environment_and_command_line() {
    let table = table(GOOD);
    let options = options();
    assert!(options.len() >= 13, "{}", options.len());

    for underscores in [false, true] {
        let mut toml = String::new();
        let mut expected = Vec::new();
        for (line, arg) in (1..).zip(&options) {
            let (name, value) = (arg.get_long().unwrap(), sample(arg, table.path()));
            let key = if underscores { name.replace('-', "_") } else { name.to_owned() };
            writeln!(toml, "{key} = {value:?}").unwrap();
            expected.push((format!("{name} = {value}   (file "), format!(":{line})")));
        }
        let file = file(&toml);
        let output = check().arg("--config").arg(file.path()).output().unwrap();
        let printed = printed(&output);
        assert_eq!(output.status.code(), Some(0), "{}{printed}", text(&output));
        for (begin, end) in expected {
            let found = printed.lines().any(|line| line.starts_with(&begin) && line.ends_with(&end));
            assert!(found, "{begin}...{end} in\n{printed}");
        }
    }

    let (mut by_environment, mut by_command_line) = (check(), check());
    for arg in &options {
        let (name, value) = (arg.get_long().unwrap(), sample(arg, table.path()));
        by_environment.env(arg.get_env().unwrap(), &value);
        by_command_line.arg(format!("--{name}={value}"));
    }
    for (command, is_environment) in [(&mut by_environment, true), (&mut by_command_line, false)] {
        let output = command.args(["--config", "/dev/null"]).output().unwrap();
        let printed = printed(&output);
        assert_eq!(output.status.code(), Some(0), "{}{printed}", text(&output));
        for arg in &options {
            let (name, value) = (arg.get_long().unwrap(), sample(arg, table.path()));
            let origin = if is_environment {
                format!("environment {}", arg.get_env().unwrap().to_str().unwrap())
            } else {
                "command line".to_owned()
            };
            let line = format!("{name} = {value}   ({origin})");
            assert!(printed.lines().any(|printed| printed == line), "{line} in\n{printed}");
        }
    }
}

#[test]
fn precedence_is_command_line_environment_file_default() {
    let table = table(GOOD);
    let file = file("drain-time = \"3s\"\nclose_timeout = \"4s\"\nkeepalive = \"6s\"\ntrusted-proxy = []\n");
    let output = check()
        .arg("--config")
        .arg(file.path())
        .arg("--table")
        .arg(table.path())
        .args(["--drain-time", "1s"])
        .env("T3_DISPATCH_DRAIN_TIME", "2s")
        .env("T3_DISPATCH_CLOSE_TIMEOUT", "5s")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let printed = printed(&output);
    for line in [
        "drain-time = 1s   (command line)".to_owned(),
        "close-timeout = 5s   (environment T3_DISPATCH_CLOSE_TIMEOUT)".to_owned(),
        format!("keepalive = 6s   (file {}:3)", file.path().display()),
        format!("trusted-proxy = none   (file {}:4)", file.path().display()),
        "connect-timeout = 5s   (default)".to_owned(),
        format!("routing table {}: 1 logins", table.path().display()),
        "ann -> ann:1".to_owned(),
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} in\n{printed}");
    }
}

#[test]
fn check_names_every_problem_and_exits_with_78() {
    let config = file(
        "lisen = \"[::]:1\"\nclose-timeout = \"10\"\nlog = \"syslog\"\nkeepalive = [\"1s\"]\nlog-filter = \"=a=b=\"\n\
         config = \"x\"\n[limits]\n",
    );
    let table = table("{\n\"a\": {\"os_user\": \"a\"},\n\"b\": {\"os_user\": \"b\", \"port\": 0}}");
    let output = check()
        .arg("--config")
        .arg(config.path())
        .arg("--table")
        .arg(table.path())
        .args(["--drain-time", "soon"])
        .env("T3_DISPATCH_LISTEN", "3780")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let errors = text(&output);
    let (config, table) = (config.path().display().to_string(), table.path().display().to_string());
    let expected = [
        format!("error: {config}, line 1, column 1: unknown option `lisen`; did you mean `listen`?"),
        format!(
            "error: {config}, line 2, column 17: `close-timeout` cannot be \"10\": expected a duration such as"
        ),
        format!(
            "error: {config}, line 3, column 7: `log` cannot be \"syslog\": unknown log target \"syslog\""
        ),
        format!("error: {config}, line 4, column 13: `keepalive` expects one value, not a list"),
        format!("error: file {config}:5: log filter \"=a=b=\""),
        format!("error: {config}, line 6, column 1: unknown option `config`"),
        format!("error: {config}, line 7, column 2: `limits` is a section"),
        "error: command line: `drain-time` cannot be \"soon\": expected a duration such as".to_owned(),
        "error: environment T3_DISPATCH_LISTEN: `listen` cannot be \"3780\": invalid socket address"
            .to_owned(),
        format!("error: routing table {table}, line 2, column"),
        format!("error: routing table {table}, line 3, column"),
    ];
    for expected in &expected {
        assert!(errors.contains(expected.as_str()), "{expected} in\n{errors}");
    }
    let errors: Vec<_> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
}

#[test]
fn check_warns_of_probable_mistakes_and_exits_with_0() {
    let table = table(r#"{"loop": {"os_user": "loop", "port": 3780}}"#);
    let output = check()
        .args([
            "--config",
            "/dev/null",
            "--trusted-proxy",
            "0.0.0.0/0",
            "--listen",
            "192.0.2.1:3780",
            "--table",
        ])
        .arg(table.path())
        .env("T3_DISPATCH_DRAINTIME", "wsTicket=secret")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let warnings = text(&output);
    for expected in [
        "warning: command line: `trusted-proxy` 0.0.0.0/0 lets any client impersonate any user",
        "warning: environment: unknown variable T3_DISPATCH_DRAINTIME; did you mean T3_DISPATCH_DRAIN_TIME?",
        "warning: loop is routed to port 3780, a listening port of t3-dispatch",
    ] {
        assert!(warnings.contains(expected), "{expected} in\n{warnings}");
    }
    assert!(!warnings.contains("wsTicket=secret") && !printed(&output).contains("wsTicket=secret"));
}

#[test]
fn check_warns_of_users_that_this_host_does_not_have() {
    for (uid, is_warned) in [("", true), (", \"uid\": 100000", false)] {
        let table = table(&format!(
            r#"{{"ann": {{"os_user": "no-such-user", "port": 1{uid}}}, "root": {{"os_user": "root", "port": 2}}}}"#
        ));
        let output = check().args(["--config", "/dev/null", "--table"]).arg(table.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let warnings = text(&output);
        let expected = "warning: ann: os_user no-such-user does not exist on this host";
        assert_eq!(warnings.contains(expected), is_warned, "{warnings}");
        assert!(!warnings.contains("os_user root"), "{warnings}");
    }
}

#[test]
fn check_refuses_own_ports_and_files_that_are_no_table() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let large = dir.path().join("large");
    std::fs::write(&large, " ".repeat((4 << 20) + 1)).unwrap();
    let own = dir.path().join("own");
    std::fs::write(&own, r#"{"loop": {"os_user": "loop", "port": 3780}}"#).unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "{}").unwrap();
    for (path, code, expected) in [
        (fifo.as_path(), 78, "not a regular file"),
        (Path::new("/dev/zero"), 78, "not a regular file"),
        (dir.path(), 78, "cannot read routing table"),
        (&large, 78, "larger than"),
        (&own, 78, "error: loop is routed to port 3780, a listening port of t3-dispatch"),
        (&empty, 0, "is empty: every request gets 403"),
    ] {
        let output = check().args(["--config", "/dev/null", "--table"]).arg(path).output().unwrap();
        assert!(text(&output).contains(expected), "{expected} in\n{}", text(&output));
        assert_eq!(output.status.code(), Some(code), "{}", path.display());
    }
}

#[test]
fn a_named_file_must_exist_and_the_default_file_is_optional() {
    let table = table(GOOD);
    let named =
        check().args(["--config", "/nonexistent/d.toml", "--table"]).arg(table.path()).output().unwrap();
    assert_eq!(named.status.code(), Some(78));
    assert!(text(&named).contains("cannot read configuration /nonexistent/d.toml: "), "{}", text(&named));
    let variable =
        check().env("T3_DISPATCH_CONFIG", "/nonexistent/d.toml").arg("--table").arg(table.path()).output();
    assert_eq!(variable.unwrap().status.code(), Some(78));
    if !Path::new("/etc/t3-dispatch.toml").exists() {
        let default = check().arg("--table").arg(table.path()).output().unwrap();
        assert_eq!(default.status.code(), Some(0), "{}", text(&default));
    }
    let folder = check().args(["--config", "/etc", "--table"]).arg(table.path()).output().unwrap();
    assert_eq!(folder.status.code(), Some(78));
}

#[test]
fn serve_rejects_an_invalid_file_and_uses_a_valid_one() {
    let table = table(GOOD);
    let wrong = file("listen = \"127.0.0.1:0\"\nlisen = 1\n");
    let output =
        program::dispatch(table.path(), &["--config", wrong.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output).contains("line 2, column 1: unknown option `lisen`"), "{}", text(&output));

    let right = file("listen = \"127.0.0.1:0\"\ndrain_time = \"1s\"\n");
    let mut command = program::dispatch(table.path(), &["--config", right.path().to_str().unwrap()]);
    let running = program::Running::of(&mut command);
    assert!(running.address.starts_with("127.0.0.1:"), "{}", running.address);
    assert!(running.get("nobody").starts_with("HTTP/1.1 403"));
}
