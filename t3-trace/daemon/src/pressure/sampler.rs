//! Samples pressure on a separate thread, so that a busy event loop does not delay it, plus one
//! sample per query, so that the window ends at the close.
//!
//! Reads only pressure and counter files, which the kernel answers from memory; never files of
//! processes, which can wait for locks.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use t3_record::evidence::{Memory, Nanos, Pressure, Span};
use t3_trace_host::{
    cgroup::{self, MemoryNow},
    clock::{SECOND, monotonic},
};

use super::{
    Totals,
    host_time::{CpuTime, HostTime},
    parse,
    ring::{Counters, KEEP, Ring, Sample},
};

const EVERY: Duration = Duration::from_secs(1);
/// Closes of a burst share one extra sample.
const FRESH: Nanos = SECOND / 20;
/// Time after which an unreadable cgroup without queries is dropped.
const FORGET: Nanos = 2 * KEEP;
/// Age up to which the last sample of a removed cgroup is used for a close.
const STALE: Nanos = 15 * SECOND;

#[derive(Debug, thiserror::Error)]
#[error("cannot start the pressure sampler thread: {0}")]
pub struct SamplerError(#[from] std::io::Error);

/// Pressure and memory at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reading {
    /// Pressure of the cgroup.
    pub pressure: Option<Pressure>,
    /// Memory of the cgroup.
    pub memory: Option<Memory>,
    /// Pressure of the host.
    pub host: Option<Pressure>,
}

/// Pressure from the regular samples only.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recent {
    /// Windows end at the newest sample.
    pub pressure: Option<Pressure>,
    /// See [`Ring::seconds`].
    pub seconds: Vec<f32>,
}

#[derive(Debug, Clone, Default)]
struct Target {
    ring: Ring,
    memory: Option<MemoryNow>,
    /// Time of the last query.
    wanted_at: Nanos,
}

impl Target {
    fn add(&mut self, sample: Option<(Sample, Option<MemoryNow>)>) {
        if let Some((sample, memory)) = sample {
            self.ring.push(sample);
            self.memory = memory.or(self.memory);
        }
    }

    fn memory(&self) -> Option<Memory> {
        let memory = Memory {
            current: self.memory.and_then(|memory| memory.current),
            max: self.memory.and_then(|memory| memory.max),
            oom_kills: self.ring.growth(|counters| counters.oom_kills),
            high_events: self.ring.growth(|counters| counters.high),
        };
        (memory != Memory::default()).then_some(memory)
    }
}

#[derive(Debug, Default)]
struct State {
    host: Ring,
    time: HostTime,
    cgroups: HashMap<PathBuf, Target>,
    stopping: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    proc_pressure: PathBuf,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle of the sampling thread; stops it on drop.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> Result<Self, SamplerError> {
        Self::start_with(Path::new("/proc/pressure"))
    }

    /// As [`Sampler::start`], with another directory for the host's pressure files.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start_with(proc_pressure: &Path) -> Result<Self, SamplerError> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            proc_pressure: proc_pressure.to_owned(),
        });
        let state = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("pressure".to_owned()).spawn(move || run(&state))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Starts to sample this cgroup; takes the first sample immediately.
    pub fn watch(&self, cgroup: &Path) {
        let first = sample_cgroup(cgroup);
        let mut state = self.shared.lock();
        let target = state.cgroups.entry(cgroup.to_owned()).or_default();
        target.wanted_at = monotonic();
        target.add(first);
    }

    /// Pressure and memory with a new sample at the end of the window.
    #[must_use]
    pub fn read(&self, cgroup: Option<&Path>) -> Reading {
        let mut state = self.shared.lock();
        let mut host = state.host.clone();
        let mut target = cgroup.and_then(|cgroup| {
            let target = state.cgroups.get_mut(cgroup)?;
            target.wanted_at = monotonic();
            Some((cgroup, target.clone()))
        });
        // Files are read without the lock: under pressure this takes time, and there are other
        // queries.
        drop(state);
        if is_old(&host) {
            host.push(sample_host(&self.shared.proc_pressure));
        }
        if let Some((cgroup, target)) = target.as_mut().filter(|(_, target)| is_old(&target.ring)) {
            target.add(sample_cgroup(cgroup));
        }
        reading(&host, target.as_ref().map(|(_, target)| target))
    }

    /// As [`Self::read`], from the regular samples only: the windows end up to a second earlier,
    /// and no file is read.
    #[must_use]
    pub fn known(&self, cgroup: Option<&Path>) -> Reading {
        let state = self.shared.lock();
        reading(&state.host, cgroup.and_then(|cgroup| state.cgroups.get(cgroup)))
    }

    /// Recent pressure of a cgroup or of the host, without reading a file: up to a second old.
    /// `None` for a cgroup that is not sampled or was removed.
    #[must_use]
    pub fn recent(&self, cgroup: Option<&Path>, seconds: usize) -> Option<Recent> {
        let state = self.shared.lock();
        let ring = match cgroup {
            None => &state.host,
            Some(cgroup) => &state.cgroups.get(cgroup)?.ring,
        };
        let fresh = ring.last().is_some_and(|last| last.at + STALE > monotonic());
        fresh.then(|| Recent { pressure: ring.pressure(), seconds: ring.seconds(seconds) })
    }
}

impl Sampler {
    /// Delays of this thread, oldest first, and the worst steal of a second in percent.
    #[must_use]
    pub fn host_time(&self) -> (Vec<Span>, Option<f32>) {
        let state = self.shared.lock();
        (state.time.delays(monotonic()), state.time.steal())
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn reading(host: &Ring, target: Option<&Target>) -> Reading {
    let fresh = |ring: &Ring| ring.last().is_some_and(|last| last.at + STALE > monotonic());
    let target = target.filter(|target| fresh(&target.ring));
    Reading {
        pressure: target.and_then(|target| target.ring.pressure()),
        memory: target.and_then(Target::memory),
        host: fresh(host).then(|| host.pressure()).flatten(),
    }
}

/// Whether the newest sample is too old for the end of a window.
fn is_old(ring: &Ring) -> bool {
    ring.last().is_none_or(|last| last.at + FRESH < monotonic())
}

fn run(shared: &Shared) {
    loop {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let mut state = shared.lock();
        state.time.runs(monotonic(), CpuTime::parse(&stat));
        let cgroups: Vec<PathBuf> = state.cgroups.keys().cloned().collect();
        drop(state);
        let host = sample_host(&shared.proc_pressure);
        let samples: Vec<_> = cgroups.into_iter().map(|dir| (sample_cgroup(&dir), dir)).collect();
        let mut state = shared.lock();
        state.host.push(host);
        for (sample, dir) in samples {
            let Some(target) = state.cgroups.get_mut(&dir) else { continue };
            let gone = sample.is_none() && target.wanted_at + FORGET < monotonic();
            target.add(sample);
            if gone {
                state.cgroups.remove(&dir);
            }
        }
        if !state.stopping {
            let now = monotonic();
            state.time.sleeps(now, now + nanos(EVERY));
            state = shared.changed.wait_timeout(state, EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.stopping {
            return;
        }
    }
}

fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}

fn sample_cgroup(dir: &Path) -> Option<(Sample, Option<MemoryNow>)> {
    let (counters, memory) = cgroup_counters(dir)?;
    Some((Sample { at: monotonic(), counters }, memory))
}

fn sample_host(proc_pressure: &Path) -> Sample {
    Sample { at: monotonic(), counters: host_counters(proc_pressure) }
}

fn totals(path: &Path) -> Option<Totals> {
    parse(&std::fs::read_to_string(path).ok()?)
}

fn host_counters(dir: &Path) -> Counters {
    // "CPU full is undefined at the system level" (psi.rst): the kernel prints zeros there, which
    // are not measurements.
    let cpu = totals(&dir.join("cpu")).map(|totals| Totals { full: None, ..totals });
    Counters {
        mem: totals(&dir.join("memory")),
        io: totals(&dir.join("io")),
        cpu,
        oom_kills: None,
        high: None,
    }
}

/// `None` if the cgroup was removed, or has neither pressure nor memory.
fn cgroup_counters(dir: &Path) -> Option<(Counters, Option<MemoryNow>)> {
    let events = cgroup::memory_events(dir);
    let counters = Counters {
        mem: totals(&dir.join("memory.pressure")),
        io: totals(&dir.join("io.pressure")),
        cpu: totals(&dir.join("cpu.pressure")),
        oom_kills: events.map(|events| events.oom_kills),
        high: events.map(|events| events.high),
    };
    let memory = cgroup::memory_now(dir);
    (!counters.is_empty() || memory.is_some()).then_some((counters, memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::write(dir.join(name), text).unwrap();
    }

    fn psi(total: u64) -> String {
        format!(
            "some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
        )
    }

    #[test]
    fn without_psi_the_reading_is_empty() {
        let empty = tempfile::tempdir().unwrap();
        let sampler = Sampler::start_with(empty.path()).unwrap();
        sampler.watch(empty.path());
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(sampler.read(Some(empty.path())), Reading::default());
    }

    #[test]
    fn the_window_ends_at_the_query() {
        let (host, cgroup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["memory", "io", "cpu"] {
            write(host.path(), name, &psi(0));
            write(cgroup.path(), &format!("{name}.pressure"), &psi(0));
        }
        write(cgroup.path(), "memory.events", "low 0\nhigh 3\nmax 0\noom 0\noom_kill 0\n");
        write(cgroup.path(), "memory.current", "4096\n");
        write(cgroup.path(), "memory.max", "max\n");
        let sampler = Sampler::start_with(host.path()).unwrap();
        sampler.watch(cgroup.path());
        std::thread::sleep(Duration::from_millis(700));
        // Between two regular samples: only an extra sample includes these.
        write(cgroup.path(), "io.pressure", &psi(100_000));
        write(cgroup.path(), "memory.events", "low 0\nhigh 8\nmax 0\noom 1\noom_kill 1\n");
        let reading = sampler.read(Some(cgroup.path()));
        let io = reading.pressure.unwrap().io.unwrap();
        assert!(io.some > 1.0 && io.some < 16.0, "{io:?}");
        let memory = Memory { current: Some(4096), max: None, oom_kills: Some(1), high_events: Some(5) };
        assert_eq!(reading.memory, Some(memory));
        // The regular samples include all of it or nothing.
        let recent = sampler.recent(Some(cgroup.path()), 30).unwrap();
        assert!(recent.seconds.len() <= 1, "{recent:?}");
        assert_eq!(sampler.recent(Some(host.path()), 30), None);
        assert_eq!(reading.host.unwrap().cpu.unwrap().full, None);
    }

    #[test]
    fn what_is_known_needs_no_file_and_is_there_after_two_samples() {
        let (host, cgroup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["memory", "io", "cpu"] {
            write(host.path(), name, &psi(0));
            write(cgroup.path(), &format!("{name}.pressure"), &psi(0));
        }
        let sampler = Sampler::start_with(host.path()).unwrap();
        sampler.watch(cgroup.path());
        let known = loop {
            let known = sampler.known(Some(cgroup.path()));
            if known.pressure.is_some() && known.host.is_some() {
                break known;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        std::fs::remove_dir_all(cgroup.path()).unwrap();
        assert_eq!(sampler.known(Some(cgroup.path())), known);
        let other = sampler.known(Some(host.path()));
        assert!(other.host.is_some() && other.pressure.is_none() && other.memory.is_none(), "{other:?}");
    }

    #[test]
    fn a_removed_cgroup_keeps_its_last_sample() {
        let (host, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cgroup = parent.path().join("unit");
        std::fs::create_dir(&cgroup).unwrap();
        write(&cgroup, "memory.current", "4096\n");
        write(&cgroup, "memory.events", "high 0\noom_kill 0\n");
        let sampler = Sampler::start_with(host.path()).unwrap();
        sampler.watch(&cgroup);
        std::fs::remove_dir_all(&cgroup).unwrap();
        assert_eq!(sampler.read(Some(&cgroup)).memory.unwrap().current, Some(4096));
    }
}
