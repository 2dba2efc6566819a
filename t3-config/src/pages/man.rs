//! Manual pages: one for the program and one for each visible subcommand.
//!
//! clap_mangen renders the options; the sections of the help, files and cross references are added
//! here. Only the definition is read, never the value of a variable.

use clap::{Command, builder::Resettable};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::sections::{self, Line};

/// Section of the manual.
pub const SECTION: &str = "8";

/// A manual page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// File name, for example `t3-trace-closes.8`.
    pub file: String,
    /// roff source.
    pub roff: String,
}

/// Returns all pages, that of the program first.
#[must_use]
pub fn man(definition: Command) -> Vec<Page> {
    let mut definition = definition.disable_help_subcommand(true);
    definition.build();
    let version = definition.get_version().unwrap_or_default().to_owned();
    let program = definition.get_name().to_owned();
    let visible: Vec<_> =
        definition.get_subcommands().filter(|command| super::is_visible(command)).cloned().collect();
    let names: Vec<String> = std::iter::once(&definition).chain(&visible).map(name).collect();
    let title = Title { source: format!("{program} {version}"), names: &names };
    std::iter::once(&definition).chain(&visible).map(|command| page(command, &title)).collect()
}

/// Values shared by all pages of a program.
struct Title<'a> {
    source: String,
    names: &'a [String],
}

fn page(command: &Command, title: &Title<'_>) -> Page {
    let name = name(command);
    let help = command.get_after_long_help().or(command.get_after_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let bare = command.clone().after_help(Resettable::Reset).after_long_help(Resettable::Reset);
    let man = Man::new(bare)
        .section(SECTION)
        .source(title.source.as_str())
        // Quoted, because roff would take the next word as the date. Without a date, builds are
        // reproducible.
        .date("\"\"")
        .manual("t3-dispatch and t3-trace");
    let mut out = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = man.render(&mut out);
    let mut roff = String::from_utf8_lossy(&out).into_owned();
    roff.push_str(&below(command, &help, &name, title.names));
    Page { file: format!("{name}.{SECTION}"), roff }
}

fn below(command: &Command, help: &str, name: &str, names: &[String]) -> String {
    let mut roff = Roff::new();
    for section in sections::parse(help) {
        roff.control("SH", [section.title.as_str()]);
        lines(&mut roff, &section.lines);
    }
    let files = files(command);
    if !files.is_empty() {
        roff.control("SH", ["FILES"]);
        for (path, about) in files {
            roff.control("TP", []);
            roff.text([bold(path)]);
            roff.text([roman(about)]);
        }
    }
    let others: Vec<_> = names.iter().filter(|other| *other != name).collect();
    roff.control("SH", ["SEE ALSO"]);
    let mut references = Vec::new();
    for (n, other) in others.iter().enumerate() {
        references.push(bold(other.as_str()));
        references.push(roman(format!("({SECTION}){}", if n + 1 < others.len() { ", " } else { "" })));
    }
    roff.text(references);
    let text = roff.render();
    // The preamble for apostrophes is already at the top of the page.
    text.find(".SH").map_or(String::new(), |at| text[at..].to_owned())
}

fn lines(roff: &mut Roff, lines: &[Line]) {
    let mut verbatim = false;
    for line in lines {
        let is_verbatim = match line {
            Line::Verbatim(_) => true,
            Line::Text(_) => false,
            Line::Blank => verbatim,
        };
        if is_verbatim && !verbatim {
            roff.control("PP", []).control("RS", ["4"]).control("nf", []);
        } else if verbatim && !is_verbatim {
            roff.control("fi", []).control("RE", []);
        }
        verbatim = is_verbatim;
        match line {
            Line::Verbatim(text) | Line::Text(text) => {
                roff.text([roman(text.as_str())]);
            }
            Line::Blank => {
                roff.control(if verbatim { "sp" } else { "PP" }, []);
            }
        }
    }
    if verbatim {
        roff.control("fi", []).control("RE", []);
    }
}

/// Files that an option names by default, with its help.
fn files(command: &Command) -> Vec<(String, String)> {
    let with_path = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(|arg| {
        let path = arg.get_default_values().first()?.to_str()?;
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        // The path of a URL can begin like this, too; files are below these directories.
        let is_file =
            ["/etc/", "/run/", "/var/", "/proc/", "/sys/"].iter().any(|root| path.starts_with(root));
        is_file.then(|| (path.to_owned(), help))
    });
    with_path.collect()
}

/// Name for `man NAME`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}
