//! Keeper: what systemd does for a service with `FileDescriptorStoreMax=` (systemd.service(5)).
//!
//! It owns the socket of sd_notify(3), keeps the descriptors that the process stores, and passes
//! them, after the listening sockets, to the next process (sd_listen_fds(3)). It never reads or
//! writes them. Planned restart: SIGTERM. Stop: SIGINT, after which the store is empty, as after
//! `systemctl stop`.

mod message;
mod pass;
mod receiver;
mod store;

pub use store::Counts;

use std::{
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::process::ExitStatusExt as _,
    },
    path::Path,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use self::{receiver::Receiver, store::Store};
use crate::{
    bench::raise_descriptors,
    error::{Attempt, Result, TestError},
    harness::{Process, Stream},
    wait,
};

/// Prefix of a command that gets descriptors: `LISTEN_PID` must be the number of the process that
/// uses them, which is known only after the fork.
pub const PREFIX: [&str; 3] = ["/bin/sh", "-c", r#"LISTEN_PID=$$; export LISTEN_PID; exec "$0" "$@""#];

/// Name of the listening socket: that of the unit in deploy/, as systemd sets it.
pub const LISTENER: &str = "t3-dispatch.socket";

/// Longest environment string (`MAX_ARG_STRLEN` of execve(2)), with its final zero.
const LONGEST_STRING: usize = 128 << 10;

/// A command for [`Keeper::start`]; add its arguments.
#[must_use]
pub fn command(program: &Path) -> Command {
    let [shell, arguments @ ..] = PREFIX;
    let mut command = Command::new(shell);
    command.args(arguments).arg(program);
    command
}

/// Options of a keeper.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// `FileDescriptorStoreMax=`; 0 for no store.
    pub max: usize,
    /// Timeout from the start to READY=1.
    pub start_timeout: Duration,
    /// Timeout from a signal to the exit.
    pub stop_timeout: Duration,
    /// Selects the order of the descriptors of a message.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        let timeout = Duration::from_secs(30);
        Self { max: 65_536, start_timeout: timeout, stop_timeout: timeout, seed: 1 }
    }
}

/// Times of a restart.
#[derive(Debug, Clone, Copy)]
pub struct Restart {
    /// From the signal to the exit.
    pub exit: Duration,
    /// From the exit to the exec of the next process.
    pub exec: Duration,
    /// From the exec to READY=1.
    pub ready: Duration,
}

impl Restart {
    /// From the signal to READY=1.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.exit + self.exec + self.ready
    }
}

/// A service with a descriptor store.
#[derive(Debug)]
pub struct Keeper {
    // Dropped first: it sends to the receiver.
    process: Option<Process>,
    receiver: Receiver,
    listeners: Vec<(String, OwnedFd)>,
    options: Options,
    /// Processes so far.
    starts: u32,
    _folder: TempDir,
}

impl Keeper {
    /// Starts no process yet. `listeners`: names (`FileDescriptorName=`) and listening sockets.
    ///
    /// # Errors
    /// No socket, or the limit of descriptors cannot be raised.
    pub fn new(options: Options, listeners: Vec<(String, OwnedFd)>) -> Result<Self> {
        raise_descriptors()?;
        let folder = tempfile::Builder::new().prefix("t3-keeper-").tempdir();
        let folder = folder.attempt(|| "make a temporary directory".to_owned())?;
        let receiver = Receiver::start(folder.path(), Store::new(options.max, options.seed))?;
        Ok(Self { process: None, receiver, listeners, options, starts: 0, _folder: folder })
    }

    /// Starts a process with the listening sockets and all stored descriptors, and waits until it
    /// is ready. The command must begin with [`PREFIX`]. Returns its number.
    ///
    /// # Errors
    /// It does not start or exits, READY=1 is late, or the names are too long for execve(2).
    pub fn start(&mut self, command: Command) -> Result<u32> {
        self.start_observed(command, |_, _| {})
    }

    /// As [`Self::start`]; `observer` gets each line of stdout and stderr.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_observed(
        &mut self,
        command: Command,
        observer: impl Fn(Stream, &str) + Clone + Send + 'static,
    ) -> Result<u32> {
        let pid = self.spawn(command, observer)?;
        self.until_ready()?;
        Ok(pid)
    }

    /// Starts a process without waiting; see [`Self::until_ready`].
    ///
    /// # Errors
    /// As [`Self::start`], except READY=1.
    pub fn spawn(
        &mut self,
        mut command: Command,
        observer: impl Fn(Stream, &str) + Clone + Send + 'static,
    ) -> Result<u32> {
        if self.process.is_some() {
            return Err(TestError::Unexpected { what: "no process".to_owned(), got: "one runs".to_owned() });
        }
        // A message of the previous process that is still unread counts.
        self.receiver.flush()?;
        let mut state = self.receiver.lock();
        let (mut names, mut numbers): (Vec<&str>, Vec<RawFd>) =
            self.listeners.iter().map(|(name, fd)| (name.as_str(), fd.as_raw_fd())).unzip();
        for (name, fd) in state.store.iter() {
            names.push(name);
            numbers.push(fd.as_raw_fd());
        }
        let names = names.join(":");
        if "LISTEN_FDNAMES=".len() + names.len() + 1 > LONGEST_STRING {
            return Err(TestError::Unexpected {
                what: format!("LISTEN_FDNAMES of {} descriptors below 128 KiB", numbers.len()),
                got: format!("{} bytes", names.len()),
            });
        }
        // As systemd, which does not set them without descriptors.
        if !numbers.is_empty() {
            command.env("LISTEN_FDS", numbers.len().to_string()).env("LISTEN_FDNAMES", names);
        }
        command.env("NOTIFY_SOCKET", &self.receiver.path);
        match self.options.max {
            0 => command.env_remove("FDSTORE"),
            max => command.env("FDSTORE", max.to_string()),
        };
        command.env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        pass::passes(&mut command, pass::steps(&numbers, pass::spare(&numbers)));
        // The store is locked until the child has its copies.
        let process = Process::start_observed(command, observer)?;
        let pid = process.pid();
        (state.pid, state.ready_at, state.is_stopping) = (pid, None, false);
        drop(state);
        self.process = Some(process);
        self.starts += 1;
        Ok(pid)
    }

    /// Waits for READY=1 of the running process; returns its time.
    ///
    /// # Errors
    /// It exits before, or is late.
    pub fn until_ready(&mut self) -> Result<Instant> {
        let limit = wait::scaled(self.options.start_timeout);
        let deadline = Instant::now() + limit;
        loop {
            self.receiver.wait(Duration::from_millis(20), |state| state.ready_at.is_some());
            if let Some(at) = self.receiver.lock().ready_at {
                return Ok(at);
            }
            let what = || "READY=1".to_owned();
            let process = self.process.as_mut().ok_or_else(|| not_running(what()))?;
            if let Some(status) = process.ended() {
                let got = format!("{status}\n{}", process.stderr());
                return Err(TestError::Unexpected { what: what(), got });
            }
            if Instant::now() >= deadline {
                let got = format!("none within {} ms\n{}", limit.as_millis(), process.stderr());
                return Err(TestError::Unexpected { what: what(), got });
            }
        }
    }

    /// Planned restart: SIGTERM, waits for the exit, starts the next process.
    ///
    /// # Errors
    /// The process does not run, does not exit in time or with another status than 0; otherwise as
    /// [`Self::start`].
    pub fn restart(
        &mut self,
        command: Command,
        observer: impl Fn(Stream, &str) + Clone + Send + 'static,
    ) -> Result<Restart> {
        let begin = Instant::now();
        let (status, stderr) = self.end(libc::SIGTERM)?;
        if !status.success() {
            let got = format!("{status}\n{stderr}");
            return Err(TestError::Unexpected { what: "exit status 0 after SIGTERM".to_owned(), got });
        }
        self.next(command, observer, begin)
    }

    /// Crash: SIGKILL, and starts the next process.
    ///
    /// # Errors
    /// The process does not run or exited before; otherwise as [`Self::start`].
    pub fn kill_and_restart(
        &mut self,
        command: Command,
        observer: impl Fn(Stream, &str) + Clone + Send + 'static,
    ) -> Result<Restart> {
        let begin = Instant::now();
        self.kill()?;
        self.next(command, observer, begin)
    }

    fn next(
        &mut self,
        command: Command,
        observer: impl Fn(Stream, &str) + Clone + Send + 'static,
        begin: Instant,
    ) -> Result<Restart> {
        let exited = Instant::now();
        self.spawn(command, observer)?;
        let started = Instant::now();
        let ready = self.until_ready()?;
        Ok(Restart {
            exit: exited.duration_since(begin),
            exec: started.duration_since(exited),
            ready: ready.saturating_duration_since(started),
        })
    }

    /// SIGKILL, and waits for the end. The store stays.
    ///
    /// # Errors
    /// The process does not run, or ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        let (status, stderr) = self.end(libc::SIGKILL)?;
        if status.signal() == Some(libc::SIGKILL) {
            return Ok(());
        }
        let got = format!("{status}\n{stderr}");
        Err(TestError::Unexpected { what: "an end by SIGKILL".to_owned(), got })
    }

    /// Stop: SIGINT, waits for the exit, and empties the store.
    ///
    /// # Errors
    /// The process does not run or does not exit in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let (status, _) = self.end(libc::SIGINT)?;
        self.receiver.flush()?;
        self.receiver.lock().store.clear();
        Ok(status)
    }

    fn end(&mut self, signal: i32) -> Result<(ExitStatus, String)> {
        let process = self.process.as_mut().ok_or_else(|| not_running("a process".to_owned()))?;
        process.signal(signal)?;
        let status = process.wait(self.options.stop_timeout)?;
        let stderr = process.stderr();
        self.process = None;
        Ok((status, stderr))
    }

    /// Number of the running process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Exit status of a process that ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::ended)
    }

    /// Last lines of stderr of the running process.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.as_ref().map(Process::stderr).unwrap_or_default()
    }

    /// Processes so far.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// Counters, once all messages sent before are read.
    ///
    /// # Errors
    /// The receiver does not answer.
    pub fn counts(&mut self) -> Result<Counts> {
        self.receiver.flush()?;
        Ok(self.receiver.lock().store.counts)
    }

    /// `STATUS=` of the service.
    #[must_use]
    pub fn status(&self) -> String {
        self.receiver.lock().status.clone()
    }

    /// Whether the running process has sent READY=1.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.receiver.lock().ready_at.is_some()
    }

    /// Whether the running process has sent STOPPING=1.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.receiver.lock().is_stopping
    }

    /// Copies of the descriptors with this name.
    ///
    /// # Errors
    /// No free descriptor.
    pub fn stored(&self, name: &str) -> Result<Vec<OwnedFd>> {
        let state = self.receiver.lock();
        let found = state.store.iter().filter(|(have, _)| *have == name);
        let copies: io::Result<_> = found.map(|(_, fd)| fd.try_clone_to_owned()).collect();
        copies.attempt(|| format!("copy the descriptors of {name}"))
    }

    /// Names of the stored descriptors, newest first; one per descriptor.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.receiver.lock().store.iter().map(|(name, _)| name.to_owned()).collect()
    }

    /// Waits until the store has exactly this many descriptors.
    ///
    /// # Errors
    /// [`TestError::Unexpected`] with their number.
    pub fn until_stored(&self, n: usize, limit: Duration) -> Result<()> {
        if self.receiver.wait(wait::scaled(limit), |state| state.store.iter().count() == n) {
            return Ok(());
        }
        let got = self.receiver.lock().store.iter().count().to_string();
        Err(TestError::Unexpected { what: format!("{n} stored descriptors"), got })
    }

    /// Replaces the descriptors of a name, as no service can: for tests of wrong state.
    pub fn replace(&self, name: &str, fd: OwnedFd) {
        self.receiver.lock().store.replace(name, fd);
    }
}

fn not_running(what: String) -> TestError {
    TestError::Unexpected { what, got: "no process runs".to_owned() }
}
