//! docs/CONFIGURATION.md and the packaged deploy/t3-dispatch.toml list the options as they are
//! defined. `cargo xtask docs` updates the lists.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fmt::Write,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Arg;
use t3_config::pages::reference::{self, defaults, help, in_toml};
use t3_dispatch::config::{definition, is_file, options_of};

/// Settings of the packaged file that the packaged units need.
const PACKAGED: [(&str, &str); 1] = [("mint-socket", "/run/t3-mint.sock")];
const PACKAGED_HEAD: &str = "\
# Options of t3-dispatch, read once at start. `t3-dispatch check` prints the options in use and their source;
# `systemctl restart t3-dispatch` applies changes. Each option is listed with its default; a line without the # is set.
# The command line and the environment (T3_DISPATCH_...) take precedence over this file.
#
# The port is that of t3-dispatch.socket, which takes precedence over `listen`.
";

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIGURATION.md")
}

fn packaged_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/t3-dispatch.toml")
}

fn options() -> Vec<Arg> {
    let definition = definition();
    options_of(definition.find_subcommand("serve").unwrap()).cloned().collect()
}

fn heading(arg: &Arg) -> &str {
    arg.get_help_heading().unwrap_or("Where options come from")
}

fn name(arg: &Arg) -> &str {
    arg.get_long().expect("every option has a name")
}

fn table() -> String {
    let mut out = String::new();
    let mut last = "";
    let options = options();
    for arg in &options {
        if heading(arg) != last {
            last = heading(arg);
            let _ = write!(out, "\n**{last}**\n\n| option | default | meaning |\n|---|---|---|\n");
        }
        let default = match defaults(arg).as_slice() {
            [] => "none".to_owned(),
            some => format!("`{}`", some.join(",")),
        };
        let (name, help) = (name(arg), help(arg).replace('|', "\\|"));
        let _ = writeln!(out, "| `{name}` | {default} | {help} |");
    }
    out + "\n"
}

fn example() -> String {
    let mut out =
        String::from("```toml\n# /etc/t3-dispatch.toml: options of t3-dispatch serve, with their defaults\n");
    let mut last = "";
    let options = options();
    for arg in options.iter().filter(|arg| !is_file(arg)) {
        if heading(arg) != last {
            last = heading(arg);
            let _ = write!(out, "\n# {last}\n");
        }
        let _ = match in_toml(arg, &defaults(arg)) {
            Some(value) => writeln!(out, "{} = {value}", name(arg)),
            None => writeln!(out, "# {} is not set", name(arg)),
        };
    }
    out + "```\n"
}

/// Returns the packaged file: all options are comments, except those that the packaged units need.
fn packaged() -> String {
    let mut out = PACKAGED_HEAD.to_owned();
    let mut last = "";
    let options = options();
    for arg in options.iter().filter(|arg| !is_file(arg)) {
        if heading(arg) != last {
            last = heading(arg);
            let _ = write!(out, "\n## {last}\n");
        }
        let value = in_toml(arg, &defaults(arg)).expect("every option has a default");
        let _ = write!(out, "\n# {}\n#{} = {value}\n", help(arg), name(arg));
        for (_, value) in PACKAGED.iter().filter(|(option, _)| *option == name(arg)) {
            let _ = writeln!(out, "{} = {value:?}", name(arg));
        }
    }
    out
}

fn exit_status() -> String {
    let help = definition().get_after_help().expect("the exit status is in the help").to_string();
    let mut out = String::from("| status | means |\n|---|---|\n");
    let table = help.lines().skip_while(|line| *line != "Exit status:").skip(1);
    for line in table.take_while(|line| !line.is_empty()) {
        let (status, meaning) = line.trim().split_once("  ").expect("a status and what it means");
        let _ = writeln!(out, "| {status} | {meaning} |");
    }
    out
}

fn replace(text: &str, name: &str, list: &str) -> String {
    reference::replace(text, name, list).expect("the page has the marks of the list")
}

#[test]
fn the_page_lists_every_option_and_exit_status() {
    let mut expected = fs::read_to_string(page()).expect("docs/CONFIGURATION.md is there");
    for (name, list) in [("options", table()), ("example", example()), ("exit", exit_status())] {
        expected = replace(&expected, name, &list);
    }
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        fs::write(page(), &expected).expect("docs/CONFIGURATION.md can be written");
    }
    assert_eq!(
        fs::read_to_string(page()).unwrap(),
        expected,
        "run `cargo xtask docs` and commit docs/CONFIGURATION.md"
    );
}

/// Returns the options that `check` prints for this file, without the file name.
fn used(config: &Path) -> Vec<String> {
    let mut table = tempfile::NamedTempFile::new().unwrap();
    table.write_all(b"{}").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-dispatch"));
    command.env_clear().arg("check").arg("--table").arg(table.path()).arg("--config").arg(config);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let values = printed.lines().filter_map(|line| Some(line.rsplit_once("   (")?.0.to_owned()));
    values.filter(|line| !line.starts_with("config = ") && !line.starts_with("table = ")).collect()
}

fn written(toml: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    file
}

#[test]
fn the_example_of_the_page_is_valid_and_sets_only_defaults() {
    let example = example();
    let toml: String =
        example.lines().filter(|line| !line.starts_with("```")).map(|line| format!("{line}\n")).collect();
    assert_eq!(used(written(&toml).path()), used(Path::new("/dev/null")));
}

#[test]
fn the_packaged_file_has_every_option_and_sets_those_of_the_units() {
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        fs::write(packaged_file(), packaged()).expect("deploy/t3-dispatch.toml can be written");
    }
    let text = fs::read_to_string(packaged_file()).expect("deploy/t3-dispatch.toml is there");
    assert_eq!(text, packaged(), "run `cargo xtask docs` and commit deploy/t3-dispatch.toml");
    let set: Vec<_> = PACKAGED.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let is_default =
        |line: &String| !PACKAGED.iter().any(|(name, _)| line.starts_with(&format!("{name} = ")));
    let mut expected = used(Path::new("/dev/null"));
    expected.retain(is_default);
    let (rest, packaged): (Vec<_>, Vec<_>) = used(&packaged_file()).into_iter().partition(is_default);
    assert_eq!(packaged, set);
    assert_eq!(rest, expected);
    // With all options uncommented, except those that are set, the file contains the defaults.
    let aloud: String = text
        .lines()
        .filter(|line| !set.iter().any(|set| line.replace('"', "") == *set))
        .map(|line| {
            format!(
                "{}\n",
                line.strip_prefix('#').filter(|rest| !rest.starts_with(['#', ' '])).unwrap_or(line)
            )
        })
        .collect();
    assert_eq!(used(written(&aloud).path()), used(Path::new("/dev/null")));
}
