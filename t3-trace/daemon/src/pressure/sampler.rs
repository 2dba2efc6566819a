//! Takes the samples: a thread of its own, so that a busy event loop does not starve it, plus one
//! more sample when a close is asked about, so that the window ends at the close.
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

use t3_record::evidence::{Memory, Nanos, Pressure};
use t3_trace_host::{
    cgroup::{self, MemoryNow},
    clock::{SECOND, monotonic},
};

use super::{
    Totals, parse,
    ring::{Counters, KEEP, Ring, Sample},
};

const EVERY: Duration = Duration::from_secs(1);
/// Closes that come in a burst share one extra sample.
const FRESH: Nanos = SECOND / 20;
/// A cgroup that nobody asked for and that cannot be read any more is forgotten after this long.
const FORGET: Nanos = 2 * KEEP;
/// What was last read of a cgroup that is gone still tells of a close this much later, not longer.
const STALE: Nanos = 15 * SECOND;

/// The sampler could not be started.
#[derive(Debug, thiserror::Error)]
#[error("start the thread that samples pressure: {0}")]
pub struct SamplerError(#[from] std::io::Error);

/// Pressure and memory at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reading {
    /// Of the cgroup.
    pub pressure: Option<Pressure>,
    /// Of the cgroup.
    pub memory: Option<Memory>,
    /// Of the machine.
    pub host: Option<Pressure>,
}

/// What the regular samples amount to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recent {
    /// Over the windows that end at the newest sample.
    pub pressure: Option<Pressure>,
    /// See [`Ring::seconds`].
    pub seconds: Vec<f32>,
}

#[derive(Debug, Clone, Default)]
struct Target {
    ring: Ring,
    memory: Option<MemoryNow>,
    /// When somebody asked for it last.
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

/// A handle on the sampling thread, which ends with it.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`SamplerError`] when there is no thread to be had.
    pub fn start() -> Result<Self, SamplerError> {
        Self::start_with(Path::new("/proc/pressure"))
    }

    /// [`Sampler::start`] with another place for the machine's pressure files.
    ///
    /// # Errors
    /// [`SamplerError`] when there is no thread to be had.
    pub fn start_with(proc_pressure: &Path) -> Result<Self, SamplerError> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            proc_pressure: proc_pressure.to_owned(),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("pressure".to_owned()).spawn(move || run(&theirs))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Samples this cgroup from now on; the first sample is taken at once.
    pub fn watch(&self, cgroup: &Path) {
        let first = sample_cgroup(cgroup);
        let mut state = self.shared.lock();
        let target = state.cgroups.entry(cgroup.to_owned()).or_default();
        target.wanted_at = monotonic();
        target.add(first);
    }

    /// What is known at this moment, with a fresh sample at the end of the window.
    #[must_use]
    pub fn read(&self, cgroup: Option<&Path>) -> Reading {
        let mut state = self.shared.lock();
        let mut host = state.host.clone();
        let mut target = cgroup.and_then(|cgroup| {
            let target = state.cgroups.get_mut(cgroup)?;
            target.wanted_at = monotonic();
            Some((cgroup, target.clone()))
        });
        // Files are read without the lock: on a starving machine even that can take a while, and
        // others ask too.
        drop(state);
        if is_old(&host) {
            host.push(sample_host(&self.shared.proc_pressure));
        }
        if let Some((cgroup, target)) = target.as_mut().filter(|(_, target)| is_old(&target.ring)) {
            target.add(sample_cgroup(cgroup));
        }
        reading(&host, target.as_ref().map(|(_, target)| target))
    }

    /// The same from the regular samples alone: the windows end up to a second earlier, and no file
    /// is looked at.
    #[must_use]
    pub fn known(&self, cgroup: Option<&Path>) -> Reading {
        let state = self.shared.lock();
        reading(&state.host, cgroup.and_then(|cgroup| state.cgroups.get(cgroup)))
    }

    /// What is known of a cgroup, or of the machine, without a look at any file: at most a second
    /// old. `None` for a cgroup that is not sampled or is gone.
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

/// The newest sample does not do for the end of a window.
fn is_old(ring: &Ring) -> bool {
    ring.last().is_none_or(|last| last.at + FRESH < monotonic())
}

fn run(shared: &Shared) {
    loop {
        let state = shared.lock();
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
            state = shared.changed.wait_timeout(state, EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.stopping {
            return;
        }
    }
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
    // are no measurement.
    let cpu = totals(&dir.join("cpu")).map(|totals| Totals { full: None, ..totals });
    Counters {
        mem: totals(&dir.join("memory")),
        io: totals(&dir.join("io")),
        cpu,
        oom_kills: None,
        high: None,
    }
}

/// `None` when the cgroup is gone, or gives neither pressure nor memory.
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
    fn a_kernel_without_psi_gives_none_not_zeros() {
        let empty = tempfile::tempdir().unwrap();
        let sampler = Sampler::start_with(empty.path()).unwrap();
        sampler.watch(empty.path());
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(sampler.read(Some(empty.path())), Reading::default());
    }

    #[test]
    fn the_window_ends_at_the_moment_of_the_question() {
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
        // Between two regular samples: only an extra one can see these.
        write(cgroup.path(), "io.pressure", &psi(100_000));
        write(cgroup.path(), "memory.events", "low 0\nhigh 8\nmax 0\noom 1\noom_kill 1\n");
        let reading = sampler.read(Some(cgroup.path()));
        let io = reading.pressure.unwrap().io.unwrap();
        assert!(io.some > 1.0 && io.some < 16.0, "{io:?}");
        let memory = Memory { current: Some(4096), max: None, oom_kills: Some(1), high_events: Some(5) };
        assert_eq!(reading.memory, Some(memory));
        // Regular samples alone have not seen it yet, or have seen all of it.
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
    fn a_cgroup_that_is_gone_still_tells_what_was_last_read() {
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
