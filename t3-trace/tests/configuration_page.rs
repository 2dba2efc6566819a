//! The part of docs/CONFIGURATION.md about t3-trace, and the packaged deploy/t3-trace.toml, list
//! the options as they are defined. `cargo xtask docs` updates the lists.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::{ffi::OsString, fmt::Write, fs, io::Write as _, path::Path, path::PathBuf};

use clap::Arg;
use t3_config::{
    Origin, Sources, is_file, options_of,
    pages::{
        is_ours,
        reference::{self, defaults, help, in_toml},
    },
};
use t3_trace::cli::{Cli, RULES, definition};

const PACKAGED_HEAD: &str = "\
# Options of t3-trace: of the daemon (t3-trace.service), which reads them once at start, and of the
# commands live, closes, explain and doctor, which read them each time.
# `systemctl restart t3-trace` applies changes to the daemon; no session notices.
# The command line and the environment take precedence over this file (docs/CONFIGURATION.md).
#
# Each option is listed with its default, or with an example where it has none. A line without the #
# is set. Every user may read this file: tokens and passwords are in files of their own.
";
/// Values of options without a default.
const EXAMPLES: [(&str, &str); 18] = [
    ("metrics-file", "/run/t3-trace/t3-trace.prom"),
    ("loki", "https://loki.example.org"),
    ("loki-tenant", "t3"),
    ("loki-token-file", "/etc/t3-trace.d/loki.token"),
    ("loki-user", "ann"),
    ("loki-password-file", "/etc/t3-trace.d/loki.password"),
    ("loki-header-file", "/etc/t3-trace.d/loki.headers"),
    ("prometheus", "http://prometheus.example.org:9090"),
    ("prometheus-tenant", "t3"),
    ("prometheus-token-file", "/etc/t3-trace.d/prometheus.token"),
    ("prometheus-user", "ann"),
    ("prometheus-password-file", "/etc/t3-trace.d/prometheus.password"),
    ("prometheus-header-file", "/etc/t3-trace.d/prometheus.headers"),
    ("prometheus-host", "instance=\"devvm:9100\""),
    ("logpush-selector", "{job=\"logpush\"}"),
    ("envoy-selector", "{job=\"envoy\"}"),
    ("haproxy-selector", "{job=\"haproxy\"}"),
    ("layer-ca", "/etc/ssl/private-ca.pem"),
];

/// An option of the file, with the commands that read it.
struct FileOption {
    arg: Arg,
    readers: Vec<String>,
}

impl FileOption {
    fn name(&self) -> &str {
        self.arg.get_long().unwrap()
    }

    fn heading(&self) -> &str {
        let is_of_daemon = self.readers.iter().any(|reader| reader == "daemon");
        match (is_of_daemon, self.readers.len(), self.arg.get_help_heading()) {
            (_, _, Some(heading)) => heading,
            (true, 1, None) => "Daemon",
            (true, _, None) => "Daemon and commands",
            (false, _, None) => "Commands",
        }
    }

    fn readers(&self) -> String {
        match self.readers.len() {
            5 => "all".to_owned(),
            4 if self.heading() == "Commands" => "all commands".to_owned(),
            _ => self.readers.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        }
    }

    /// The default, or the example.
    fn value(&self) -> String {
        let defaults = defaults(&self.arg);
        let example = EXAMPLES.iter().find(|(name, _)| *name == self.name());
        let values = match example {
            Some((_, example)) if defaults.is_empty() => vec![(*example).to_owned()],
            _ => defaults,
        };
        in_toml(&self.arg, &values).unwrap_or_else(|| panic!("{} needs an example", self.name()))
    }
}

/// Options of the file, by heading.
fn options() -> Vec<FileOption> {
    let definition = definition();
    let mut found: Vec<FileOption> = Vec::new();
    for command in definition.get_subcommands().filter(|command| !is_ours(command.get_name())) {
        for arg in options_of(command).filter(|arg| !is_file(arg)) {
            let reader = command.get_name().to_owned();
            match found.iter_mut().find(|option| option.arg.get_long() == arg.get_long()) {
                Some(option) => option.readers.push(reader),
                None => found.push(FileOption { arg: arg.clone(), readers: vec![reader] }),
            }
        }
    }
    let order = ["Daemon and commands", "Commands", "Loki", "Store of the records", "Other layers", "Daemon"];
    found.sort_by_key(|option| order.iter().position(|heading| *heading == option.heading()).unwrap());
    found
}

/// Calls the function with each option, and first with each heading.
fn by_heading(
    out: &mut String,
    heading: impl Fn(&mut String, &str),
    each: impl Fn(&mut String, &FileOption),
) {
    let mut last = String::new();
    for option in options() {
        if option.heading() != last {
            last = option.heading().to_owned();
            heading(out, &last);
        }
        each(out, &option);
    }
}

fn table() -> String {
    let mut out = String::new();
    let heading = |out: &mut String, name: &str| {
        let _ = write!(
            out,
            "\n**{name}**\n\n| option | variable | default | read by | meaning |\n|---|---|---|---|---|\n"
        );
    };
    by_heading(&mut out, heading, |out, option| {
        let default = match defaults(&option.arg).as_slice() {
            [] => "none".to_owned(),
            some => format!("`{}`", some.join(",")),
        };
        let (name, readers) = (option.name(), option.readers());
        let variable = option.arg.get_env().unwrap().to_str().unwrap();
        let help = help(&option.arg).replace('|', "\\|");
        let _ = writeln!(out, "| `{name}` | `{variable}` | {default} | {readers} | {help} |");
    });
    out + "\n"
}

fn packaged() -> String {
    let mut out = PACKAGED_HEAD.to_owned();
    let heading = |out: &mut String, name: &str| {
        let _ = write!(out, "\n## {name}\n");
    };
    by_heading(&mut out, heading, |out, option| {
        let _ = write!(out, "\n# {}\n#{} = {}\n", help(&option.arg), option.name(), option.value());
    });
    out
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn compare(name: &str, expected: &str) {
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        fs::write(file(name), expected).expect("the file can be written");
    }
    let found = fs::read_to_string(file(name)).expect("the file is there");
    assert_eq!(found, expected, "run `cargo xtask docs` and commit {name}");
}

#[test]
fn the_page_lists_every_option() {
    let page = fs::read_to_string(file("docs/CONFIGURATION.md")).expect("the page is there");
    let expected = reference::replace(&page, "trace-options", &table()).expect("the page has the marks");
    compare("docs/CONFIGURATION.md", &expected);
}

#[test]
fn the_packaged_file_has_every_option() {
    compare("deploy/t3-trace.toml", &packaged());
}

/// Reads a file as this command does; returns the origin and the values of its options.
fn read(command: &str, text: &str) -> Vec<(String, Vec<OsString>, bool)> {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(text.as_bytes()).unwrap();
    let mut words: Vec<OsString> = ["t3-trace", command, "--config"].map(Into::into).to_vec();
    words.push(config.path().into());
    if command == "explain" {
        words.push("--last".into());
    }
    let sources = Sources::read::<Cli, _>(words, RULES).unwrap();
    let settings = sources.settings().to_vec();
    let loaded = sources.parse::<Cli>().unwrap();
    assert!(loaded.options.is_ok(), "{command}: {:?}\n{text}", loaded.options.unwrap_err());
    settings
        .into_iter()
        .filter(|setting| setting.name != "config")
        .map(|setting| {
            let is_of_file = matches!(setting.origin, Origin::File(..));
            (setting.name, setting.values, is_of_file)
        })
        .collect()
}

#[test]
fn the_packaged_file_sets_nothing_and_every_line_of_it_is_valid() {
    let text = fs::read_to_string(file("deploy/t3-trace.toml")).expect("the file is there");
    let lines: Vec<_> = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix('#').filter(|rest| !rest.starts_with(['#', ' ']) && !rest.is_empty())
        })
        .collect();
    assert_eq!(lines.len(), options().len());
    let without = |kinds: [&str; 2]| -> String {
        let is_kept = |line: &&&str| !kinds.iter().any(|kind| line.contains(kind));
        lines.iter().filter(is_kept).fold(String::new(), |text, line| text + line + "\n")
    };
    let defaults: Vec<_> = options()
        .iter()
        .filter(|option| !defaults(&option.arg).is_empty())
        .map(|option| option.name().to_owned())
        .collect();
    for command in ["daemon", "live", "closes", "explain", "doctor"] {
        let untouched = read(command, &text);
        assert!(untouched.iter().all(|(.., is_of_file)| !is_of_file), "{command}: {untouched:?}");
        // A token and a password exclude each other.
        for excluded in [["-token-file", "\0"], ["-user =", "-password-file"]] {
            let set = read(command, &without(excluded));
            for ((name, values, is_of_file), (_, expected, _)) in set.iter().zip(&untouched) {
                let is_excluded =
                    excluded.iter().any(|kind| format!("{name} =").contains(kind) || name.contains(kind));
                assert_eq!(*is_of_file, !is_excluded, "{command}: {name}");
                if defaults.contains(name) {
                    assert_eq!(values, expected, "{command}: {name} is not its default");
                }
            }
        }
    }
}

#[test]
fn the_daemon_alone_accepts_the_complete_file() {
    let text = packaged();
    let mut config = tempfile::NamedTempFile::new().unwrap();
    for line in text.lines() {
        let line = line.strip_prefix('#').filter(|rest| !rest.starts_with(['#', ' '])).unwrap_or(line);
        writeln!(config, "{line}").unwrap();
    }
    let words = [Path::new("t3-trace-daemon"), Path::new("--config"), config.path()];
    let words = words.map(|word| word.as_os_str().to_owned());
    let sources = Sources::read::<t3_trace_daemon::args::Program, _>(words, t3_trace_daemon::args::RULES);
    let loaded = sources.unwrap().parse::<t3_trace_daemon::args::Program>().unwrap();
    assert!(loaded.options.is_ok(), "{:?}", loaded.options.unwrap_err());
}
