//! A stand-in for `t3 serve` as a child process that takes orders.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{Process, bins};
use crate::{
    error::{Attempt, Result, TestError},
    sys, wait,
};

/// A running stand-in.
#[derive(Debug)]
pub struct Serve {
    /// The process.
    pub process: Process,
    /// Its port on 127.0.0.1.
    pub port: u16,
    control: PathBuf,
}

impl Serve {
    /// Starts one and waits until it listens (or, with `--no-listen` among the arguments, until it takes orders).
    ///
    /// # Errors
    /// The binary is missing, or it does not get ready; with its stderr.
    pub fn start(dir: &Path, port: u16, arguments: &[&str], cgroups: Vec<OwnedFd>) -> Result<Self> {
        let name = format!("serve-{port}.sock");
        let control = dir.join(&name);
        let _ = std::fs::remove_file(&control);
        let program = bins::find("t3-serve-standin")?;
        // Absolute, because it starts in another folder.
        let mut command = Command::new(program.canonicalize().unwrap_or(program));
        // Its command line stands in the record of an OOM kill: kept short, and the same wherever the build is.
        command.arg0("t3-serve-standin").current_dir(dir);
        command.arg("--port").arg(port.to_string()).arg("--control").arg(&name).args(arguments);
        for procs in cgroups {
            sys::in_cgroup(&mut command, procs);
        }
        let mut process = Process::start(command)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let silent = arguments.contains(&"--no-listen");
        let ready = wait::until("the start of a stand-in", Duration::from_secs(20), || {
            let gone = process.ended().is_some();
            let ready =
                UnixStream::connect(&control).is_ok() && (silent || TcpStream::connect(address).is_ok());
            (gone || ready).then_some(ready)
        });
        match ready {
            Ok(true) => Ok(Self { process, port, control }),
            _ => Err(TestError::Unexpected {
                what: format!("a stand-in that listens on {address}"),
                got: process.stderr(),
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
