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
    small_file,
};

use super::{
    Totals,
    host_time::{CpuTime, HostTime},
    parse,
    ring::{Counters, KEEP, Ring, Sample},
};

const EVERY: Duration = Duration::from_secs(1);
/// A window ends up to this long before the query, so that the closes of a burst share one extra
/// sample.
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

/// Pressure and memory of one target, computed from its samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Measured {
    /// End of the window, or time of the attempt if the files were gone.
    at: Nanos,
    /// Time of the newest sample.
    sampled_at: Nanos,
    pressure: Option<Pressure>,
    memory: Option<Memory>,
}

/// Samples of the host or of a cgroup.
#[derive(Debug, Clone, Default)]
struct Series {
    /// Regular samples.
    ring: Ring,
    memory: Option<MemoryNow>,
}

impl Series {
    fn add(&mut self, sample: Option<(Sample, Option<MemoryNow>)>) {
        if let Some((sample, memory)) = sample {
            self.ring.push(sample);
            self.memory = memory.or(self.memory);
        }
    }

    fn sampled_at(&self) -> Nanos {
        self.ring.last().map_or(0, |last| last.at)
    }

    fn measure(&self, at: Nanos) -> Measured {
        let sampled_at = self.sampled_at();
        Measured { at, sampled_at, pressure: self.ring.pressure(), memory: self.memory() }
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
struct Target {
    series: Series,
    /// Result of the newest sample, a regular or an extra one, after the first query.
    measured: Measured,
    /// Held by the query that takes an extra sample.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Time of the last query.
    wanted_at: Nanos,
}

impl Target {
    /// Result for a query at `asked_at` without a new sample; `None` if the newest one is too old.
    /// One that is younger than the query counts: the query waited.
    fn measured(&mut self, asked_at: Nanos) -> Option<Measured> {
        let is_fresh = |at: Nanos| at.saturating_add(FRESH) >= asked_at;
        if is_fresh(self.measured.at) {
            return Some(self.measured);
        }
        let sampled_at = self.series.sampled_at();
        is_fresh(sampled_at).then(|| *self.set(self.series.measure(sampled_at)))
    }

    /// Result of the newest sample.
    fn newest(&mut self) -> Measured {
        let sampled_at = self.series.sampled_at();
        if sampled_at > self.measured.sampled_at {
            self.set(self.series.measure(sampled_at));
        }
        self.measured
    }

    /// Stores a result, unless a newer one is there; returns the newest.
    fn set(&mut self, measured: Measured) -> &Measured {
        if measured.at >= self.measured.at {
            self.measured = measured;
        }
        &self.measured
    }
}

#[derive(Debug, Default)]
struct State {
    host: Target,
    time: HostTime,
    cgroups: HashMap<PathBuf, Target>,
    stopping: bool,
}

impl State {
    /// Target of a query.
    fn wanted(&mut self, cgroup: Option<&Path>) -> Option<&mut Target> {
        let target = self.cgroups.get_mut(cgroup?)?;
        target.wanted_at = monotonic();
        Some(target)
    }
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

    /// Adds this cgroup to the regular samples; false if it is one of them.
    pub fn add(&self, cgroup: &Path) -> bool {
        let mut state = self.shared.lock();
        let is_new = !state.cgroups.contains_key(cgroup);
        if is_new {
            state.cgroups.insert(cgroup.to_owned(), Target { wanted_at: monotonic(), ..Target::default() });
        }
        is_new
    }

    /// Starts to sample this cgroup; takes the first sample immediately.
    pub fn watch(&self, cgroup: &Path) {
        let first = sample_cgroup(cgroup);
        let mut state = self.shared.lock();
        let target = state.cgroups.entry(cgroup.to_owned()).or_default();
        target.wanted_at = monotonic();
        target.series.add(first);
    }

    /// Pressure and memory for a query at `asked_at`, without reading a file: the window ends up to
    /// 50 ms before the query. `None` if a sample is due, see [`Self::read`].
    #[must_use]
    pub fn measured(&self, cgroup: Option<&Path>, asked_at: Nanos) -> Option<Reading> {
        let mut state = self.shared.lock();
        let target = match state.wanted(cgroup) {
            Some(target) => Some(target.measured(asked_at)?),
            None => None,
        };
        Some(reading(state.host.measured(asked_at)?, target))
    }

    /// Lock of the query that takes the extra sample, [`Self::read`], for all that wait.
    #[must_use]
    pub fn turn(&self, cgroup: Option<&Path>) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.shared.lock();
        let turn = state.wanted(cgroup).map(|target| Arc::clone(&target.turn));
        turn.unwrap_or_else(|| Arc::clone(&state.host.turn))
    }

    /// As [`Self::measured`], with new samples where they are due. Later queries of the same
    /// instant use them; they are not part of the regular samples.
    #[must_use]
    pub fn read(&self, cgroup: Option<&Path>, asked_at: Nanos) -> Reading {
        let due = |target: &mut Target| {
            let is_due = target.measured(asked_at).is_none();
            is_due.then(|| target.series.clone())
        };
        let mut state = self.shared.lock();
        let host = due(&mut state.host);
        let target = state.wanted(cgroup).and_then(due);
        // Files are read without the lock: under pressure this takes time, and there are other
        // queries.
        drop(state);
        // Before the files: what happens while they are read is not in them.
        let at = monotonic();
        let host = host.map(|mut series| {
            series.add(Some((sample_host(&self.shared.proc_pressure), None)));
            series.measure(at)
        });
        let target = cgroup.zip(target).map(|(cgroup, mut series)| {
            series.add(sample_cgroup(cgroup));
            series.measure(at)
        });
        let mut state = self.shared.lock();
        let target = state.wanted(cgroup).map(|found| match target {
            Some(measured) => *found.set(measured),
            None => found.measured,
        });
        let host = host.map_or(state.host.measured, |measured| *state.host.set(measured));
        reading(host, target)
    }

    /// As [`Self::measured`], from the newest samples: the windows end up to a second earlier.
    #[must_use]
    pub fn known(&self, cgroup: Option<&Path>) -> Reading {
        let mut state = self.shared.lock();
        let target = cgroup.and_then(|cgroup| state.cgroups.get_mut(cgroup)).map(Target::newest);
        reading(state.host.newest(), target)
    }

    /// Recent pressure of a cgroup or of the host, without reading a file: up to a second old.
    /// `None` for a cgroup that is not sampled or was removed.
    #[must_use]
    pub fn recent(&self, cgroup: Option<&Path>, seconds: usize) -> Option<Recent> {
        let state = self.shared.lock();
        let ring = match cgroup {
            None => &state.host.series.ring,
            Some(cgroup) => &state.cgroups.get(cgroup)?.series.ring,
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

fn reading(host: Measured, target: Option<Measured>) -> Reading {
    let is_fresh = |measured: &Measured| measured.sampled_at + STALE > monotonic();
    let target = target.filter(is_fresh);
    Reading {
        pressure: target.and_then(|target| target.pressure),
        memory: target.and_then(|target| target.memory),
        host: Some(host).filter(is_fresh).and_then(|host| host.pressure),
    }
}

fn run(shared: &Shared) {
    loop {
        let stat = small_file::text("/proc/stat").unwrap_or_default();
        let mut state = shared.lock();
        state.time.runs(monotonic(), CpuTime::parse(&stat));
        let cgroups: Vec<PathBuf> = state.cgroups.keys().cloned().collect();
        drop(state);
        let host = sample_host(&shared.proc_pressure);
        let samples: Vec<_> = cgroups.into_iter().map(|dir| (sample_cgroup(&dir), dir)).collect();
        let mut state = shared.lock();
        state.host.series.ring.push(host);
        for (sample, dir) in samples {
            let Some(target) = state.cgroups.get_mut(&dir) else { continue };
            let gone = sample.is_none() && target.wanted_at + FORGET < monotonic();
            target.series.add(sample);
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
    let at = monotonic();
    let (counters, memory) = cgroup_counters(dir)?;
    Some((Sample { at, counters }, memory))
}

fn sample_host(proc_pressure: &Path) -> Sample {
    Sample { at: monotonic(), counters: host_counters(proc_pressure) }
}

fn totals(path: &Path) -> Option<Totals> {
    parse(&small_file::text(path).ok()?)
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
        assert_eq!(sampler.read(Some(empty.path()), monotonic()), Reading::default());
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
        let reading = sampler.read(Some(cgroup.path()), monotonic());
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
    fn queries_of_one_instant_share_a_sample() {
        let mut target = Target::default();
        let at = 100 * SECOND;
        assert_eq!(target.measured(at), None, "no sample");
        let sample = |at| (Sample { at, counters: Counters { high: Some(at), ..Counters::default() } }, None);
        target.series.add(Some(sample(at)));
        // The regular sample serves queries until it is too old for the end of a window.
        for (asked_at, is_shared) in [(at - SECOND, true), (at + FRESH, true), (at + FRESH + 1, false)] {
            assert_eq!(target.measured(asked_at).is_some(), is_shared, "{asked_at}");
        }
        // One query takes an extra sample.
        let extra_at = at + SECOND / 2;
        let mut series = target.series.clone();
        series.add(Some(sample(extra_at)));
        let extra = *target.set(series.measure(extra_at));
        assert_eq!(extra.memory.and_then(|memory| memory.high_events), Some(extra_at - at));
        assert_eq!(target.series.ring.len(), 1, "not a regular sample");
        // Also for a query that waited: the sample is nearer to its close than a new one.
        for asked_at in [extra_at - SECOND / 5, extra_at, extra_at + FRESH] {
            assert_eq!(target.measured(asked_at), Some(extra));
        }
        assert_eq!(target.measured(extra_at + FRESH + 1), None, "a later close has its own sample");
        assert_eq!(target.newest(), extra);
        target.series.add(Some(sample(at + SECOND)));
        assert_eq!(target.newest().sampled_at, at + SECOND);
    }

    #[test]
    fn a_removed_cgroup_is_not_read_again_for_each_query() {
        let mut target = Target::default();
        let (sampled_at, tried_at) = (100 * SECOND, 101 * SECOND);
        let memory = Some(MemoryNow { current: Some(4096), max: None });
        target.series.add(Some((Sample { at: sampled_at, counters: Counters::default() }, memory)));
        assert_eq!(target.measured(tried_at), None);
        let mut series = target.series.clone();
        series.add(None);
        let tried = *target.set(series.measure(tried_at));
        assert_eq!((tried.sampled_at, target.measured(tried_at + FRESH)), (sampled_at, Some(tried)));
        assert_eq!(tried.memory.and_then(|memory| memory.current), Some(4096));
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
        assert_eq!(sampler.read(Some(&cgroup), monotonic()).memory.unwrap().current, Some(4096));
    }
}
