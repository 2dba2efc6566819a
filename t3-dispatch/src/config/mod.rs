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
pub enum Mode {
    /// To run.
    Serve,
    /// To look only.
    Check,
}

/// The configuration as it was found.
#[derive(Debug)]
pub struct LoadedConfig {
    /// What was asked for.
    pub mode: Mode,
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
pub fn read<I>(words: I) -> Result<LoadedConfig, clap::Error>
where
    I: IntoIterator<Item = OsString>,
{
    let config = t3_config::read::<Cli, _>(words, &["check"])?;
    let mode = if config.subcommand == "check" { Mode::Check } else { Mode::Serve };
    let options = config.options.map(|cli| {
        let (Command::Serve(options) | Command::Check(options)) = cli.command;
        options
    });
    Ok(LoadedConfig { mode, file: config.file, settings: config.settings, options })
}

/// The definition of all options, as the file knows them.
#[must_use]
pub fn definition() -> clap::Command {
    t3_config::definition::<Cli>()
}
