//! A child process whose stderr is kept for the report of a failure, and that ends when its handle goes.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    error::{Attempt, Result},
    sys, wait,
};

/// Lines of stderr kept.
const KEPT: usize = 200;

/// A running (or ended) child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts it, with stdin closed and stderr collected. It dies with the thread that starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let program = command.get_program().to_owned();
        let name = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        sys::dies_with_us(&mut command);
        let mut child = command.spawn().attempt(|| format!("start {}", program.to_string_lossy()))?;
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        if let Some(stderr) = child.stderr.take() {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                    if lines.len() == KEPT {
                        lines.pop_front();
                    }
                    lines.push_back(line);
                }
            });
        }
        Ok(Self { name, child, lines })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has been waited for already.
    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::signal(self.pid(), signal).attempt(|| format!("send signal {signal} to {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`crate::TestError::Timeout`].
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(&what, limit, || self.ended())
    }

    /// The last lines of its stderr, each with the program's name before it.
    #[must_use]
    pub fn stderr(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("    {}: {line}\n", self.name)).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
