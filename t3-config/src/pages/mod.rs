//! Manual pages and shell completions, from a program's definition of its command line.
//!
//! Text besides the options is the sections of `--help` ([`sections`]). A program calls [`run`]
//! first, before it reads a file or a variable, so that no local setting gets into a page.

pub mod audit;
mod man;
pub mod reference;
pub mod sections;

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

pub use man::{Page, SECTION, man};

/// Subcommand that prints completions.
const COMPLETIONS: &str = "completions";
/// Hidden subcommand that writes the manual.
const MAN: &str = "man";

/// Supported shells.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// A page cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct WriteError {
    /// Path of the page.
    pub path: PathBuf,
    /// Cause.
    pub source: io::Error,
}

/// Adds the subcommands `completions SHELL` and (hidden) `man --to DIR`.
#[must_use]
pub fn with(command: Command) -> Command {
    let program = command.get_name().to_owned();
    let shell = Arg::new("shell")
        .value_name("SHELL")
        .required(true)
        .value_parser(SHELLS.map(|shell| shell.to_string()).to_vec())
        .help("Shell to complete for");
    let completions = Command::new(COMPLETIONS)
        .about("Print a completion script for a shell")
        .arg(shell)
        .after_help(format!(
            "Examples:\n  \
             {program} completions bash > /usr/share/bash-completion/completions/{program}\n  \
             {program} completions zsh > /usr/share/zsh/vendor-completions/_{program}\n  \
             {program} completions fish > /usr/share/fish/vendor_completions.d/{program}.fish\n\n\
             Exit status:\n  0  printed\n  1  runtime failure\n  2  usage error"
        ));
    let to = Arg::new("to")
        .long("to")
        .value_name("DIR")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("Existing directory for the pages");
    let man = Command::new(MAN).hide(true).about("Write the manual pages of this program").arg(to);
    command.subcommand(completions).subcommand(man)
}

/// True for the subcommands that [`with`] adds.
#[must_use]
pub fn is_ours(subcommand: &str) -> bool {
    subcommand == COMPLETIONS || subcommand == MAN
}

/// Not hidden, and not clap's own `help`.
fn is_visible(subcommand: &Command) -> bool {
    !subcommand.is_hide_set() && subcommand.get_name() != "help"
}

/// Runs a subcommand that [`with`] added and returns the exit status; `None` for any other command
/// line. `definition` includes these subcommands; the first word is the program's name.
pub fn run<I>(definition: Command, words: I) -> Option<ExitCode>
where
    I: IntoIterator<Item = OsString>,
{
    let words: Vec<_> = words.into_iter().collect();
    if !words.get(1).and_then(|word| word.to_str()).is_some_and(is_ours) {
        return None;
    }
    let program = definition.get_name().to_owned();
    let matches = definition.clone().try_get_matches_from(words).unwrap_or_else(|error| error.exit());
    let written = match matches.subcommand() {
        Some((COMPLETIONS, args)) => print_completions(definition, args).map_err(|error| error.to_string()),
        Some((MAN, args)) => match args.get_one::<PathBuf>("to") {
            Some(folder) => write_man(definition, folder).map_err(|error| error.to_string()),
            None => Ok(()),
        },
        _ => return None,
    };
    Some(match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // With stderr closed the error cannot be reported.
            let _ = writeln!(io::stderr(), "{program}: {why}");
            ExitCode::FAILURE
        }
    })
}

fn print_completions(definition: Command, args: &ArgMatches) -> io::Result<()> {
    let wanted = args.get_one::<String>("shell");
    let Some(shell) = SHELLS.into_iter().find(|shell| Some(&shell.to_string()) == wanted) else {
        return Ok(());
    };
    let mut out = io::stdout().lock();
    match out.write_all(completions(definition, shell).as_bytes()).and_then(|()| out.flush()) {
        // The reader has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Completion script of a shell.
#[must_use]
pub fn completions(mut definition: Command, shell: Shell) -> String {
    let mut out = Vec::new();
    let program = definition.get_name().to_owned();
    clap_complete::generate(shell, &mut definition, &program, &mut out);
    let script = String::from_utf8_lossy(&out).into_owned();
    if shell == Shell::Bash { with_hyphens(&program, &script) } else { script }
}

/// The script of clap_complete 4.6 for bash names a program with a hyphen in two ways, so that it
/// completes nothing after a subcommand.
fn with_hyphens(program: &str, script: &str) -> String {
    let [selected, listed] = ["__", "__subcmd__"].map(|hyphen| program.replace('-', hyphen));
    script.replace(&format!("{listed}__subcmd__"), &format!("{selected}__subcmd__"))
}

/// Writes all manual pages into a directory.
///
/// # Errors
/// [`WriteError`] for the first page that cannot be written.
pub fn write_man(definition: Command, folder: &Path) -> Result<(), WriteError> {
    for page in man(definition) {
        let path = folder.join(&page.file);
        fs::write(&path, &page.roff).map_err(|source| WriteError { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
