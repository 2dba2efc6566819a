//! Measurements. Each round measures all contestants, so that changes of the host's speed affect
//! all of them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    client::Seen,
    contestant::{self, Contestant, Running},
    driver::{Client, Traffic},
    meter::{self, Syscalls},
    report::{Bulk, Echo, Idle},
    stats::{Spread, spread},
    wire,
};
use crate::{
    error::{Attempt, Result, TestError},
    frame,
    harness::{Process, free_port},
};

/// Path with replies as large as the messages.
const ECHO: &str = "/echo";

/// The backend, and the settings for contestants in front of it.
#[derive(Debug)]
pub struct Bench {
    program: PathBuf,
    backend: SocketAddr,
    dir: TempDir,
    contestants: Vec<Contestant>,
    rounds: usize,
    /// Missing measurements, with the reasons.
    pub notes: Vec<String>,
    _process: Process,
}

/// One round of one contestant.
struct Round {
    cpu: Duration,
    seen: Seen,
}

/// All rounds of one kind of traffic, and its system calls per message.
struct Rounds {
    contestant: Contestant,
    rounds: Vec<Round>,
    syscalls: Option<f64>,
}

impl Bench {
    /// Starts the backend. `program` is this program, which is also client and backend.
    pub fn start(program: PathBuf, contestants: Vec<Contestant>, rounds: usize) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("t3-bench-").tempdir();
        let dir = dir.attempt(|| "make a temporary directory".to_owned())?;
        let backend = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new(&program);
        command.arg("backend").arg(backend.port().to_string());
        let mut process = Process::start(command)?;
        contestant::accepts(&mut process, backend, "the backend")?;
        Ok(Self { program, backend, dir, contestants, rounds, notes: Vec::new(), _process: process })
    }

    fn run(&self, contestant: Contestant, sessions: usize) -> Result<Running> {
        Running::start(contestant, self.backend, sessions, self.dir.path())
    }

    /// Opens idle sessions through each proxy, and ends them; `rest` is the idle time before each
    /// sample.
    pub fn idle(&mut self, sessions: usize, rest: Duration) -> Result<Vec<Idle>> {
        let contestants = self.contestants.iter().copied().filter(|one| *one != Contestant::Direct);
        contestants.map(|contestant| self.idle_of(contestant, sessions, rest)).collect()
    }

    fn idle_of(&self, contestant: Contestant, sessions: usize, rest: Duration) -> Result<Idle> {
        let running = self.run(contestant, sessions)?;
        let pid = running.pid().unwrap_or_default();
        let beat = frame::HEARTBEAT.len() as u64;
        let traffic = |sessions: usize| Traffic {
            target: ECHO.to_owned(),
            sessions,
            payload: beat,
            answer: wire::server_frame(beat),
            warm: sessions as u64,
            messages: 0,
        };
        // The first session allocates resources that are not a cost per session.
        Client::open(&self.program, running.address, &traffic(1))?.close()?;
        std::thread::sleep(rest);
        let (before, cpu_before) = (meter::memory(pid)?, running.cpu()?);
        let client = Client::open(&self.program, running.address, &traffic(sessions));
        let client = client.inspect_err(|_| eprint!("{}", running.stderr()))?;
        std::thread::sleep(rest);
        let (with, cpu_open) = (meter::memory(pid)?, running.cpu()?);
        let begin = Instant::now();
        std::thread::sleep(rest);
        let (cpu_idle, idled) = (running.cpu()?, begin.elapsed());
        client.close()?;
        std::thread::sleep(rest);
        let (after, cpu_close) = (meter::memory(pid)?, running.cpu()?);
        let each = |kib: u64, base: u64| (kib as f64 - base as f64) / sessions as f64;
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / sessions as f64;
        Ok(Idle {
            contestant,
            sessions,
            threads: meter::threads(pid)?.len(),
            before,
            with,
            after,
            pss_kib: each(with.pss_kib, before.pss_kib),
            rss_kib: each(with.rss_kib, before.rss_kib),
            open_us: micros(cpu_open.saturating_sub(cpu_before)),
            close_us: micros(cpu_close.saturating_sub(cpu_idle)),
            idle_ms_per_s: (cpu_idle - cpu_open).as_secs_f64() * 1000.0 / idled.as_secs_f64(),
        })
    }

    /// Measures round trips of messages of one size.
    pub fn echo(&mut self, payload: u64, sessions: usize, messages: u64) -> Result<Vec<Echo>> {
        let traffic = Traffic {
            target: ECHO.to_owned(),
            sessions,
            payload,
            answer: wire::server_frame(payload),
            warm: messages / 10,
            messages,
        };
        let echo = |rounds: Rounds| {
            let middle = |of: fn(&Seen) -> f64| {
                spread(rounds.rounds.iter().map(|round| of(&round.seen))).map_or(0.0, |spread| spread.median)
            };
            Some(Echo {
                contestant: rounds.contestant,
                payload,
                sessions,
                messages,
                cpu_us: rounds.sum_up(|round| round.cpu.as_secs_f64() * 1e6 / messages as f64)?,
                syscalls: rounds.syscalls,
                p50_us: middle(|seen| seen.p50_us),
                p99_us: middle(|seen| seen.p99_us),
                messages_per_s: middle(|seen| seen.messages as f64 / seen.seconds),
            })
        };
        Ok(self.rounds(&traffic)?.into_iter().filter_map(echo).collect())
    }

    /// Measures `bytes` (at least 16 frames per session) from backend to client.
    pub fn bulk(&mut self, frame: u64, sessions: usize, bytes: u64) -> Result<Vec<Bulk>> {
        const FRAMES: u64 = 16;
        let answer = wire::server_frame(frame) * FRAMES;
        let messages = (bytes / answer).max(sessions as u64);
        let bytes = messages * answer;
        let traffic = Traffic {
            target: format!("/push/{frame}/{FRAMES}"),
            sessions,
            payload: 4,
            answer,
            warm: messages / 10,
            messages,
        };
        let mib = answer as f64 / f64::from(1 << 20);
        let bulk = |rounds: Rounds| Bulk {
            contestant: rounds.contestant,
            frame,
            sessions,
            bytes,
            bytes_per_cpu_s: (rounds.contestant != Contestant::Direct)
                .then(|| rounds.sum_up(|round| bytes as f64 / round.cpu.as_secs_f64()))
                .flatten(),
            syscalls_per_mib: rounds.syscalls.map(|calls| calls / mib),
            bytes_per_s: rounds.sum_up(|round| bytes as f64 / round.seen.seconds).map_or(0.0, |of| of.median),
        };
        Ok(self.rounds(&traffic)?.into_iter().map(bulk).collect())
    }

    fn rounds(&mut self, traffic: &Traffic) -> Result<Vec<Rounds>> {
        let start = |contestant: &Contestant| self.run(*contestant, traffic.sessions);
        let running: Vec<Running> = self.contestants.iter().map(start).collect::<Result<_>>()?;
        let mut rounds = BTreeMap::<usize, Vec<Round>>::new();
        for _ in 0..self.rounds {
            for (index, one) in running.iter().enumerate() {
                rounds.entry(index).or_default().push(self.round(one, traffic)?);
            }
        }
        let mut all = Vec::new();
        for (index, one) in running.iter().enumerate() {
            let syscalls = match self.syscalls(one, traffic) {
                Err(TestError::Io { what, source }) => {
                    let note = format!("cannot count system calls: {what}: {source}");
                    if !self.notes.contains(&note) {
                        self.notes.push(note);
                    }
                    None
                }
                counted => counted?,
            };
            let rounds = rounds.remove(&index).unwrap_or_default();
            all.push(Rounds { contestant: one.contestant, rounds, syscalls });
        }
        Ok(all)
    }

    fn round(&self, running: &Running, traffic: &Traffic) -> Result<Round> {
        let client = Client::open(&self.program, running.address, traffic);
        let mut client = client.inspect_err(|_| eprint!("{}", running.stderr()))?;
        let before = running.cpu()?;
        let seen = client.go().inspect_err(|_| eprint!("{}", running.stderr()))?;
        let cpu = running.cpu()?.saturating_sub(before);
        client.close()?;
        Ok(Round { cpu, seen })
    }

    /// Repeats a tenth of the traffic and counts system calls per message.
    fn syscalls(&self, running: &Running, traffic: &Traffic) -> Result<Option<f64>> {
        let Some(pid) = running.pid() else { return Ok(None) };
        let messages = (traffic.messages / 10).max(traffic.sessions as u64);
        let traffic = Traffic { messages, ..traffic.clone() };
        let mut client = Client::open(&self.program, running.address, &traffic)?;
        let mut calls = Syscalls::of(pid)?;
        client.go()?;
        let count = calls.count()?;
        client.close()?;
        Ok(Some(count as f64 / messages as f64))
    }
}

impl Rounds {
    fn sum_up(&self, of: impl Fn(&Round) -> f64) -> Option<Spread> {
        spread(self.rounds.iter().map(of))
    }
}
