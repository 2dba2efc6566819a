//! A stand-in for `t3 serve` that takes orders: a child process of ours, or a unit of systemd.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use super::{Process, Unit, binaries, unit};
use crate::{
    error::{Attempt, Result, TestError},
    sys, wait,
};

/// Whose process a stand-in is.
#[derive(Debug)]
pub enum Body {
    /// Ours.
    Child(Process),
    /// systemd's.
    Unit(Unit),
}

impl Body {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match self {
            Self::Child(process) => process.pid(),
            Self::Unit(unit) => unit.pid(),
        }
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        match self {
            Self::Child(process) => process.ended().is_some(),
            Self::Unit(unit) => unit.ended(),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = self.pid();
        sys::signal(pid, signal).attempt(|| format!("send signal {signal} to the stand-in {pid}"))
    }

    /// Waits for its end; gives the status of a child of ours.
    ///
    /// # Errors
    /// [`TestError::Timeout`].
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        match self {
            Self::Child(process) => process.wait(limit).map(Some),
            Self::Unit(unit) => {
                wait::until("the end of a unit", limit, || unit.ended().then_some(())).map(|()| None)
            }
        }
    }

    /// The last lines of its stderr, each with a name before it.
    #[must_use]
    pub fn stderr(&self) -> String {
        match self {
            Self::Child(process) => process.stderr(),
            Self::Unit(unit) => unit.stderr(),
        }
    }
}

/// A running stand-in.
#[derive(Debug)]
pub struct Serve {
    /// The process.
    pub process: Body,
    /// Its port on 127.0.0.1.
    pub port: u16,
    control: PathBuf,
}

impl Serve {
    /// Starts one and waits until it listens (or, with `--no-listen` among the arguments, until it
    /// takes orders).
    ///
    /// # Errors
    /// The binary is missing, or it does not get ready; with its stderr.
    pub fn start(dir: &Path, port: u16, arguments: &[&str], cgroups: Vec<OwnedFd>) -> Result<Self> {
        let (control, arguments) = command_line(dir, port, arguments);
        let program = program()?;
        let mut command = Command::new(program);
        // Its command line stands in the record of an OOM kill: kept short, and the same wherever
        // the build is.
        command.arg0("t3-serve-standin").current_dir(dir).args(&arguments);
        for procs in cgroups {
            sys::in_cgroup(&mut command, procs);
        }
        let process = Body::Child(Process::start(command)?);
        Self { process, port, control }.ready(&arguments)
    }

    /// Starts one as `t3-serve@INSTANCE.service`, and waits as [`Self::start`].
    ///
    /// # Errors
    /// As [`Self::start`], and what systemd says.
    pub fn start_unit(instance: &str, port: u16, arguments: &[&str]) -> Result<Self> {
        let (control, arguments) = command_line(Path::new(unit::RUN), port, arguments);
        let process = Body::Unit(Unit::start(instance, &program()?, &arguments)?);
        Self { process, port, control }.ready(&arguments)
    }

    fn ready(mut self, arguments: &[String]) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let silent = arguments.iter().any(|argument| argument == "--no-listen");
        let ready = wait::until("the start of a stand-in", Duration::from_secs(20), || {
            let gone = self.process.ended();
            let ready =
                UnixStream::connect(&self.control).is_ok() && (silent || TcpStream::connect(address).is_ok());
            (gone || ready).then_some(ready)
        });
        match ready {
            Ok(true) => Ok(self),
            _ => Err(TestError::Unexpected {
                what: format!("a stand-in that listens on {address}"),
                got: self.process.stderr(),
            }),
        }
    }

    /// The unit it runs as.
    ///
    /// # Errors
    /// [`TestError::Missing`]: it is a child of ours.
    pub fn unit(&self) -> Result<&Unit> {
        match &self.process {
            Body::Unit(unit) => Ok(unit),
            Body::Child(_) => Err(TestError::Missing {
                what: "a unit of systemd".to_owned(),
                remedy: "run in a guest: `cargo xtask vm-test`".to_owned(),
            }),
        }
    }

    /// Gives an order and waits until it has been carried out.
    ///
    /// # Errors
    /// The stand-in refuses it, or is dead.
    pub fn order(&self, order: &str) -> Result<()> {
        let what = || format!("order the stand-in on port {} to {order:?}", self.port);
        let mut stream = UnixStream::connect(&self.control).attempt(what)?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).attempt(what)?;
        writeln!(stream, "{order}").attempt(what)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).attempt(what)?;
        match answer.trim_end() {
            "ok" => Ok(()),
            other => Err(TestError::Unexpected { what: what(), got: other.to_owned() }),
        }
    }

    /// Gives an order without waiting for it to be done; for those that hold the event loop.
    ///
    /// # Errors
    /// The stand-in is dead.
    pub fn begin(&self, order: &str) -> Result<()> {
        let what = || format!("order the stand-in on port {} to {order:?}", self.port);
        let mut stream = UnixStream::connect(&self.control).attempt(what)?;
        writeln!(stream, "{order}").attempt(what)
    }
}

/// Absolute, because a stand-in starts in another folder.
fn program() -> Result<PathBuf> {
    let program = binaries::find("t3-serve-standin")?;
    Ok(program.canonicalize().unwrap_or(program))
}

/// Its control socket in `dir`, and its arguments when it runs there.
fn command_line(dir: &Path, port: u16, arguments: &[&str]) -> (PathBuf, Vec<String>) {
    let name = format!("serve-{port}.sock");
    let control = dir.join(&name);
    let _ = std::fs::remove_file(&control);
    let own = ["--port".to_owned(), port.to_string(), "--control".to_owned(), name];
    (control, own.into_iter().chain(arguments.iter().map(|argument| (*argument).to_owned())).collect())
}
