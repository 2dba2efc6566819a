//! A fake `t3 serve` as a child process or a systemd unit, and its orders.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
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

/// Process of a fake serve.
#[derive(Debug)]
pub enum Body {
    Child(Process),
    Unit(Unit),
}

impl Body {
    #[must_use]
    pub fn pid(&self) -> u32 {
        match self {
            Self::Child(process) => process.pid(),
            Self::Unit(unit) => unit.pid(),
        }
    }

    pub fn ended(&mut self) -> bool {
        match self {
            Self::Child(process) => process.ended().is_some(),
            Self::Unit(unit) => unit.ended(),
        }
    }

    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = self.pid();
        sys::signal(pid, signal).attempt(|| format!("send signal {signal} to the fake serve {pid}"))
    }

    /// Waits for its end; returns the exit status of a child process.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        match self {
            Self::Child(process) => process.wait(limit).map(Some),
            Self::Unit(unit) => {
                wait::until("the end of a unit", limit, || unit.ended().then_some(())).map(|()| None)
            }
        }
    }

    #[must_use]
    pub fn stderr(&self) -> String {
        match self {
            Self::Child(process) => process.stderr(),
            Self::Unit(unit) => unit.stderr(),
        }
    }
}

/// A running fake serve.
#[derive(Debug)]
pub struct Serve {
    pub process: Body,
    /// Port on 127.0.0.1.
    pub port: u16,
    control: PathBuf,
}

impl Serve {
    /// Starts one and waits until it listens, or with `--no-listen` until it accepts orders.
    pub fn start(dir: &Path, port: u16, arguments: &[&str], cgroups: Vec<OwnedFd>) -> Result<Self> {
        let (control, arguments) = command_line(dir, port, arguments);
        let program = program()?;
        let mut command = Command::new(program);
        // The record of an OOM kill contains the command line: short, and independent of the build
        // folder.
        command.arg0("t3-serve-standin").current_dir(dir).args(&arguments);
        for procs in cgroups {
            sys::in_cgroup(&mut command, procs);
        }
        let process = Body::Child(Process::start(command)?);
        Self { process, port, control }.ready(&arguments)
    }

    /// Starts one as `t3-serve@INSTANCE.service`.
    pub fn start_unit(instance: &str, port: u16, arguments: &[&str]) -> Result<Self> {
        let (control, arguments) = command_line(Path::new(unit::RUN), port, arguments);
        let process = Body::Unit(Unit::start(instance, &program()?, &arguments)?);
        Self { process, port, control }.ready(&arguments)
    }

    fn ready(mut self, arguments: &[String]) -> Result<Self> {
        let mut ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        if let Some(at) = arguments.iter().position(|argument| argument == "--ip") {
            ip = arguments.get(at + 1).and_then(|ip| ip.parse().ok()).unwrap_or(ip);
        }
        let address = SocketAddr::new(ip, self.port);
        let silent = arguments.iter().any(|argument| argument == "--no-listen");
        let ready = wait::until("the start of a fake serve", Duration::from_secs(20), || {
            let gone = self.process.ended();
            let ready =
                UnixStream::connect(&self.control).is_ok() && (silent || TcpStream::connect(address).is_ok());
            (gone || ready).then_some(ready)
        });
        match ready {
            Ok(true) => Ok(self),
            _ => Err(TestError::Unexpected {
                what: format!("a fake serve that listens on {address}"),
                got: self.process.stderr(),
            }),
        }
    }

    /// The unit of the fake serve.
    ///
    /// # Errors
    /// [`TestError::Missing`] for a child process.
    pub fn unit(&self) -> Result<&Unit> {
        match &self.process {
            Body::Unit(unit) => Ok(unit),
            Body::Child(_) => Err(TestError::Missing {
                what: "a unit of systemd".to_owned(),
                remedy: "run in a guest: `cargo xtask vm-test`".to_owned(),
            }),
        }
    }

    /// Sends an order and waits for its completion.
    pub fn order(&self, order: &str) -> Result<()> {
        let what = || format!("order the fake serve on port {} to {order:?}", self.port);
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

    /// Sends an order without waiting, for orders that block the event loop.
    pub fn begin(&self, order: &str) -> Result<()> {
        let what = || format!("order the fake serve on port {} to {order:?}", self.port);
        let mut stream = UnixStream::connect(&self.control).attempt(what)?;
        writeln!(stream, "{order}").attempt(what)
    }
}

/// Absolute, because a fake serve starts in another folder.
fn program() -> Result<PathBuf> {
    let program = binaries::find("t3-serve-standin")?;
    Ok(program.canonicalize().unwrap_or(program))
}

/// Control socket in `dir`, and the arguments.
fn command_line(dir: &Path, port: u16, arguments: &[&str]) -> (PathBuf, Vec<String>) {
    let name = format!("serve-{port}.sock");
    let control = dir.join(&name);
    let _ = std::fs::remove_file(&control);
    let own = ["--port".to_owned(), port.to_string(), "--control".to_owned(), name];
    (control, own.into_iter().chain(arguments.iter().map(|argument| (*argument).to_owned())).collect())
}
