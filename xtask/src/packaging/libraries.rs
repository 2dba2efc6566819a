//! Libraries in the programs of a package: licence texts for the package, and its bill of
//! materials.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::linked::{self, Linked};
use super::{deb, licences, sbom};
use crate::tools::arch::Arch;
use crate::tools::run::stdout_of;
use crate::tools::{cargo, paths, toolchain};

/// Licence of musl libc, from the Debian package of the same sources.
const MUSL: &str = "/usr/share/doc/musl-dev/copyright";

/// Writes the licence texts of a package to its stage.
pub fn stage(name: &str, dir: &Path, arch: Arch) -> Result<()> {
    let crates = crates(name, arch)?;
    let texts = licences::collect(crates.values())?;
    let musl = fs::read_to_string(MUSL).with_context(|| format!("cannot read {MUSL}"))?;
    let page = licences::page(name, &texts) + &licences::section("musl libc", &musl);
    fs::write(dir.join("THIRD-PARTY-LICENCES"), page)?;
    let rust = toolchain::library_copyright()?;
    let text = fs::read(&rust).with_context(|| format!("cannot read {}", rust.display()))?;
    Ok(fs::write(dir.join("RUST-COPYRIGHT.html"), text)?)
}

/// Writes the bill of materials of a package to `to`.
pub fn write_sbom(name: &str, to: &Path, revision: &str, arch: Arch) -> Result<()> {
    let version = format!("{}-{revision}", deb::version(name)?);
    let lock = fs::read_to_string(paths::root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let document = sbom::document(name, &version, &crates(name, arch)?, &linked::checksums(&lock));
    let file = to.join(format!("{name}_{version}_{}.cdx.json", arch.debian()));
    let text = serde_json::to_string_pretty(&document)? + "\n";
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn crates(name: &str, arch: Arch) -> Result<BTreeMap<String, Linked>> {
    let mut command = cargo::cargo();
    command.args(["metadata", "--format-version=1", "--locked", "--filter-platform", arch.target()]);
    let metadata: Value = serde_json::from_str(&stdout_of(&mut command)?)
        .context("cannot read the output of cargo metadata")?;
    // The eBPF object is part of t3-trace, without being a dependency.
    let roots: &[&str] = if name == "t3-trace" { &[name, cargo::EBPF_CRATE] } else { &[name] };
    Ok(linked::crates(&metadata, roots))
}
