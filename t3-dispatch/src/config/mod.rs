//! The configuration of t3-dispatch: its options from the command line, the environment and
//! `/etc/t3-dispatch.toml`. How that goes is [`t3_config`]'s; this says what was asked for.

pub mod check;

use std::{ffi::OsString, path::PathBuf};

pub use t3_config::{ConfigError, Origin, Setting, file, is_file, options_of};

use crate::cli::{Cli, Command, Serve};

/// Names of variables of the environment begin so.
pub const VARIABLES: &str = "T3_DISPATCH_";

/// What was asked for on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To run.
    Serve,
    /// To look only.
    Check,
}

/// The configuration as it was found.
#[derive(Debug)]
pub struct Found {
    /// What was asked for.
    pub asked: Asked,
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// Every option, in the order of `--help`.
    pub settings: Vec<Setting>,
    /// The options, or every problem, and then at least one.
    pub options: Result<Box<Serve>, Vec<ConfigError>>,
}

/// Reads the command line (its first word is the program's name), the environment and the file.
///
/// # Errors
/// As [`t3_config::read`]; `check` is patient.
pub fn read<I>(words: I) -> Result<Found, clap::Error>
where
    I: IntoIterator<Item = OsString>,
{
    let found = t3_config::read::<Cli, _>(words, &["check"])?;
    let asked = if found.subcommand == "check" { Asked::Check } else { Asked::Serve };
    let options = found.options.map(|cli| {
        let (Command::Serve(options) | Command::Check(options)) = cli.command;
        options
    });
    Ok(Found { asked, file: found.file, settings: found.settings, options })
}

/// The definition of all options, as the file knows them.
#[must_use]
pub fn definition() -> clap::Command {
    t3_config::definition::<Cli>()
}
