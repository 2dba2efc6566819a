//! Crates that are linked into the programs of a package, from `cargo metadata`. Pure.
//!
//! The edges are normal dependencies for the target. Build dependencies and procedural macros run
//! at build time and are not part of the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

/// A crate in a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    pub name: String,
    pub version: String,
    /// SPDX expression from its manifest.
    pub licence: Option<String>,
    pub repository: Option<String>,
    /// From a registry; else a crate of this workspace.
    pub is_external: bool,
    /// Its source folder.
    pub dir: PathBuf,
    /// Further dependencies of it in the program: keys of the map.
    pub dependencies: BTreeSet<String>,
}

/// Crates by `NAME@VERSION` that the crates `roots` of the workspace link, themselves included.
pub fn crates(metadata: &Value, roots: &[&str]) -> BTreeMap<String, Linked> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let by_id = |values: Vec<Value>| -> BTreeMap<String, Value> {
        values.into_iter().filter_map(|value| Some((value["id"].as_str()?.to_owned(), value))).collect()
    };
    let packages = by_id(list(&metadata["packages"]));
    let nodes = by_id(list(&metadata["resolve"]["nodes"]));
    let is_macro = |id: &str| {
        let targets = packages.get(id).map(|package| list(&package["targets"])).unwrap_or_default();
        targets.iter().any(|target| list(&target["kind"]).iter().any(|kind| kind == "proc-macro"))
    };
    let dependencies = |id: &str| -> Vec<String> {
        let all = nodes.get(id).map(|node| list(&node["deps"])).unwrap_or_default();
        let is_normal =
            |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let normal = all.iter().filter(|dependency| is_normal(dependency));
        normal
            .filter_map(|found| found["pkg"].as_str())
            .filter(|id| !is_macro(id))
            .map(str::to_owned)
            .collect()
    };
    let is_root =
        |package: &Value| package["source"].is_null() && roots.iter().any(|root| package["name"] == **root);
    let mut open: Vec<String> =
        packages.iter().filter(|(_, package)| is_root(package)).map(|(id, _)| id.clone()).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id.clone()) {
            open.extend(dependencies(&id));
        }
    }
    let linked = seen.iter().filter_map(|id| {
        let package = packages.get(id)?;
        let keys = dependencies(id).iter().filter_map(|id| key(packages.get(id)?)).collect();
        Some((key(package)?, one(package, keys)?))
    });
    linked.collect()
}

fn key(package: &Value) -> Option<String> {
    Some(format!("{}@{}", package["name"].as_str()?, package["version"].as_str()?))
}

fn one(package: &Value, dependencies: BTreeSet<String>) -> Option<Linked> {
    let text = |name: &str| package[name].as_str().map(str::to_owned);
    Some(Linked {
        name: text("name")?,
        version: text("version")?,
        licence: text("license"),
        repository: text("repository"),
        is_external: !package["source"].is_null(),
        dir: PathBuf::from(package["manifest_path"].as_str()?).parent()?.to_owned(),
        dependencies,
    })
}

/// SHA-256 of the archive of each crate, by `NAME@VERSION`, from the text of Cargo.lock.
pub fn checksums(lock: &str) -> BTreeMap<String, String> {
    let field = |block: &str, name: &str| {
        let prefix = format!("{name} = \"");
        block.lines().find_map(|line| Some(line.strip_prefix(&prefix)?.strip_suffix('"')?.to_owned()))
    };
    let found = lock.split("[[package]]").filter_map(|block| {
        let (name, version) = (field(block, "name")?, field(block, "version")?);
        Some((format!("{name}@{version}"), field(block, "checksum")?))
    });
    found.collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    /// `tool` links `used`, which links `deep`; `built` and `derive` run at build time only.
    pub fn metadata() -> Value {
        let package = |name: &str, source: Value, kind: &str| {
            json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT", "source": source,
                "manifest_path": format!("/src/{name}/Cargo.toml"), "targets": [{"kind": [kind]}]})
        };
        let dep = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        json!({
            "packages": [package("tool", Value::Null, "bin"), package("other", Value::Null, "bin"),
                package("used", json!("registry"), "lib"), package("deep", json!("registry"), "lib"),
                package("built", json!("registry"), "lib"), package("derive", json!("registry"), "proc-macro")],
            "resolve": {"nodes": [
                {"id": "tool", "deps": [dep("used", Value::Null), dep("built", json!("build")),
                    dep("derive", Value::Null)]},
                {"id": "other", "deps": [dep("built", Value::Null)]},
                {"id": "used", "deps": [dep("deep", Value::Null)]},
                {"id": "deep", "deps": []}, {"id": "built", "deps": []}, {"id": "derive", "deps": []}]}
        })
    }

    #[test]
    fn only_what_is_linked_is_listed() {
        let found = crates(&metadata(), &["tool"]);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["deep@1.0.0", "tool@1.0.0", "used@1.0.0"]);
        assert!(found["used@1.0.0"].is_external && !found["tool@1.0.0"].is_external);
        assert_eq!(found["tool@1.0.0"].dependencies, BTreeSet::from(["used@1.0.0".to_owned()]));
    }

    #[test]
    fn checksums_are_read_from_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\n\n\
                    [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([("a@1.0.0".to_owned(), "ab".to_owned())]));
    }
}
