//! Generated pages and files of the repository: each is compared by a test that also writes it when
//! `T3_UPDATE_DOCS` is set. The tests are found by that name in their source.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{counted, programs, rules};
use crate::tools::cargo::Artifact;
use crate::tools::report::Step;
use crate::tools::{paths, progress, sudo};

/// Makes the tests write in place of comparing.
const VARIABLE: &str = "T3_UPDATE_DOCS";
/// Timeout of one test program.
const LIMIT: Duration = Duration::from_secs(900);

/// (crate folder, target; `None` for the library), and the modules of a library that have tests.
type Writers = BTreeMap<(String, Option<String>), BTreeSet<String>>;

/// Compares every page whose test needs no root.
pub fn check() -> Result<Vec<Step>> {
    let found = test_programs()?;
    let plain = found.iter().filter(|(program, _)| !programs::needs_host(program));
    plain.map(|(program, modules)| run(Command::new(&program.executable), program, modules)).collect()
}

/// Writes every page; those whose test needs root only as root.
pub fn update() -> Result<Vec<Step>> {
    let before = rules::repository()?;
    let mut steps = Vec::new();
    for (program, modules) in test_programs()? {
        let command = if programs::needs_host(&program) {
            sudo::command(&program.executable)
        } else {
            Some(Command::new(&program.executable))
        };
        let Some(mut command) = command else {
            progress::note(&format!("needs root, not updated: the page of {}", programs::label(&program)));
            continue;
        };
        command.env(VARIABLE, "1");
        steps.push(run(command, &program, &modules)?);
    }
    for (name, _) in rules::repository()?.iter().filter(|file| !before.contains(file)) {
        progress::note(&format!("updated {name}"));
    }
    Ok(steps)
}

fn run(mut command: Command, program: &Artifact, modules: &BTreeSet<String>) -> Result<Step> {
    // One test at a time: others of the program read the page that one writes.
    command.arg("--test-threads=1").args(modules);
    counted(
        &format!("pages of {}", programs::label(program)),
        programs::in_its_crate(command, program),
        LIMIT,
    )
}

/// The compiled tests, each with the modules to run; all of them when none is named.
fn test_programs() -> Result<Vec<(Artifact, BTreeSet<String>)>> {
    let writers = writers(&rules::repository()?);
    let all = programs::compile()?;
    progress::step("generated pages");
    let mut found = Vec::new();
    for ((folder, target), modules) in writers {
        let is_it = |program: &&Artifact| {
            let is_target = match &target {
                Some(name) => program.kind == "test" && program.target == *name,
                None => program.kind == "lib",
            };
            is_target && program.dir == paths::root().join(&folder)
        };
        let Some(program) = all.iter().find(is_it) else {
            bail!("{folder} has no test program {}", target.as_deref().unwrap_or("of its library"));
        };
        found.push((program.clone(), modules));
    }
    Ok(found)
}

/// The tests that name the variable.
fn writers(files: &[rules::File]) -> Writers {
    let mut found = Writers::new();
    for (name, text) in files {
        if !name.ends_with(".rs") || name.starts_with("xtask/") || !text.contains(VARIABLE) {
            continue;
        }
        if let Some((folder, file)) =
            name.split_once("/tests/").filter(|(folder, _)| !folder.contains("/src"))
        {
            let target = file.split('/').next().unwrap_or(file).trim_end_matches(".rs");
            found.entry((folder.to_owned(), Some(target.to_owned()))).or_default();
        } else if let Some((folder, file)) = name.split_once("/src/") {
            let module = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
            found.entry((folder.to_owned(), None)).or_default().insert(format!("{module}::"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{VARIABLE, writers};

    #[test]
    fn tests_that_write_pages_are_found_by_the_variable() {
        let file = |name: &str| (name.to_owned(), format!("//! x\nvar_os(\"{VARIABLE}\")\n"));
        let files = [
            file("t3-a/tests/page.rs"),
            file("t3-a/cli/src/live/tests.rs"),
            file("t3-a/cli/src/doctor/mod.rs"),
            file("docs/x.md"),
            ("t3-a/tests/other.rs".to_owned(), String::new()),
        ];
        let found = writers(&files);
        assert_eq!(found.len(), 2);
        assert!(found[&("t3-a".to_owned(), Some("page".to_owned()))].is_empty());
        let modules: Vec<_> = found[&("t3-a/cli".to_owned(), None)].iter().collect();
        assert_eq!(modules, ["doctor::", "live::tests::"]);
    }
}
