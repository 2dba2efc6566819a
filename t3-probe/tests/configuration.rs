//! Options from the file, the environment and the command line, and the errors of invalid ones.
//! Runs without a network.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, process::Command};

/// Exit status and stderr of `t3-probe once` with this file and these arguments.
fn once(file: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t3-probe.toml");
    fs::write(&path, file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-probe"));
    command.arg("once").arg("--config").arg(&path).args(arguments).env_clear();
    command.envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A port without a listener.
fn closed() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn legs_come_from_the_file_and_the_command_line_wins() {
    let (ann, bob) = (closed(), closed());
    let file = format!(
        "listen = \"[::]:9108\"\nserve = [\"ann=http://127.0.0.1:{ann}\", \"bob=http://127.0.0.1:{bob}\"]\n"
    );
    let (status, table, stderr) = once(&file, &[], &[]);
    assert_eq!((status, stderr.as_str()), (Some(1), ""), "{table}");
    for (name, port) in [("t3serve:ann", ann), ("t3serve:bob", bob)] {
        let row = table.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(
            row.contains(&format!("connect_failed in tcp: cannot connect to 127.0.0.1:{port}: ")),
            "{table}"
        );
    }
    assert!(
        table.ends_with(
            ") are down, no leg cloudflare or internal is observed.\n\
             Next: configure the missing legs of t3-probe (--host and --internal).\n"
        ) && table.contains("\nInconclusive: the legs t3serve:ann (connect_failed in tcp: "),
        "{table}"
    );

    let other = format!("cat=http://127.0.0.1:{}", closed());
    let (_, table, _) = once(&file, &["--serve", &other], &[("T3_PROBE_SERVE", "dog=http://127.0.0.1:1")]);
    assert!(
        table.contains("t3serve:cat") && !table.contains("t3serve:ann") && !table.contains("dog"),
        "{table}"
    );
    let (_, table, _) = once(&file, &[], &[("T3_PROBE_SERVE", "dog=http://127.0.0.1:1")]);
    assert!(table.contains("t3serve:dog") && !table.contains("t3serve:ann"), "{table}");
}

#[test]
fn invalid_options_are_named_and_exit_with_2() {
    for (file, arguments, what) in [
        ("hots = \"t3\"", &[][..], "line 1, column 1: unknown option `hots`; did you mean `host`?"),
        ("host = \"t3\"\nbeat = \"0s\"", &[], "line 2, column 8: `beat` cannot be \"0s\""),
        ("", &[], "no probe leg is configured"),
        ("", &["--internal", "10.0.0.1"], "--internal requires --host"),
        ("", &["--serve", "nonsense"], "expected [NAME=]URL"),
    ] {
        let (status, _, stderr) = once(file, arguments, &[]);
        assert!(stderr.contains(what), "{file} {arguments:?}: {stderr}");
        assert_eq!(status, Some(2), "{stderr}");
    }
}
