//! Terminal in full-screen mode, restored on exit, error, signal and panic.

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

/// Guards against a second restore, which would move the cursor over later output.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Holds the terminal in full-screen mode; restores it on drop.
pub(super) struct TerminalGuard {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl TerminalGuard {
    /// Enters raw mode and the alternate screen.
    ///
    /// # Errors
    /// The terminal fails; it is restored then.
    pub(super) fn enter() -> io::Result<Self> {
        restore_on_panic();
        enter().inspect_err(|_| restore())?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout())).inspect_err(|_| restore())?;
        Ok(Self { terminal })
    }

    /// Stops the process group, as Ctrl-Z does in other programs; enters again when continued.
    ///
    /// # Errors
    /// The terminal fails.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        restore();
        // The whole group, as the terminal driver does it. The kernel ignores the signal for an
        // orphaned process group, which no shell could continue.
        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
        enter()?;
        self.terminal.clear()
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        restore();
    }
}

fn enter() -> io::Result<()> {
    ENTERED.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen)
}

/// Restores the terminal, best effort: errors cannot be shown.
fn restore() {
    if ENTERED.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Restores the terminal before the panic message is printed.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use crossterm::terminal::is_raw_mode_enabled;

    use super::*;

    /// Runs itself in a pseudo-terminal of script(1) (util-linux), and panics there.
    #[test]
    fn a_panic_is_printed_on_the_restored_terminal() {
        const INNER: &str = "T3_PANICS_IN_A_TERMINAL";
        const NAME: &str = "live::screen::terminal::tests::a_panic_is_printed_on_the_restored_terminal";
        if std::env::var_os(INNER).is_some() {
            let panicked = std::panic::catch_unwind(|| {
                let _guard = TerminalGuard::enter().unwrap();
                assert!(is_raw_mode_enabled().unwrap());
                panic!("the reason");
            });
            assert!(panicked.is_err() && !is_raw_mode_enabled().unwrap());
            println!("restored");
            return;
        }
        let me = std::env::current_exe().unwrap();
        let again = format!("'{}' --exact --nocapture {NAME}", me.display());
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &again, "/dev/null"]).env(INNER, "1");
        let output = script.stdin(Stdio::null()).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && shown.contains("restored"), "{shown}");
        let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text:?} in {shown:?}"));
        let (entered, left, message) = (at("\u{1b}[?1049h"), at("\u{1b}[?1049l"), at("the reason"));
        assert!(entered < left && left < message, "{shown:?}");
        assert_eq!(shown.matches("\u{1b}[?1049l").count(), 1, "restored once");
    }
}
