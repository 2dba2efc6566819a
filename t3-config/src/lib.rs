//! Where the value of each option comes from: command line, else environment, else configuration
//! file, else its default.
//!
//! All of it follows from a program's own definition of its options (clap): a new option is in the
//! file without a word here. The file's values take the place of the defaults, and clap does the
//! rest. Knows no program and no option, but for `--config`, which names the file.

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

/// Where a value comes from. Ordered: what stands later wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The file, and the line of the key.
    File(PathBuf, usize),
    /// This variable.
    Environment(String),
    /// The command line.
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

/// One option as it would be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name, without the dashes in front.
    pub name: String,
    /// Its values as they were written; none for an option that is not set.
    pub values: Vec<OsString>,
    /// From where.
    pub origin: Origin,
}

/// Something wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or it was asked for and is not there.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A place of the file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A value of the command line or the environment.
    #[error("{origin}: `{name}` cannot be {value:?}: {why}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// Which option.
        name: String,
        /// As it was written.
        value: OsString,
        /// What is wrong with it.
        why: String,
    },
}

/// The configuration as it was found.
#[derive(Debug)]
pub struct Loaded<C> {
    /// The subcommand that was asked for.
    pub subcommand: String,
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// Every option of the subcommand, in the order of `--help`.
    pub settings: Vec<Setting>,
    /// The command line with everything in it, or every problem, and then at least one.
    pub options: Result<C, Vec<ConfigError>>,
}

/// Reads the command line (its first word is the program's name), the environment and the file.
/// Subcommands in `patient` want to hear of every problem at once.
///
/// # Errors
/// What clap says of a command line that makes no sense, or when help is asked for. Of a value that
/// is wrong on the command line or in the environment [`Loaded::options`] tells a patient subcommand
/// (together with all else that is wrong); for others it is an error here, too.
pub fn read<C, I>(words: I, patient: &[&str]) -> Result<Loaded<C>, clap::Error>
where
    C: CommandFactory + FromArgMatches,
    I: IntoIterator<Item = OsString>,
{
    let words: Vec<_> = words.into_iter().collect();
    let definition = definition::<C>();
    // First with values of any text, so that one wrong value does not hide the others.
    let raw = loosened(definition.clone()).try_get_matches_from(&words)?;
    let Some((subcommand, raw)) = raw.subcommand() else {
        let mut definition = definition;
        return Err(definition.error(clap::error::ErrorKind::MissingSubcommand, "a command is missing"));
    };
    let known: Vec<_> = definition.find_subcommand(subcommand).into_iter().flat_map(options_of).collect();

    let mut problems = Vec::new();
    let (path, named) = file_to_read(raw);
    let mut entries = Vec::new();
    let file = match file::read(&path) {
        Ok(Some(text)) => {
            let mistakes;
            // One file for all subcommands: what only another one knows is no mistake.
            let others = definition.get_subcommands().filter(|command| !pages::is_ours(command.get_name()));
            let anywhere: Vec<_> = others.flat_map(options_of).filter(|arg| !is_file(arg)).collect();
            (entries, mistakes) = file::parse(&text, &path, anywhere.iter().copied());
            entries.retain(|entry| known.iter().any(|arg| arg.get_long() == Some(&entry.name)));
            problems.extend(mistakes.into_iter().map(ConfigError::File));
            Some(path.clone())
        }
        Ok(None) if named => {
            let source = std::io::ErrorKind::NotFound.into();
            problems.push(ReadError { path: path.clone(), source }.into());
            None
        }
        Ok(None) => None,
        Err(error) => {
            problems.push(error.into());
            None
        }
    };
    problems
        .extend(entries.iter().flat_map(|entry| wrong_values(entry, &path, &known)).map(ConfigError::File));

    let settings: Vec<_> = known.iter().map(|arg| setting(arg, raw, &entries, &path)).collect();
    let given: Vec<_> =
        settings.iter().zip(&known).flat_map(|(setting, arg)| wrong_given(setting, arg)).collect();
    if !patient.contains(&subcommand) && !given.is_empty() {
        // clap says it with the usage around it.
        definition.clone().try_get_matches_from(&words)?;
    }
    problems.extend(given);
    let options = if problems.is_empty() {
        let matches = with_defaults(definition.clone(), &entries).try_get_matches_from(&words)?;
        Ok(C::from_arg_matches(&matches)?)
    } else {
        Err(problems)
    };
    Ok(Loaded { subcommand: subcommand.to_owned(), file, settings, options })
}

/// The definition of all options, with flags that also take `=false`: what the file turns on the
/// command line can turn off again; and with the subcommands of [`pages::with`], which a program
/// answers before it reads anything ([`pages::asked`]).
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

/// The options of a subcommand that have a value in the configuration.
pub fn options_of(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some() && arg.get_action().takes_values())
}

/// The option that names the file itself, which cannot stand in it.
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

/// Which file, and whether it was asked for.
fn file_to_read(raw: &ArgMatches) -> (PathBuf, bool) {
    // A subcommand need not have the option.
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

fn wrong_values(entry: &Entry, path: &Path, known: &[&Arg]) -> Vec<FileError> {
    let Some(arg) = known.iter().find(|arg| arg.get_long() == Some(&entry.name)) else { return Vec::new() };
    let mistake = |(value, why): (&String, String)| FileError {
        path: path.to_owned(),
        at: entry.value_at,
        what: format!("`{}` cannot be {value:?}: {why}", entry.name),
    };
    entry
        .values
        .iter()
        .filter_map(|value| Some((value, refusal(arg, value.as_ref())?)))
        .map(mistake)
        .collect()
}

fn wrong_given(setting: &Setting, arg: &Arg) -> Vec<ConfigError> {
    if !matches!(setting.origin, Origin::Environment(_) | Origin::CommandLine) {
        return Vec::new();
    }
    let problem = |(value, why): (&OsString, String)| ConfigError::Value {
        origin: setting.origin.clone(),
        name: setting.name.clone(),
        value: value.clone(),
        why,
    };
    setting.values.iter().filter_map(|value| Some((value, refusal(arg, value)?))).map(problem).collect()
}

/// Why the option does not take this text; `None` if it does.
fn refusal(arg: &Arg, text: &OsStr) -> Option<String> {
    let alone =
        Arg::new("value").long("value").action(ArgAction::Set).value_parser(arg.get_value_parser().clone());
    let mut word = OsString::from("--value=");
    word.push(text);
    let command = clap::Command::new("value").no_binary_name(true).arg(alone);
    let error = command.try_get_matches_from([word]).err()?;
    Some(match (std::error::Error::source(&error), error.get(ContextKind::ValidValue)) {
        _ if text.is_empty() => "it is empty".to_owned(),
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            format!("not one of {}", valid.join(", "))
        }
        _ => error.kind().to_string(),
    })
}
