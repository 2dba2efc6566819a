//! The programs that are shipped: the eBPF object first, then the crates that embed it.

use anyhow::Result;

use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::run::run_checked;
use crate::tools::{cargo, ebpf, paths, progress, toolchain};

/// Crates whose programs are shipped.
const SHIPPED: [&str; 4] = ["t3-trace", "t3-trace-daemon", "t3-dispatch", "t3-probe"];

/// Builds the eBPF object and the programs. `release`: optimised and static, else the whole
/// workspace for development.
pub fn build(release: bool) -> Result<()> {
    ebpf::build()?;
    let mut command = cargo::cargo();
    command.arg("build");
    let mut dir = paths::cargo_target();
    if release {
        apt_packages::ensure(PackageSet::Release)?;
        toolchain::ensure_musl()?;
        command.args(["--target", toolchain::MUSL]);
        dir.push(toolchain::MUSL);
        for name in SHIPPED {
            command.args(["-p", name]);
        }
        command.args(["--profile", toolchain::DIST]);
    }
    dir.push(if release { toolchain::DIST } else { "debug" });
    progress::step(if release {
        "compiling the programs, optimised and static"
    } else {
        "compiling the programs"
    });
    let finished = run_checked("programs", command)?;
    for name in SHIPPED {
        progress::note(&format!("{} ({})", paths::short(&dir.join(name)), progress::took(finished.time)));
    }
    Ok(())
}
