//! `THIRD-PARTY-LICENCES`: the licence texts of the crates in the programs of a package, each text
//! once. They come from the sources that cargo compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::linked::Linked;
use crate::tools::paths;

/// Names of licence files begin with one of these, in capital letters.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
/// Folders below a crate in which licences of copied sources are searched.
const MAX_DEPTH: usize = 4;

/// The texts by crate. A crate without a file is published under the same terms as this project:
/// MIT or Apache-2.0; it gets the text of Apache-2.0.
///
/// # Errors
/// A crate has neither a licence file nor those terms.
pub fn collect<'a>(crates: impl Iterator<Item = &'a Linked>) -> Result<Vec<(&'a Linked, Vec<String>)>> {
    let mut found = Vec::new();
    for linked in crates.filter(|linked| linked.is_external) {
        let mut files = Vec::new();
        find(&linked.dir, 0, &mut files)?;
        files.sort();
        let standard = linked.licence.as_deref().is_some_and(|terms| terms.contains("Apache-2.0"));
        if files.is_empty() && standard {
            files.push(paths::root().join("LICENSE-APACHE"));
        } else if files.is_empty() {
            bail!("{} {} has no licence file in {}", linked.name, linked.version, linked.dir.display());
        }
        let read = |file: &PathBuf| -> Result<String> {
            let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        found.push((linked, files.iter().map(read).collect::<Result<_>>()?));
    }
    Ok(found)
}

fn find(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if depth < MAX_DEPTH {
                find(&entry.path(), depth + 1, files)?;
            }
        } else if is_licence(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Not a source file such as `license.rs`.
fn is_licence(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let is_source = [".RS", ".PY", ".TOML", ".JSON", ".SPDX"].iter().any(|end| upper.ends_with(end));
    !is_source && NAMES.iter().any(|begin| upper.starts_with(begin))
}

/// The file: a list of all crates, then each text with the crates that it is for.
pub fn page(package: &str, texts: &[(&Linked, Vec<String>)]) -> String {
    let mut page = format!(
        "Libraries in the programs of {package}, and their licences\n\n\
         The programs are linked statically. They contain these Rust crates, the Rust standard library\n\
         (RUST-COPYRIGHT.html in this folder) and musl libc (at the end of this file).\n\n"
    );
    // By the text without differences in line breaks: first seen form, and its crates.
    let mut by_text: BTreeMap<String, (&str, BTreeSet<String>)> = BTreeMap::new();
    for (linked, licences) in texts {
        let name = format!("{} {}", linked.name, linked.version);
        let terms = linked.licence.as_deref().unwrap_or("see its text");
        page.push_str(&format!("{name}: {terms}\n"));
        for text in licences {
            let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
            by_text.entry(plain).or_insert((text, BTreeSet::new())).1.insert(name.clone());
        }
    }
    let mut sections: Vec<_> = by_text.into_values().collect();
    sections.sort_by(|(a_text, a), (b_text, b)| (a, a_text).cmp(&(b, b_text)));
    for (text, crates) in sections {
        page.push_str(&section(&crates.into_iter().collect::<Vec<_>>().join(", "), text));
    }
    page
}

/// One text under a heading.
pub fn section(heading: &str, text: &str) -> String {
    let lines = text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    format!("\n{}\n{heading}\n\n{}\n", "=".repeat(80), lines.trim_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packaging::linked::{crates, tests::metadata};

    #[test]
    fn licence_files_are_recognised_by_name() {
        for name in ["LICENSE", "license-mit", "LICENCE.txt", "COPYING", "NOTICE.md", "UNLICENSE"] {
            assert!(is_licence(name), "{name}");
        }
        for name in ["license.rs", "README.md", "licenses.toml"] {
            assert!(!is_licence(name), "{name}");
        }
    }

    #[test]
    fn each_text_is_printed_once_with_all_its_crates() {
        let all = crates(&metadata(), &["tool"]);
        let (deep, used) = (&all["deep@1.0.0"], &all["used@1.0.0"]);
        let texts = [
            (deep, vec!["Terms\nof a".to_owned()]),
            (used, vec!["Terms of\r\na\n".to_owned(), "Notice of used".to_owned()]),
        ];
        let page = page("tool", &texts);
        assert_eq!(page.matches("Terms").count(), 1, "{page}");
        assert!(page.contains("\ndeep 1.0.0, used 1.0.0\n\nTerms\nof a\n"), "{page}");
        assert!(page.contains("\nused 1.0.0\n\nNotice of used\n"), "{page}");
        assert!(page.contains("\nused 1.0.0: MIT\n"), "{page}");
    }

    #[test]
    fn a_crate_without_a_text_is_an_error_unless_its_terms_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut linked = crates(&metadata(), &["tool"])["used@1.0.0"].clone();
        linked.dir = dir.path().to_owned();
        assert!(collect([&linked].into_iter()).is_err());
        linked.licence = Some("MIT OR Apache-2.0".to_owned());
        assert!(collect([&linked].into_iter()).unwrap()[0].1[0].contains("Apache License"));
        fs::create_dir(dir.path().join("third_party")).unwrap();
        fs::write(dir.path().join("third_party/LICENSE"), "of a part").unwrap();
        assert_eq!(collect([&linked].into_iter()).unwrap()[0].1, ["of a part"]);
    }
}
