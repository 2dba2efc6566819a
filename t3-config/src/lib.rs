//! Options from the command line, the environment, the configuration file or the default, in this
//! order.
//!
//! Everything follows from the program's definition of its options (clap): a new option with an
//! environment variable works in the file without a change here. Options without a variable belong
//! to one run, and only the command line can set them. Values of the file become words of the
//! command line where no other source sets the option, and clap does the rest. This crate knows no
//! program and no option except `--config`, which names the file. [`unit_files`] finds units that
//! hide packaged ones.

#![warn(missing_docs)]

pub mod file;
pub mod pages;
pub mod unit_files;
pub mod value;

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches,
    builder::{OsStringValueParser, ValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use self::file::{Entry, FileError, Names, ReadError};

/// ENOENT, for its usual text.
const NOT_FOUND: i32 = 2;

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
    /// Options of the file that need each other, or exclude each other.
    #[error("{path}: {why}")]
    Combination {
        /// Path of the file.
        path: PathBuf,
        /// Cause, with the names of the options.
        why: String,
    },
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
    /// Subcommand of the command line; empty for a program without subcommands.
    pub subcommand: String,
    /// File that was read, if it exists.
    pub file: Option<PathBuf>,
    /// All options of the subcommand, in the order of `--help`.
    pub settings: Vec<Setting>,
    /// Parsed options, or all errors (at least one).
    pub options: Result<C, Vec<ConfigError>>,
}

/// What a program does in its own way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules<'a> {
    /// Subcommands that get an invalid value of the command line or the environment as a
    /// [`ConfigError`], together with all other errors; for the others it is an error of clap.
    pub collect_errors: &'a [&'a str],
    /// Options in the file that another program reads; their values are not checked.
    pub foreign: &'a [&'a str],
    /// Subcommands that continue without the default file if the caller may not read it.
    pub without_file: &'a [&'a str],
}

/// The sources of the options, before their values are parsed.
#[derive(Debug)]
pub struct Sources {
    definition: clap::Command,
    words: Vec<OsString>,
    subcommand: String,
    path: PathBuf,
    file: Option<PathBuf>,
    ignored: Option<ReadError>,
    settings: Vec<Setting>,
    /// Entries of the file that no other source overrides.
    entries: Vec<Entry>,
    errors: Vec<ConfigError>,
    collects: bool,
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
    Sources::read::<C, _>(words, Rules { collect_errors, ..Rules::default() })?.parse()
}

impl Sources {
    /// Reads the command line, the environment and the file. No value is parsed yet.
    ///
    /// # Errors
    /// clap's error for an invalid command line, or when help is requested.
    pub fn read<C, I>(words: I, rules: Rules<'_>) -> Result<Self, clap::Error>
    where
        C: CommandFactory,
        I: IntoIterator<Item = OsString>,
    {
        let words: Vec<_> = words.into_iter().collect();
        let definition = definition::<C>();
        // First with values of any text, so that one invalid value does not hide the others.
        let matches = match loosened(definition.clone()).try_get_matches_from(&words) {
            // The file may have what is missing; parsing decides.
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
                let lenient = |command: clap::Command| command.ignore_errors(true);
                lenient(loosened(definition.clone()).mut_subcommands(lenient)).try_get_matches_from(&words)?
            }
            // The help of the definition has the possible values.
            Err(error) => return Err(definition.try_get_matches_from(&words).err().unwrap_or(error)),
            Ok(matches) => matches,
        };
        let (subcommand, raw) = match matches.subcommand() {
            Some((name, raw)) => (name.to_owned(), raw),
            None if definition.has_subcommands() => {
                let mut definition = definition;
                return Err(definition.error(ErrorKind::MissingSubcommand, "expected a command"));
            }
            None => (String::new(), &matches),
        };
        let command = command_of(&definition, &subcommand);
        let known: Vec<_> = options_of(command).collect();

        let mut errors = Vec::new();
        let mut ignored = None;
        let (path, named) = file_to_read(raw);
        let mut entries = Vec::new();
        let file = match file::read(&path) {
            Ok(Some(text)) => {
                let file_errors;
                (entries, file_errors) = file::parse(&text, &path, &names(&definition, rules.foreign));
                entries.retain(|entry| known.iter().any(|arg| arg.get_long() == Some(&entry.name)));
                errors.extend(file_errors.into_iter().map(ConfigError::File));
                Some(path.clone())
            }
            Ok(None) if named => {
                let source = std::io::Error::from_raw_os_error(NOT_FOUND);
                errors.push(ReadError { path: path.clone(), source }.into());
                None
            }
            Ok(None) => None,
            Err(error)
                if !named
                    && error.source.kind() == std::io::ErrorKind::PermissionDenied
                    && rules.without_file.contains(&subcommand.as_str()) =>
            {
                ignored = Some(error);
                None
            }
            Err(error) => {
                errors.push(error.into());
                None
            }
        };
        errors.extend(
            entries.iter().flat_map(|entry| invalid_in_file(entry, &path, &known)).map(ConfigError::File),
        );
        let given: Vec<_> = command.get_arguments().filter(|arg| is_given(arg, raw)).collect();
        entries.retain(|entry| known.iter().any(|arg| is_effective(arg, entry, command, &given)));
        let settings = known.iter().map(|arg| setting(arg, raw, &entries, &path)).collect();
        let collects = rules.collect_errors.contains(&subcommand.as_str());
        Ok(Self { words, subcommand, path, file, ignored, settings, entries, errors, collects, definition })
    }

    /// All options of the subcommand, in the order of `--help`.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The default file that the caller may not read, for a subcommand that continues without it.
    #[must_use]
    pub fn ignored(&self) -> Option<&ReadError> {
        self.ignored.as_ref()
    }

    /// Parses the values.
    ///
    /// # Errors
    /// clap's error for an invalid value on the command line or in the environment, except for
    /// subcommands in [`Rules::collect_errors`].
    pub fn parse<C: FromArgMatches>(self) -> Result<Loaded<C>, clap::Error> {
        let Self {
            words, subcommand, path, file, settings, entries, mut errors, collects, definition, ..
        } = self;
        let known: Vec<_> = options_of(command_of(&definition, &subcommand)).collect();
        let given: Vec<_> =
            settings.iter().zip(&known).flat_map(|(setting, arg)| invalid_given(setting, arg)).collect();
        if !collects && !given.is_empty() {
            // clap reports it with the usage.
            definition.clone().try_get_matches_from(&words)?;
        }
        errors.extend(given);
        let options = if errors.is_empty() {
            let all = with_entries(&words, &subcommand, &entries);
            match without_defaults(definition.clone(), &entries).try_get_matches_from(all) {
                Ok(matches) => Ok(C::from_arg_matches(&matches)?),
                Err(error) => {
                    // An error of the command line alone is reported as such.
                    definition.try_get_matches_from(&words)?;
                    Err(vec![ConfigError::Combination { path, why: first_paragraph(&error) }])
                }
            }
        } else {
            Err(errors)
        };
        Ok(Loaded { subcommand, file, settings, options })
    }
}

/// Definition of all options. Flags that the file can contain also take `=false`, so that the
/// command line can turn off what the file turns on. The subcommands of [`pages::with`] are added
/// to those of the program; a program runs them before it reads anything ([`pages::run`]).
#[must_use]
pub fn definition<C: CommandFactory>() -> clap::Command {
    let switch = |arg: Arg| {
        if matches!(arg.get_action(), ArgAction::SetTrue) && arg.get_env().is_some() {
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
    let command = in_all(C::command(), switch);
    let mut command = if command.has_subcommands() { pages::with(command) } else { command };
    command.build();
    command
}

/// Options of a subcommand that the environment and the file can set: those with a variable.
pub fn options_of(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some() && arg.get_action().takes_values() && arg.get_env().is_some())
}

/// Names of the options that the file can contain, of all subcommands, each once and in the order
/// of `--help`. A program with the same file lists those that it does not have in
/// [`Rules::foreign`].
#[must_use]
pub fn file_options(definition: &clap::Command) -> Vec<&str> {
    let mut found = Vec::new();
    let options = commands(definition).into_iter().flat_map(options_of).filter(|arg| !is_file(arg));
    for name in options.filter_map(Arg::get_long) {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// The program and its own subcommands.
fn commands(definition: &clap::Command) -> Vec<&clap::Command> {
    let own = definition.get_subcommands().filter(|command| !pages::is_ours(command.get_name()));
    std::iter::once(definition).chain(own).collect()
}

fn command_of<'a>(definition: &'a clap::Command, subcommand: &str) -> &'a clap::Command {
    definition.find_subcommand(subcommand).unwrap_or(definition)
}

/// One file for all subcommands: an option of another subcommand is not an error.
fn names<'a>(definition: &'a clap::Command, foreign: &'a [&'a str]) -> Names<'a> {
    let all = commands(definition);
    let options = all.iter().copied().flat_map(options_of).filter(|arg| !is_file(arg)).collect();
    let long = |command: &'a clap::Command| {
        command.get_arguments().filter(|arg| !is_file(arg)).filter_map(Arg::get_long)
    };
    let command_line = all.into_iter().flat_map(long).collect();
    Names { options, foreign, command_line }
}

/// True for the option that names the file; the file cannot contain it.
#[must_use]
pub fn is_file(arg: &Arg) -> bool {
    arg.get_long() == Some("config")
}

/// Changes the arguments of the program and of all subcommands.
fn in_all(command: clap::Command, change: impl Fn(Arg) -> Arg + Copy) -> clap::Command {
    command.mut_args(change).mut_subcommands(|subcommand| subcommand.mut_args(change))
}

fn loosened(definition: clap::Command) -> clap::Command {
    in_all(definition, |arg| {
        if arg.get_action().takes_values() { arg.value_parser(OsStringValueParser::new()) } else { arg }
    })
}

/// An empty list in the file replaces the default, and has no words.
fn without_defaults(definition: clap::Command, entries: &[Entry]) -> clap::Command {
    let is_empty = |arg: &Arg| {
        entries.iter().any(|entry| entry.values.is_empty() && arg.get_long() == Some(&entry.name))
    };
    in_all(definition, |arg| if is_empty(&arg) { arg.default_values(Vec::<OsString>::new()) } else { arg })
}

/// The words with those of the file, after the subcommand.
fn with_entries(words: &[OsString], subcommand: &str, entries: &[Entry]) -> Vec<OsString> {
    let position = words.iter().position(|word| !subcommand.is_empty() && word == subcommand);
    let (before, after) = words.split_at(position.map_or(1, |at| at + 1).min(words.len()));
    let of_file = entries.iter().flat_map(|entry| {
        entry.values.iter().map(move |value| OsString::from(format!("--{}={value}", entry.name)))
    });
    before.iter().cloned().chain(of_file).chain(after.iter().cloned()).collect()
}

/// Returns whether the command line or the environment has the argument.
fn is_given(arg: &Arg, raw: &ArgMatches) -> bool {
    let id = arg.get_id().as_str();
    // The id of clap's own help is unknown to the matches.
    let source = raw.try_contains_id(id).ok().and_then(|_| raw.value_source(id));
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// Returns whether an entry is for this option, and no other source has it or an option that
/// excludes it.
fn is_effective(arg: &Arg, entry: &Entry, command: &clap::Command, given: &[&Arg]) -> bool {
    let excludes =
        |a: &Arg, b: &Arg| command.get_arg_conflicts_with(a).iter().any(|other| other.get_id() == b.get_id());
    arg.get_long() == Some(&entry.name)
        && !given
            .iter()
            .any(|other| other.get_id() == arg.get_id() || excludes(arg, other) || excludes(other, arg))
}

/// The cause of an error of clap, in one line, without the usage.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let cause = lines.collect::<Vec<_>>().join(" ");
    cause.strip_prefix("error: ").unwrap_or(&cause).to_owned()
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

#[cfg(test)]
mod tests;
