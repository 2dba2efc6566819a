//! The terminal as this process takes it, and puts it back however it ends: left, failed, told to
//! stop, panicked.

use std::{
    io::{self, Stdout, stdout},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    cursor::Show,
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Terminal, backend::CrosstermBackend};

/// Given back twice, the cursor would jump over what was printed between.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Taken while it lives.
pub(super) struct TerminalGuard {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl TerminalGuard {
    /// Takes it: keys come one by one, and the screen is ours.
    ///
    /// # Errors
    /// Of the terminal; it is as it was then.
    pub(super) fn take() -> io::Result<Self> {
        put_back_on_panic();
        enter().inspect_err(|_| give_back())?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout())).inspect_err(|_| give_back())?;
        Ok(Self { terminal })
    }

    /// Stops this process, as other programs do on Ctrl-Z, and takes the terminal anew when it is
    /// continued.
    ///
    /// # Errors
    /// Of the terminal.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // The whole group stops, as a terminal would do it. Where no shell could continue it the
        // kernel lets it go on.
        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
        enter()?;
        self.terminal.clear()
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen)
}

/// As far as it can be: nobody is left to tell of what fails.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// What a panic says is printed on the terminal as it was before.
fn put_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use crossterm::terminal::is_raw_mode_enabled;

    use super::*;

    /// Runs itself in a terminal (script(1) of util-linux makes one), and panics there.
    #[test]
    fn a_panic_is_told_on_the_terminal_as_it_was_before() {
        const INNER: &str = "T3_PANICS_IN_A_TERMINAL";
        const NAME: &str = "live::screen::terminal::tests::a_panic_is_told_on_the_terminal_as_it_was_before";
        if std::env::var_os(INNER).is_some() {
            let panicked = std::panic::catch_unwind(|| {
                let _taken = TerminalGuard::take().unwrap();
                assert!(is_raw_mode_enabled().unwrap());
                panic!("the reason");
            });
            assert!(panicked.is_err() && !is_raw_mode_enabled().unwrap());
            println!("as it was");
            return;
        }
        let me = std::env::current_exe().unwrap();
        let again = format!("'{}' --exact --nocapture {NAME}", me.display());
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &again, "/dev/null"]).env(INNER, "1");
        let output = script.stdin(Stdio::null()).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && shown.contains("as it was"), "{shown}");
        let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text:?} in {shown:?}"));
        let (taken, back, sent) = (at("\u{1b}[?1049h"), at("\u{1b}[?1049l"), at("the reason"));
        assert!(taken < back && back < sent, "{shown:?}");
        assert_eq!(shown.matches("\u{1b}[?1049l").count(), 1, "given back once");
    }
}
