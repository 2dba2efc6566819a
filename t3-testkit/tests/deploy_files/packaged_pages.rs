//! Every page that a program, a unit or another page names is in the package that names it, so that
//! it can be read on the host.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex_lite::Regex;

use crate::queries;

/// A package: name, manifest with its list of files, and the sources of its programs.
const PACKAGES: [(&str, &str, &[&str]); 4] = [
    (
        "t3-dispatch",
        "t3-dispatch/Cargo.toml",
        &["t3-dispatch/src", "t3-record/src", "t3-journal/src", "t3-config/src"],
    ),
    (
        "t3-trace",
        "t3-trace/Cargo.toml",
        &[
            "t3-trace/src",
            "t3-trace/cli/src",
            "t3-trace/daemon/src",
            "t3-trace/host/src",
            "t3-record/src",
            "t3-journal/src",
            "t3-config/src",
            "t3-http-client/src",
        ],
    ),
    (
        "t3-probe",
        "t3-probe/Cargo.toml",
        &["t3-probe/src", "t3-record/src", "t3-config/src", "t3-http-client/src"],
    ),
    (
        "t3-otlp",
        "t3-otlp/Cargo.toml",
        &["t3-otlp/src", "t3-record/src", "t3-config/src", "t3-http-client/src"],
    ),
];
/// How to report a problem, which is in the repository only, and the placeholder in the help.
const NOT_INSTALLED: [&str; 2] = ["SECURITY.md", "NAME.md"];

/// Files of the project that a package contains, with their paths on the host.
fn installed(manifest: &str) -> Vec<(PathBuf, String)> {
    let asset = Regex::new(r#"^\s*\["\.\./([^"]+)", "([^"]+)", "[0-7]+"\],$"#).unwrap();
    let text = queries::read(manifest);
    let mut found = Vec::new();
    for [from, to] in text.lines().filter_map(|line| Some(asset.captures(line)?.extract().1)) {
        let sources = match from.rsplit_once("/*") {
            Some((folder, suffix)) if !folder.starts_with("target") => {
                let entries = fs::read_dir(queries::file(folder)).unwrap();
                entries
                    .map(|entry| entry.unwrap().path())
                    .filter(|path| path.is_file() && path.to_string_lossy().ends_with(suffix))
                    .collect()
            }
            Some(_) => Vec::new(),
            None => vec![queries::file(from)],
        };
        for path in sources {
            let name = path.file_name().unwrap().to_string_lossy();
            let to = if to.ends_with('/') { format!("/{to}{name}") } else { format!("/{to}") };
            found.push((path, to));
        }
    }
    assert!(found.len() > 9, "{manifest}: {found:?}");
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Names such as `RUNBOOK.md`, with or without `docs/`.
fn pages_in(text: &str) -> BTreeSet<String> {
    let page = Regex::new(r"\b[A-Z][A-Z-]*\.md\b").unwrap();
    let names = page.find_iter(text).map(|found| found.as_str().to_owned());
    names.filter(|name| !NOT_INSTALLED.contains(&name.as_str())).collect()
}

#[test]
fn every_page_that_a_package_names_is_in_it() {
    for (package, manifest, folders) in PACKAGES {
        let installed = installed(manifest);
        let folder = format!("/usr/share/doc/{package}/");
        let pages: BTreeSet<&str> = installed
            .iter()
            .filter_map(|(_, to)| to.strip_prefix(&folder))
            .filter(|name| name.ends_with(".md"))
            .collect();
        let mut files: Vec<PathBuf> = installed.iter().map(|(path, _)| path.clone()).collect();
        for folder in folders {
            sources(&queries::file(folder), &mut files);
        }
        let mut named = BTreeSet::new();
        for file in files {
            // Programs are built from the sources.
            let Ok(text) = fs::read_to_string(&file) else { continue };
            for page in pages_in(&text) {
                assert!(
                    pages.contains(page.as_str()),
                    "{} names {page}, which {package} lacks",
                    file.display()
                );
                named.insert(page);
            }
        }
        assert!(named.len() > 10, "{package}: {named:?}");
    }
}

#[test]
fn every_path_of_a_page_and_every_manual_page_is_in_a_package() {
    let installed: Vec<_> = PACKAGES.iter().flat_map(|(_, manifest, _)| installed(manifest)).collect();
    let is_installed = |path: &str| installed.iter().any(|(_, to)| to == path);
    let mut manuals: BTreeSet<String> = BTreeSet::new();
    for definition in [
        t3_dispatch::config::definition(),
        t3_trace::cli::definition(),
        t3_config::definition::<t3_probe::cli::Cli>(),
        t3_config::definition::<t3_otlp::cli::Cli>(),
    ] {
        manuals.extend(t3_config::pages::man(definition).into_iter().map(|page| page.file));
    }
    let (path, manual) = (
        Regex::new(r"/usr/share/doc/[a-z0-9-]+/[A-Za-z-]+\.md").unwrap(),
        Regex::new(r"man:([a-z0-9-]+)\((\d)\)").unwrap(),
    );
    let (mut paths, mut references) = (0, 0);
    for (file, _) in &installed {
        let Ok(text) = fs::read_to_string(file) else { continue };
        for found in path.find_iter(&text) {
            assert!(is_installed(found.as_str()), "{} names {}", file.display(), found.as_str());
            paths += 1;
        }
        for [name, section] in manual.captures_iter(&text).map(|found| found.extract().1) {
            let file_name = format!("{name}.{section}");
            assert!(manuals.contains(&file_name), "{} names {name}({section})", file.display());
            references += 1;
        }
    }
    assert!(paths > 5 && references > 5, "{paths} paths, {references} manual pages");
}

#[test]
fn the_help_says_where_the_pages_are() {
    let help = t3_trace::cli::definition().render_long_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("Pages named docs/NAME.md are in /usr/share/doc/t3-trace."), "{help}");
}
