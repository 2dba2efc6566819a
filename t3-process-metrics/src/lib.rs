//! Resource use of this process under the standard names of Prometheus clients, read from procfs
//! at each scrape. Needs only /proc/self, so that it works in the sandbox of a unit
//! (`ProcSubset=pid`). A value that cannot be read keeps its last state.
//!
//! Linux before 6.2 counts descriptors one by one, which takes milliseconds for thousands: a scrape
//! must not run on an event loop.

use std::time::{Duration, SystemTime};

use procfs::process::{LimitValue, Process};
use prometheus::{
    Counter, Gauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use rustix::time::{ClockId, clock_gettime};

/// Collector of the metrics.
#[derive(Debug, Clone)]
pub struct ProcessMetrics {
    cpu: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
    virtual_memory: Gauge,
    resident: Gauge,
    start_time: Gauge,
    threads: Gauge,
}

impl ProcessMetrics {
    /// Metrics of this process.
    ///
    /// # Errors
    /// Never with these names; the library checks them.
    pub fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| Gauge::with_opts(Opts::new(name, help));
        let cpu = "User and system CPU time of the process, in seconds.";
        let start = "Unix time of the start of the process, in seconds.";
        let metrics = Self {
            cpu: Counter::with_opts(Opts::new("process_cpu_seconds_total", cpu))?,
            open_fds: gauge("process_open_fds", "Open file descriptors.")?,
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors.")?,
            virtual_memory: gauge(
                "process_virtual_memory_bytes",
                "Virtual memory of the process, in bytes.",
            )?,
            resident: gauge("process_resident_memory_bytes", "Resident memory of the process, in bytes.")?,
            start_time: gauge("process_start_time_seconds", start)?,
            threads: gauge("process_threads", "Threads of the process.")?,
        };
        // Once, because a step of the clock would move it later.
        if let Some(started) = Process::myself().and_then(|process| process.stat()).ok().and_then(|stat| {
            let since_boot = Duration::from_secs_f64(seconds(stat.starttime));
            started(since_boot, uptime(), SystemTime::UNIX_EPOCH.elapsed().ok()?)
        }) {
            metrics.start_time.set(started.as_secs_f64());
        }
        Ok(metrics)
    }

    fn read(&self) -> procfs::ProcResult<()> {
        let process = Process::myself()?;
        // `process` holds one of them.
        self.open_fds.set(float(process.fd_count()?.saturating_sub(1) as u64));
        if let LimitValue::Value(most) = process.limits()?.max_open_files.soft_limit {
            self.max_fds.set(float(most));
        }
        let stat = process.stat()?;
        let cpu = seconds(stat.utime.saturating_add(stat.stime));
        self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
        self.virtual_memory.set(float(stat.vsize));
        self.resident.set(float(stat.rss.saturating_mul(procfs::page_size())));
        self.threads.set(float(stat.num_threads.unsigned_abs()));
        Ok(())
    }

    fn all(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu,
            &self.open_fds,
            &self.max_fds,
            &self.virtual_memory,
            &self.resident,
            &self.start_time,
            &self.threads,
        ]
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Err(error) = self.read() {
            tracing::debug!(%error, "cannot read the resource use of this process");
        }
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

/// Unix time of a start, from its time since the boot.
fn started(since_boot: Duration, uptime: Duration, unix: Duration) -> Option<Duration> {
    unix.checked_sub(uptime.checked_sub(since_boot)?)
}

/// Time since the boot.
fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Clock ticks in seconds.
fn seconds(ticks: u64) -> f64 {
    float(ticks) / float(procfs::ticks_per_second())
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float; these numbers fit")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_are_those_of_this_process() {
        let metrics = ProcessMetrics::new().unwrap();
        let families = metrics.collect();
        let names: Vec<_> = families.iter().map(MetricFamily::name).collect();
        let [cpu, fds, max_fds, memory, resident, start, threads] = [
            "cpu_seconds_total",
            "open_fds",
            "max_fds",
            "virtual_memory_bytes",
            "resident_memory_bytes",
            "start_time_seconds",
            "threads",
        ]
        .map(|name| format!("process_{name}"));
        assert_eq!(names, [&cpu, &fds, &max_fds, &memory, &resident, &start, &threads]);
        assert!(metrics.open_fds.get() >= 3.0 && metrics.max_fds.get() > metrics.open_fds.get());
        assert!(metrics.virtual_memory.get() >= metrics.resident.get() && metrics.resident.get() > 1e6);
        assert!(metrics.threads.get() >= 1.0);
        let age = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() - metrics.start_time.get();
        assert!((-1.0..3600.0).contains(&age), "{age}");
        // Ends when the counter has followed 0.2 s of CPU time.
        let before = metrics.cpu.get();
        while metrics.cpu.get() < before + 0.2 {
            for n in 0..100_000_u64 {
                std::hint::black_box(n);
            }
            metrics.collect();
        }
    }

    #[test]
    fn the_start_is_the_age_before_now_and_a_clock_before_1970_has_none() {
        let seconds = Duration::from_secs;
        assert_eq!(started(seconds(90), seconds(100), seconds(1_000)), Some(seconds(990)));
        assert_eq!(started(seconds(90), seconds(100), seconds(5)), None);
        assert_eq!(started(seconds(101), seconds(100), seconds(5)), None);
    }
}
