//! A program in a terminal of a given size, under tmux: keys go in, the text on its screen comes
//! out.
//!
//! The server is the test's own (a socket in a temporary directory, no configuration) and dies with
//! the thread that started it; the person's own tmux is never spoken to. The terminal stays when
//! the program has ended, so that what it left behind can be looked at.

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

/// The server's settings: nothing on the screen but the program's own, and keys that arrive at
/// once.
const SETTINGS: &str = "set -s exit-empty off
set -s escape-time 0
set -g status off
set -g default-terminal tmux-256color
set -g history-limit 20000
set -g remain-on-exit on
";

/// Leaves the program's process id and exit status in files and keeps the terminal open. Signals
/// from the keyboard reach the program only.
const WRAPPER: &str = r#"dir=$1; shift; trap : INT QUIT
sh -c 'dir=$1; shift; echo $$ >"$dir/pid"; exec "$@"' sh "$dir" "$@"
echo $? >"$dir/ended.new"; mv "$dir/ended.new" "$dir/ended"; exec sleep 100000"#;

/// How long a tmux that works may take.
const SOON: Duration = Duration::from_secs(10);

/// A terminal with one program in it.
#[derive(Debug)]
pub struct Terminal {
    dir: tempfile::TempDir,
    // Ends the program too: the kernel hangs its terminal up.
    _server: Process,
}

impl Terminal {
    /// Whether this machine can do it.
    ///
    /// # Errors
    /// [`TestError::Missing`] with what to install.
    pub fn possible() -> Result<()> {
        let asked = Command::new("tmux").arg("-V").stdout(Stdio::null()).status();
        if asked.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        Err(TestError::Missing { what: "tmux".to_owned(), remedy: "install the package tmux".to_owned() })
    }

    /// Starts the program with its arguments, its changes of the environment and its directory;
    /// `TERM` is tmux's.
    ///
    /// # Errors
    /// tmux is missing or does not start.
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
                .is_ok_and(|told| told.contains("off"))
                .then_some(())
        })?;
        let mut words: Vec<OsString> = ["sh", "-c", WRAPPER, "sh"].into_iter().map(OsString::from).collect();
        words.push(terminal.dir.path().into());
        words.push("env".into());
        // What is taken away comes before what is set, as env wants it.
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
        // A client never starts a server of its own.
        command.arg("-N");
        command
    }

    /// Presses keys, each by tmux's name for it: `q`, `Enter`, `Down`, `Escape`, `C-c`, `PageUp`.
    ///
    /// # Errors
    /// tmux has gone.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        run(self.tmux().arg("send-keys").args(keys)).map(drop)
    }

    /// Types a text.
    ///
    /// # Errors
    /// tmux has gone.
    pub fn write(&self, text: &str) -> Result<()> {
        run(self.tmux().args(["send-keys", "-l", "--", text])).map(drop)
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// tmux has gone.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        run(self.tmux().args(["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]))
            .map(drop)
    }

    /// The text on the screen: one line each, without blanks at the end.
    ///
    /// # Errors
    /// tmux has gone.
    pub fn screen(&self) -> Result<String> {
        run(self.tmux().args(["capture-pane", "-p"]))
    }

    /// The same with the escape sequences of its colours.
    ///
    /// # Errors
    /// tmux has gone.
    pub fn screen_in_colour(&self) -> Result<String> {
        run(self.tmux().args(["capture-pane", "-p", "-e"]))
    }

    /// All that was printed: what has scrolled off and the screen.
    ///
    /// # Errors
    /// tmux has gone.
    pub fn everything(&self) -> Result<String> {
        run(self.tmux().args(["capture-pane", "-p", "-J", "-S", "-"]))
    }

    /// Waits until the screen shows a text, and gives the screen.
    ///
    /// # Errors
    /// [`TestError::Unexpected`] with the screen as it is when the text does not come in time.
    pub fn until_shows(&self, text: &str, limit: Duration) -> Result<String> {
        self.until(&format!("a screen that shows {text:?}"), limit, |screen| screen.contains(text))
    }

    /// Waits until the screen is as wanted, and gives it.
    ///
    /// # Errors
    /// [`TestError::Unexpected`] with the screen as it is when that does not come in time.
    pub fn until(&self, what: &str, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        let shown = wait::until(what, limit, || {
            last = self.screen().ok()?;
            wanted(&last).then(|| last.clone())
        });
        shown.map_err(|_| TestError::Unexpected { what: what.to_owned(), got: format!("\n{last}") })
    }

    /// Process id of the program.
    ///
    /// # Errors
    /// It has not started.
    pub fn pid(&self) -> Result<u32> {
        wait::until("the program in the terminal", SOON, || {
            std::fs::read_to_string(self.dir.path().join("pid")).ok()?.trim().parse().ok()
        })
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = self.pid()?;
        sys::signal(pid, signal).attempt(|| format!("send signal {signal} to the program in the terminal"))
    }

    /// The program's exit status as a shell says it (128 and more: a signal); `None` while it runs.
    #[must_use]
    pub fn ended(&self) -> Option<i32> {
        std::fs::read_to_string(self.dir.path().join("ended")).ok()?.trim().parse().ok()
    }

    /// Waits for the program's end, and gives its exit status.
    ///
    /// # Errors
    /// [`TestError::Timeout`].
    pub fn wait(&self, limit: Duration) -> Result<i32> {
        wait::until("the end of the program in the terminal", limit, || self.ended())
    }

    /// What programs change and must put back: the line discipline, the alternate screen, the
    /// cursor, the mouse.
    ///
    /// # Errors
    /// tmux has gone.
    pub fn modes(&self) -> Result<Modes> {
        let asked = "#{pane_tty} #{alternate_on} #{cursor_flag} #{mouse_any_flag}";
        let told = run(self.tmux().args(["display-message", "-p", asked]))?;
        let words: Vec<&str> = told.split_whitespace().collect();
        let &[tty, alternate, cursor, mouse] = words.as_slice() else {
            return Err(TestError::Unexpected {
                what: "the terminal's modes from tmux".to_owned(),
                got: told,
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

/// The state of a terminal beside its text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    /// Keys go to the program one by one and unseen.
    pub raw: bool,
    /// A screen without history, which goes away.
    pub alternate_screen: bool,
    /// No cursor is shown.
    pub cursor_hidden: bool,
    /// Clicks go to the program.
    pub mouse: bool,
}

fn tmux(socket: PathBuf) -> Command {
    let mut command = Command::new("tmux");
    // Inside somebody's tmux or not: it makes no difference.
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
