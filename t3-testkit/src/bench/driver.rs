//! Control of the client process: starts it, starts a measurement, reads the result.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::client::{Mode, READY, Seen};
use crate::{
    error::{Attempt, Result, TestError},
    sys,
};

/// One kind of traffic.
#[derive(Debug, Clone)]
pub struct Traffic {
    pub mode: Mode,
    /// Path of the request; it selects the replies of the backend.
    pub target: String,
    /// Number of concurrent sessions.
    pub sessions: usize,
    /// Payload bytes of a message.
    pub payload: u64,
    /// Bytes of its reply, with frame headers.
    pub answer: u64,
    /// Messages before the measurement.
    pub warm: u64,
    /// Messages in the measurement.
    pub messages: u64,
}

/// A client with open, warmed-up sessions.
#[derive(Debug)]
pub struct Client {
    child: Child,
    orders: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Client {
    /// Opens the sessions and warms them up.
    pub fn open(program: &Path, address: SocketAddr, traffic: &Traffic) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("client").arg("--address").arg(address.to_string()).arg("--target").arg(&traffic.target);
        for (name, value) in [
            ("--sessions", traffic.sessions as u64),
            ("--payload", traffic.payload),
            ("--answer", traffic.answer),
            ("--warm", traffic.warm),
            ("--messages", traffic.messages),
        ] {
            command.arg(name).arg(value.to_string());
        }
        match traffic.mode {
            Mode::Exchange => {}
            Mode::Paced(rate) => drop(command.arg("--rate").arg(rate.to_string())),
            Mode::Cycle => drop(command.arg("--cycle")),
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        sys::dies_with_us(&mut command);
        let mut child = command.spawn().attempt(|| "start the client".to_owned())?;
        let (Some(orders), Some(lines)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("pipes to the client"));
        };
        let mut client = Self { child, orders: Some(orders), lines: BufReader::new(lines) };
        if client.line()? == READY { Ok(client) } else { Err(failed("the client to open its sessions")) }
    }

    /// Starts the measurement and waits for its result.
    pub fn go(&mut self) -> Result<Seen> {
        if let Some(orders) = &mut self.orders {
            writeln!(orders, "go").attempt(|| "start the measurement".to_owned())?;
        }
        serde_json::from_str(&self.line()?).map_err(|_| failed("the client's result"))
    }

    /// Ends its sessions and waits until it exits.
    pub fn close(mut self) -> Result<()> {
        self.orders = None;
        self.child.wait().attempt(|| "wait for the client".to_owned()).map(drop)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).attempt(|| "read the client's output".to_owned())?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failed(what: &str) -> TestError {
    TestError::Unexpected { what: what.to_owned(), got: "it failed; see its error above".to_owned() }
}
