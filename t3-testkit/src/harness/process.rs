//! A child process whose stderr is kept for the report of a failure, and that ends when its handle
//! goes.
//!
//! It leads a process group of its own: Ctrl-C in a terminal reaches only us, and we end our
//! children in order.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    error::{Attempt, Result, TestError},
    sys, wait,
};

/// Lines of stderr kept.
const KEPT: usize = 200;

/// Where a line of a child came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

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
        command.stdout(Stdio::null());
        Self::launch(command, |_, _| {})
    }

    /// As [`Self::start`], and `hear` gets each line of stdout and of stderr when it comes, on
    /// threads of their own.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_heard(
        mut command: Command,
        hear: impl Fn(Stream, &str) + Clone + Send + 'static,
    ) -> Result<Self> {
        command.stdout(Stdio::piped());
        Self::launch(command, hear)
    }

    fn launch(mut command: Command, hear: impl Fn(Stream, &str) + Clone + Send + 'static) -> Result<Self> {
        let program = command.get_program().to_owned();
        let name = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        sys::dies_with_us(&mut command);
        let mut child = command.spawn().attempt(|| format!("start {}", program.to_string_lossy()))?;
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        if let Some(stdout) = child.stdout.take() {
            let hear = hear.clone();
            each_line(stdout, move |line| hear(Stream::Stdout, &line));
        }
        if let Some(stderr) = child.stderr.take() {
            let lines = Arc::clone(&lines);
            each_line(stderr, move |line| {
                hear(Stream::Stderr, &line);
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == KEPT {
                    lines.pop_front();
                }
                lines.push_back(line);
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

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It has ended or takes longer than `limit`; with its stderr.
    pub fn until_ready(
        &mut self,
        name: &str,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let outcome = wait::until(&format!("the start of {name}"), limit, || match self.ended() {
            Some(status) => Some(Err(format!("it ended with {status}"))),
            None => ready().then_some(Ok(())),
        });
        let why = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(error) => error.to_string(),
        };
        let got = format!("{why}\n{}", self.stderr());
        Err(TestError::Unexpected { what: format!("cannot start {name}"), got })
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

fn each_line(stream: impl Read + Send + 'static, take: impl Fn(String) + Send + 'static) {
    std::thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).for_each(take));
}
