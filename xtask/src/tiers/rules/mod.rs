//! Rules of this repository that no other tool checks, one file each. All read text and return
//! findings; nothing is changed.

mod app;
mod columns;
mod files;
mod imports;
mod source;
mod words;

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::tools::run::stdout_of;
use crate::tools::{cargo, paths};

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, seen from the workspace root; a crate for the rules about imports.
    pub place: String,
    /// Counted from 1; 0 for the file as a whole.
    pub line: usize,
    pub text: String,
}

impl Finding {
    fn new(place: impl Into<String>, line: usize, text: impl Into<String>) -> Self {
        Self { place: place.into(), line, text: text.into() }
    }

    fn show(&self) -> String {
        match self.line {
            0 => format!("{}: {}", self.place, self.text),
            line => format!("{}:{line}: {}", self.place, self.text),
        }
    }
}

/// A text file: its name, seen from the workspace root, and its content.
pub type File = (String, String);

/// A rule, and the name that the report gives it.
pub struct Rule {
    pub name: &'static str,
    check: fn(&[File]) -> Vec<Finding>,
}

pub const ALL: [Rule; 5] = [
    Rule { name: "files", check: files::check },
    Rule { name: "imports", check: imports::check },
    Rule { name: "app", check: app::check },
    Rule { name: "words", check: words::check },
    Rule { name: "columns", check: columns::check },
];

/// Every text file that is, or is about to be, under version control.
pub fn repository() -> Result<Vec<File>> {
    let mut git = cargo::plain(Path::new("git"));
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = stdout_of(&mut git).context("cannot list the files of the repository")?;
    let names = list.split('\0').filter(|name| !name.is_empty());
    // Deleted and binary files cannot be read as text.
    Ok(names
        .filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(paths::root().join(name)).ok()?)))
        .collect())
}

impl Rule {
    /// What the rule finds, one line each.
    pub fn findings(&self, files: &[File]) -> Vec<String> {
        (self.check)(files).iter().map(Finding::show).collect()
    }
}
