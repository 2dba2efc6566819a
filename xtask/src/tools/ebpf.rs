//! The eBPF object: compiled with the pinned stable compiler (with nightly features enabled for
//! this one crate), linked by bpf-linker, and put where the build script that embeds it looks.
//!
//! One object for each architecture: a kprobe reads the arguments of the function from the
//! registers of the kernel's architecture.
//!
//! The file is rewritten only when its bytes change, so that an unchanged object recompiles
//! nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::tools::arch::Arch;
use crate::tools::run::run_checked;
use crate::tools::{cargo, paths, progress, remap, toolchain};

const TARGET: &str = "bpfel-unknown-none";

/// Variable of the crate aya-ebpf: the architecture of the kernels. Without it, that of this host.
const KERNEL_ARCH: &str = "AYA_BPF_TARGET_ARCH";

/// Compiles the object for kernels of `arch` and installs it.
pub fn build(arch: Arch) -> Result<()> {
    toolchain::ensure_rust_src()?;
    toolchain::ensure_bpf_linker()?;
    progress::step("compiling the eBPF programs");
    let finished = run_checked("eBPF programs", command("build", arch)?)?;
    let made = paths::target().join("ebpf-build").join(TARGET).join("release").join(cargo::EBPF_CRATE);
    let object = paths::ebpf_object(arch);
    let changed = install(&made, &object)?;
    let state = if changed { "new" } else { "unchanged" };
    progress::note(&format!("{} {state} ({})", paths::short(&object), progress::took(finished.time)));
    Ok(())
}

/// `cargo build` or `cargo clippy` of the eBPF crate, for the BPF target.
pub fn command(subcommand: &str, arch: Arch) -> Result<std::process::Command> {
    let bin = paths::tools().join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)))
        .context("cannot extend PATH")?;
    let mut flags = ["-C", "debuginfo=2", "-C", "link-arg=--btf"].map(str::to_owned).to_vec();
    flags.extend(remap::rustc_flags()?);
    let mut command = cargo::cargo();
    command
        .args([subcommand, "-p", cargo::EBPF_CRATE, "--release", "--target", TARGET, "-Z", "build-std=core"])
        .env("PATH", path)
        .env("RUSTC_BOOTSTRAP", "1")
        .env(KERNEL_ARCH, arch.rust())
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", paths::target().join("ebpf-build"));
    Ok(command)
}

/// Copies `from` to `to` if they differ; through a temporary file and a rename, so that a reader
/// never sees half a file.
fn install(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    let temporary = to.with_extension("new");
    fs::write(&temporary, new).with_context(|| format!("cannot write {}", temporary.display()))?;
    fs::rename(&temporary, to)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{Arch, KERNEL_ARCH, command, install};
    use crate::tools::paths;
    use std::fs;

    #[test]
    fn each_architecture_has_its_own_object() {
        for (arch, name) in [(Arch::Amd64, "x86_64"), (Arch::Arm64, "aarch64")] {
            let command = command("build", arch).unwrap();
            let value = command.get_envs().find(|(found, _)| *found == KERNEL_ARCH).unwrap().1;
            assert_eq!(value.unwrap(), name);
            let object = paths::ebpf_object(arch);
            assert_eq!(object.file_name().unwrap(), format!("t3-trace-{name}.bpf.o").as_str());
        }
    }

    #[test]
    fn an_unchanged_object_is_not_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("sub/to.o"));
        fs::write(&from, b"one").unwrap();
        assert!(install(&from, &to).unwrap());
        let before = fs::metadata(&to).unwrap().modified().unwrap();
        assert!(!install(&from, &to).unwrap());
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), before);
        fs::write(&from, b"two").unwrap();
        assert!(install(&from, &to).unwrap());
        assert_eq!(fs::read(&to).unwrap(), b"two");
    }
}
