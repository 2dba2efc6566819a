//! Every test that docs/SECURITY-MODEL.md names exists.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::queries;

/// Names in backquotes in the last column of the tables.
fn named() -> Vec<String> {
    let page = queries::read("docs/SECURITY-MODEL.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let columns = rows.map(|row| row.split(" | ").collect::<Vec<_>>()).filter(|columns| columns.len() == 4);
    let tests = columns.filter_map(|columns| columns.last().map(|tests| (*tests).to_owned()));
    let names =
        tests.flat_map(|tests| tests.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    names.collect()
}

/// Source files below a folder, without the compiler's output.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn is_test(path: &Path, name: &str) -> bool {
    let module = path.with_extension("");
    let module = if module.ends_with("mod") { module.parent().unwrap_or(&module) } else { &module };
    let is_named = module.ends_with(name) || module.ends_with(format!("{name}/tests"));
    is_named && {
        let text = fs::read_to_string(path).unwrap();
        ["#[test]", "#[tokio::test", "proptest!"].iter().any(|attribute| text.contains(attribute))
    }
}

#[test]
fn every_named_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut files, names) = (Vec::new(), named());
    sources(root, &mut files);
    assert!(names.len() > 40, "{names:?}");
    let faults: Vec<_> = t3_testkit::faults::catalogue().iter().map(|fault| fault.name).collect();
    for name in &names {
        let found = faults.contains(&name.as_str()) || files.iter().any(|path| is_test(path, name));
        assert!(found, "docs/SECURITY-MODEL.md names {name}: no such file with tests");
    }
}
