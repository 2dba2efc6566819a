//! Parser of the configuration file: TOML, a flat list of `option = value`, and `[[option]]` for
//! repeatable options of several values each. Reports all errors of form, not only the first.
//!
//! It knows TOML and the names of options, not their values: each value becomes the text that would
//! follow the option on the command line, and the option's own parser checks it.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction};
use toml::de::{DeTable, DeValue};

/// Line and column, as an editor counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Location {
    /// Location of a byte of the text.
    #[must_use]
    pub fn of(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One `option = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name of the option, without the leading dashes.
    pub name: String,
    /// Values, as on the command line.
    pub values: Vec<String>,
    /// Location of the name.
    pub key_at: Location,
    /// Location of the value.
    pub value_at: Location,
}

/// An error at a location of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}, {at}: {what}")]
pub struct FileError {
    /// Path of the file.
    pub path: PathBuf,
    /// Location of the error.
    pub at: Location,
    /// Description, with the name of the option if known.
    pub what: String,
}

/// The file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read configuration {path}: {source}; see --config")]
pub struct ReadError {
    /// Path of the file.
    pub path: PathBuf,
    /// Cause.
    pub source: io::Error,
}

/// Reads the file; `None` if it does not exist.
///
/// # Errors
/// [`ReadError`] if it exists and cannot be read.
pub fn read(path: &Path) -> Result<Option<String>, ReadError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReadError { path: path.to_owned(), source }),
    }
}

/// Names that a file can contain.
#[derive(Debug, Clone, Default)]
pub struct Names<'a> {
    /// Options that are read.
    pub options: Vec<&'a Arg>,
    /// Options that another program reads; they are skipped.
    pub foreign: &'a [&'a str],
    /// Options that only the command line can set, for the error.
    pub command_line: Vec<&'a str>,
}

/// Returns the entries in the order of their lines, and all errors of form. `path` is for the
/// errors.
#[must_use]
pub fn parse(text: &str, path: &Path, names: &Names<'_>) -> (Vec<Entry>, Vec<FileError>) {
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    let wrong = |at: Location, what: String| FileError { path: path.to_owned(), at, what };
    let mut errors: Vec<_> = syntax_errors
        .iter()
        .map(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(Location::of(text, at), error.message().to_owned())
        })
        .collect();
    let mut entries = BTreeMap::<String, Entry>::new();
    let mut in_order: Vec<_> = table.get_ref().iter().collect();
    in_order.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in in_order {
        let (key_at, value_at) =
            (Location::of(text, key.span().start), Location::of(text, value.span().start));
        if errors.iter().any(|error| error.at.line == key_at.line) {
            // Leftover of a line that the parser did not understand.
            continue;
        }
        let name = key.get_ref().replace('_', "-");
        if names.foreign.contains(&name.as_str()) {
            continue;
        }
        let Some(arg) = names.options.iter().find(|arg| arg.get_long() == Some(&name)) else {
            errors.push(wrong(key_at, unknown(key.get_ref(), value.get_ref(), &name, names)));
            continue;
        };
        if let Some(before) = entries.get(&name) {
            errors
                .push(wrong(key_at, format!("`{name}` is set twice, first in line {}", before.key_at.line)));
            continue;
        }
        match values(arg, value.get_ref()) {
            Ok(values) => {
                entries.insert(name.clone(), Entry { name, values, key_at, value_at });
            }
            Err(what) => errors.push(wrong(value_at, format!("`{name}` {what}"))),
        }
    }
    errors.sort_by_key(|error| error.at);
    let mut entries: Vec<_> = entries.into_values().collect();
    entries.sort_by_key(|entry| entry.key_at);
    (entries, errors)
}

fn unknown(key: &str, value: &DeValue<'_>, name: &str, names: &Names<'_>) -> String {
    if matches!(value, DeValue::Table(_)) {
        return format!("`{key}` is a section; expected only `name = value`");
    }
    if names.command_line.contains(&name) {
        return format!("`{key}` can only be set on the command line; remove it");
    }
    let known = names.options.iter().filter_map(|arg| arg.get_long()).chain(names.foreign.iter().copied());
    match nearest(name, known) {
        Some(nearest) => format!("unknown option `{key}`; did you mean `{nearest}`?"),
        None => format!("unknown option `{key}`; remove it or correct its name"),
    }
}

/// Returns the known name that is most similar to `name`, if one is similar enough.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const MIN_SIMILARITY: f64 = 0.8;
    known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// Start of the value name of options that `[[option]]` can set: the keys of each section become
/// `key=value`, separated by commas.
pub const SECTION_VALUE: &str = "KEY=VALUE";

fn takes_sections(arg: &Arg) -> bool {
    let names = arg.get_value_names().unwrap_or_default();
    names.first().is_some_and(|name| name.starts_with(SECTION_VALUE))
}

/// Text of one `[[option]]`.
fn section(value: &DeValue<'_>) -> Result<String, String> {
    let DeValue::Table(keys) = value else { return scalar(value) };
    let mut keys: Vec<_> = keys.iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    let pairs = keys.into_iter().map(|(key, value)| {
        let (key, text) = (key.get_ref(), scalar(value.get_ref())?);
        if text.contains(',') {
            return Err(format!("has a comma in `{key}`; expected one value"));
        }
        Ok(format!("{}={text}", key.replace('_', "-")))
    });
    Ok(pairs.collect::<Result<Vec<_>, _>>()?.join(","))
}

/// Texts of a value. The error is a clause that follows the option's name.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let repeatable = matches!(arg.get_action(), ArgAction::Append) || arg.get_value_delimiter().is_some();
    match value {
        DeValue::Array(items) if takes_sections(arg) => {
            items.iter().map(|item| section(item.get_ref())).collect()
        }
        DeValue::Table(_) if takes_sections(arg) => {
            Err(format!("is repeatable: write [[{}]]", arg.get_long().unwrap_or_default()))
        }
        DeValue::Array(items) if repeatable => items.iter().map(|item| scalar(item.get_ref())).collect(),
        DeValue::Array(_) => Err("expects one value, not a list".to_owned()),
        value => {
            let text = scalar(value)?;
            Ok(match arg.get_value_delimiter() {
                Some(delimiter) => text.split(delimiter).map(str::to_owned).collect(),
                None => vec![text],
            })
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| format!("has a number out of range: {number}")),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Datetime(_) => {
            Err("does not accept a date; write a duration as \"10s\", in quotes".to_owned())
        }
        DeValue::Array(_) => Err("does not accept a list in a list".to_owned()),
        DeValue::Table(_) => Err("expects a value, not a section".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known() -> Vec<Arg> {
        let arg = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Set);
        vec![
            arg("listen"),
            arg("close-timeout"),
            arg("trusted-proxy").action(ArgAction::Append).value_delimiter(','),
            arg("header").action(ArgAction::Append),
            arg("no-install-tags").action(ArgAction::SetTrue),
            arg("watch").action(ArgAction::Append).value_name("KEY=VALUE,..."),
        ]
    }

    fn parsed(text: &str) -> (Vec<(String, Vec<String>)>, Vec<String>) {
        let known = known();
        let names = Names {
            options: known.iter().collect(),
            foreign: &["loki"],
            command_line: vec!["since", "listen"],
        };
        let (entries, errors) = parse(text, Path::new("d.toml"), &names);
        (
            entries.into_iter().map(|entry| (entry.name, entry.values)).collect(),
            errors.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn every_kind_of_value_becomes_its_text() {
        for (text, name, values) in [
            ("close-timeout = \"10s\"", "close-timeout", &["10s"][..]),
            ("close_timeout = '10s' # why", "close-timeout", &["10s"]),
            ("\"close-timeout\" = 0x_f", "close-timeout", &[]),
            ("close-timeout = 1_000", "close-timeout", &["1000"]),
            ("close-timeout = -0xf", "close-timeout", &[]),
            ("close-timeout = 0xff", "close-timeout", &["255"]),
            ("close-timeout = 0.25", "close-timeout", &["0.25"]),
            ("no-install-tags = true", "no-install-tags", &["true"]),
            ("trusted-proxy = \"10.0.0.0/8,::1\"", "trusted-proxy", &["10.0.0.0/8", "::1"]),
            ("trusted-proxy = [\n \"10.0.0.0/8\", \"::1\",\n]", "trusted-proxy", &["10.0.0.0/8", "::1"]),
            ("header = \"a,b\"", "header", &["a,b"]),
            ("header = [\"a\", 2, true]", "header", &["a", "2", "true"]),
        ] {
            let (entries, errors) = parsed(text);
            if values.is_empty() {
                assert!(!errors.is_empty(), "{text}");
            } else {
                let values = values.iter().map(ToString::to_string).collect();
                assert_eq!((entries, errors), (vec![(name.to_owned(), values)], vec![]), "{text}");
            }
        }
        assert_eq!(parsed("loki = [{ a = 1 }]"), (vec![], vec![]), "another program reads it");
        let (entries, errors) = parsed("trusted-proxy = []");
        assert_eq!((entries, errors), (vec![("trusted-proxy".to_owned(), vec![])], vec![]));
    }

    #[test]
    fn repeated_sections_are_the_values_of_one_option() {
        let text = "header = \"a\"\n[[watch]]\nport = 8080\nmin_duration = \"5s\"\n[[watch]]\nunit = \"a\"\n";
        let (entries, errors) = parsed(text);
        let watch = ["port=8080,min-duration=5s", "unit=a"].map(str::to_owned).to_vec();
        let header = ("header".to_owned(), vec!["a".to_owned()]);
        assert_eq!((entries, errors), (vec![header, ("watch".to_owned(), watch.clone())], vec![]));
        let inline = "watch = [\"port=8080,min-duration=5s\", { unit = \"a\" }]";
        assert_eq!(parsed(inline), (vec![("watch".to_owned(), watch)], vec![]));
        for (text, expected) in [
            ("[[watch]]\nport = [1]", "line 1, column 1: `watch` does not accept a list in a list"),
            ("[[watch]]\nunit = \"a,port=1\"", "`watch` has a comma in `unit`; expected one value"),
            ("[watch]\nport = 1", "`watch` is repeatable: write [[watch]]"),
            ("[[header]]\nport = 1", "`header` expects a value, not a section"),
            ("[[wach]]\nport = 1", "unknown option `wach`; did you mean `watch`?"),
        ] {
            let (entries, errors) = parsed(text);
            assert_eq!(entries, vec![], "{text}");
            assert!(errors.iter().any(|error| error.contains(expected)), "{text}: {errors:?}");
        }
    }

    #[test]
    fn an_error_names_file_line_column_and_key() {
        for (text, expected) in [
            ("\n  lisen = 1", "d.toml, line 2, column 3: unknown option `lisen`; did you mean `listen`?"),
            (
                "close-timout = 1",
                "d.toml, line 1, column 1: unknown option `close-timout`; did you mean `close-timeout`?",
            ),
            (
                "colour = 1",
                "d.toml, line 1, column 1: unknown option `colour`; remove it or correct its name",
            ),
            ("lokki = 1", "unknown option `lokki`; did you mean `loki`?"),
            ("since = 1", "line 1, column 1: `since` can only be set on the command line; remove it"),
            ("listen = [1]", "d.toml, line 1, column 10: `listen` expects one value, not a list"),
            ("é = 1\nlisten = 2001-01-01", "line 2, column 10: `listen` does not accept a date"),
            ("header = [[1]]", "`header` does not accept a list in a list"),
            (
                "[limits]\nlisten = 1",
                "d.toml, line 1, column 2: `limits` is a section; expected only `name = value`",
            ),
            ("listen.port = 1", "`listen` expects a value, not a section"),
            (
                "close-timeout = 1\nclose_timeout = 2",
                "line 2, column 1: `close-timeout` is set twice, first in line 1",
            ),
            ("listen = 1\nlisten = 2", "line 2, column 1: duplicate key"),
            ("listen = ", "line 1, column"),
        ] {
            let (_, errors) = parsed(text);
            assert!(errors.iter().any(|error| error.contains(expected)), "{text}: {errors:?}");
        }
    }

    #[test]
    fn all_errors_are_reported_in_the_order_of_their_lines() {
        let (entries, errors) = parsed("b = 1\nlisten = \"x\"\nclose-timeout = [1]\n= 3\nz = 1\n");
        assert_eq!(entries.len(), 1);
        let lines: Vec<_> = errors.iter().map(|error| error.split(',').nth(1).unwrap()).collect();
        assert_eq!(lines, [" line 1", " line 3", " line 4", " line 5"]);
    }

    proptest! {
        #[test]
        fn a_value_keeps_its_text(text in any::<String>()) {
            let mut quoted = String::new();
            for c in text.chars() {
                quoted.push_str(&format!("\\U{:08x}", u32::from(c)));
            }
            let (entries, errors) = parsed(&format!("header = [\"{quoted}\"]"));
            prop_assert_eq!(errors, Vec::<String>::new());
            prop_assert_eq!(entries, vec![("header".to_owned(), vec![text])]);
        }

        #[test]
        fn any_text_is_parsed_without_panic(text in any::<String>()) {
            parsed(&text);
        }
    }
}
