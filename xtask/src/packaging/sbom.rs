//! Software bill of materials of a package: CycloneDX 1.5 in JSON. Pure.
//!
//! Names and fields: CycloneDX specification 1.5; package URLs: purl specification, type `cargo`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::linked::Linked;

/// The document. `checksums`: SHA-256 by `NAME@VERSION`; equal input gives an equal document.
pub fn document(
    package: &str,
    version: &str,
    crates: &BTreeMap<String, Linked>,
    checksums: &BTreeMap<String, String>,
) -> Value {
    let components: Vec<_> =
        crates.iter().map(|(key, linked)| component(linked, checksums.get(key))).collect();
    let dependencies: Vec<_> = crates
        .values()
        .map(|linked| {
            let on: Vec<_> = linked.dependencies.iter().filter_map(|key| crates.get(key)).map(purl).collect();
            json!({"ref": purl(linked), "dependsOn": on})
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": format!("pkg:deb/{package}@{version}"),
            "purl": format!("pkg:deb/{package}@{version}"), "name": package, "version": version}},
        "components": components,
        "dependencies": dependencies,
    })
}

fn component(linked: &Linked, checksum: Option<&String>) -> Value {
    let mut value = json!({
        "type": "library",
        "bom-ref": purl(linked),
        "name": linked.name,
        "version": linked.version,
        "purl": purl(linked),
    });
    if let Some(licence) = &linked.licence {
        // Older manifests separate alternatives with a slash.
        value["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
    }
    if let Some(checksum) = checksum {
        value["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    if let Some(repository) = &linked.repository {
        value["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    value
}

fn purl(linked: &Linked) -> String {
    // `+` of build metadata is encoded.
    format!("pkg:cargo/{}@{}", linked.name, linked.version.replace('+', "%2B"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packaging::linked::{crates, tests::metadata};

    #[test]
    fn every_linked_crate_is_a_component_with_checksum_and_dependencies() {
        let crates = crates(&metadata(), &["tool"]);
        let checksums = BTreeMap::from([("used@1.0.0".to_owned(), "ab".to_owned())]);
        let document = document("tool", "1.0.0-1", &crates, &checksums);
        assert_eq!(document["metadata"]["component"]["version"], "1.0.0-1");
        let components = document["components"].as_array().unwrap();
        assert_eq!(components.len(), 3);
        assert_eq!(
            components[2],
            json!({"type": "library", "bom-ref": "pkg:cargo/used@1.0.0", "name": "used", "version": "1.0.0",
                "purl": "pkg:cargo/used@1.0.0", "licenses": [{"expression": "MIT"}],
                "hashes": [{"alg": "SHA-256", "content": "ab"}]})
        );
        let tool = json!({"ref": "pkg:cargo/tool@1.0.0", "dependsOn": ["pkg:cargo/used@1.0.0"]});
        assert!(document["dependencies"].as_array().unwrap().contains(&tool));
    }
}
