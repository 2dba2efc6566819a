//! Which folder may import which, from `directions.txt`.

use std::collections::BTreeMap;

/// Sections of `[SOURCE FOLDER]`; in each one line per folder, `FOLDER: FOLDERS IT MAY IMPORT`.
const TABLE: &str = include_str!("directions.txt");

/// The folders of one crate.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Directions(BTreeMap<String, Vec<String>>);

/// All crates that have directions, by the folder of their source.
pub fn table() -> BTreeMap<String, Directions> {
    parse(TABLE)
}

pub fn parse(text: &str) -> BTreeMap<String, Directions> {
    let mut found = BTreeMap::<String, Directions>::new();
    let mut here = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut here);
        } else if let Some((folder, allowed)) = line.split_once(':') {
            let allowed = allowed.split_whitespace().map(str::to_owned).collect();
            found.entry(here.clone()).or_default().0.insert(folder.to_owned(), allowed);
        }
    }
    found
}

impl Directions {
    /// The folder of a file, seen from the source folder: the longest name in the table that fits.
    /// `None`: a root (`lib.rs`, `main.rs`, `bin/`), which may import everything. A file that no
    /// name fits is in the folder `.`.
    pub fn folder_of<'a>(&'a self, file: &'a str) -> Option<&'a str> {
        if file == "lib.rs" || file == "main.rs" || file.starts_with("bin/") {
            return None;
        }
        let fits = |name: &&String| {
            let rest = file.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
        };
        Some(self.0.keys().filter(fits).max_by_key(|name| name.len()).map_or(".", String::as_str))
    }

    pub fn allows(&self, from: &str, to: &str) -> bool {
        from == to || self.0.get(from).is_some_and(|allowed| allowed.iter().any(|name| name == to))
    }

    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_longest_folder_counts() {
        let table = parse("# x\n[c/src]\nhttp: sys\nhttp/guard: http sys\nsys:\nsettings: sys\n");
        let directions = &table["c/src"];
        assert_eq!(directions.folder_of("http/guard/mod.rs"), Some("http/guard"));
        assert_eq!(directions.folder_of("http/peer.rs"), Some("http"));
        assert_eq!(directions.folder_of("settings.rs"), Some("settings"));
        assert_eq!(directions.folder_of("other.rs"), Some("."));
        assert_eq!(directions.folder_of("lib.rs"), None);
        assert!(directions.allows("http/guard", "http") && !directions.allows("http", "http/guard"));
    }
}
