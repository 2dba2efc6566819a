//! The module tree of a crate, and the file that defines what a path names.

use std::collections::BTreeMap;

use super::parse::{Module, parse};
use crate::tiers::rules::source::product_code;

/// Re-exports that point at each other end here.
const MAX_STEPS: usize = 16;

/// All modules of one crate.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    /// The file, seen from the workspace root.
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    module: Module,
}

/// One file names an item of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: String,
    pub to: String,
    pub line: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Target {
    Module(usize),
    ItemOf(usize),
}

impl Tree {
    /// The crate whose root is `root`.
    pub fn new(files: &BTreeMap<&str, &str>, root: &str) -> Self {
        let mut tree = Self::default();
        if let Some(text) = files.get(root) {
            let folder = folder_of(root).to_owned();
            tree.add(files, root, &folder, parse(&product_code(text)), None);
        }
        tree
    }

    /// `folder`: where the files of child modules are.
    fn add(
        &mut self,
        files: &BTreeMap<&str, &str>,
        file: &str,
        folder: &str,
        mut module: Module,
        parent: Option<usize>,
    ) -> usize {
        let id = self.nodes.len();
        let inline = std::mem::take(&mut module.inline);
        let outside = std::mem::take(&mut module.files);
        self.nodes.push(Node { file: file.to_owned(), parent, children: BTreeMap::new(), module });
        for (name, child) in inline {
            let child = self.add(files, file, &format!("{folder}/{name}"), child, Some(id));
            self.nodes[id].children.insert(name, child);
        }
        for (name, path) in outside {
            let candidates = match path {
                Some(path) => [format!("{}/{path}", folder_of(file)), String::new()],
                None => [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")],
            };
            let found = candidates.iter().find_map(|name| files.get_key_value(name.as_str()));
            let Some((&child_file, text)) = found else { continue };
            let below = format!("{folder}/{name}");
            let child = self.add(files, child_file, &below, parse(&product_code(text)), Some(id));
            self.nodes[id].children.insert(name, child);
        }
        id
    }

    /// Imports between files, but not between a module file and the files directly in its folder.
    pub fn imports(&self) -> Vec<Import> {
        let mut found = Vec::new();
        for (id, node) in self.nodes.iter().enumerate() {
            for (path, line) in &node.module.paths {
                let Some(Target::ItemOf(other)) = self.resolve(id, path, 0) else { continue };
                let target = &self.nodes[other];
                if target.file == node.file || self.are_neighbours(id, other) {
                    continue;
                }
                found.push(Import { from: node.file.clone(), to: target.file.clone(), line: *line });
            }
        }
        found.sort();
        found.dedup_by(|a, b| a.from == b.from && a.to == b.to);
        found
    }

    /// One is the parent of the other; modules in braces belong to the module of their file.
    fn are_neighbours(&self, one: usize, other: usize) -> bool {
        let (one, other) = (self.of_file(one), self.of_file(other));
        let parent = |id: usize| self.nodes[id].parent.map(|parent| self.of_file(parent));
        parent(one) == Some(other) || parent(other) == Some(one)
    }

    fn of_file(&self, mut id: usize) -> usize {
        while let Some(parent) =
            self.nodes[id].parent.filter(|&up| self.nodes[up].file == self.nodes[id].file)
        {
            id = parent;
        }
        id
    }

    /// `None`: another crate, or nothing that this scanner knows.
    fn resolve(&self, mut at: usize, path: &[String], steps: usize) -> Option<Target> {
        if steps > MAX_STEPS {
            return None;
        }
        let mut rest = path.iter().map(String::as_str).peekable();
        match *rest.peek()? {
            "crate" => {
                rest.next();
                at = 0;
            }
            "self" => drop(rest.next()),
            "super" => {
                while rest.next_if_eq(&"super").is_some() {
                    at = self.nodes[at].parent?;
                }
            }
            // A name from elsewhere unless this module has it.
            first => {
                let node = &self.nodes[at];
                if !node.children.contains_key(first) && !node.module.uses.contains_key(first) {
                    return None;
                }
            }
        }
        let mut target = Target::Module(at);
        while let Some(name) = rest.next() {
            let Target::Module(here) = target else { break };
            target = self.name(here, name, rest.peek().is_none(), steps)?;
        }
        Some(target)
    }

    fn name(&self, at: usize, name: &str, is_last: bool, steps: usize) -> Option<Target> {
        let node = &self.nodes[at];
        let child = node.children.get(name).map(|&child| Target::Module(child));
        if !is_last && child.is_some() {
            return child;
        }
        if node.module.items.contains(name) {
            return Some(Target::ItemOf(at));
        }
        if let Some(path) = node.module.uses.get(name) {
            // `use a::a;`: the first `a` is the child.
            let found = self.resolve(at, path, steps + 1);
            return if found == Some(Target::Module(at)) { child } else { found.or(child) };
        }
        if child.is_some() {
            return child;
        }
        for path in &node.module.globs {
            if let Some(Target::Module(other)) = self.resolve(at, path, steps + 1)
                && other != at
                && let Some(found) = self.name(other, name, is_last, steps + 1)
            {
                return Some(found);
            }
        }
        None
    }
}

fn folder_of(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::Tree;
    use std::collections::BTreeMap;

    fn imports(files: &[(&str, &str)]) -> Vec<String> {
        let files: BTreeMap<_, _> = files.iter().copied().collect();
        let root = "c/src/lib.rs";
        Tree::new(&files, root).imports().iter().map(|i| format!("{} {}", &i.from[6..], &i.to[6..])).collect()
    }

    #[test]
    fn a_re_export_counts_for_the_defining_file() {
        let found = imports(&[
            ("c/src/lib.rs", "mod a; mod b; pub use a::deep::Thing;"),
            ("c/src/a/mod.rs", "pub mod deep; pub use deep::*;"),
            ("c/src/a/deep.rs", "pub struct Thing; pub struct Other;"),
            ("c/src/b.rs", "use crate::Thing; fn f() { crate::a::Other; }"),
        ]);
        assert_eq!(found, ["b.rs a/deep.rs"]);
    }

    #[test]
    fn modules_are_reached_through_names_in_scope() {
        let found = imports(&[
            ("c/src/lib.rs", "mod a; mod b;"),
            ("c/src/a/mod.rs", "pub mod x;"),
            ("c/src/a/x.rs", "pub fn run() {}"),
            ("c/src/b.rs", "use crate::a::x; use std::fs; fn f() { x::run(); fs::read(); }"),
        ]);
        assert_eq!(found, ["b.rs a/x.rs"], "the use alone names a module, not an item");
    }

    #[test]
    fn a_module_file_and_its_children_are_one() {
        let found = imports(&[
            ("c/src/lib.rs", "mod a; mod b;"),
            ("c/src/a.rs", "mod x; use x::X; pub struct A;"),
            ("c/src/a/x.rs", "use super::A; use super::super::b::B; pub struct X;"),
            ("c/src/b.rs", "pub struct B;"),
        ]);
        assert_eq!(found, ["a/x.rs b.rs"]);
    }
}
