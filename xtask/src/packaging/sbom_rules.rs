//! Rules for a bill of materials: those of the JSON schema of CycloneDX 1.5 that a wrong input can
//! break, those that the schema cannot express (names that refer to nothing), and completeness.
//! Pure.

use std::collections::BTreeSet;

use serde_json::Value;

/// One line for each broken rule.
pub fn broken(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    let package = &document["metadata"]["component"];
    for component in std::iter::once(package).chain(list(&document["components"])) {
        let name = text(component, "bom-ref");
        if name.is_empty() || !names.insert(name) {
            found.push(format!("bom-ref is empty or used twice: {component}"));
        }
        if text(component, "name").is_empty() || text(component, "version").is_empty() {
            found.push(format!("{name}: no name or no version"));
        }
    }
    found.extend(list(&document["components"]).filter_map(incomplete));
    let mut described = BTreeSet::new();
    for entry in list(&document["dependencies"]) {
        let of = text(entry, "ref");
        if !described.insert(of) {
            found.push(format!("{of}: dependencies are listed twice"));
        }
        let mut seen = BTreeSet::new();
        for on in list(&entry["dependsOn"]).map(|on| on.as_str().unwrap_or_default()) {
            if !names.contains(on) || !seen.insert(on) {
                found.push(format!("{of}: the dependency {on:?} is not a component or is listed twice"));
            }
        }
    }
    found.extend(names.symmetric_difference(&described).map(|name| {
        format!("{name}: a component without its dependencies, or dependencies without a component")
    }));
    found
}

fn incomplete(component: &Value) -> Option<String> {
    let name = text(component, "bom-ref");
    // The schema allows one expression, and nothing next to it.
    let licences: Vec<_> = list(&component["licenses"]).collect();
    if !matches!(licences[..], [one] if is_expression(text(one, "expression"))) {
        return Some(format!("{name}: not one licence expression: {}", component["licenses"]));
    }
    let is_hash = |hash: &Value| text(hash, "alg") == "SHA-256" && is_sha256(text(hash, "content"));
    let hashes: Vec<_> = list(&component["hashes"]).collect();
    let is_archive = text(component, "purl").starts_with("pkg:cargo/");
    if !hashes.iter().all(|hash| is_hash(hash)) || (is_archive && hashes.is_empty()) {
        return Some(format!("{name}: not the SHA-256 of its archive: {}", component["hashes"]));
    }
    None
}

/// Words of an SPDX expression, without `/` and other separators; not whether SPDX lists them.
fn is_expression(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-.+() ".contains(c);
    !text.is_empty() && text.chars().all(is_allowed)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::broken;
    use serde_json::{Value, json};

    fn document() -> Value {
        json!({
            "metadata": {"component": {"bom-ref": "p", "name": "p", "version": "1"}},
            "components": [{"bom-ref": "pkg:cargo/a@1", "purl": "pkg:cargo/a@1", "name": "a", "version": "1",
                "licenses": [{"expression": "MIT"}],
                "hashes": [{"alg": "SHA-256", "content": "ab".repeat(32)}]}],
            "dependencies": [{"ref": "p", "dependsOn": ["pkg:cargo/a@1"]},
                {"ref": "pkg:cargo/a@1", "dependsOn": []}],
        })
    }

    #[test]
    fn a_complete_document_breaks_no_rule() {
        assert_eq!(broken(&document()), Vec::<String>::new());
    }

    #[test]
    fn each_rule_is_reported_alone() {
        let cases = [
            ("/components/0/version", json!(""), "no version"),
            ("/components/0/licenses", json!([]), "licence"),
            ("/components/0/licenses", json!([{"expression": "MIT"}, {"expression": "ISC"}]), "licence"),
            ("/components/0/licenses/0/expression", json!("MIT/ISC"), "licence"),
            ("/components/0/hashes", json!([]), "SHA-256"),
            ("/components/0/hashes/0/content", json!("ab"), "SHA-256"),
            ("/dependencies/0/dependsOn", json!(["b"]), "\"b\""),
            ("/dependencies/0/dependsOn", json!(["p", "p"]), "\"p\""),
            ("/dependencies", json!([{"ref": "p", "dependsOn": []}]), "without its dependencies"),
        ];
        for (place, value, word) in cases {
            let mut document = document();
            *document.pointer_mut(place).unwrap() = value;
            let found = broken(&document);
            assert!(found.len() == 1 && found[0].contains(word), "{place}: {found:?}");
        }
    }

    #[test]
    fn a_name_used_twice_is_reported() {
        let mut document = document();
        let again = document["components"][0].clone();
        document["components"].as_array_mut().unwrap().push(again);
        assert!(broken(&document)[0].contains("used twice"));
    }
}
