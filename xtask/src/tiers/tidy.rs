//! House rules that no lint knows: every Rust file opens with its module comment, none is too long,
//! and nothing names a package registry's host or a path of somebody's machine.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::tools::run::stdout_of;
use crate::tools::{cargo, paths};

const MAX_LINES: usize = 600;
/// Hosts of package registries, in two halves so that this file does not break its own rule.
const REGISTRIES: [(&str, &str); 7] = [
    ("crates", ".io"),
    ("pypi", ".org"),
    ("npmjs", ".org"),
    ("npmjs", ".com"),
    ("deb.debian", ".org"),
    ("security.debian", ".org"),
    ("proxy.golang", ".org"),
];
/// Beginnings of paths that only exist on one machine, likewise halved.
const MACHINE_PATHS: [(&str, &str); 4] =
    [("/ro", "ot/."), ("/wo", "rk/"), ("/home/", "runner"), ("/tmp/", "target-")];

/// Everything found in files that are, or are about to be, under version control.
pub fn findings() -> Result<Vec<String>> {
    let mut git = cargo::plain(Path::new("git"));
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = stdout_of(&mut git).context("house rules are checked on what git lists")?;
    let mut found = Vec::new();
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        // Deleted files and pictures are not read.
        if let Ok(text) = std::fs::read_to_string(paths::root().join(name)) {
            found.extend(check(name, &text));
        }
    }
    Ok(found)
}

/// What is wrong with one file.
fn check(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if name.ends_with(".rs") {
        if !opens_with_comment(text) {
            found.push(format!("{name}: does not open with a `//!` comment saying what it is for"));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            found.push(format!("{name}: {lines} lines; split it by subject ({MAX_LINES} at most)"));
        }
    }
    // Lock files name the registry by their format.
    if name.ends_with(".lock") || name.ends_with("package-lock.json") {
        return found;
    }
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let hit = |(left, right): &(&str, &str)| line.contains(&format!("{left}{right}"));
        if REGISTRIES.iter().any(hit) {
            found.push(format!("{name}:{number}: names the host of a package registry"));
        }
        if MACHINE_PATHS.iter().any(hit) {
            found.push(format!("{name}:{number}: names a path of one machine"));
        }
    }
    found
}

/// `//!` first, after nothing but blank lines and crate attributes that must come first (a
/// generated file's `#!` line).
fn opens_with_comment(text: &str) -> bool {
    text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| line.starts_with("//!"))
}

#[cfg(test)]
mod tests {
    use super::{MAX_LINES, REGISTRIES, check};

    #[test]
    fn a_good_file_has_no_findings() {
        assert!(check("a.rs", "//! Why.\n\nfn main() {}\n").is_empty());
        assert!(check("README.md", "no comment needed\n").is_empty());
    }

    #[test]
    fn each_rule_is_found() {
        assert_eq!(check("a.rs", "fn main() {}\n").len(), 1);
        assert_eq!(check("a.rs", &"//! x\n".repeat(MAX_LINES + 1)).len(), 1);
        let host = format!("see {}{}\n", REGISTRIES[0].0, REGISTRIES[0].1);
        assert!(check("docs/x.md", &host)[0].starts_with("docs/x.md:1:"));
        assert!(check("Cargo.lock", &host).is_empty());
        let path = format!("cd {}{}main\n", "/wo", "rk/");
        assert_eq!(check("run.sh", &path).len(), 1);
    }
}
