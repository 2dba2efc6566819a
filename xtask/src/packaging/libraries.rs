//! Libraries in the programs of a package: licence texts for the package, and its bill of
//! materials.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::linked::{self, Linked};
use super::{deb, licences, musl, sbom, sbom_rules};
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
///
/// # Errors
/// It breaks a rule of [`sbom_rules`]: a crate without a licence or a checksum, for example.
pub fn write_sbom(name: &str, to: &Path, revision: &str, arch: Arch) -> Result<()> {
    let version = format!("{}-{revision}", deb::version(name)?);
    let document = document(name, &version, arch)?;
    let file = to.join(format!("{name}_{version}_{}.cdx.json", arch.debian()));
    let broken = sbom_rules::broken(&document);
    if !broken.is_empty() {
        bail!("the bill of materials of {name} is wrong:\n{}", broken.join("\n"));
    }
    let text = serde_json::to_string_pretty(&document)? + "\n";
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn document(name: &str, version: &str, arch: Arch) -> Result<Value> {
    let lock = fs::read_to_string(paths::root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let rustc = toolchain::rustc_version()?;
    let rust = rustc.split_whitespace().nth(1).context("rustc -V does not state its version")?;
    let time = deb::source_time().as_deref().map(rfc3339).transpose()?;
    let subject = sbom::Subject {
        package: name,
        version,
        arch: arch.debian(),
        time: time.as_deref(),
        toolchain: sbom::Toolchain { rust, musl: &musl::version(arch)? },
    };
    Ok(sbom::document(&subject, &crates(name, arch)?, &linked::checksums(&lock)))
}

/// Unix seconds as a time of CycloneDX: RFC 3339 in UTC.
fn rfc3339(seconds: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", &format!("--date=@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]);
    Ok(stdout_of(&mut date)?.trim().to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_of_the_largest_package_breaks_no_rule() {
        let document = document("t3-trace", "1.0.0-1", Arch::Amd64).unwrap();
        assert_eq!(sbom_rules::broken(&document), Vec::<String>::new());
        let components = document["components"].as_array().unwrap();
        for library in ["t3-trace", "t3-trace-daemon", "aya", "aya-ebpf", "tokio", "rust-std", "musl"] {
            assert!(components.iter().any(|found| found["name"] == library), "{library}");
        }
    }

    #[test]
    fn the_time_is_rfc_3339_in_utc() {
        assert_eq!(rfc3339("1700000000").unwrap(), "2023-11-14T22:13:20Z");
    }
}
