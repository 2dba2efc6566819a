//! Options from the file, the environment and the command line, and the errors of invalid ones.
//! Runs without a network.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    process,
};

use t3_probe::{
    cli::{Cli, Command},
    leg::Timeouts,
};

/// Exit status and stderr of `t3-probe once` with this file and these arguments.
fn once(file: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t3-probe.toml");
    fs::write(&path, file).unwrap();
    let mut command = process::Command::new(env!("CARGO_BIN_EXE_t3-probe"));
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
        ("serve = \"http://127.0.0.1:1\"\nprofile = \"go\"", &[], "expected one of: browser, python"),
        ("serve = \"http://127.0.0.1:1\"\nca-file = \"/nonexistent\"", &[], "--ca-file"),
    ] {
        let (status, _, stderr) = once(file, arguments, &[]);
        assert!(stderr.contains(what), "{file} {arguments:?}: {stderr}");
        assert_eq!(status, Some(2), "{stderr}");
    }
}

/// A serve that responds with this head to each request; returns its URL.
fn serve(head: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                request.extend(byte);
            }
            let _ = stream.write_all(format!("{head}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        }
    });
    url
}

#[test]
fn once_prints_one_json_document_with_typed_values() {
    let legs = format!(
        "serve = [\"ann={}\", \"bob={}\", \"cat=http://127.0.0.1:{}\"]\n",
        serve("HTTP/1.1 200 OK"),
        serve("HTTP/1.1 500 Internal Server Error"),
        closed()
    );
    let (status, text, stderr) = once(&legs, &["--json"], &[]);
    assert_eq!((status, stderr.as_str()), (Some(1), ""), "{text}");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["result"], "unknown");
    assert!(report["text"].as_str().unwrap().starts_with("Inconclusive: the legs t3serve:bob (http_500 in "));
    assert!(report["next"].as_str().unwrap().contains("--host and --internal"));
    let [ann, bob, cat] = report["legs"].as_array().unwrap().as_slice() else { panic!("{text}") };
    assert_eq!(
        (&ann["leg"], &ann["way"], &ann["state"]),
        (&"t3serve:ann".into(), &"t3serve".into(), &"clean".into())
    );
    assert!(ann["answer_ms"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 5_000.0), "{text}");
    assert!(ann["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{text}");
    let phases: Vec<_> =
        ann["phases"].as_array().unwrap().iter().map(|one| one["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["dns", "tcp"]);
    assert!(ann["phases"].as_array().unwrap().iter().all(|one| one["ms"].is_f64()), "{text}");
    assert!(ann.get("reason").is_none() && bob.get("answer_ms").is_none(), "{text}");
    assert_eq!(
        (&bob["reason"], &bob["phase"], &bob["state"]),
        (&"http_500".into(), &"upgrade".into(), &"down".into())
    );
    assert_eq!((&cat["reason"], &cat["phase"]), (&"connect_failed".into(), &"tcp".into()));
    assert!(cat["detail"].as_str().unwrap().contains("cannot connect to 127.0.0.1:"), "{text}");

    let (status, text, _) = once("json = true\n", &["--serve", &serve("HTTP/1.1 200 OK")], &[]);
    assert_eq!(status, Some(0), "{text}");
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
}

#[test]
fn the_packaged_file_lists_every_option_with_its_default_and_sets_none() {
    let text = include_str!("../../deploy/t3-probe.toml");
    let definition = t3_config::definition::<Cli>();
    let mut names = BTreeSet::new();
    for command in ["run", "once"] {
        let options = t3_config::options_of(definition.find_subcommand(command).unwrap());
        for arg in options.filter(|arg| !t3_config::is_file(arg)) {
            let name = arg.get_long().unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("#{name} = ")));
            let value = line.unwrap_or_else(|| panic!("deploy/t3-probe.toml does not list {name}"));
            for default in arg.get_default_values() {
                assert_eq!(value.trim_matches('"'), default, "{name}");
            }
            names.insert(name.to_owned());
        }
    }
    let (status, _, stderr) = once(text, &[], &[]);
    assert!(stderr.contains("no probe leg is configured"), "{stderr}");
    assert_eq!(status, Some(2));

    let is_option = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && !line.starts_with("##");
    let options: Vec<_> = text.lines().filter(is_option).map(|line| &line[1..]).collect();
    assert_eq!(options.len(), names.len(), "an option that does not exist");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), options.join("\n")).unwrap();
    let words = ["t3-probe".into(), "run".into(), "--config".into(), file.path().into()];
    let loaded = t3_config::read::<Cli, _>(words, &[]).unwrap();
    let Command::Run(run) = loaded.options.unwrap().command else { panic!("{text}") };
    assert_eq!(run.legs.timeouts(), Timeouts::default());
    assert_eq!((run.legs.serve.len(), run.no_json), (2, false));
}
