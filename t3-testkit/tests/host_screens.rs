//! The screens in docs/SCREENS.md are what the programs show: faults of the catalogue happen, the
//! operator's commands run in a terminal of 120 by 36, and what they show must have the shape of
//! what the page has. `cargo xtask docs` updates the page. Needs root and tmux.

#![expect(clippy::panic, reason = "a failed helper fails its test")]

use std::{fs, path::Path, process::Command};

use t3_testkit::{
    Result,
    faults::incident_demo::IncidentDemo,
    harness::find,
    screens::{self, Kind},
    sys,
    tmux::Terminal,
};

/// Columns and lines of the terminal.
const SIZE: (u16, u16) = (120, 36);
/// A play on a starved machine shows something else than its faults; so often it is tried.
const ATTEMPTS: usize = 3;

/// Watching while it happens, as the operator writes it.
const WATCHING: [(&str, Kind); 2] = [("t3-trace live", Kind::Live), ("t3-trace live --plain", Kind::Lines)];
/// Afterwards, in the journal; where that of this test is is added.
const LOOKING_BACK: [(&str, Kind); 3] = [
    ("t3-trace closes --since '10 minutes ago'", Kind::Lines),
    ("t3-trace explain --last --user ivan", Kind::Page),
    ("t3-trace explain --last --user judy", Kind::Page),
];

/// The machine as it is, with this test's programs and journald.
const DOCTOR: &str = "t3-trace doctor";

/// A command as the operator writes it, how its screen is looked at, and what the terminal showed.
type Screen = (&'static str, Kind, String);

#[test]
fn every_screen_in_the_docs_is_what_the_programs_show() {
    let possible = Terminal::possible().map_err(|error| error.to_string());
    let possible = if sys::is_root() { possible } else { Err("needs root".to_owned()) };
    if let Err(why) = possible {
        assert!(std::env::var_os("CI").is_none(), "CI must run this: {why}");
        eprintln!("SKIPPED: {why}");
        return;
    }
    // Whoever kills a serve is named on the screen.
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
            changed += &format!("$ {command}\n{difference}It shows now:\n{fresh}\n");
        }
    }
    assert!(
        changed.is_empty(),
        "{changed}If that is right, run `cargo xtask docs` as root and check the change."
    );
    if refresh {
        fs::write(&path, page).unwrap();
    }
}

/// All of them, from a play that went as it should.
fn screens() -> Result<Vec<Screen>> {
    let mut missed = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut demo = IncidentDemo::start()?;
        let mut live = Vec::new();
        for (others, (written, kind)) in (0..).zip(WATCHING) {
            live.push((written, kind, watch(&demo, written, others)?));
        }
        demo.run()?;
        missed = demo.mismatches();
        if missed.is_empty() {
            return look(&demo, &live);
        }
        eprintln!("once more: {}", missed.join("; "));
    }
    panic!("no play of {ATTEMPTS} went as its faults should: {}", missed.join("; "));
}

/// In the terminal and connected, before anything happens, beside so many others.
fn watch(demo: &IncidentDemo, written: &str, others: u64) -> Result<Terminal> {
    let mut command = program(written)?;
    let terminal = start(command.arg("--socket").arg(demo.stack.socket()))?;
    let mut looks = 0;
    t3_testkit::wait::until("live's connection", IncidentDemo::SOON, || {
        // Whoever asks counts as one; the last one who asked may still do.
        let subscribed = demo.stack.status().is_ok_and(|status| status.subscribers > others + 1);
        looks = if subscribed { looks + 1 } else { 0 };
        (looks >= 3).then_some(())
    })?;
    Ok(terminal)
}

fn look(demo: &IncidentDemo, live: &[(&'static str, Kind, Terminal)]) -> Result<Vec<Screen>> {
    let all = |screen: &str| demo.records.iter().all(|(_, record)| screen.contains(&record.user));
    let mut screens = Vec::new();
    // Rates are there from the second look on.
    let counts = |screen: &str| screen.lines().any(|line| line.starts_with("judy") && line.contains("B/s"));
    for (written, kind, terminal) in live {
        let whole = |screen: &str| all(screen) && (*kind != Kind::Live || counts(screen));
        let screen = terminal.until("a line of each close", IncidentDemo::SOON, whole)?;
        // Where lines are broken is the terminal's doing and no part of what was printed.
        let text = if *kind == Kind::Live { screen } else { terminal.everything()? };
        screens.push((*written, *kind, text));
    }
    for (written, kind) in LOOKING_BACK {
        let mut command = program(written)?;
        let terminal = start(command.arg("--directory").args(demo.journal.directory()))?;
        terminal.wait(IncidentDemo::SOON)?;
        screens.push((written, kind, terminal.everything()?));
    }
    screens.push((DOCTOR, Kind::Checks, doctor(demo)?));
    Ok(screens.into_iter().map(|(written, kind, text)| (written, kind, installed(demo, &text))).collect())
}

/// journald and its journal are where that of the machine would be, for those in its mount
/// namespace.
fn doctor(demo: &IncidentDemo) -> Result<String> {
    let inside = program(DOCTOR)?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{}/ns/mnt", demo.journal.pid().unwrap_or_default()));
    command.arg(inside.get_program()).args(inside.get_args());
    command.arg("--socket").arg(demo.stack.socket()).arg("--table").arg(demo.stack.table());
    let terminal = start(&command)?;
    terminal.wait(IncidentDemo::SOON)?;
    terminal.everything()
}

/// With the paths of an installation, and the kernel's release without the builder's own part of
/// it.
fn installed(demo: &IncidentDemo, text: &str) -> String {
    let (socket, table) = (demo.stack.socket(), demo.stack.table());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim();
    text.replace(&*socket.to_string_lossy(), "/run/t3-trace/evidence.sock")
        .replace(&*table.to_string_lossy(), "/etc/t3-serve/dispatch.json")
        .replace(kernel, kernel.split('-').next().unwrap_or_default())
}

/// A command as it is written in a shell.
fn program(written: &str) -> Result<Command> {
    let mut words = shlex::split(written).unwrap_or_default().into_iter();
    let mut command = Command::new(find(&words.next().unwrap_or_default())?);
    command.args(words);
    Ok(command)
}

fn start(command: &Command) -> Result<Terminal> {
    Terminal::start(SIZE.0, SIZE.1, command)
}
