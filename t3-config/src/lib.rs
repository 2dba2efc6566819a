//! Options from the command line, the environment, the configuration file or the default, in this
//! order.
//!
//! Everything follows from the program's definition of its options (clap): a new option works in
//! the file without a change here. Values of the file replace the defaults, and clap does the rest.
//! This crate knows no program and no option except `--config`, which names the file.

#![warn(missing_docs)]

pub mod file;
pub mod pages;
pub mod value;

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches,
    builder::{OsStringValueParser, ValueParser},
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};

use self::file::{Entry, FileError, ReadError};

/// Source of a value, in ascending priority.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Default of the definition.
    Default,
    /// Configuration file, and the line of the key.
    File(PathBuf, usize),
    /// Environment variable.
    Environment(String),
    /// Command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "file {}:{line}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// Effective setting of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Name without the leading dashes.
    pub name: String,
    /// Values as written; empty if the option is not set.
    pub values: Vec<OsString>,
    /// Source of the values.
    pub origin: Origin,
}

/// An error in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or was named and does not exist.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An error in the file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A value of the command line or the environment.
    #[error("{origin}: `{name}` cannot be {value:?}: {why}")]
    Value {
        /// Source of the value.
        origin: Origin,
        /// Name of the option.
        name: String,
        /// Value as written.
        value: OsString,
        /// Cause.
        why: String,
    },
}

/// Result of reading the configuration.
#[derive(Debug)]
pub struct Loaded<C> {
    /// Subcommand of the command line.
    pub subcommand: String,
    /// File that was read, if it exists.
    pub file: Option<PathBuf>,
    /// All options of the subcommand, in the order of `--help`.
    pub settings: Vec<Setting>,
    /// Parsed options, or all errors (at least one).
    pub options: Result<C, Vec<ConfigError>>,
}

/// Reads the command line (its first word is the program's name), the environment and the file.
///
/// # Errors
/// clap's error for an invalid command line, or when help is requested. An invalid value on the
/// command line or in the environment is such an error, except for subcommands in `collect_errors`:
/// for them it is in [`Loaded::options`], together with all other errors.
pub fn read<C, I>(words: I, collect_errors: &[&str]) -> Result<Loaded<C>, clap::Error>
where
    C: CommandFactory + FromArgMatches,
    I: IntoIterator<Item = OsString>,
{
    let words: Vec<_> = words.into_iter().collect();
    let definition = definition::<C>();
    // First with values of any text, so that one invalid value does not hide the others.
    let raw = loosened(definition.clone()).try_get_matches_from(&words)?;
    let Some((subcommand, raw)) = raw.subcommand() else {
        let mut definition = definition;
        return Err(definition.error(clap::error::ErrorKind::MissingSubcommand, "expected a command"));
    };
    let known: Vec<_> = definition.find_subcommand(subcommand).into_iter().flat_map(options_of).collect();

    let mut errors = Vec::new();
    let (path, named) = file_to_read(raw);
    let mut entries = Vec::new();
    let file = match file::read(&path) {
        Ok(Some(text)) => {
            let file_errors;
            // One file for all subcommands: an option of another subcommand is not an error.
            let others = definition.get_subcommands().filter(|command| !pages::is_ours(command.get_name()));
            let anywhere: Vec<_> = others.flat_map(options_of).filter(|arg| !is_file(arg)).collect();
            (entries, file_errors) = file::parse(&text, &path, anywhere.iter().copied());
            entries.retain(|entry| known.iter().any(|arg| arg.get_long() == Some(&entry.name)));
            errors.extend(file_errors.into_iter().map(ConfigError::File));
            Some(path.clone())
        }
        Ok(None) if named => {
            let source = std::io::ErrorKind::NotFound.into();
            errors.push(ReadError { path: path.clone(), source }.into());
            None
        }
        Ok(None) => None,
        Err(error) => {
            errors.push(error.into());
            None
        }
    };
    errors.extend(
        entries.iter().flat_map(|entry| invalid_in_file(entry, &path, &known)).map(ConfigError::File),
    );

    let settings: Vec<_> = known.iter().map(|arg| setting(arg, raw, &entries, &path)).collect();
    let given: Vec<_> =
        settings.iter().zip(&known).flat_map(|(setting, arg)| invalid_given(setting, arg)).collect();
    if !collect_errors.contains(&subcommand) && !given.is_empty() {
        // clap reports it with the usage.
        definition.clone().try_get_matches_from(&words)?;
    }
    errors.extend(given);
    let options = if errors.is_empty() {
        let matches = with_defaults(definition.clone(), &entries).try_get_matches_from(&words)?;
        Ok(C::from_arg_matches(&matches)?)
    } else {
        Err(errors)
    };
    Ok(Loaded { subcommand: subcommand.to_owned(), file, settings, options })
}

/// Definition of all options. Flags also take `=false`, so that the command line can turn off what
/// the file turns on. The subcommands of [`pages::with`] are added; a program runs them before it
/// reads anything ([`pages::run`]).
#[must_use]
pub fn definition<C: CommandFactory>() -> clap::Command {
    let switch = |arg: Arg| {
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            arg.action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .value_name("BOOL")
                .hide_possible_values(true)
                .value_parser(ValueParser::bool())
                .default_value("false")
                .default_missing_value("true")
        } else {
            arg
        }
    };
    let mut command = pages::with(C::command().mut_subcommands(|subcommand| subcommand.mut_args(switch)));
    command.build();
    command
}

/// Options of a subcommand that have a value in the configuration.
pub fn options_of(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some() && arg.get_action().takes_values())
}

/// True for the option that names the file; the file cannot contain it.
#[must_use]
pub fn is_file(arg: &Arg) -> bool {
    arg.get_long() == Some("config")
}

fn loosened(definition: clap::Command) -> clap::Command {
    definition.mut_subcommands(|subcommand| {
        subcommand.mut_args(|arg| {
            if arg.get_action().takes_values() { arg.value_parser(OsStringValueParser::new()) } else { arg }
        })
    })
}

fn with_defaults(definition: clap::Command, entries: &[Entry]) -> clap::Command {
    definition.mut_subcommands(|subcommand| {
        subcommand.mut_args(|arg| match entries.iter().find(|entry| arg.get_long() == Some(&entry.name)) {
            Some(entry) => arg.required(false).default_values(entry.values.clone()),
            None => arg,
        })
    })
}

/// Path of the file, and whether it was named explicitly.
fn file_to_read(raw: &ArgMatches) -> (PathBuf, bool) {
    // Not all subcommands have the option.
    let path = raw.try_get_one::<OsString>("config").ok().flatten().cloned();
    let named = path.is_some() && raw.value_source("config") != Some(ValueSource::DefaultValue);
    (path.unwrap_or_default().into(), named)
}

fn setting(arg: &Arg, raw: &ArgMatches, entries: &[Entry], path: &Path) -> Setting {
    let id = arg.get_id().as_str();
    let name = arg.get_long().unwrap_or(id).to_owned();
    let written = || raw.get_many::<OsString>(id).into_iter().flatten().cloned().collect();
    let (values, origin) = match raw.value_source(id) {
        Some(ValueSource::CommandLine) => (written(), Origin::CommandLine),
        Some(ValueSource::EnvVariable) => {
            let variable = arg.get_env().unwrap_or_default().to_string_lossy().into_owned();
            (written(), Origin::Environment(variable))
        }
        _ => match entries.iter().find(|entry| entry.name == name) {
            Some(entry) => (
                entry.values.iter().map(OsString::from).collect(),
                Origin::File(path.to_owned(), entry.key_at.line),
            ),
            None => (written(), Origin::Default),
        },
    };
    Setting { name, values, origin }
}

fn invalid_in_file(entry: &Entry, path: &Path, known: &[&Arg]) -> Vec<FileError> {
    let Some(arg) = known.iter().find(|arg| arg.get_long() == Some(&entry.name)) else { return Vec::new() };
    let error = |(value, why): (&String, String)| FileError {
        path: path.to_owned(),
        at: entry.value_at,
        what: format!("`{}` cannot be {value:?}: {why}", entry.name),
    };
    entry
        .values
        .iter()
        .filter_map(|value| Some((value, rejection(arg, value.as_ref())?)))
        .map(error)
        .collect()
}

fn invalid_given(setting: &Setting, arg: &Arg) -> Vec<ConfigError> {
    if !matches!(setting.origin, Origin::Environment(_) | Origin::CommandLine) {
        return Vec::new();
    }
    let error = |(value, why): (&OsString, String)| ConfigError::Value {
        origin: setting.origin.clone(),
        name: setting.name.clone(),
        value: value.clone(),
        why,
    };
    setting.values.iter().filter_map(|value| Some((value, rejection(arg, value)?))).map(error).collect()
}

/// Returns why the option rejects this text; `None` if it accepts it.
fn rejection(arg: &Arg, text: &OsStr) -> Option<String> {
    let alone =
        Arg::new("value").long("value").action(ArgAction::Set).value_parser(arg.get_value_parser().clone());
    let mut word = OsString::from("--value=");
    word.push(text);
    let command = clap::Command::new("value").no_binary_name(true).arg(alone);
    let error = command.try_get_matches_from([word]).err()?;
    Some(match (std::error::Error::source(&error), error.get(ContextKind::ValidValue)) {
        _ if text.is_empty() => "expected a value".to_owned(),
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            format!("expected one of: {}", valid.join(", "))
        }
        _ => error.kind().to_string(),
    })
}
