//! Software bill of materials of a package: CycloneDX 1.5 in JSON. Pure.
//!
//! Names and fields: CycloneDX specification 1.5; package URLs: purl specification, types `deb`,
//! `cargo`, `github` and `generic`. [`super::sbom_rules`] checks what is written.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::linked::Linked;

/// What the document is about.
#[derive(Debug)]
pub struct Subject<'a> {
    pub package: &'a str,
    /// Version of the package with its revision.
    pub version: &'a str,
    /// Name of the architecture in Debian.
    pub arch: &'a str,
    /// Time of the sources, RFC 3339; `None` outside of a git checkout.
    pub time: Option<&'a str>,
    /// Libraries of the toolchain in every program.
    pub toolchain: Toolchain<'a>,
}

/// Versions of what the toolchain links into every program.
#[derive(Debug)]
pub struct Toolchain<'a> {
    /// Rust standard library.
    pub rust: &'a str,
    /// musl libc, part of the target of the toolchain.
    pub musl: &'a str,
}

/// The document. `checksums`: SHA-256 by `NAME@VERSION`; equal input gives an equal document.
pub fn document(
    subject: &Subject<'_>,
    crates: &BTreeMap<String, Linked>,
    checksums: &BTreeMap<String, String>,
) -> Value {
    let toolchain = toolchain(&subject.toolchain);
    let toolchain_refs = toolchain.iter().map(|library| library["bom-ref"].clone());
    let used: BTreeSet<&String> = crates.values().flat_map(|linked| &linked.dependencies).collect();
    let roots = crates.iter().filter(|(key, _)| !used.contains(key)).map(|(_, linked)| json!(name(linked)));
    let package = purl(subject);
    let mut dependencies =
        vec![json!({"ref": package, "dependsOn": roots.chain(toolchain_refs.clone()).collect::<Vec<_>>()})];
    dependencies.extend(crates.values().map(|linked| {
        let on: Vec<_> = linked.dependencies.iter().filter_map(|key| crates.get(key)).map(name).collect();
        json!({"ref": name(linked), "dependsOn": on})
    }));
    dependencies.extend(toolchain_refs.map(|library| json!({"ref": library, "dependsOn": []})));
    let mut components: Vec<_> =
        crates.iter().map(|(key, linked)| component(linked, checksums.get(key))).collect();
    components.extend(toolchain);
    let mut metadata = json!({
        "authors": [{"name": "The t3-dispatch authors"}],
        "component": {"type": "application", "bom-ref": package, "purl": package, "name": subject.package,
            "version": subject.version},
    });
    if let Some(time) = subject.time {
        metadata["timestamp"] = json!(time);
    }
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": metadata,
        "components": components,
        "dependencies": dependencies,
    })
}

fn component(linked: &Linked, checksum: Option<&String>) -> Value {
    let mut value = json!({
        "type": "library",
        "bom-ref": name(linked),
        "name": linked.name,
        "version": linked.version,
    });
    if linked.is_external {
        value["purl"] = json!(name(linked));
    }
    if let Some(licence) = &linked.licence {
        value["licenses"] = json!([{"expression": expression(licence)}]);
    }
    if let Some(checksum) = checksum {
        value["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    if let Some(repository) = &linked.repository {
        value["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    value
}

fn toolchain(toolchain: &Toolchain<'_>) -> [Value; 2] {
    let library = |purl: String, name: &str, version: &str, licence: &str| {
        json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "licenses": [{"expression": licence}]})
    };
    let Toolchain { rust, musl } = toolchain;
    let std = library(format!("pkg:github/rust-lang/rust@{rust}"), "rust-std", rust, "MIT OR Apache-2.0");
    let mut libc = library(format!("pkg:generic/musl@{musl}"), "musl", musl, "MIT");
    // By this name vulnerability databases list it.
    libc["cpe"] = json!(format!("cpe:2.3:a:musl-libc:musl:{musl}:*:*:*:*:*:*:*"));
    [std, libc]
}

/// SPDX expression of a manifest's licence: older manifests separate alternatives with a slash.
fn expression(licence: &str) -> String {
    licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// Name of a crate in the document: its package URL, which stands for a published crate. Those of
/// this workspace are not published and have none.
fn name(linked: &Linked) -> String {
    let begin = if linked.is_external { "pkg:cargo/" } else { "" };
    format!("{begin}{}@{}", linked.name, encoded(&linked.version))
}

/// The type `deb` requires a vendor.
fn purl(subject: &Subject<'_>) -> String {
    format!("pkg:deb/t3-dispatch/{}@{}?arch={}", subject.package, encoded(subject.version), subject.arch)
}

/// `+` of build metadata is encoded.
fn encoded(version: &str) -> String {
    version.replace('+', "%2B")
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::packaging::linked::{crates, tests::metadata};
    use crate::packaging::sbom_rules;

    pub fn subject(package: &str) -> Subject<'_> {
        Subject {
            package,
            version: "1.0.0-1+b1",
            arch: "arm64",
            time: Some("2026-11-30T23:00:00Z"),
            toolchain: Toolchain { rust: "1.95.0", musl: "1.2.5" },
        }
    }

    #[test]
    fn every_linked_crate_is_a_component_with_checksum_and_dependencies() {
        let crates = crates(&metadata(), &["tool"]);
        let hash = "0123456789abcdef".repeat(4);
        let checksums = ["used@1.0.0", "deep@1.0.0"].map(|key| (key.to_owned(), hash.clone()));
        let document = document(&subject("tool"), &crates, &BTreeMap::from(checksums));
        assert_eq!(sbom_rules::broken(&document), Vec::<String>::new());
        let package = &document["metadata"]["component"];
        assert_eq!(package["version"], "1.0.0-1+b1");
        assert_eq!(package["purl"], "pkg:deb/t3-dispatch/tool@1.0.0-1%2Bb1?arch=arm64");
        let components = document["components"].as_array().unwrap();
        let names: Vec<_> = components.iter().map(|found| found["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["deep", "tool", "used", "rust-std", "musl"]);
        assert_eq!(
            components[2],
            json!({"type": "library", "bom-ref": "pkg:cargo/used@1.0.0", "name": "used", "version": "1.0.0",
                "purl": "pkg:cargo/used@1.0.0", "licenses": [{"expression": "MIT"}],
                "hashes": [{"alg": "SHA-256", "content": hash}]})
        );
        let dependencies = document["dependencies"].as_array().unwrap();
        assert_eq!(
            dependencies[0],
            json!({"ref": "pkg:deb/t3-dispatch/tool@1.0.0-1%2Bb1?arch=arm64",
                "dependsOn": ["tool@1.0.0", "pkg:github/rust-lang/rust@1.95.0", "pkg:generic/musl@1.2.5"]})
        );
        let tool = json!({"ref": "tool@1.0.0", "dependsOn": ["pkg:cargo/used@1.0.0"]});
        assert!(dependencies.contains(&tool));
    }

    #[test]
    fn a_slash_in_a_licence_is_an_alternative() {
        for text in ["MIT/Apache-2.0", "MIT / Apache-2.0", "MIT OR Apache-2.0"] {
            assert_eq!(expression(text), "MIT OR Apache-2.0");
        }
        assert_eq!(expression("(MIT OR Apache-2.0) AND Unicode-3.0"), "(MIT OR Apache-2.0) AND Unicode-3.0");
    }
}
