//! The list of commands.

use clap::{Parser, Subcommand};

use crate::commands::autobahn::AutobahnArgs;
use crate::commands::bench::BenchArgs;
use crate::commands::build::BuildArgs;
use crate::commands::demo::DemoArgs;
use crate::commands::docs::DocsArgs;
use crate::commands::faults::FaultsArgs;
use crate::commands::mutants::MutantsArgs;
use crate::commands::package::PackageArgs;
use crate::commands::release::ReleaseArgs;
use crate::commands::soak::SoakArgs;
use crate::commands::test::TestArgs;
use crate::commands::trial::TryArgs;
use crate::commands::vm_test::VmTestArgs;

/// Build, test, package and demonstrate t3-dispatch and t3-trace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile the eBPF object and the programs that embed it.
    Build(BuildArgs),
    /// Run the test tiers in order; list all failures at the end.
    Test(TestArgs),
    /// Check only the rules of this repository (imports, words, columns, file length); seconds.
    Rules,
    /// Update all generated pages and files: docs/, deploy/t3-*.toml and expected output of
    /// tests.
    Docs(DocsArgs),
    /// Change the verdict module in one place after another; report each change that no test
    /// notices. About half an hour.
    Mutants(MutantsArgs),
    /// Boot Debian kernels in software emulation and run the tests inside.
    VmTest(VmTestArgs),
    /// Inject every fault of the catalogue and print a table of verdicts, here and in the guests of
    /// the last vm-test.
    Faults(FaultsArgs),
    /// Show every way a session can end, on this host, in about a minute.
    Demo(DemoArgs),
    /// Put t3-dispatch and t3-trace in front of any WebSocket backend on this host, until Ctrl-C.
    Try(TryArgs),
    /// Run the WebSocket conformance suite with and without t3-dispatch in the path: every case
    /// must have the same result.
    Autobahn(AutobahnArgs),
    /// Hold thousands of sessions with heartbeats through t3-dispatch, then end them in random
    /// ways: none dropped, memory constant, records correct.
    Soak(SoakArgs),
    /// Make the Debian packages of all programs from static builds.
    Package(PackageArgs),
    /// Make the packages of all architectures, with debug information, bills of materials and
    /// checksums, in target/package/release.
    Release(ReleaseArgs),
    /// Measure CPU, latency and memory next to nginx and HAProxy; no pass or fail.
    Bench(BenchArgs),
}
