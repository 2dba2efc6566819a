//! The terminal for tests: input arrives, output is shown, and the modes after a program's exit are
//! reported.

use std::{process::Command, time::Duration};

use t3_testkit::{
    prerequisite,
    tmux::{Modes, Terminal},
};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_program_in_a_terminal_can_be_driven_resized_signalled_and_inspected() {
    if prerequisite::or_skip("the test of the terminal", Terminal::possible()).is_none() {
        return;
    }
    let mut shell = Command::new("sh");
    shell.env_remove("ZONE").env("GREETING", "wide \u{754c} and 'quoted'").current_dir("/usr").args([
        "-c",
        "trap 'stty size' WINCH; pwd; echo \"$GREETING${ZONE-}\"; stty -echo; printf '\\033[?1049h\\033[?25l'; \
         printf 'hidden '; read a; echo \"[$a]\"; while :; do read b && break; done; printf '\\033[?1049l\\033[?25h'; exit 7",
    ]);
    let terminal = Terminal::start(60, 12, &shell).unwrap();
    terminal.until_shows("hidden", SOON).unwrap();
    assert_eq!(
        terminal.modes().unwrap(),
        Modes { raw: true, alternate_screen: true, cursor_hidden: true, mouse: false }
    );
    terminal.write("a b;c").unwrap();
    terminal.press(&["Enter"]).unwrap();
    let screen = terminal.until_shows("[a b;c]", SOON).unwrap();
    assert!(!screen.contains("quoted"), "the main screen must be hidden:\n{screen}");
    terminal.resize(70, 20).unwrap();
    terminal.until_shows("20 70", SOON).unwrap();
    assert_eq!(terminal.ended(), None);
    terminal.press(&["Enter"]).unwrap();
    assert_eq!(terminal.wait(SOON).unwrap(), 7);
    let left = terminal.until_shows("wide \u{754c} and 'quoted'", SOON).unwrap();
    assert!(left.starts_with("/usr\n"), "{left}");
    // It has not restored the echo.
    assert_eq!(terminal.modes().unwrap(), Modes { raw: true, ..Modes::default() });

    let mut sleeper = Command::new("sh");
    sleeper.args(["-c", "seq 100; exec sleep 1000"]);
    let terminal = Terminal::start(20, 5, &sleeper).unwrap();
    terminal.until_shows("100", SOON).unwrap();
    assert!(terminal.everything().unwrap().starts_with("1\n2\n3\n"));
    terminal.signal(15).unwrap();
    assert_eq!(terminal.wait(SOON).unwrap(), 128 + 15);
}
