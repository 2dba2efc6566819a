//! Embeds the eBPF object of `cargo xtask build` if it exists. Plain `cargo build` needs neither
//! the BPF linker nor root; the daemon then reports the missing object.

use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    // Independent of CARGO_TARGET_DIR: all builds find the same object.
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../target/ebpf");
    // Kprobes read the registers of one architecture.
    let object = folder.join(format!("t3-trace-{}.bpf.o", env::var("CARGO_CFG_TARGET_ARCH")?));
    let embedded = Path::new(&env::var("OUT_DIR")?).join("t3-trace.bpf.o");
    if object.is_file() {
        fs::copy(&object, &embedded)?;
        println!("cargo:rerun-if-changed={}", object.display());
    } else {
        fs::write(&embedded, [])?;
        // A missing file in rerun-if-changed would rebuild this crate each time; the folder changes
        // when the file is created.
        let watched = if fs::create_dir_all(&folder).is_ok() { &folder } else { &object };
        println!("cargo:rerun-if-changed={}", watched.display());
    }
    Ok(())
}
