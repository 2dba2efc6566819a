//! Manual pages and shell completions, from a program's own definition of its command line. Knows
//! no program and no option: what a page says beyond the options is what `--help` says, by sections
//! ([`sections`]).
//!
//! A program asks [`asked`] first of all, before it reads a file or a variable: nothing that a
//! machine is set to gets into a page.

pub mod audit;
mod man;
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

/// The subcommand that prints completions.
const COMPLETIONS: &str = "completions";
/// The hidden one that writes the manual.
const MAN: &str = "man";

/// The shells there are completions for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// A page could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct WriteError {
    /// Which.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The definition with the subcommands `completions SHELL` and (hidden) `man --to DIR`.
#[must_use]
pub fn with(command: Command) -> Command {
    let program = command.get_name().to_owned();
    let shell = Arg::new("shell")
        .value_name("SHELL")
        .required(true)
        .value_parser(SHELLS.map(|shell| shell.to_string()).to_vec())
        .help("For which shell");
    let completions = Command::new(COMPLETIONS)
        .about("Print what a shell needs to complete this program's command line")
        .arg(shell)
        .after_help(format!(
            "Examples:\n  \
             {program} completions bash > /usr/share/bash-completion/completions/{program}\n  \
             {program} completions zsh > /usr/share/zsh/vendor-completions/_{program}\n  \
             {program} completions fish > /usr/share/fish/vendor_completions.d/{program}.fish\n\n\
             Exit status:\n  0  printed\n  1  it could not be written\n  2  wrong usage"
        ));
    let to = Arg::new("to")
        .long("to")
        .value_name("DIR")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("Where to, a directory that is there");
    let man = Command::new(MAN).hide(true).about("Write this program's manual pages").arg(to);
    command.subcommand(completions).subcommand(man)
}

/// Whether a subcommand is one of [`with`]'s.
#[must_use]
pub fn is_ours(subcommand: &str) -> bool {
    subcommand == COMPLETIONS || subcommand == MAN
}

/// People see it, and it is not the one that clap adds.
fn is_visible(subcommand: &Command) -> bool {
    !subcommand.is_hide_set() && subcommand.get_name() != "help"
}

/// Does what is asked for when it is one of [`with`]'s subcommands, and says how the program then
/// ends. `None` for everything else. `definition` is the program's, with them; the first word is
/// the program's name.
pub fn asked<I>(definition: Command, words: I) -> Option<ExitCode>
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
        Some((COMPLETIONS, asked)) => print_completions(definition, asked).map_err(|error| error.to_string()),
        Some((MAN, asked)) => match asked.get_one::<PathBuf>("to") {
            Some(folder) => write_man(definition, folder).map_err(|error| error.to_string()),
            None => Ok(()),
        },
        _ => return None,
    };
    Some(match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody is left to tell when stderr itself is closed.
            let _ = writeln!(io::stderr(), "{program}: {why}");
            ExitCode::FAILURE
        }
    })
}

fn print_completions(definition: Command, asked: &ArgMatches) -> io::Result<()> {
    let wanted = asked.get_one::<String>("shell");
    let Some(shell) = SHELLS.into_iter().find(|shell| Some(&shell.to_string()) == wanted) else {
        return Ok(());
    };
    let mut out = io::stdout().lock();
    match out.write_all(completions(definition, shell).as_bytes()).and_then(|()| out.flush()) {
        // Who reads no further wants no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// What a shell needs to complete the program's command line.
#[must_use]
pub fn completions(mut definition: Command, shell: Shell) -> String {
    let mut out = Vec::new();
    let program = definition.get_name().to_owned();
    clap_complete::generate(shell, &mut definition, program, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes every page of the manual into the folder.
///
/// # Errors
/// [`WriteError`], with the first page that could not be written.
pub fn write_man(definition: Command, folder: &Path) -> Result<(), WriteError> {
    for page in man(definition) {
        let path = folder.join(&page.file);
        fs::write(&path, &page.roff).map_err(|source| WriteError { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
