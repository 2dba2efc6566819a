//! `/etc/t3-trace.toml`, the environment and the command line: precedence, errors, and the options
//! of every command. Starts the program; needs nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Output, Stdio},
};

use t3_config::Sources;
use t3_trace::cli::{Cli, Command as Parsed, RULES};

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The program without the variables of this test.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs `live --plain`, which would not end, until it has written a line; returns this line.
fn first_line(mut command: Command, of_stdout: bool) -> String {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stream: Box<dyn Read> = if of_stdout {
        Box::new(child.stdout.take().unwrap())
    } else {
        Box::new(child.stderr.take().unwrap())
    };
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    line
}

#[test]
fn explain_queries_the_servers_of_the_file() {
    let file = file(
        "loki = \"https://loki.example.org\"\nloki_tenant = \"t3\"\nloki-token-file = \"/etc/token\"\n\
         loki-selector = ['{unit=\"ssh.service\"}']\nprometheus = \"http://prometheus.example.org:9090\"\n\
         traefik-log = [\"/var/log/a\", \"/var/log/b\"]\nlayer-ca = \"/etc/ca.pem\"\nlayer-timeout = \"3s\"\n",
    );
    let explain = |more: &[&str]| {
        let mut words: Vec<OsString> =
            ["t3-trace", "explain", "--last", "--config"].map(OsString::from).to_vec();
        words.push(file.path().into());
        words.extend(more.iter().map(OsString::from));
        let loaded = Sources::read::<Cli, _>(words, RULES).unwrap().parse::<Cli>().unwrap();
        match loaded.options.unwrap().command {
            Parsed::Explain(args) => args.layers,
            other => panic!("{other:?}"),
        }
    };
    let layers = explain(&[]);
    assert_eq!(layers.server.loki.as_deref(), Some("https://loki.example.org"));
    assert_eq!(layers.server.loki_tenant.as_deref(), Some("t3"));
    assert_eq!(layers.server.loki_token_file.as_deref(), Some(Path::new("/etc/token")));
    assert_eq!(layers.loki_selector, ["{unit=\"ssh.service\"}"]);
    assert_eq!(layers.prometheus.as_deref(), Some("http://prometheus.example.org:9090"));
    assert_eq!(layers.traefik_log.len(), 2);
    assert_eq!(layers.server.layer_ca.as_deref(), Some(Path::new("/etc/ca.pem")));
    assert_eq!(layers.layer_timeout.as_secs(), 3);
    // Another way to log in on the command line.
    let layers = explain(&["--loki-user", "ann", "--loki-password-file", "/p", "--loki", "http://l"]);
    assert_eq!((layers.server.loki.as_deref(), layers.server.loki_token_file), (Some("http://l"), None));
}

#[test]
fn the_command_line_overrides_the_environment_which_overrides_the_file() {
    let file = file("socket = \"/nonexistent/file\"\n");
    for (variable, option, expected) in [
        (None, None, "/nonexistent/file"),
        (Some("/nonexistent/variable"), None, "/nonexistent/variable"),
        (Some("/nonexistent/variable"), Some("--socket=/nonexistent/option"), "/nonexistent/option"),
    ] {
        let mut command = program();
        command.args(["live", "--plain", "--config"]).arg(file.path()).args(option);
        if let Some(variable) = variable {
            command.env("T3_TRACE_SOCKET", variable);
        }
        let line = first_line(command, false);
        assert!(line.contains(&format!("no daemon at {expected} ")), "{line}");
    }
    // The variable of the file.
    let mut command = program();
    command.args(["live", "--plain"]).env("T3_TRACE_CONFIG", file.path());
    assert!(first_line(command, false).contains("/nonexistent/file"));
}

#[test]
fn an_error_of_the_file_is_reported_by_every_command_with_its_line() {
    let file = file("color = \"always\"\nlokki = \"https://loki.example.org\"\nuser = \"ann\"\n");
    let name = file.path().display();
    for command in [&["live", "--plain"][..], &["closes"], &["explain", "--last"], &["doctor"], &["daemon"]] {
        let output = program().args(command).arg("--config").arg(file.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{command:?}: {}", stderr(&output));
        let errors = stderr(&output);
        for expected in [
            format!("t3-trace: {name}, line 2, column 1: unknown option `lokki`; did you mean `loki`?"),
            format!("t3-trace: {name}, line 3, column 1: `user` can only be set on the command line"),
        ] {
            assert!(errors.contains(&expected), "{command:?}: {expected} in\n{errors}");
        }
    }
}

#[test]
fn a_value_of_another_command_does_not_stop_a_command() {
    let file = file("layer-timeout = \"soon\"\nspool-size = \"large\"\n");
    let run = |command: &[&str]| {
        let output = program().args(command).arg("--config").arg(file.path()).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, errors) = run(&["explain", "--last"]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("line 1, column 17: `layer-timeout` cannot be \"soon\": expected"), "{errors}");
    assert!(!errors.contains("spool-size"), "{errors}");
    let (code, errors) = run(&["daemon"]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("line 2, column 14: `spool-size` cannot be \"large\""), "{errors}");
    let folder = tempfile::tempdir().unwrap();
    let (_, errors) = run(&["closes", "--directory", folder.path().to_str().unwrap()]);
    assert!(!errors.contains("layer-timeout") && !errors.contains("spool-size"), "{errors}");
}

/// systemd restarts the daemon after 1 and not after 2.
#[test]
fn only_an_invalid_configuration_of_the_daemon_has_the_exit_status_2() {
    let state = tempfile::tempdir().unwrap();
    for (option, expected) in
        [("--log-filter==a=b=", 2), ("--spool-size=large", 2), ("--socket=/proc/none/e.sock", 1)]
    {
        let mut command = program();
        command.args([
            "daemon",
            "--config",
            "/dev/null",
            "--no-ebpf",
            "--log",
            "stderr",
            option,
            "--state-dir",
        ]);
        let output = command.arg(state.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{option}: {}", stderr(&output));
    }
}

#[test]
fn a_named_file_must_exist() {
    for command in [&["closes"][..], &["daemon"]] {
        let output = program().args(command).args(["--config", "/nonexistent/t.toml"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let expected = "cannot read configuration /nonexistent/t.toml: No such file or directory";
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn the_zone_is_that_of_the_option_then_tz_then_the_file() {
    if !Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists() {
        return eprintln!("skipped: no time zone database");
    }
    let file = file("time-zone = \"Asia/Tokyo\"\n");
    let folder = tempfile::tempdir().unwrap();
    // 12:00 is 12:00 UTC, or 03:00 UTC in Tokyo; the range ends at 11:00 UTC.
    let is_reversed = |tz: Option<&str>, more: &[&str]| {
        let mut command = program();
        command.args(["closes", "--since", "2026-01-15 12:00", "--until", "@1768474800", "--directory"]);
        command.arg(folder.path()).arg("--config").arg(file.path()).args(more);
        if let Some(tz) = tz {
            command.env("TZ", tz);
        }
        stderr(&command.output().unwrap()).contains("the range ends before it starts")
    };
    for (tz, more, expected) in [
        (None, &[][..], false),
        (Some("UTC"), &[], true),
        (Some(""), &[], false),
        (None, &["--time-zone", "UTC"], true),
        (Some("UTC"), &["--time-zone=Asia/Tokyo"], false),
        (Some("UTC"), &["--time-zone", "system"], true),
    ] {
        assert_eq!(is_reversed(tz, more), expected, "{tz:?} {more:?}");
    }
}

#[test]
fn colours_are_as_the_option_says_also_in_a_pipe() {
    let file = file("color = \"always\"\n");
    let is_coloured = |config: &Path, no_color: bool, more: &[&str]| {
        let mut command = program();
        command.args(["live", "--plain", "--socket", "/nonexistent", "--config"]).arg(config).args(more);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let line = first_line(command, true);
        assert!(line.contains("VERDICT") || line.contains("USER"), "{line}");
        line.contains('\x1b')
    };
    let none = Path::new("/dev/null");
    for (config, no_color, more, expected) in [
        (none, false, &[][..], false),
        (none, false, &["--color=always"], true),
        (none, true, &["--color", "always"], true),
        (file.path(), true, &[], true),
        (file.path(), false, &["--color=auto"], false),
        (file.path(), false, &["--color=never"], false),
    ] {
        assert_eq!(is_coloured(config, no_color, more), expected, "{config:?} {no_color} {more:?}");
    }
}
