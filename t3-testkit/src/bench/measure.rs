//! Measurements. Each round measures all contestants, so that changes of the host's speed affect
//! all of them.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use clap::ValueEnum as _;
use tempfile::TempDir;

use super::{
    client::{Mode, Seen},
    contestant::{self, Contestant, Running, Setup},
    cpus::Cpus,
    driver::{Client, Traffic},
    meter,
    metric::{self, Metric, Workload},
    plan::{Plan, idle_traffic},
    report::{Calls, Cell, Idle, Row},
    stats::spread,
    syscalls::Syscalls,
};
use crate::{
    error::{Attempt, Result, TestError},
    harness::{Process, free_port},
};

/// Time for the records of the last sessions.
const SETTLE: Duration = Duration::from_millis(200);

/// What is measured, and where.
#[derive(Debug)]
pub struct Options {
    /// This program, which is also client and backend.
    pub program: PathBuf,
    /// Program t3-dispatch; one that cargo built by default.
    pub dispatch: Option<PathBuf>,
    pub contestants: Vec<Contestant>,
    pub cpus: Cpus,
    pub plan: Plan,
}

/// The backend, and the settings for contestants in front of it.
#[derive(Debug)]
pub struct Bench {
    options: Options,
    /// A copy of this program for the floor: the PSS of its code does not depend on the clients.
    relay: PathBuf,
    backend: SocketAddr,
    dir: TempDir,
    /// Missing measurements, with the reasons.
    pub notes: Vec<String>,
    _process: Process,
}

/// Values by metric and position of the contestant, one per round.
type Values = BTreeMap<(Metric, usize), Vec<f64>>;

impl Bench {
    /// Starts the backend.
    pub fn start(options: Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("t3-bench-").tempdir();
        let dir = dir.attempt(|| "make a temporary directory".to_owned())?;
        let relay = dir.path().join("relay");
        fs::copy(&options.program, &relay).attempt(|| format!("write {}", relay.display()))?;
        let backend = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new(&options.program);
        command.arg("backend").arg(backend.port().to_string());
        let mut process = Process::start(command)?;
        contestant::accepts(&mut process, backend, "the backend")?;
        Ok(Self { options, relay, backend, dir, notes: Vec::new(), _process: process })
    }

    fn run(&self, contestant: Contestant, sessions: usize) -> Result<Running> {
        let setup = Setup {
            backend: self.backend,
            sessions,
            dir: self.dir.path(),
            cpus: self.options.cpus,
            dispatch: self.options.dispatch.as_deref(),
            relay: &self.relay,
        };
        Running::start(contestant, &setup)
    }

    /// Measures all rounds of a workload with all contestants, then counts their system calls.
    pub fn workload(&mut self, workload: Workload) -> Result<(Vec<Row>, Vec<Calls>)> {
        let traffic = self.options.plan.traffic(workload);
        let kib = self.options.plan.reply_kib(workload);
        let start = |contestant: &Contestant| self.run(*contestant, traffic.sessions);
        let running: Vec<Running> = self.options.contestants.iter().map(start).collect::<Result<_>>()?;
        let mut values = Values::new();
        for round in 0..self.options.plan.rounds {
            for (index, one) in in_order(&running, round) {
                let (cpu, seen) = self.round(one, &traffic)?;
                for (metric, value) in metric::of_round(workload, &seen, cpu, kib) {
                    values.entry((metric, index)).or_default().push(value);
                }
            }
        }
        let mut calls = Vec::new();
        for one in &running {
            calls.extend(self.syscalls(one, workload, &traffic)?);
        }
        let title = self.options.plan.title(workload);
        Ok((rows(&title, &self.options.contestants, &values), calls))
    }

    fn round(&self, running: &Running, traffic: &Traffic) -> Result<(Duration, Seen)> {
        let client = Client::open(&self.options.program, running.address, traffic);
        let mut client = client.inspect_err(|_| eprint!("{}", running.stderr()))?;
        settle(traffic.mode);
        let before = running.cpu()?;
        let seen = client.go().inspect_err(|_| eprint!("{}", running.stderr()))?;
        settle(traffic.mode);
        let cpu = running.cpu()?.saturating_sub(before);
        client.close()?;
        Ok((cpu, seen))
    }

    /// Repeats a tenth of the traffic and counts system calls per unit of work; `None` with a note
    /// without the right to count them.
    fn syscalls(
        &mut self,
        running: &Running,
        workload: Workload,
        traffic: &Traffic,
    ) -> Result<Option<Calls>> {
        let messages = (traffic.messages / 10).max(traffic.sessions as u64);
        let traffic = Traffic { messages, ..traffic.clone() };
        let mut client = Client::open(&self.options.program, running.address, &traffic)?;
        settle(traffic.mode);
        let mut calls = match Syscalls::of(running.pid()) {
            Err(TestError::Io { what, source }) => {
                let note = format!("cannot count system calls: {what}: {source}");
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
                return Ok(None);
            }
            calls => calls?,
        };
        client.go()?;
        settle(traffic.mode);
        let counts = calls.count()?;
        client.close()?;
        let units = self.options.plan.units(workload, messages);
        let each = |count: u64| count as f64 / units;
        Ok(Some(Calls {
            workload,
            title: self.options.plan.title(workload),
            unit: workload.unit_of_work().to_owned(),
            contestant: running.contestant,
            total: each(counts.total),
            by_name: counts.by_name.into_iter().map(|(name, count)| (name.to_owned(), each(count))).collect(),
        }))
    }

    /// Opens idle sessions through each contestant, and ends them.
    pub fn idle(&mut self) -> Result<(Vec<Row>, Vec<Idle>)> {
        let contestants = self.options.contestants.iter();
        let idle = contestants.map(|one| self.idle_of(*one)).collect::<Result<Vec<_>>>()?;
        let values = idle.iter().enumerate();
        let values = values.map(|(index, one)| ((Metric::IdlePss, index), vec![one.pss_kib])).collect();
        let title = self.options.plan.title(Workload::Idle);
        Ok((rows(&title, &self.options.contestants, &values), idle))
    }

    fn idle_of(&self, contestant: Contestant) -> Result<Idle> {
        let Plan { idle: sessions, rest, .. } = self.options.plan;
        let running = self.run(contestant, sessions)?;
        let pid = running.pid();
        let open = |sessions| Client::open(&self.options.program, running.address, &idle_traffic(sessions));
        // The first session allocates resources that are not a cost per session.
        open(1)?.close()?;
        std::thread::sleep(rest);
        let before = meter::memory(pid)?;
        let client = open(sessions).inspect_err(|_| eprint!("{}", running.stderr()))?;
        std::thread::sleep(rest);
        let (with, cpu_open) = (meter::memory(pid)?, running.cpu()?);
        let begin = Instant::now();
        std::thread::sleep(rest);
        let (cpu_idle, idled) = (running.cpu()?, begin.elapsed());
        let threads = meter::threads(pid)?.len();
        client.close()?;
        std::thread::sleep(rest);
        let after = meter::memory(pid)?;
        let each = |kib: u64, base: u64| (kib as f64 - base as f64) / sessions as f64;
        Ok(Idle {
            contestant,
            sessions,
            threads,
            before,
            with,
            after,
            pss_kib: each(with.pss_kib, before.pss_kib),
            rss_kib: each(with.rss_kib, before.rss_kib),
            idle_ms_per_s: cpu_idle.saturating_sub(cpu_open).as_secs_f64() * 1000.0 / idled.as_secs_f64(),
        })
    }
}

/// A cycle ends at the client before the proxy has written its record.
fn settle(mode: Mode) {
    if mode == Mode::Cycle {
        std::thread::sleep(SETTLE);
    }
}

/// All entries with their positions; each round begins with another one, so that none is always
/// measured after the same one's idle time.
fn in_order<T>(all: &[T], round: usize) -> impl Iterator<Item = (usize, &T)> {
    let start = round.checked_rem(all.len()).unwrap_or(0);
    let (front, back) = all.split_at(start);
    (start..).zip(back).chain((0..).zip(front))
}

fn rows(title: &str, contestants: &[Contestant], values: &Values) -> Vec<Row> {
    let row = |metric: &Metric| {
        let cell = |(index, contestant): (usize, &Contestant)| {
            let values = values.get(&(*metric, index))?.clone();
            Some(Cell { contestant: *contestant, spread: spread(values.iter().copied())?, values })
        };
        let cells: Vec<Cell> = contestants.iter().enumerate().filter_map(cell).collect();
        let (title, unit) = (title.to_owned(), metric.unit().to_owned());
        (!cells.is_empty()).then_some(Row { metric: *metric, title, unit, cells })
    };
    Metric::value_variants().iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another_contestant() {
        let order = |round| in_order(&['a', 'b', 'c'], round).map(|(n, c)| (n, *c)).collect::<Vec<_>>();
        assert_eq!(order(0), [(0, 'a'), (1, 'b'), (2, 'c')]);
        assert_eq!(order(1), [(1, 'b'), (2, 'c'), (0, 'a')]);
        assert_eq!(order(5), [(2, 'c'), (0, 'a'), (1, 'b')]);
        assert_eq!(in_order::<char>(&[], 3).count(), 0);
    }

    #[test]
    fn a_row_has_the_measured_contestants_in_their_order() {
        let contestants = [Contestant::Nginx, Contestant::Dispatch];
        let values = Values::from([
            ((Metric::EchoCpu, 1), vec![2.0, 1.0]),
            ((Metric::EchoCpu, 0), vec![3.0, 4.0]),
            ((Metric::EchoRate, 1), vec![5.0]),
        ]);
        let rows = rows("title", &contestants, &values);
        let got: Vec<_> = rows
            .iter()
            .map(|row| (row.metric, row.cells.iter().map(|cell| cell.contestant).collect::<Vec<_>>()))
            .collect();
        let expected =
            [(Metric::EchoCpu, contestants.to_vec()), (Metric::EchoRate, vec![Contestant::Dispatch])];
        assert_eq!(got, expected);
        assert_eq!(rows[0].cells[1].values, [2.0, 1.0], "values stay in the order of the rounds");
    }
}
