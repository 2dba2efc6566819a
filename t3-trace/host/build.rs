//! Embeds the eBPF object that `cargo xtask build` makes, when there is one: plain `cargo build`
//! needs neither the BPF linker nor root, and the daemon then says what is missing.

use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    // The object's place does not depend on CARGO_TARGET_DIR, so that everybody finds the same one.
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../target/ebpf");
    let object = folder.join("t3-trace.bpf.o");
    let embedded = Path::new(&env::var("OUT_DIR")?).join("t3-trace.bpf.o");
    if object.is_file() {
        fs::copy(&object, &embedded)?;
        println!("cargo:rerun-if-changed={}", object.display());
    } else {
        fs::write(&embedded, [])?;
        // Watching a file that is not there would rebuild this crate each time; the folder changes
        // when the file comes.
        let watched = if fs::create_dir_all(&folder).is_ok() { &folder } else { &object };
        println!("cargo:rerun-if-changed={}", watched.display());
    }
    Ok(())
}
