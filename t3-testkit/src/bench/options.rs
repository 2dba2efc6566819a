//! Options of the benchmark.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand, ValueEnum, builder::TypedValueParser as _};

use super::{client::Load, contestant::Contestant, ebpf, metric::Workload};

/// Committed numbers, in the folder of this crate.
const BASELINE: &str = "bench/baseline.json";

/// Measures CPU, latency and memory of t3-dispatch, nginx, HAProxy and a bare relay
#[derive(Debug, Parser)]
#[command(name = "t3-bench", max_term_width = 110)]
#[command(after_help = "Exit status: 0 measured; 1 runtime failure; 2 usage error.")]
pub struct Options {
    /// Small run to check that everything works; its numbers mean little
    #[arg(long)]
    pub quick: bool,
    /// Also write the numbers to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Committed numbers to compare with; those of the repository by default
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the numbers of this run to the file of the committed numbers
    #[arg(long, conflicts_with_all = ["quick", "contestants", "only"])]
    pub save_baseline: bool,
    /// Measure only this contestant (repeatable)
    #[arg(long = "contestant", value_name = "NAME")]
    contestants: Vec<Contestant>,
    /// Measure only this workload (repeatable)
    #[arg(long = "only", value_name = "WORKLOAD")]
    only: Vec<Workload>,
    /// Number of idle sessions for the memory measurement
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..).map(|n| n as usize))]
    pub sessions: Option<usize>,
    /// Number of rounds of each workload; the median counts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..).map(|n| n as usize))]
    pub rounds: Option<usize>,
    /// Program t3-dispatch to measure
    #[arg(long, value_name = "FILE")]
    pub dispatch: Option<PathBuf>,
    /// CPU of the proxies; the last one by default
    #[arg(long, value_name = "CPU")]
    pub proxy_cpu: Option<usize>,
    /// CPU of client and backend; the first one by default
    #[arg(long, value_name = "CPU")]
    pub load_cpu: Option<usize>,
    /// Parts that the benchmark starts itself.
    #[command(subcommand)]
    pub part: Option<Part>,
}

/// Parts that run as separate processes.
#[derive(Debug, Subcommand)]
pub enum Part {
    /// Server behind the proxies.
    #[command(hide = true)]
    Backend {
        /// Port on 127.0.0.1.
        port: u16,
    },
    /// Client of the proxies.
    #[command(hide = true)]
    Client(Load),
    /// Bare relay in place of a proxy.
    #[command(hide = true)]
    Relay {
        /// Address to listen on.
        address: SocketAddr,
        /// Address of the backend.
        backend: SocketAddr,
    },
    /// Measure the eBPF programs of t3-trace instead: time per socket, lost events
    Ebpf(ebpf::Work),
}

impl Options {
    /// The selected contestants; all by default.
    #[must_use]
    pub fn contestants(&self) -> Vec<Contestant> {
        chosen(&self.contestants)
    }

    /// The selected workloads; all by default.
    #[must_use]
    pub fn workloads(&self) -> Vec<Workload> {
        chosen(&self.only)
    }

    /// File of the committed numbers.
    #[must_use]
    pub fn baseline(&self) -> PathBuf {
        let of_repository = || Path::new(env!("CARGO_MANIFEST_DIR")).join(BASELINE);
        self.baseline.clone().unwrap_or_else(of_repository)
    }
}

fn chosen<T: ValueEnum + Copy + PartialEq>(selected: &[T]) -> Vec<T> {
    let is_chosen = |one: &&T| selected.is_empty() || selected.contains(one);
    T::value_variants().iter().filter(is_chosen).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn everything_is_measured_by_default() {
        let all = Options::parse_from(["t3-bench"]);
        assert_eq!((all.contestants().len(), all.workloads().len()), (6, 6));
        let some = Options::parse_from([
            "t3-bench",
            "--contestant",
            "haproxy-64k",
            "--contestant",
            "nginx",
            "--only",
            "cycle",
        ]);
        assert_eq!(some.contestants(), [Contestant::Nginx, Contestant::HaproxyLarge]);
        assert_eq!(some.workloads(), [Workload::Cycle]);
    }

    #[test]
    fn unusable_options_are_rejected() {
        for wrong in [
            &["--rounds", "0"][..],
            &["--save-baseline", "--quick"],
            &["--save-baseline", "--only", "echo"],
            &["--save-baseline", "--contestant", "dispatch"],
        ] {
            let arguments = [&["t3-bench"], wrong].concat();
            assert!(Options::try_parse_from(arguments).is_err(), "{wrong:?}");
        }
    }
}
