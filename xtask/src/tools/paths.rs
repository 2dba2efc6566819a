//! Files and folders of xtask, all below the workspace root: deleting `target/` resets everything.

use std::path::{Path, PathBuf};

use crate::tools::arch::Arch;

/// The workspace root.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// `target/` of the workspace. The eBPF object, the tools and the VM images are here even when
/// `CARGO_TARGET_DIR` redirects the programs: the build script of the eBPF host crate looks only
/// here.
pub fn target() -> PathBuf {
    root().join("target")
}

/// Where cargo puts the user-space programs.
pub fn cargo_target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => target(),
    }
}

/// The compiled eBPF programs for kernels of `arch`, the file that programs of `arch` embed.
pub fn ebpf_object(arch: Arch) -> PathBuf {
    target().join("ebpf").join(format!("t3-trace-{}.bpf.o", arch.rust()))
}

/// Tools built for this workspace: `bin/bpf-linker`.
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// Guest file systems and the files of the last runs.
pub fn vm() -> PathBuf {
    target().join("vm")
}

/// The Autobahn suite's file system.
pub fn autobahn() -> PathBuf {
    target().join("autobahn")
}

/// `path` as seen from the workspace root, for messages.
pub fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
