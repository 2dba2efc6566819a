//! Every Rust file opens with its module comment and is not too long; no file names the host of a
//! package registry or a path of one machine.

use super::{File, Finding};

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

pub fn check(files: &[File]) -> Vec<Finding> {
    files.iter().flat_map(|(name, text)| check_file(name, text)).collect()
}

fn check_file(name: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    if name.ends_with(".rs") {
        if !opens_with_comment(text) {
            found.push(Finding::new(name, 1, "does not open with a `//!` comment"));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            found.push(Finding::new(
                name,
                0,
                format!("{lines} lines; split it by subject, up to {MAX_LINES}"),
            ));
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
            found.push(Finding::new(name, number, "names the host of a package registry"));
        }
        if MACHINE_PATHS.iter().any(hit) {
            found.push(Finding::new(name, number, "contains a path of one machine"));
        }
    }
    found
}

fn opens_with_comment(text: &str) -> bool {
    text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| line.starts_with("//!"))
}

#[cfg(test)]
mod tests {
    use super::{MAX_LINES, REGISTRIES, check_file as check};

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
        assert_eq!(check("docs/x.md", &host)[0].line, 1);
        assert!(check("Cargo.lock", &host).is_empty());
        let path = format!("cd {}{}main\n", "/wo", "rk/");
        assert_eq!(check("run.sh", &path).len(), 1);
    }
}
