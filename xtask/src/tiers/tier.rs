//! The list of tiers.

use anyhow::Result;
use clap::ValueEnum;

use crate::tools::report::Step;

/// A tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// Formatting, clippy, documentation, dependencies, rules of the repository. No privileges.
    Lint,
    /// Unit, property and loopback tests, examples in documentation. No privileges.
    Unit,
    /// Test programs named `host_*` or `*_host`: real journald, real eBPF. Needs root.
    Host,
    /// Fuzz targets, a minute each.
    Fuzz,
    /// Faults and packages in Debian guests with kprobes. Needs root, qemu, mmdebstrap.
    Vm,
}

impl Tier {
    /// In the order in which they run.
    pub const ALL: [Self; 5] = [Self::Lint, Self::Unit, Self::Host, Self::Fuzz, Self::Vm];

    pub fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::Host => "host",
            Self::Fuzz => "fuzz",
            Self::Vm => "vm",
        }
    }

    /// Runs the tier.
    pub fn steps(self, quick: bool) -> Result<Vec<Step>> {
        match self {
            Self::Lint => super::lint::steps(),
            Self::Unit => super::unit::steps(),
            Self::Host => super::host::steps(quick, || ()),
            Self::Fuzz => super::fuzz::steps(),
            Self::Vm => super::vm::steps(None),
        }
    }
}
