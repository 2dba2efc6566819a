//! The screens in docs/SCREENS.md are what the programs show: faults of the catalogue happen, the operator's commands run in a terminal of
//! 120 by 36, and what they show must have the shape of what the page has. `T3_REFRESH=1` puts what they show now into the page. Needs
//! root and tmux.

#![expect(clippy::panic, reason = "a failed helper fails its test")]

use std::{fs, path::Path, process::Command};

use t3_testkit::{Result, faults::play::Play, screens, stack::find, sys, terminal::Terminal};

/// Columns and lines of the terminal.
const SIZE: (u16, u16) = (120, 36);
/// A play on a starved machine shows something else than its faults; so often it is tried.
const ATTEMPTS: usize = 3;

/// While it happens, as the operator writes it.
const LIVE_PLAIN: &str = "t3-trace live --plain";
/// Afterwards, as the operator writes it; where the journal is of this test is added.
const LOOKING_BACK: &[&str] = &["t3-trace closes --since '10 minutes ago'"];

/// The command as the operator writes it, and what the terminal showed.
type Screen = (&'static str, String);

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
    let refresh = std::env::var_os("T3_REFRESH").is_some();
    let mut changed = String::new();
    for (command, text) in screens {
        let fresh = format!("$ {command}\n{}\n", text.trim_end());
        let Some(kept) = screens::block(&page, &format!("$ {command}")).map(str::to_owned) else {
            changed += &format!("docs/SCREENS.md has no block that begins with `$ {command}`\n");
            continue;
        };
        let difference = screens::difference(&kept, &fresh);
        if refresh {
            page = page.replace(&kept, &fresh);
        } else if !difference.is_empty() {
            changed += &format!("$ {command}\n{difference}It shows now:\n{fresh}\n");
        }
    }
    assert!(
        changed.is_empty(),
        "{changed}If that is right, run this test with T3_REFRESH=1 and look at the change."
    );
    if refresh {
        fs::write(&path, page).unwrap();
    }
}

/// All of them, from a play that went as it should.
fn screens() -> Result<Vec<Screen>> {
    let mut missed = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut play = Play::begin()?;
        let live = live(&play, LIVE_PLAIN, 0)?;
        play.play()?;
        missed = play.misses();
        if missed.is_empty() {
            return look(&play, &live);
        }
        eprintln!("once more: {}", missed.join("; "));
    }
    panic!("no play of {ATTEMPTS} went as its faults should: {}", missed.join("; "));
}

/// In the terminal and connected, before anything happens, beside so many others.
fn live(play: &Play, written: &str, others: u64) -> Result<Terminal> {
    let mut command = program(written)?;
    let terminal = start(command.arg("--socket").arg(play.stack.socket()))?;
    let mut looks = 0;
    t3_testkit::wait::until("live's connection", Play::SOON, || {
        // Whoever asks counts as one; the last one who asked may still do.
        let subscribed = play.stack.status().is_ok_and(|status| status.subscribers > others + 1);
        looks = if subscribed { looks + 1 } else { 0 };
        (looks >= 3).then_some(())
    })?;
    Ok(terminal)
}

fn look(play: &Play, live: &Terminal) -> Result<Vec<Screen>> {
    let all = |screen: &str| play.records.iter().all(|(_, record)| screen.contains(&record.user));
    live.until("a line of each close", Play::SOON, all)?;
    let mut screens = vec![(LIVE_PLAIN, live.everything()?)];
    for written in LOOKING_BACK {
        let mut command = program(written)?;
        let terminal = start(command.arg("--directory").args(play.journal.directory()))?;
        terminal.wait(Play::SOON)?;
        screens.push((written, terminal.everything()?));
    }
    Ok(screens)
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
