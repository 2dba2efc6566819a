//! A child process that ends with its handle; its stderr is kept for the report of a failure.
//!
//! It leads its own process group: Ctrl-C in a terminal reaches only the test, which ends its
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

/// Source of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A child, running or ended.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts it, with stdin closed and stderr collected. It ends with the calling thread.
    pub fn start(mut command: Command) -> Result<Self> {
        command.stdout(Stdio::null());
        Self::launch(command, |_, _| {})
    }

    /// As [`Self::start`]; `observer` gets each line of stdout and stderr, on separate threads.
    pub fn start_observed(
        mut command: Command,
        observer: impl Fn(Stream, &str) + Clone + Send + 'static,
    ) -> Result<Self> {
        command.stdout(Stdio::piped());
        Self::launch(command, observer)
    }

    fn launch(
        mut command: Command,
        observer: impl Fn(Stream, &str) + Clone + Send + 'static,
    ) -> Result<Self> {
        let program = command.get_program().to_owned();
        let name = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        sys::dies_with_us(&mut command);
        let mut child = command.spawn().attempt(|| format!("start {}", program.to_string_lossy()))?;
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        if let Some(stdout) = child.stdout.take() {
            let observer = observer.clone();
            each_line(stdout, move |line| observer(Stream::Stdout, &line));
        }
        if let Some(stderr) = child.stderr.take() {
            let lines = Arc::clone(&lines);
            each_line(stderr, move |line| {
                observer(Stream::Stderr, &line);
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == KEPT {
                    lines.pop_front();
                }
                lines.push_back(line);
            });
        }
        Ok(Self { name, child, lines })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::signal(self.pid(), signal).attempt(|| format!("send signal {signal} to {}", self.name))
    }

    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(&what, limit, || self.ended())
    }

    /// Waits until it is ready.
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

    /// The last lines of stderr, each with the name of the program.
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
