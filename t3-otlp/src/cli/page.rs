//! docs/CONFIGURATION.md and the packaged deploy/t3-otlp.toml have the options as they are defined.
//! `cargo xtask docs` updates the table.

use std::{fmt::Write, fs, path::PathBuf};

use t3_config::{
    is_file, options_of,
    pages::reference::{self, defaults, help},
};

use super::Cli;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Options that the file may have.
fn options() -> Vec<clap::Arg> {
    let definition = t3_config::definition::<Cli>();
    let run = definition.find_subcommand("run").unwrap();
    options_of(run).filter(|arg| !is_file(arg)).cloned().collect()
}

#[test]
fn the_page_lists_every_option() {
    let mut table = "| option | variable | default | meaning |\n|---|---|---|---|\n".to_owned();
    for arg in options() {
        let default = match defaults(&arg).as_slice() {
            [] => "none".to_owned(),
            some => format!("`{}`", some.join(",")),
        };
        let (name, variable) = (arg.get_long().unwrap(), arg.get_env().unwrap().to_str().unwrap());
        let _ = writeln!(table, "| `{name}` | `{variable}` | {default} | {} |", help(&arg));
    }
    let path = file("docs/CONFIGURATION.md");
    let page = fs::read_to_string(&path).unwrap();
    let expected = reference::replace(&page, "otlp-options", &table).unwrap();
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap();
    assert_eq!(page, expected, "run `cargo xtask docs` and commit docs/CONFIGURATION.md");
}

#[test]
fn the_packaged_file_has_every_option_and_sets_none() {
    let text = fs::read_to_string(file("deploy/t3-otlp.toml")).unwrap();
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once(" = "))
        .map(|(name, _)| name.to_owned())
        .filter(|name| !name.starts_with(' '))
        .collect();
    let options: Vec<_> = options().iter().map(|arg| arg.get_long().unwrap().to_owned()).collect();
    assert_eq!(names, options);
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
}
