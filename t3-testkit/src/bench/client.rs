//! Client of the benchmark: many sessions in one thread, each with one message in flight.
//!
//! A separate process. It opens its sessions, warms them up, prints [`READY`] on stdout, waits for
//! a line on stdin, measures, prints the result, and keeps the sessions open until stdin ends.

use std::{
    io::{BufRead as _, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    net::{RecvFlags, SendFlags, recv, send},
};
use serde::{Deserialize, Serialize};

use super::stats::quantile;
use crate::{
    error::{Attempt, Result, TestError},
    frame::{self, opcode},
    handshake,
};

/// Bytes per read.
const SCRATCH: usize = 256 * 1024;
/// Timeout without any progress.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Printed when all sessions are open and warmed up.
pub const READY: &str = "ready";
/// User of the identity header.
pub const USER: &str = "bench";

#[derive(Debug, Clone, clap::Args)]
pub struct Load {
    /// Address of the proxy.
    #[arg(long)]
    pub address: SocketAddr,
    /// Path of the request; it selects the replies of the backend.
    #[arg(long)]
    pub target: String,
    /// Number of concurrent sessions.
    #[arg(long)]
    pub sessions: usize,
    /// Payload bytes of a message; 15 is a heartbeat.
    #[arg(long)]
    pub payload: usize,
    /// Bytes of the reply to a message, with frame headers.
    #[arg(long)]
    pub answer: u64,
    /// Messages before the measurement, of all sessions together.
    #[arg(long)]
    pub warm: u64,
    /// Messages in the measurement, of all sessions together.
    #[arg(long)]
    pub messages: u64,
}

/// Result of a measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// Number of answered messages.
    pub messages: u64,
    /// Time from the first message to the last reply.
    pub seconds: f64,
    /// Median time from message to reply.
    pub p50_us: f64,
    /// 99th percentile of the time from message to reply.
    pub p99_us: f64,
}

/// Runs the client.
pub fn run(load: &Load) -> Result<()> {
    let mut sessions = Sessions::open(load)?;
    sessions.exchange(load.warm)?;
    say(READY)?;
    let mut orders = std::io::stdin().lock();
    let mut line = String::new();
    orders.read_line(&mut line).attempt(|| "wait for the start of the measurement".to_owned())?;
    let seen = sessions.exchange(load.messages)?;
    say(&serde_json::to_string(&seen).unwrap_or_default())?;
    while orders.read_line(&mut line).is_ok_and(|length| length > 0) {}
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).attempt(|| "write to stdout".to_owned())
}

struct Sessions {
    sessions: Vec<Session>,
    poll: std::os::fd::OwnedFd,
    message: Vec<u8>,
    answer: u64,
    scratch: Vec<u8>,
}

struct Session {
    stream: TcpStream,
    /// Remaining messages, including the one in flight.
    left: u64,
    sent: usize,
    got: u64,
    since: Instant,
}

impl Sessions {
    fn open(load: &Load) -> Result<Self> {
        let payload = match load.payload {
            length if length == frame::HEARTBEAT.len() => frame::HEARTBEAT.as_bytes().to_vec(),
            length => vec![b'x'; length],
        };
        let poll =
            epoll::create(epoll::CreateFlags::CLOEXEC).attempt(|| "make an epoll instance".to_owned())?;
        let mut all = Self {
            sessions: Vec::with_capacity(load.sessions),
            poll,
            message: frame::from_client(opcode::TEXT, &payload),
            answer: load.answer,
            scratch: vec![0; SCRATCH],
        };
        for index in 0..load.sessions {
            let what = || format!("open session {index} of {} at {}", load.sessions, load.address);
            let stream = shake(load.address, &load.target).attempt(what)?;
            stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).attempt(what)?;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&all.poll, &stream, EventData::new_u64(index as u64), flags).attempt(what)?;
            all.sessions.push(Session { stream, left: 0, sent: 0, got: 0, since: Instant::now() });
        }
        Ok(all)
    }

    /// Sends `total` messages, distributed evenly, and waits for all replies.
    fn exchange(&mut self, total: u64) -> Result<Seen> {
        let share = |index: u64, of: u64| total / of + u64::from(index < total % of);
        let count = self.sessions.len() as u64;
        let mut times = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
        let mut events = Vec::with_capacity(256);
        let begin = Instant::now();
        for (index, session) in (0..).zip(&mut self.sessions) {
            session.left = share(index, count);
            session.begin(&self.message)?;
        }
        while (times.len() as u64) < total {
            events.clear();
            let limit = Timespec { tv_sec: TIMEOUT.as_secs().cast_signed(), tv_nsec: 0 };
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&limit)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => return Err(TestError::Timeout { what: "a reply".to_owned(), after: TIMEOUT }),
                outcome => drop(outcome.attempt(|| "wait for sockets".to_owned())?),
            }
            for event in &events {
                let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                if let Some(session) = self.sessions.get_mut(index) {
                    session.proceed(&self.message, self.answer, &mut self.scratch, &mut times)?;
                }
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        times.sort_unstable();
        let micros = |part| quantile(&times, part) as f64 / 1000.0;
        Ok(Seen { messages: times.len() as u64, seconds, p50_us: micros(0.5), p99_us: micros(0.99) })
    }
}

impl Session {
    fn begin(&mut self, message: &[u8]) -> Result<()> {
        (self.sent, self.got, self.since) = (0, 0, Instant::now());
        self.push(message)
    }

    fn push(&mut self, message: &[u8]) -> Result<()> {
        while self.left > 0 && self.sent < message.len() {
            match send(&self.stream, message.get(self.sent..).unwrap_or_default(), SendFlags::NOSIGNAL) {
                Ok(length) => self.sent += length,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error).attempt(|| "send a message".to_owned()),
            }
        }
        Ok(())
    }

    fn proceed(
        &mut self,
        message: &[u8],
        answer: u64,
        scratch: &mut [u8],
        times: &mut Vec<u64>,
    ) -> Result<()> {
        self.push(message)?;
        loop {
            let length = match recv(&self.stream, &mut *scratch, RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error).attempt(|| "read a reply".to_owned()),
            };
            self.got += length as u64;
            if length == 0 || self.left == 0 || self.got > answer {
                let got = format!("{length} bytes, {} in all", self.got);
                return Err(TestError::Unexpected { what: format!("a reply of {answer} bytes"), got });
            }
            if self.got == answer {
                times.push(u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX));
                self.left -= 1;
                self.begin(message)?;
            }
            if length < scratch.len() {
                return Ok(());
            }
        }
    }
}

/// Connects and upgrades, blocking: opens are not measured, and one at a time keeps accept queues
/// short.
fn shake(address: SocketAddr, target: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let fields =
        [("X-authentik-username", USER), ("X-Forwarded-For", "203.0.113.7"), ("Cookie", "t3_session=bench")];
    let request = handshake::request(target, fields);
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 512];
        match stream.read(&mut piece)? {
            0 => break,
            length => head.extend_from_slice(piece.get(..length).unwrap_or_default()),
        }
    }
    let text = String::from_utf8_lossy(&head);
    if handshake::opens(&text) {
        return Ok(stream);
    }
    let answer = text.lines().next().unwrap_or("the end of the connection");
    Err(std::io::Error::other(format!("expected 101, got {answer}")))
}
