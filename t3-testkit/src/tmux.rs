//! A program in a tmux terminal of a given size: sends keys and reads the screen.
//!
//! The tmux server is private (a socket in a temporary directory, no configuration) and ends with
//! the thread that started it. The terminal stays after the end of the program, for checks of the
//! state that it left.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    error::{Attempt, Result, TestError},
    harness::Process,
    sys, wait,
};

/// Server settings: no status line, and keys without delay.
const SETTINGS: &str = "set -s exit-empty off
set -s escape-time 0
set -g status off
set -g default-terminal tmux-256color
set -g history-limit 20000
set -g remain-on-exit on
";

/// Writes the program's process id and exit status to files and keeps the terminal open. Signals
/// from the keyboard reach only the program.
const WRAPPER: &str = r#"dir=$1; shift; trap : INT QUIT
sh -c 'dir=$1; shift; echo $$ >"$dir/pid"; exec "$@"' sh "$dir" "$@"
echo $? >"$dir/ended.new"; mv "$dir/ended.new" "$dir/ended"; exec sleep 100000"#;

/// Timeout for tmux.
const SOON: Duration = Duration::from_secs(10);

/// A terminal with one program in it.
#[derive(Debug)]
pub struct Terminal {
    dir: tempfile::TempDir,
    // Ends the program as well: the kernel sends SIGHUP.
    _server: Process,
}

impl Terminal {
    /// Checks that tmux is installed.
    ///
    /// # Errors
    /// [`TestError::Missing`] with what to install.
    pub fn possible() -> Result<()> {
        let version = Command::new("tmux").arg("-V").stdout(Stdio::null()).status();
        if version.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        Err(TestError::Missing { what: "tmux".to_owned(), remedy: "install the package tmux".to_owned() })
    }

    /// Starts the program with its arguments, environment and directory; `TERM` is tmux's.
    pub fn start(width: u16, height: u16, program: &Command) -> Result<Self> {
        Self::possible()?;
        let dir = tempfile::tempdir().attempt(|| "make a directory for tmux".to_owned())?;
        let settings = dir.path().join("tmux.conf");
        std::fs::write(&settings, SETTINGS).attempt(|| format!("write {}", settings.display()))?;
        let mut server = tmux(dir.path().join("socket"));
        server.args(["-D", "-f"]).arg(&settings);
        let terminal = Self { _server: Process::start(server)?, dir };
        wait::until("an answer of tmux", SOON, || {
            run(terminal.tmux().args(["show-options", "-s", "exit-empty"]))
                .is_ok_and(|text| text.contains("off"))
                .then_some(())
        })?;
        let mut words: Vec<OsString> = ["sh", "-c", WRAPPER, "sh"].into_iter().map(OsString::from).collect();
        words.push(terminal.dir.path().into());
        words.push("env".into());
        // env(1) expects the removed variables before the others.
        let taken_away = program.get_envs().filter(|(_, value)| value.is_none());
        words.extend(taken_away.flat_map(|(name, _)| [OsString::from("-u"), name.to_owned()]));
        let set = program.get_envs().filter_map(|(name, value)| Some([name, value?].join(OsStr::new("="))));
        words.extend(set);
        words.push(program.get_program().to_owned());
        words.extend(program.get_args().map(OsStr::to_owned));
        let size = ["-x".to_owned(), width.to_string(), "-y".to_owned(), height.to_string()];
        let mut start = terminal.tmux();
        start.args(["new-session", "-d"]).args(size);
        if let Some(directory) = program.get_current_dir() {
            start.arg("-c").arg(directory);
        }
        run(start.arg("--").args(words))?;
        Ok(terminal)
    }

    fn tmux(&self) -> Command {
        let mut command = tmux(self.dir.path().join("socket"));
        // A client never starts another server.
        command.arg("-N");
        command
    }

    /// Presses keys by their tmux names: `q`, `Enter`, `Down`, `Escape`, `C-c`, `PageUp`.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        run(self.tmux().arg("send-keys").args(keys)).map(drop)
    }

    pub fn write(&self, text: &str) -> Result<()> {
        run(self.tmux().args(["send-keys", "-l", "--", text])).map(drop)
    }

    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        run(self.tmux().args(["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]))
            .map(drop)
    }

    /// The text on the screen, without trailing blanks.
    pub fn screen(&self) -> Result<String> {
        run(self.tmux().args(["capture-pane", "-p"]))
    }

    /// The same with colour escape sequences.
    pub fn screen_in_colour(&self) -> Result<String> {
        run(self.tmux().args(["capture-pane", "-p", "-e"]))
    }

    /// The scrollback and the screen.
    pub fn everything(&self) -> Result<String> {
        run(self.tmux().args(["capture-pane", "-p", "-J", "-S", "-"]))
    }

    /// Waits until the screen contains a text; returns the screen.
    pub fn until_shows(&self, text: &str, limit: Duration) -> Result<String> {
        self.until(&format!("a screen that shows {text:?}"), limit, |screen| screen.contains(text))
    }

    /// Waits until `wanted` holds for the screen; returns the screen.
    pub fn until(&self, what: &str, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        let shown = wait::until(what, limit, || {
            last = self.screen().ok()?;
            wanted(&last).then(|| last.clone())
        });
        shown.map_err(|_| TestError::Unexpected { what: what.to_owned(), got: format!("\n{last}") })
    }

    pub fn pid(&self) -> Result<u32> {
        wait::until("the program in the terminal", SOON, || {
            std::fs::read_to_string(self.dir.path().join("pid")).ok()?.trim().parse().ok()
        })
    }

    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = self.pid()?;
        sys::signal(pid, signal).attempt(|| format!("send signal {signal} to the program in the terminal"))
    }

    /// Exit status of the program as in a shell (128 + N: signal N); `None` while it runs.
    #[must_use]
    pub fn ended(&self) -> Option<i32> {
        std::fs::read_to_string(self.dir.path().join("ended")).ok()?.trim().parse().ok()
    }

    /// Waits for the end of the program; returns its exit status.
    pub fn wait(&self, limit: Duration) -> Result<i32> {
        wait::until("the end of the program in the terminal", limit, || self.ended())
    }

    /// Modes that programs change and must restore.
    pub fn modes(&self) -> Result<Modes> {
        let format = "#{pane_tty} #{alternate_on} #{cursor_flag} #{mouse_any_flag}";
        let text = run(self.tmux().args(["display-message", "-p", format]))?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[tty, alternate, cursor, mouse] = words.as_slice() else {
            return Err(TestError::Unexpected {
                what: "the terminal's modes from tmux".to_owned(),
                got: text,
            });
        };
        let discipline = run(Command::new("stty").args(["-F", tty, "-a"]))?;
        let words: Vec<&str> = discipline.split([' ', ';', '\n']).collect();
        Ok(Modes {
            raw: words.contains(&"-icanon") || words.contains(&"-echo"),
            alternate_screen: alternate == "1",
            cursor_hidden: cursor == "0",
            mouse: mouse == "1",
        })
    }
}

/// Modes of a terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    /// No line discipline and no echo.
    pub raw: bool,
    pub alternate_screen: bool,
    pub cursor_hidden: bool,
    pub mouse: bool,
}

fn tmux(socket: PathBuf) -> Command {
    let mut command = Command::new("tmux");
    // Independent of an outer tmux.
    command
        .env_remove("TMUX")
        .env_remove("TMUX_PANE")
        .env("LC_ALL", "C.UTF-8")
        .args(["-u", "-S"])
        .arg(socket);
    command
}

fn run(command: &mut Command) -> Result<String> {
    let what = || format!("run {}", command.get_program().to_string_lossy());
    let what = what();
    let output = command.stdin(Stdio::null()).output().attempt(|| what.clone())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(TestError::Unexpected { what, got: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}
