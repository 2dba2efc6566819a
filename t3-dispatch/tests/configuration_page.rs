//! docs/CONFIGURATION.md lists the options as they are defined. `UPDATE_DOCS=1 cargo test -p t3-dispatch --test configuration_page` writes
//! the lists anew.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

use std::{fmt::Write, fs, io::Write as _, path::PathBuf, process::Command};

use clap::{Arg, ArgAction};
use t3_dispatch::config::{definition, is_file, options_of};

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIGURATION.md")
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

fn defaults(arg: &Arg) -> Vec<String> {
    let delimiter = arg.get_value_delimiter();
    let all = arg.get_default_values().iter().map(|value| value.to_str().unwrap());
    all.flat_map(|value| match delimiter {
        Some(delimiter) => value.split(delimiter).map(str::to_owned).collect(),
        None => vec![value.to_owned()],
    })
    .collect()
}

/// What the option is for, in one line.
fn help(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).expect("every option has help").to_string();
    help.split_whitespace().collect::<Vec<_>>().join(" ")
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
        let defaults = defaults(arg);
        let several = matches!(arg.get_action(), ArgAction::Append) || arg.get_value_delimiter().is_some();
        let value = |text: &String| match text.parse::<i64>() {
            Ok(number) => number.to_string(),
            Err(_) if text == "true" || text == "false" => text.clone(),
            Err(_) => format!("{text:?}"),
        };
        let value = match defaults.as_slice() {
            all if several => format!("[{}]", all.iter().map(value).collect::<Vec<_>>().join(", ")),
            [one] => value(one),
            _ => {
                let _ = writeln!(out, "# {} is not set", name(arg));
                continue;
            }
        };
        let _ = writeln!(out, "{} = {value}", name(arg));
    }
    out + "```\n"
}

fn exit_status() -> String {
    let help = definition().get_after_help().expect("the exit status is in the help").to_string();
    let mut out = String::from("| status | means |\n|---|---|\n");
    for line in help.lines().skip(1).take_while(|line| !line.is_empty()) {
        let (status, meaning) = line.trim().split_once("  ").expect("a status and what it means");
        let _ = writeln!(out, "| {status} | {meaning} |");
    }
    out
}

fn replace(text: &str, name: &str, list: &str) -> String {
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let from = text.find(&begin).expect("the page has the list's begin") + begin.len();
    let to = text.find(&end).expect("the page has the list's end");
    format!("{}{list}{}", &text[..from], &text[to..])
}

#[test]
fn the_page_lists_every_option_and_exit_status() {
    let mut expected = fs::read_to_string(page()).expect("docs/CONFIGURATION.md is there");
    for (name, list) in [("options", table()), ("example", example()), ("exit", exit_status())] {
        expected = replace(&expected, name, &list);
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(page(), &expected).expect("docs/CONFIGURATION.md can be written");
    }
    assert_eq!(
        fs::read_to_string(page()).unwrap(),
        expected,
        "run with UPDATE_DOCS=1 and commit docs/CONFIGURATION.md"
    );
}

#[test]
fn the_pages_example_is_a_file_that_check_takes_and_changes_nothing() {
    let example = example();
    let toml: String =
        example.lines().filter(|line| !line.starts_with("```")).map(|line| format!("{line}\n")).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let mut table = tempfile::NamedTempFile::new().unwrap();
    table.write_all(b"{}").unwrap();
    let printed = |config: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_t3-dispatch"));
        command.env_clear().arg("check").arg("--table").arg(table.path()).arg("--config").arg(config);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let values = printed.lines().filter_map(|line| Some(line.rsplit_once("   (")?.0.to_owned()));
        values.filter(|line| !line.starts_with("config = ")).collect::<Vec<_>>()
    };
    assert_eq!(printed(file.path()), printed(std::path::Path::new("/dev/null")));
}
