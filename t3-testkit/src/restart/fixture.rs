//! t3-dispatch under a keeper, with journald, t3-trace and the routing table of a [`Stack`].

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::{Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    error::{Attempt, Result},
    harness::{NO_LIMITS, Setup, Stack, Stream},
    journald::{Entry, Journal},
    keeper::{self, Keeper, LISTENER, Restart},
    wait,
};
use t3_record::CloseRecord;

/// Options of a fixture.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub keeper: keeper::Options,
    /// Start t3-trace.
    pub trace: bool,
    /// Further arguments of `t3-dispatch serve`.
    pub arguments: Vec<String>,
}

/// The running programs.
#[derive(Debug)]
pub struct Fixture {
    pub keeper: Keeper,
    pub stack: Stack,
    /// Ports of the serves of all users.
    pub serve_ports: Vec<u16>,
    stderr: Arc<Mutex<String>>,
}

impl Fixture {
    /// The users: each can have a part of the sessions only.
    pub const USERS: [&str; 8] = ["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7"];

    /// Starts the programs; the serve is up to the test.
    ///
    /// # Errors
    /// A program does not start.
    pub fn start(options: &Options) -> Result<Self> {
        let mut setup = Setup::named(Self::USERS)?;
        let serve_ports = setup.users.values().copied().collect();
        setup.trace = options.trace;
        setup.dispatch_prefix = keeper::PREFIX.map(str::to_owned).to_vec();
        setup.dispatch_arguments.extend(NO_LIMITS.map(str::to_owned));
        // Each takes two descriptors from the sessions, and few connect at the same time.
        setup.dispatch_arguments.extend(["--max-connections", "512"].map(str::to_owned));
        // A blocked reader must not time out.
        setup.dispatch_arguments.extend(["--user-timeout", "0s"].map(str::to_owned));
        setup.dispatch_arguments.extend(options.arguments.iter().cloned());
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = listener.attempt(|| "listen in place of systemd".to_owned())?;
        setup.listen = listener.local_addr().attempt(|| "listen in place of systemd".to_owned())?;
        let stack = Stack::without_dispatch(setup, Journal::private()?)?;
        let listeners = vec![(LISTENER.to_owned(), OwnedFd::from(listener))];
        let keeper = Keeper::new(options.keeper, listeners)?;
        let mut fixture = Self { keeper, stack, serve_ports, stderr: Arc::default() };
        fixture.start_next()?;
        fixture.until_connected()?;
        Ok(fixture)
    }

    fn command(&self) -> Result<Command> {
        self.stack.dispatch_command()
    }

    /// Collects stderr.
    fn observer(&self) -> impl Fn(Stream, &str) + Clone + Send + 'static {
        let lines = Arc::clone(&self.stderr);
        move |stream, line| {
            if stream == Stream::Stderr {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push_str(line);
                lines.push('\n');
            }
        }
    }

    /// stderr of all processes of dispatch so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until dispatch is connected to t3-trace, if that runs.
    ///
    /// # Errors
    /// It is not in time.
    pub fn until_connected(&self) -> Result<()> {
        if self.stack.trace.is_none() {
            return Ok(());
        }
        wait::until("t3-dispatch to connect to t3-trace", Duration::from_secs(60), || {
            self.stack.status().is_ok_and(|status| status.dispatch).then_some(())
        })
    }

    /// Planned restart.
    ///
    /// # Errors
    /// As [`Keeper::restart`].
    pub fn restart(&mut self) -> Result<Restart> {
        let (command, observer) = (self.command()?, self.observer());
        self.keeper.restart(command, observer)
    }

    /// Crash, and the next process.
    ///
    /// # Errors
    /// As [`Keeper::kill_and_restart`].
    pub fn kill_and_restart(&mut self) -> Result<Restart> {
        let (command, observer) = (self.command()?, self.observer());
        self.keeper.kill_and_restart(command, observer)
    }

    /// Starts a process when none runs.
    ///
    /// # Errors
    /// As [`Keeper::start`].
    pub fn start_next(&mut self) -> Result<u32> {
        let (command, observer) = (self.command()?, self.observer());
        self.keeper.start_observed(command, observer)
    }

    /// As [`Self::start_next`], without waiting.
    ///
    /// # Errors
    /// As [`Keeper::spawn`].
    pub fn spawn(&mut self) -> Result<u32> {
        let (command, observer) = (self.command()?, self.observer());
        self.keeper.spawn(command, observer)
    }

    /// Stop without a next process.
    ///
    /// # Errors
    /// As [`Keeper::stop`].
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.keeper.stop()
    }

    #[must_use]
    pub fn journal(&self) -> &Arc<Journal> {
        &self.stack.journal
    }

    /// Waits for the records of `n` sessions, and a little longer for those that must not exist.
    ///
    /// # Errors
    /// Fewer records.
    pub fn records(&self, n: usize) -> Result<Vec<(CloseRecord, Entry)>> {
        self.journal().wait_closes(n, Duration::from_secs(60), |_| true)?;
        std::thread::sleep(Duration::from_millis(500));
        self.journal().closes(|_| true)
    }
}
