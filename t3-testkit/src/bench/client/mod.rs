//! Client of the benchmark: one thread, each session with up to one message in flight.
//!
//! A separate process. It opens its sessions, warms them up, prints [`READY`] on stdout, waits for
//! a line on stdin, measures, prints the result, and keeps the sessions open until stdin ends.

mod cycle;
mod open;
mod pace;
mod session;
mod sessions;

use std::{
    io::{BufRead as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use self::sessions::Sessions;
use super::stats::quantile;
use crate::error::{Attempt, Result};

/// Timeout without any progress.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Printed when all sessions are open and warmed up.
pub const READY: &str = "ready";
/// User of the identity header.
pub const USER: &str = "bench";

/// What the client does with its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each session sends the next message when the reply has arrived.
    Exchange,
    /// Messages per second of all sessions together.
    Paced(u64),
    /// Opens and closes a session per message, one after the other, and sends none.
    Cycle,
}

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
    /// Messages per second of all sessions together; the next one after each reply by default.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Open and close a session per message, one after the other.
    #[arg(long, conflicts_with = "rate")]
    pub cycle: bool,
}

/// Result of a measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// Number of answered messages, or of cycles.
    pub messages: u64,
    /// Time from the first message to the last reply.
    pub seconds: f64,
    /// Median time from message to reply, or of a cycle.
    pub p50_us: f64,
    /// 99th percentile of the same.
    pub p99_us: f64,
}

impl Load {
    fn mode(&self) -> Mode {
        match self.rate {
            Some(rate) => Mode::Paced(rate),
            None if self.cycle => Mode::Cycle,
            None => Mode::Exchange,
        }
    }
}

/// Runs the client.
pub fn run(load: &Load) -> Result<()> {
    if load.mode() == Mode::Cycle {
        cycle::run(load, load.warm)?;
        return measure(|| cycle::run(load, load.messages));
    }
    let mut sessions = Sessions::open(load)?;
    sessions.exchange(load.warm)?;
    measure(|| match load.mode() {
        Mode::Paced(rate) => sessions.paced(load.messages, rate),
        Mode::Exchange | Mode::Cycle => sessions.exchange(load.messages),
    })
}

/// Measures when the benchmark asks for it, and returns when it is done with the sessions.
fn measure(work: impl FnOnce() -> Result<Seen>) -> Result<()> {
    say(READY)?;
    let mut orders = std::io::stdin().lock();
    let mut line = String::new();
    orders.read_line(&mut line).attempt(|| "wait for the start of the measurement".to_owned())?;
    let seen = work()?;
    say(&serde_json::to_string(&seen).unwrap_or_default())?;
    while orders.read_line(&mut line).is_ok_and(|length| length > 0) {}
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).attempt(|| "write to stdout".to_owned())
}

/// Sums up the times of all messages.
fn seen(mut nanoseconds: Vec<u64>, elapsed: Duration) -> Seen {
    nanoseconds.sort_unstable();
    let micros = |part| quantile(&nanoseconds, part) as f64 / 1000.0;
    Seen {
        messages: nanoseconds.len() as u64,
        seconds: elapsed.as_secs_f64(),
        p50_us: micros(0.5),
        p99_us: micros(0.99),
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_up_in_microseconds() {
        let times = (1..=100).rev().map(|time| time * 1000).collect();
        let seen = seen(times, Duration::from_millis(500));
        assert_eq!((seen.messages, seen.seconds, seen.p50_us, seen.p99_us), (100, 0.5, 50.0, 99.0));
    }
}
