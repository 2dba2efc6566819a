//! The configuration of t3-dispatch: its options from the command line, the environment and
//! `/etc/t3-dispatch.toml`. [`t3_config`] reads them.

pub mod check;
mod os_users;
mod plain;
pub mod trust;

use std::{ffi::OsString, path::PathBuf};

pub use t3_config::{ConfigError, Origin, Setting, file, is_file, options_of};

use crate::cli::{Cli, Command, Serve};

/// Prefix of environment variables.
pub const VARIABLES: &str = "T3_DISPATCH_";

/// Subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Serve,
    Check,
}

/// Configuration with the source of each value.
#[derive(Debug)]
pub struct LoadedConfig {
    pub mode: Mode,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Every option, in the order of `--help`.
    pub settings: Vec<Setting>,
    /// The options, or all problems (at least one).
    pub options: Result<Box<Serve>, Vec<ConfigError>>,
}

/// Reads the command line (including the program name), the environment and the file.
///
/// # Errors
/// As [`t3_config::read`]; with `check`, problems of values are reported in
/// [`LoadedConfig::options`].
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

/// Returns the definition of all options.
#[must_use]
pub fn definition() -> clap::Command {
    t3_config::definition::<Cli>()
}
