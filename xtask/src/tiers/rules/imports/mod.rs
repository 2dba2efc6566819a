//! No import cycle between the files of a crate, and imports between folders only in the directions
//! of a table.
//!
//! An import is a path in code outside of tests that names an item of another file of the crate, in
//! `use` or inline. `mod` lines and `pub use` do not count. A path through a re-export counts for
//! the file that defines the item. Imports between a module file and the files directly in its
//! folder do not count.

mod directions;
mod parse;
mod tree;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::directions::Directions;
use self::tree::{Import, Tree};
use super::{File, Finding};

pub fn check(files: &[File]) -> Vec<Finding> {
    check_with(files, &directions::table())
}

fn check_with(files: &[File], table: &BTreeMap<String, Directions>) -> Vec<Finding> {
    let sources: BTreeMap<&str, &str> = files
        .iter()
        .filter(|(name, _)| name.ends_with(".rs"))
        .map(|(n, text)| (n.as_str(), text.as_str()))
        .collect();
    let mut by_source = BTreeMap::<&str, BTreeSet<Import>>::new();
    for &name in sources.keys() {
        if let Some(source) = source_of_root(name) {
            by_source.entry(source).or_default().extend(Tree::new(&sources, name).imports());
        }
    }
    let mut found = Vec::new();
    for (source, imports) in &by_source {
        found.extend(cycles(source, imports));
        if let Some(directions) = table.get(*source) {
            found.extend(wrong_directions(source, imports, directions));
            found.extend(empty_folders(source, &sources, directions));
        }
    }
    let unknown = table.keys().filter(|source| !by_source.contains_key(source.as_str()));
    found.extend(unknown.map(|source| Finding::new(source, 0, "is in directions.txt and has no crate")));
    found
}

/// The source folder, when the file is the root of a crate.
fn source_of_root(name: &str) -> Option<&str> {
    for root in ["/lib.rs", "/main.rs"] {
        if let Some(source) = name.strip_suffix(root).filter(|source| source.ends_with("/src")) {
            return Some(source);
        }
    }
    let (source, rest) =
        name.split_once("/src/bin/").map(|(before, rest)| (&name[..before.len() + 4], rest))?;
    (!rest.contains('/') || rest.ends_with("/main.rs")).then_some(source)
}

/// One finding for each file that takes part in a cycle, with the shortest cycle through it.
fn cycles(source: &str, imports: &BTreeSet<Import>) -> Vec<Finding> {
    let mut next = BTreeMap::<&str, Vec<&str>>::new();
    for import in imports {
        next.entry(&import.from).or_default().push(&import.to);
    }
    let short = |file: &str| file.strip_prefix(source).unwrap_or(file).trim_start_matches('/').to_owned();
    let finding = |&file: &&str| {
        let cycle: Vec<String> = shortest_cycle(&next, file)?.into_iter().map(short).collect();
        Some(Finding::new(source, 0, format!("import cycle: {}", cycle.join(" -> "))))
    };
    next.keys().filter_map(finding).collect()
}

fn shortest_cycle<'a>(next: &BTreeMap<&'a str, Vec<&'a str>>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut came_from = BTreeMap::<&str, &str>::new();
    let mut queue = VecDeque::from([start]);
    while let Some(file) = queue.pop_front() {
        for &to in next.get(file).into_iter().flatten() {
            if to == start {
                let mut cycle = vec![start, file];
                while let Some(&before) = came_from.get(cycle[cycle.len() - 1]) {
                    cycle.push(before);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if !came_from.contains_key(to) {
                came_from.insert(to, file);
                queue.push_back(to);
            }
        }
    }
    None
}

fn wrong_directions(source: &str, imports: &BTreeSet<Import>, directions: &Directions) -> Vec<Finding> {
    let inside =
        |file: &'_ str| file.strip_prefix(source).map(|rest| rest.trim_start_matches('/').to_owned());
    let finding = |import: &Import| {
        let (from, to) = (inside(&import.from)?, inside(&import.to)?);
        let (above, below) = (directions.folder_of(&from)?, directions.folder_of(&to).unwrap_or("the root"));
        let text = format!("{from}:{}: imports {to}, but `{above}` may not import `{below}`", import.line);
        (!directions.allows(above, below)).then(|| Finding::new(source, 0, text))
    };
    imports.iter().filter_map(finding).collect()
}

fn empty_folders(source: &str, sources: &BTreeMap<&str, &str>, directions: &Directions) -> Vec<Finding> {
    let used: BTreeSet<&str> = sources
        .keys()
        .filter_map(|name| directions.folder_of(name.strip_prefix(source)?.strip_prefix('/')?))
        .collect();
    let unused = directions.folders().filter(|folder| !used.contains(folder));
    unused
        .map(|folder| Finding::new(source, 0, format!("`{folder}` in directions.txt has no file")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::directions::parse;
    use super::{check_with, source_of_root};
    use crate::tiers::rules::File;

    fn file(name: &str, text: &str) -> File {
        (format!("c/src/{name}"), text.to_owned())
    }

    fn findings(files: &[File], table: &str) -> Vec<String> {
        check_with(files, &parse(table)).into_iter().map(|found| found.text).collect()
    }

    #[test]
    fn a_cycle_is_found_once_per_file() {
        let lib = file("lib.rs", "mod a; mod b; mod c;");
        let a = file("a.rs", "use crate::b::B; pub struct A;");
        let b = file("b.rs", "use crate::c::C; pub struct B;");
        let c = file("c.rs", "pub struct C; fn f(a: &crate::a::A) {}");
        let found = findings(&[lib.clone(), a.clone(), b.clone(), c], "");
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], "import cycle: a.rs -> b.rs -> c.rs -> a.rs");
        let only_tests = file("c.rs", "pub struct C;\n#[cfg(test)]\nmod tests { use crate::a::A; }");
        assert!(findings(&[lib, a, b, only_tests], "").is_empty());
    }

    #[test]
    fn an_import_against_the_table_is_found() {
        let files = [
            file("lib.rs", "mod relay; mod sys;"),
            file("relay/mod.rs", "pub mod session;"),
            file("relay/session.rs", "use crate::sys::tcp; fn f() { tcp::g() } pub fn h() {}"),
            file("sys/mod.rs", "pub mod tcp;"),
            file("sys/tcp.rs", "pub fn g() {}"),
        ];
        assert!(findings(&files, "[c/src]\nrelay: sys\nsys:\n").is_empty());
        let found = findings(&files, "[c/src]\nrelay:\nsys: relay\n");
        assert_eq!(found, ["relay/session.rs:1: imports sys/tcp.rs, but `relay` may not import `sys`"]);
    }

    #[test]
    fn the_table_names_only_folders_that_exist() {
        let files = [file("lib.rs", "mod a;"), file("a.rs", "")];
        let found = findings(&files, "[c/src]\na:\nb: a\n[gone/src]\n.:\n");
        assert_eq!(found, ["`b` in directions.txt has no file", "is in directions.txt and has no crate"]);
    }

    #[test]
    fn roots_are_libraries_and_programs() {
        assert_eq!(source_of_root("t/daemon/src/lib.rs"), Some("t/daemon/src"));
        assert_eq!(source_of_root("t/src/bin/x.rs"), Some("t/src"));
        assert_eq!(source_of_root("t/src/bin/x/main.rs"), Some("t/src"));
        assert_eq!(source_of_root("t/src/bin/x/y.rs"), None);
        assert_eq!(source_of_root("t/src/a/mod.rs"), None);
    }
}
