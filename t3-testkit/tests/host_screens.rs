//! Test of docs/SCREENS.md: injects faults of the catalogue, runs the operator's commands in a
//! terminal of 120 by 36, and compares the shape of each screen with the page. `cargo xtask docs`
//! updates the page. Needs root and tmux.

#![expect(clippy::panic, reason = "a failed helper fails its test")]

use std::{fs, path::Path, process::Command, time::Duration};

use t3_testkit::{
    Result,
    client::{Client, Config},
    faults::{self, Expect, PERIOD, incident_demo::IncidentDemo},
    harness::{Serve, Setup, find},
    journald::Journal,
    prerequisite,
    screens::{self, Kind},
    tmux::Terminal,
};

/// The eight basic faults and two frequent ones, each with its user.
const FAULTS: [(&str, &str); 10] = [
    ("client_close", "alice"),
    ("client_fin", "bob"),
    ("client_rst", "carol"),
    ("serve_close", "dave"),
    ("serve_fin", "erin"),
    ("serve_rst", "frank"),
    ("serve_sigkill", "grace"),
    ("serve_refused", "heidi"),
    ("serve_oom", "ivan"),
    ("serve_busy", "judy"),
];

/// Keys that must be as expected for the page; the others depend on the host.
const SHOWN: [&str; 6] = ["verdict", "segment", "how", "closed_by", "confidence", "burst"];

/// Timeout for output on a screen.
const SOON: Duration = Duration::from_secs(30);

/// Columns and lines of the terminal.
const SIZE: (u16, u16) = (120, 36);
/// Maximum number of attempts: a host without free CPU gives other records.
const ATTEMPTS: usize = 3;

/// Commands that run during the faults.
const WATCHING: [(&str, Kind); 2] = [("t3-trace live", Kind::Live), ("t3-trace live --plain", Kind::Lines)];
/// Commands on the journal after the faults; options for the test's journal are added.
const LOOKING_BACK: [(&str, Kind); 3] = [
    ("t3-trace closes --since '10 minutes ago'", Kind::Lines),
    ("t3-trace explain --last --user ivan", Kind::Page),
    ("t3-trace explain --last --user judy", Kind::Page),
];

/// Runs on this host, with the test's programs and journald.
const DOCTOR: &str = "t3-trace doctor";

/// A command line, the kind of its screen, and the screen.
type Screen = (&'static str, Kind, String);

#[test]
fn every_screen_in_the_docs_has_the_shape_of_the_programs_output() {
    let parts = prerequisite::root().and_then(|()| Terminal::possible());
    if prerequisite::or_skip("every_screen_in_the_docs_has_the_shape_of_the_programs_output", parts).is_none()
    {
        return;
    }
    // The name of the process that kills a serve is on the screen.
    fs::write("/proc/self/comm", "operator").unwrap();
    let operator = std::thread::Builder::new().name("operator".to_owned()).spawn(screens).unwrap();
    let screens = operator.join().unwrap().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SCREENS.md");
    let mut page = fs::read_to_string(&path).unwrap();
    let refresh = std::env::var_os("T3_UPDATE_DOCS").is_some();
    let mut changed = String::new();
    for (command, kind, text) in screens {
        let fresh = format!("$ {command}\n{}\n", text.trim_end());
        let Some(kept) = screens::block(&page, &format!("$ {command}")).map(str::to_owned) else {
            changed += &format!("docs/SCREENS.md has no block that begins with `$ {command}`\n");
            continue;
        };
        let difference = screens::difference(kind, &kept, &fresh);
        if refresh {
            page = page.replace(&kept, &fresh);
        } else if !difference.is_empty() {
            changed += &format!("$ {command}\n{difference}Output now:\n{fresh}\n");
        }
    }
    assert!(
        changed.is_empty(),
        "{changed}If this is intended, run `cargo xtask docs` as root and review the change."
    );
    if refresh {
        fs::write(&path, page).unwrap();
    }
}

/// All screens of a run in which each fault had its expected record.
fn screens() -> Result<Vec<Screen>> {
    let mut mismatches = Vec::new();
    for _ in 0..ATTEMPTS {
        let setup = Setup::named(FAULTS.map(|(_, user)| user))?;
        let mut demo = IncidentDemo::start(setup, Journal::private()?)?;
        let mut live = Vec::new();
        for (others, (written, kind)) in (0..).zip(WATCHING) {
            let terminal = start(program(written)?.arg("--socket").arg(demo.stack.socket()))?;
            demo.stack.until_subscribers(others + 1)?;
            live.push((written, kind, terminal));
        }
        for (name, user) in FAULTS {
            let fault = faults::fault(name)?;
            assert_eq!(demo.lacks(&fault), None, "{name}");
            demo.inject(fault, user)?;
        }
        let _session = reconnect(&demo, FAULTS[FAULTS.len() - 1].1)?;
        mismatches = unexpected(&demo)?;
        if mismatches.is_empty() {
            return capture(&demo, &live);
        }
        eprintln!("retrying: {}", mismatches.join("; "));
    }
    panic!("unexpected records in each of {ATTEMPTS} attempts: {}", mismatches.join("; "));
}

/// Opens the next session of a user.
fn reconnect(demo: &IncidentDemo, user: &str) -> Result<(Serve, Client)> {
    let serve = demo.stack.serve(user, &[], None)?;
    let mut config = Config::new(demo.stack.address, user).header("X-Forwarded-For", "203.0.113.7");
    config.heartbeat = Some(PERIOD);
    let client = Client::connect(config)?;
    client.heartbeats(3)?;
    Ok((serve, client))
}

/// Differences from the expected records, one line each; caused by a lack of CPU, so another
/// attempt may succeed.
fn unexpected(demo: &IncidentDemo) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (fault, records) in demo.records()? {
        if records.len() != 1 {
            lines.push(format!("{}: {} records", fault.name, records.len()));
        }
        // The catalogue accepts the segment of a busy host; the page does not.
        let mut expected = fault.expected.clone();
        if expected.of("segment") == Some(&Expect::StallSegment) {
            expected = expected.is("segment", "serve");
        }
        let mismatches = records.iter().flat_map(|record| expected.mismatches(record));
        lines.extend(mismatches.filter(|mismatch| SHOWN.contains(&mismatch.key.as_str())).map(|mismatch| {
            format!("{}: {} is {}, expected {}", fault.name, mismatch.key, mismatch.got, mismatch.expected)
        }));
    }
    Ok(lines)
}

fn capture(demo: &IncidentDemo, live: &[(&'static str, Kind, Terminal)]) -> Result<Vec<Screen>> {
    let all = |screen: &str| FAULTS.iter().all(|(_, user)| screen.contains(user));
    let mut screens = Vec::new();
    // Rates need two samples.
    let counts = |screen: &str| screen.lines().any(|line| line.starts_with("judy") && line.contains("B/s"));
    for (written, kind, terminal) in live {
        let complete = |screen: &str| all(screen) && (*kind != Kind::Live || counts(screen));
        let screen = terminal.until("a line of each close", SOON, complete)?;
        // The terminal breaks lines; the program does not.
        let text = if *kind == Kind::Live { screen } else { terminal.everything()? };
        screens.push((*written, *kind, text));
    }
    for (written, kind) in LOOKING_BACK {
        let mut command = program(written)?;
        let terminal = start(command.arg("--directory").args(demo.stack.journal.directory()))?;
        terminal.wait(SOON)?;
        screens.push((written, kind, terminal.everything()?));
    }
    screens.push((DOCTOR, Kind::Checks, doctor(demo)?));
    Ok(screens.into_iter().map(|(written, kind, text)| (written, kind, installed(demo, &text))).collect())
}

/// Runs doctor in the mount namespace of the private journald, where its journal has the paths of
/// the host's.
fn doctor(demo: &IncidentDemo) -> Result<String> {
    let inside = program(DOCTOR)?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{}/ns/mnt", demo.stack.journal.pid().unwrap_or_default()));
    // doctor asks t3-dispatch for its configuration.
    let (dispatch, path) = (find("t3-dispatch")?, std::env::var("PATH").unwrap_or_default());
    let folder = dispatch.parent().map(Path::display).into_iter();
    command.arg("env").arg(folder.map(|folder| format!("PATH={folder}:{path}")).collect::<String>());
    command.arg("T3_DISPATCH_TRUSTED_USER=root");
    command.arg(format!("T3_DISPATCH_TABLE={}", demo.stack.table().display()));
    command.arg(inside.get_program()).args(inside.get_args());
    command.arg("--socket").arg(demo.stack.socket()).arg("--table").arg(demo.stack.table());
    let terminal = start(&command)?;
    terminal.wait(SOON)?;
    terminal.everything()
}

/// Replaces paths with those of an installation, and shortens the kernel release to its version.
fn installed(demo: &IncidentDemo, text: &str) -> String {
    let (socket, table) = (demo.stack.socket(), demo.stack.table());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim();
    text.replace(&*socket.to_string_lossy(), "/run/t3-trace/evidence.sock")
        .replace(&*table.to_string_lossy(), "/etc/t3-serve/dispatch.json")
        .replace(kernel, kernel.split('-').next().unwrap_or_default())
}

/// Parses a shell command line.
fn program(written: &str) -> Result<Command> {
    let mut words = shlex::split(written).unwrap_or_default().into_iter();
    let mut command = Command::new(find(&words.next().unwrap_or_default())?);
    command.args(words);
    Ok(command)
}

fn start(command: &Command) -> Result<Terminal> {
    Terminal::start(SIZE.0, SIZE.1, command)
}
