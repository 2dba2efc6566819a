//! Every command and every flag, in this one place.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::test::Tier;
use crate::vm::suite::Suite;

/// Build, test and show t3-dispatch and t3-trace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile the eBPF object and then the programs that embed it.
    Build(BuildArgs),
    /// Run the test tiers in order; all run, failures are listed at the end.
    Test(TestArgs),
    /// Boot Debian kernels in software emulation and run the tests inside.
    VmTest(VmTestArgs),
    /// End sessions in every way there is and print which verdicts were right, here and in the
    /// guests of the last vm-test.
    Faults(FaultsArgs),
    /// Show every way a session can end, on this machine, in about a minute.
    Demo(DemoArgs),
    /// Run the WebSocket conformance suite with t3-dispatch between its two ends and without: every
    /// case must come to the same.
    Autobahn(AutobahnArgs),
    /// Hold thousands of sessions with heartbeats through t3-dispatch, then end them in random
    /// ways: none dropped, memory flat, records right.
    Soak(SoakArgs),
    /// Make the Debian packages of t3-dispatch and t3-trace, from static programs.
    Package(PackageArgs),
    /// Measure memory and CPU next to HAProxy. Nothing passes or fails here.
    Bench(BenchArgs),
}

/// Flags of `build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Static, optimised programs for x86_64-unknown-linux-musl.
    #[arg(long)]
    pub release: bool,
    /// Stop after the eBPF object.
    #[arg(long)]
    pub ebpf_only: bool,
}

/// Flags of `test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Leave out the fuzz and vm tiers: about three minutes once built.
    #[arg(long)]
    pub quick: bool,
    /// Only this tier; may be given more than once.
    #[arg(long = "tier", value_name = "NAME")]
    pub tiers: Vec<Tier>,
}

/// Flags of `vm-test`.
#[derive(Debug, Args)]
pub struct VmTestArgs {
    /// Debian releases to boot; all of them when none is given.
    #[arg(long = "suite", value_name = "SUITE", num_args = 1..)]
    pub suites: Vec<Suite>,
    /// Only this fault; may be given more than once.
    #[arg(long, value_name = "NAME", conflicts_with = "exec")]
    pub only: Vec<String>,
    /// Run the faults this often in one boot; the results kept are those of the last time.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..), conflicts_with = "exec")]
    pub times: u8,
    /// Run this program in the guest in place of the project's VM tests.
    #[arg(long, value_name = "PATH")]
    pub exec: Option<PathBuf>,
    /// Only the Debian packages: install, use, upgrade, purge.
    #[arg(long, conflicts_with_all = ["exec", "only", "check_guest"])]
    pub packages: bool,
    /// Only check what the guests offer (BTF, PSI, cgroup v2, kprobes, systemd), without the
    /// project's VM tests.
    #[arg(long, conflicts_with = "exec")]
    pub check_guest: bool,
    /// Seconds for one guest, from power-on to power-off.
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    pub timeout: u64,
    /// Show the guests' consoles as they boot.
    #[arg(long)]
    pub console: bool,
}

/// Flags of `faults`.
#[derive(Debug, Args)]
pub struct FaultsArgs {
    /// Only this fault; may be given more than once.
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Run nothing: print the table of what ran last.
    #[arg(long)]
    pub last: bool,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep it running, for your own browser, until Ctrl-C.
    #[arg(long)]
    pub hold: bool,
}

/// Flags of `autobahn`.
#[derive(Debug, Args)]
pub struct AutobahnArgs {
    /// Messages that each of the 216 cases of compression sends, at most; 1000 takes a quarter of
    /// an hour.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub messages: u32,
}

/// Flags of `soak`.
#[derive(Debug, Args)]
pub struct SoakArgs {
    /// Sessions, all open at the same time.
    #[arg(long, default_value_t = 9_000, value_name = "N")]
    pub sessions: u32,
    /// How long they are held.
    #[arg(long, default_value_t = 300, value_name = "N")]
    pub seconds: u64,
    /// Passed on to the program, after `--`.
    #[arg(last = true)]
    pub rest: Vec<String>,
}

/// Flags of `package`.
#[derive(Debug, Args)]
pub struct PackageArgs {
    /// Debian's revision of the packages, behind the version of the crates.
    #[arg(long, default_value = "1", value_name = "REVISION", value_parser = revision)]
    pub revision: String,
    /// From the programs that the guests of vm-test run: quick, and not for an installation.
    #[arg(long)]
    pub guests: bool,
}

/// What may stand there (deb-version(7)): it becomes part of a file's name.
fn revision(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "+.~".contains(c);
    if !text.is_empty() && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err("a revision is made of letters, digits, plus, dot and tilde".to_owned())
}

/// Flags of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Passed on to the benchmark program, after `--`.
    #[arg(last = true)]
    pub rest: Vec<String>,
}
